"""A bundle of the replay as a whole: records of some lists of series become runs, and runs become chunks.

What it does not take (`take` says so) is stored sample by sample as it was written: records that share a
series without being alike, series that are not there any more. Decoding and encoding touch only what belongs
to the series of the bundle, so that several threads do it at once; chunks are placed under a lock.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import CorruptionError, LimitError
from tsdb.head import NO_MAX_TIME, NO_MIN_TIME, Head
from tsdb.kernels import append as k
from tsdb.kernels.bundletimes import CODED_SIZE, COUNT, KEYS_SIZE, RUN_WORDS, plain_series, read_times
from tsdb.kernels.runchunks import (
    CHUNK_WORDS,
    PEN_WORDS,
    RUN_BYTES_LIMIT,
    RUN_SAMPLE_BYTES_LIMIT,
    encode_runs,
    place_chunks,
)
from tsdb.kernels.walruns import CODED_PADDING, STATE_WORDS, decode_runs
from tsdb.kernels.walscan import gather_parts
from tsdb.walwindow import Bundle

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

_PLACE_PADDING = 128


class BundleStore:
    """Buffers for one bundle after the other; one thread at a time. Threads with other series may run at
    once if they share `lock`."""

    def __init__(self, head: Head, lock: threading.Lock) -> None:
        """Raises MemoryError."""
        self._head, self._lock = head, lock
        self._seen: U8Array = reserve(np.uint8, head.series.slot_capacity)
        self._size(0, 0)

    def _size(self, samples: int, series: int) -> None:
        """Make room for bundles of so many samples and series. Raises MemoryError."""
        self._room = (0, 0)
        # Address space only: runs hardly ever need what they may need at most.
        self._t_ms: I64Array = reserve(np.int64, samples + 1)
        self._kept_t: I64Array = reserve(np.int64, samples + 1)
        self._values: U64Array = reserve(np.uint64, samples + 1)
        size = samples * RUN_SAMPLE_BYTES_LIMIT + series * RUN_BYTES_LIMIT + _PLACE_PADDING
        self._bytes: U8Array = reserve(np.uint8, size)
        chunks = samples + (k.TAIL_SLOTS + 1) * series + 1
        self._chunks: U64Array = reserve(np.uint64, chunks * CHUNK_WORDS).reshape(-1, CHUNK_WORDS)
        self._states: U64Array = np.empty((series, STATE_WORDS), dtype=np.uint64)
        self._runs: I64Array = np.empty((series, RUN_WORDS), dtype=np.int64)
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
        head, lists, table = self._head, bundle.lists, bundle.records
        if not lists:
            return None
        refs = np.concatenate(lists)
        ends = np.cumsum([len(each) for each in lists])
        slots = np.empty(len(refs), dtype=np.uint32)
        series = head.series
        if plain_series(refs, series.slots_used, series.alive, series.generation, self._seen, slots):
            return None
        count = int(table[:, COUNT].sum())
        if not self._make_room(count, len(refs)):
            return None
        runs = self._runs[: len(refs)]
        keys = np.empty(int(table[:, KEYS_SIZE].sum()), dtype=np.uint8)
        coded = np.empty(int(table[:, CODED_SIZE].sum()) + CODED_PADDING, dtype=np.uint8)
        coded[-CODED_PADDING:] = 0
        gather_parts(bundle.data, bundle.extra, table, keys, coded)
        marks, records = np.empty(len(refs), dtype=np.uint8), np.empty(len(lists), dtype=np.int64)
        times = read_times(keys, table, ends, records, marks, runs, self._t_ms)
        if times < 0 or decode_runs(
            coded, table, ends, slots, runs, segment, self._states[: len(refs)], head.rows, self._values
        ):
            raise CorruptionError("samples record does not decode although its checksum is right")
        newest = int(self._t_ms[:times].max()) if times else NO_MAX_TIME
        counters = np.zeros(k.COUNTER_WORDS, dtype=np.int64)
        counters[k.BLOCK_RANGE] = head.block_range_ms
        counters[k.MIN_T], counters[k.MAX_T] = NO_MIN_TIME, NO_MAX_TIME
        chunks = encode_runs(
            slots,
            runs,
            self._t_ms,
            self._values,
            oldest,
            head.rows,
            head.slabs,
            head.slab_next,
            self._kept_t,
            np.empty(k.TAIL_SLOTS, dtype=np.int64),
            np.empty(k.TAIL_SLOTS, dtype=np.uint64),
            np.empty(PEN_WORDS, dtype=np.uint64),
            self._bytes,
            self._chunks,
            counters,
        )
        with self._lock:
            self._place(chunks)
            merged = head.counters
            merged[k.STORED] += counters[k.STORED]
            merged[k.MIN_T] = min(merged[k.MIN_T], counters[k.MIN_T])
            merged[k.MAX_T] = max(merged[k.MAX_T], counters[k.MAX_T])
        return int(counters[k.STORED]), newest

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
