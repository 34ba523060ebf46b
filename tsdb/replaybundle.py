"""A bundle of the replay as a whole: records of some lists of series become runs, and runs become chunks.

What it does not take (`take` says so) is stored sample by sample as it was written: records that share a
series without being alike, series that are not there any more. Bringing runs together and making chunks of
them touch only what belongs to the series of the bundle, so that several threads do it at once; chunks are
placed under a lock.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import CorruptionError, LimitError
from tsdb.head import NO_MAX_TIME, NO_MIN_TIME, Head
from tsdb.kernels import append as k
from tsdb.kernels.bundletimes import (
    CODED_SIZE,
    COUNT,
    KEYS_SIZE,
    LIST,
    RUN_WORDS,
    TIMES_AT,
    read_times,
)
from tsdb.kernels.codedchunk import CODED_BYTES_LIMIT, CODED_SAMPLE_BYTES_LIMIT
from tsdb.kernels.placechunks import place_chunks
from tsdb.kernels.runchunks import CODED_RUN_SAMPLES, RUN_BYTES_LIMIT, RUN_SAMPLE_BYTES_LIMIT
from tsdb.kernels.runpen import CHUNK_WORDS, PEN_WORDS
from tsdb.kernels.storebundle import (
    IN_PIECES,
    NEWEST_T,
    NOT_PLAIN,
    STORED_COUNT,
    UNDECODABLE,
    store_bundle,
)
from tsdb.kernels.walruns import CODED_PADDING, STATE_ROWS
from tsdb.kernels.walscan import gather_parts
from tsdb.kernels.xor import CHUNK_SAMPLES
from tsdb.walwindow import Bundle

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

_PLACE_PADDING = 128
_UNDECODABLE = "samples record does not decode although its checksum is right"


class BundleStore:
    """Buffers for one bundle after the other; one thread at a time. Threads with other series may run at
    once if they share `lock`."""

    def __init__(self, head: Head, lock: threading.Lock, coded_samples: int = CODED_RUN_SAMPLES) -> None:
        """Runs of `coded_samples` or more stay as the log has them. Raises MemoryError."""
        self._head, self._lock, self._coded_samples = head, lock, coded_samples
        self._seen: U8Array = reserve(np.uint8, head.series.slot_capacity)
        self._run = np.empty(CHUNK_SAMPLES, dtype=np.int64), np.empty(CHUNK_SAMPLES, dtype=np.uint64)
        self._tail = np.empty(k.TAIL_SLOTS, dtype=np.int64), np.empty(k.TAIL_SLOTS, dtype=np.uint64)
        self._pen: U64Array = np.empty(PEN_WORDS, dtype=np.uint64)
        self._keys: U8Array = np.empty(0, dtype=np.uint8)
        self._coded: U8Array = np.empty(0, dtype=np.uint8)
        self._size(0, 0)

    def _size(self, samples: int, series: int) -> None:
        """Make room for bundles of so many samples and series. Raises MemoryError."""
        self._room = (0, 0)
        # Address space only: runs hardly ever need what they may need at most.
        self._t_ms: I64Array = reserve(np.int64, samples + 1)
        size = samples * (RUN_SAMPLE_BYTES_LIMIT + CODED_SAMPLE_BYTES_LIMIT) + _PLACE_PADDING
        size += series * (RUN_BYTES_LIMIT + CODED_BYTES_LIMIT)
        self._bytes: U8Array = reserve(np.uint8, size)
        chunks = samples + (k.TAIL_SLOTS + 1) * series + 1
        self._chunks: U64Array = reserve(np.uint64, chunks * CHUNK_WORDS).reshape(-1, CHUNK_WORDS)
        self._states: U64Array = np.empty(STATE_ROWS * series, dtype=np.uint64)
        self._long: I64Array = np.empty(series, dtype=np.int64)
        self._runs: I64Array = np.empty((series, RUN_WORDS), dtype=np.int64)
        self._slots: U32Array = np.empty(series, dtype=np.uint32)
        self._marks: U8Array = np.empty(series, dtype=np.uint8)
        self._room = (samples, series)

    def _make_room(self, samples: int, series: int) -> bool:
        """Whether there is room for a bundle."""
        if samples <= self._room[0] and series <= self._room[1]:
            return True
        try:
            self._size(max(samples, self._room[0]), max(series, self._room[1]))
        except MemoryError:
            return False
        return True

    def take(self, bundle: Bundle, segment: int, oldest: int) -> tuple[int, int] | None:
        """Store the samples of records; the number stored and the newest time, None for a bundle that must be
        stored by other means.

        Samples before `oldest` are left out. Raises CorruptionError, LimitError.
        """
        lists, table = bundle.lists, bundle.records
        if not lists:
            return None
        refs = np.concatenate(lists)
        ends = np.cumsum([len(each) for each in lists])
        if not self._make_room(int(table[:, COUNT].sum()), len(refs)):
            return None
        outcome = np.array([0, NO_MAX_TIME], dtype=np.int64)
        done = self._store(bundle, table, refs, ends, False, segment, oldest, outcome)
        if done == NOT_PLAIN:
            return None
        if done == IN_PIECES:
            for piece in self._pieces(bundle, ends):
                self._store(bundle, piece, refs, ends, True, segment, oldest, outcome)
        return int(outcome[STORED_COUNT]), int(outcome[NEWEST_T])

    def _pieces(self, bundle: Bundle, ends: I64Array) -> list[I64Array]:
        """Rows of the bundle's table, to be stored one after the other. Raises CorruptionError."""
        table = bundle.records
        runs = self._runs[: int(ends[-1])]
        keys = np.empty(int(table[:, KEYS_SIZE].sum()), dtype=np.uint8)
        coded = np.empty(int(table[:, CODED_SIZE].sum()), dtype=np.uint8)
        gather_parts(bundle.data, bundle.extra, table, keys, coded)
        marks, records = np.empty(len(runs), dtype=np.uint8), np.empty(len(ends), dtype=np.int64)
        times = read_times(keys, table, ends, records, marks, runs, self._t_ms)
        if times < 0:
            raise CorruptionError(_UNDECODABLE)
        return _pieces(table, runs, ends, self._t_ms[:times], self._head.block_range_ms)

    def _store(
        self,
        bundle: Bundle,
        table: I64Array,
        refs: U32Array,
        ends: I64Array,
        is_piece: bool,
        segment: int,
        oldest: int,
        outcome: I64Array,
    ) -> int:
        """Store records, of which each list has at most `CHUNK_SAMPLES` if this is a piece; what the kernel
        says (kernels.storebundle). Moves `outcome` on. Raises CorruptionError, LimitError."""
        head, count = self._head, len(refs)
        series = head.series
        key_bytes, coded_bytes = table[:, KEYS_SIZE : CODED_SIZE + 1].sum(axis=0).tolist()
        if len(self._keys) < key_bytes:
            self._keys = np.empty(2 * key_bytes, dtype=np.uint8)
        if len(self._coded) < coded_bytes + CODED_PADDING:
            self._coded = np.empty(2 * coded_bytes + CODED_PADDING, dtype=np.uint8)
        counters = np.zeros(k.COUNTER_WORDS, dtype=np.int64)
        counters[k.BLOCK_RANGE] = head.block_range_ms
        counters[k.MIN_T], counters[k.MAX_T] = NO_MIN_TIME, NO_MAX_TIME
        chunks = int(
            store_bundle(
                bundle.data,
                bundle.extra,
                table,
                refs,
                ends,
                is_piece,
                segment,
                self._coded_samples,
                oldest,
                series.slots_used,
                series.alive,
                series.generation,
                self._seen,
                head.rows,
                head.slabs,
                head.slab_next,
                self._keys,
                self._coded,
                np.empty(len(ends), dtype=np.int64),
                self._marks[:count],
                self._slots[:count],
                self._runs[:count],
                self._t_ms,
                self._states[: STATE_ROWS * count].reshape(STATE_ROWS, -1),
                self._long,
                *self._run,
                *self._tail,
                self._pen,
                self._bytes,
                self._chunks,
                counters,
                outcome,
            )
        )
        if chunks == UNDECODABLE:
            raise CorruptionError(_UNDECODABLE)
        if chunks < 0:
            return chunks
        with self._lock:
            self._place(chunks)
            merged = head.counters
            merged[k.STORED] += counters[k.STORED]
            merged[k.MIN_T] = min(merged[k.MIN_T], counters[k.MIN_T])
            merged[k.MAX_T] = max(merged[k.MAX_T], counters[k.MAX_T])
        outcome[STORED_COUNT] += counters[k.STORED]
        return chunks

    def _place(self, count: int) -> None:
        head = self._head
        done, stuck = 0, -1
        while done < count:
            done = place_chunks(
                self._chunks,
                done,
                count,
                self._bytes,
                head.rows,
                head.slabs,
                head.slab_next,
                head.slab_free,
                head.sealed,
                head.chunk_log.current,
                head.counters,
            )
            if done < count:
                if done == stuck:
                    raise LimitError("the arenas of the head are full")
                stuck = done
                head.next_chunk_segment()


def _pieces(
    table: I64Array, runs: I64Array, ends: I64Array, t_ms: I64Array, block_range_ms: int
) -> list[I64Array]:
    """The records in pieces, to be stored one after the other: a list has at most `CHUNK_SAMPLES` records in
    each, in one block range as far as its first series goes."""
    if not len(table) or not len(t_ms):
        return []
    few = len(table) <= CHUNK_SAMPLES or int(np.bincount(table[:, LIST]).max()) <= CHUNK_SAMPLES
    if few and int(t_ms.min()) // block_range_ms == int(t_ms.max()) // block_range_ms:
        return [table]
    order = np.argsort(table[:, LIST], kind="stable")
    lists, place = table[order, LIST], np.arange(len(table))
    first = np.maximum.accumulate(np.where(np.diff(lists, prepend=-1) != 0, place, 0))
    begins = np.concatenate([[0], ends[:-1]])
    column = np.where(ends > begins, runs[np.minimum(begins, len(runs) - 1), TIMES_AT], 0)
    ranges = t_ms[np.minimum(column[lists] + place - first, len(t_ms) - 1)] // block_range_ms
    begun = (place == first) | (np.diff(ranges, prepend=ranges[0]) != 0)
    opened = np.maximum.accumulate(np.where(begun, place, 0))
    begun |= (place - opened) % CHUNK_SAMPLES == 0
    number = np.cumsum(begun)
    number -= number[first]
    piece = np.empty(len(table), dtype=np.int64)
    piece[order] = number
    return [table[piece == n] for n in range(int(number.max()) + 1)]
