"""The head: every series that still takes samples, its tails and chunks in memory.

All arrays are reserved once and never move. One lock (`lock`) is held by a writer for one batch and by a
reader while it copies what may change; kernels run under it without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.chunks import SEGMENT_BYTES, ChunkLog
from tsdb.columns import HistogramColumns, Rejected
from tsdb.errors import LimitError
from tsdb.headhistograms import HeadHistograms, equal_samples, offsets_of, take
from tsdb.headselect import HeadSelection
from tsdb.headstarts import HeadStarts
from tsdb.histogram import HistogramBatch
from tsdb.keptseries import ROWS_MAX, FoundSeries, KeptSeries
from tsdb.kernels import append as k
from tsdb.kernels.admit import admit, retract
from tsdb.kernels.appendbatch import OUTCOME_WORDS, STORED, UNUSUAL, append_batch
from tsdb.kernels.truncate import JUST_CREATED, compact_late, compact_sealed, sweep_series
from tsdb.kernels.walcodec import CODED_PADDING, KEY_BYTES_LIMIT, VALUE_BYTES_LIMIT
from tsdb.labels import Labels, Matcher
from tsdb.postings import Postings
from tsdb.select import STALE_BITS, SelectHints
from tsdb.series import SERIES_LIMIT, SLOT_BITS, SLOT_MASK, SeriesTable
from tsdb.symbols import SymbolTable

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

NO_HINTS = SelectHints()
BLOCK_RANGE_MS = 2 * 3600 * 1000
NO_MIN_TIME = (1 << 63) - 1
NO_MAX_TIME = -(1 << 63)
FUTURE_LIMIT_MS = 10 * 60 * 1000
"""Samples further ahead of the clock are out of bounds, as in Prometheus's receiver."""

LOG_SAMPLES_KEPT = 16_384
"""Samples of a batch whose buffers are kept for the next."""

IN_ORDER_WINDOW_DIVISOR = 2
"""A new series may start this part of a block range behind the head's newest sample."""

SLABS_PER_SLOT, SEALED_PER_SLOT, LATE_PER_SLOT = 8, 16, 4
"""Address space a slot; what a head of three hours at one sample a second needs, or every fourth sample
late."""
_ARENA_FLOOR = 1024


@dataclass(frozen=True, slots=True)
class NewSeries:
    """Series made by one call, for the log: refs u32[N], interned pairs as CSR."""

    refs: U32Array
    offsets: I64Array
    ids: U32Array


class LogBuffers:
    """Where `Head.append_plain` leaves what the log gets; valid until the next call."""

    def __init__(self) -> None:
        self.outcome: I64Array = np.zeros(OUTCOME_WORDS, dtype=np.int64)
        self._size(0)

    def _size(self, count: int) -> None:
        self.keys: U8Array = np.empty(count * KEY_BYTES_LIMIT, dtype=np.uint8)
        self.coded: U8Array = np.empty(count * VALUE_BYTES_LIMIT + CODED_PADDING, dtype=np.uint8)
        self._undo: U64Array = np.empty((count, 3), dtype=np.uint64)

    def make_room(self, count: int) -> U64Array:
        """Fit `count` samples; the undo log u64[count, 3]. What a large batch took is given back."""
        held = len(self._undo)
        if count > held or held > LOG_SAMPLES_KEPT >= count:
            self._size(max(count, min(2 * count, LOG_SAMPLES_KEPT)))
        return self._undo[:count]


class Head:
    """Series, samples and postings that are not in a block yet."""

    def __init__(
        self,
        symbols: SymbolTable,
        seeds: tuple[int, int],
        *,
        late_window_ms: int,
        block_range_ms: int = BLOCK_RANGE_MS,
        series_limit: int = SERIES_LIMIT,
    ) -> None:
        """`late_window_ms` is the out-of-order window; 0 refuses what is older than a series' newest."""
        self.symbols = symbols
        self.series = SeriesTable(symbols, seeds, series_limit)
        self.lock = self.series.lock
        self.postings = Postings(symbols)
        self.late_window_ms = late_window_ms
        self.block_range_ms = block_range_ms
        slots = self.series.slot_capacity
        slab_count = slots * SLABS_PER_SLOT + _ARENA_FLOOR
        self.rows: U64Array = reserve(np.uint64, slots * k.ROW_WORDS).reshape(-1, k.ROW_WORDS)
        self.slab_next: U32Array = reserve(np.uint32, slab_count)
        self.slab_free: U32Array = reserve(np.uint32, slab_count)
        self.slabs: U8Array = reserve(np.uint8, len(self.slab_next) * k.SLAB_BYTES)
        sealed_limit = slots * SEALED_PER_SLOT + _ARENA_FLOOR
        late_limit = slots * LATE_PER_SLOT + _ARENA_FLOOR
        self.sealed: U64Array = reserve(np.uint64, sealed_limit * k.SEALED_WORDS).reshape(-1, k.SEALED_WORDS)
        self.late: U64Array = reserve(np.uint64, late_limit * k.LATE_WORDS).reshape(-1, k.LATE_WORDS)
        self.chunk_log = ChunkLog()
        self.histograms = HeadHistograms(slots)
        self.starts = HeadStarts(slots, late_limit)
        self.counters: I64Array = np.zeros(k.COUNTER_WORDS, dtype=np.int64)
        self.counters[[k.SLAB_END, k.SEALED_END, k.LATE_END]] = 1
        self.counters[[k.MIN_T, k.MIN_LATE_T]] = NO_MIN_TIME
        self.counters[k.MAX_T] = NO_MAX_TIME
        self.counters[k.BLOCK_RANGE] = block_range_ms
        self._scratch: U8Array = np.zeros(k.SCRATCH_BYTES, dtype=np.uint8)
        self.min_valid_t = NO_MAX_TIME
        self.collections = 0
        self.kept_series = KeptSeries()

    # Figures.

    @property
    def min_time(self) -> int:
        """Oldest time of a stored sample, or NO_MIN_TIME."""
        return int(self.counters[k.MIN_T])

    @property
    def max_time(self) -> int:
        """Newest time of a stored sample, or NO_MAX_TIME."""
        return int(self.counters[k.MAX_T])

    @property
    def min_late_time(self) -> int:
        """Oldest out-of-order sample that is not in a block yet, or NO_MIN_TIME."""
        return int(self.counters[k.MIN_LATE_T])

    @property
    def empty(self) -> bool:
        """Whether no sample was stored since the head was made or emptied."""
        return self.max_time == NO_MAX_TIME

    def chunk_count(self) -> int:
        """Sealed and open chunks and tails."""
        used = self.series.slots_used
        rows = self.rows[:used]
        open_count = int(np.count_nonzero(rows[:, k.CHUNK] | (rows[:, k.META] & k.TAIL_MASK)))
        return int(self.counters[k.SEALED_END]) - 1 + open_count

    def stale_series_count(self) -> int:
        """Series whose newest sample is a stale marker."""
        used = self.series.slots_used
        stale = (self.rows[:used, k.LAST_V] == np.uint64(STALE_BITS)) & (self.series.alive[:used] == 1)
        return int(np.count_nonzero(stale))

    def histogram_series_count(self) -> int:
        """Series that have native histograms in the head."""
        return int(np.count_nonzero(self.histograms.newest[: self.series.slots_used]))

    def chunk_storage_bytes(self) -> int:
        """Bytes of sealed chunks."""
        return int(self.counters[k.SEGMENT_USED]) + (len(self.chunk_log.segments) - 1) * SEGMENT_BYTES

    @property
    def sealed_end(self) -> int:
        """Position after the newest sealed chunk."""
        return int(self.counters[k.SEGMENT_BASE] + self.counters[k.SEGMENT_USED])

    # Series.

    def find_or_create(
        self, rows: Sequence[Labels], check_limit: Callable[[int, int], None] | None = None
    ) -> tuple[U32Array, NewSeries | None]:
        """Refs of valid label sets, and what is new. Caller holds the lock.

        `check_limit(active, new)` may refuse more series. Raises LimitError, having created none.
        """
        offsets, ids = self.series.ids_of(rows)
        found = self.series.find(offsets, ids)
        missing = np.flatnonzero(found < 0)
        if not len(missing):
            return found.astype(np.uint32), None
        firsts: dict[tuple[tuple[str, str], ...], int] = {}
        places = [firsts.setdefault(rows[row].pairs, len(firsts)) for row in missing.tolist()]
        _, first = np.unique(np.array(places), return_index=True)
        new_rows = missing[first]
        lengths = np.diff(offsets)[new_rows]
        new_offsets = offsets_of(lengths)
        new_ids = np.concatenate([ids[2 * offsets[row] : 2 * offsets[row + 1]] for row in new_rows.tolist()])
        if check_limit is not None:
            check_limit(self.series.series_count, len(new_rows))
        refs = self.series.create(new_offsets, new_ids)
        self._index(refs, new_offsets, new_ids)
        found[missing] = refs[np.array(places)]
        return found.astype(np.uint32), NewSeries(refs, new_offsets, new_ids)

    def announce(self, refs: U32Array) -> bool:
        """Let samples be stored for logged series before `install_announced` brings their labels, which takes
        longer. False, and nothing is done, where one of their slots is taken or there is no such slot."""
        slots = refs & np.uint32(SLOT_MASK)
        if int(slots.max(initial=0)) >= self.series.slot_capacity or self.series.alive[slots].any():
            return False
        self.series.announce(refs)
        self.rows[slots, k.META] = np.uint64(JUST_CREATED)
        return True

    def install_announced(self, new: NewSeries) -> None:
        """Bring the labels of series that were announced, before any other is installed or removed."""
        if len(new.refs):
            self.series.install(new.refs, new.offsets, new.ids)
            self._list_pairs(new.refs, new.offsets, new.ids)

    def install(self, new: NewSeries) -> None:
        """Put logged series back under their refs; refs that live already are left alone.

        A slot may be taken by another generation: the younger one stays, because the elder was collected
        before the younger was made.
        """
        slots = new.refs & np.uint32(SLOT_MASK)
        if not len(slots):
            return
        if int(slots.max()) >= self.series.slot_capacity:
            raise LimitError(
                f"the log holds more than {self.series.slot_capacity - 1} series, which is the limit"
            )
        taken = self.series.alive[slots] == 1
        if taken.any():
            wanted = (new.refs >> np.uint32(SLOT_BITS)).astype(np.uint8)
            ahead = (wanted - self.series.generation[slots]).view(np.int8)
            evicted = slots[taken & (ahead > 0)]
            if len(evicted):
                self._evict(evicted)
            taken &= ahead <= 0
            keep = np.flatnonzero(~taken)
            lengths = np.diff(new.offsets)[keep]
            offsets = offsets_of(lengths)
            picked = [new.ids[2 * new.offsets[i] : 2 * new.offsets[i + 1]] for i in keep.tolist()]
            ids = np.concatenate(picked) if picked else np.empty(0, dtype=np.uint32)
            new = NewSeries(new.refs[keep], offsets, ids)
        if len(new.refs):
            self.series.install(new.refs, new.offsets, new.ids)
            self._index(new.refs, new.offsets, new.ids)

    def _evict(self, slots: U32Array) -> None:
        """Forget series whose slots a younger generation needs; only in a replay."""
        self.postings.remove(slots)
        self.rows[slots] = 0
        self.histograms.newest[slots] = 0
        self.starts.forget(slots)
        self.series.remove(slots)

    def finish_replay(self) -> None:
        """Rebuild the list of free slots after series were installed."""
        with self.lock:
            self.series.find_free_slots()

    def _index(self, refs: U32Array, offsets: I64Array, ids: U32Array) -> None:
        self.rows[refs & np.uint32(SLOT_MASK), k.META] = np.uint64(JUST_CREATED)
        self._list_pairs(refs, offsets, ids)

    def _list_pairs(self, refs: U32Array, offsets: I64Array, ids: U32Array) -> None:
        slots = refs & np.uint32(SLOT_MASK)
        names, values = np.ascontiguousarray(ids[0::2]), np.ascontiguousarray(ids[1::2])
        self.postings.add_many(slots, offsets, names, values)

    # Samples. The caller holds the lock from admit to store.

    def rules(self, now_ms: int, first_t: int, *, histograms: bool = False, replay: bool = False) -> I64Array:
        """Bounds that `admit` judges by; `first_t` stands for the newest time of an empty head."""
        rules = np.zeros(k.RULE_WORDS, dtype=np.int64)
        newest = self.max_time if not self.empty else first_t
        rules[k.RULE_SLOTS] = self.series.slots_used
        rules[k.RULE_HISTOGRAM] = histograms
        if replay:
            rules[k.RULE_MIN_VALID] = NO_MAX_TIME
            rules[k.RULE_LATE_WINDOW] = 1
            rules[k.RULE_HEAD_MAX] = NO_MAX_TIME + 1
            rules[k.RULE_FUTURE] = NO_MIN_TIME
            return rules
        in_order = newest - self.block_range_ms // IN_ORDER_WINDOW_DIVISOR
        rules[k.RULE_MIN_VALID] = max(self.min_valid_t, in_order)
        rules[k.RULE_LATE_WINDOW] = self.late_window_ms
        rules[k.RULE_HEAD_MAX] = newest
        rules[k.RULE_FUTURE] = now_ms + FUTURE_LIMIT_MS
        return rules

    def check_room(self, count: int) -> None:
        """Raise LimitError where the arenas cannot take `count` more samples."""
        late = int(self.counters[k.LATE_END])
        if late + count > len(self.late):
            raise LimitError(f"{late} out-of-order samples in the head, the limit is {len(self.late)}")
        sealed = int(self.counters[k.SEALED_END])
        if sealed + count > len(self.sealed):
            raise LimitError(f"{sealed} chunks in the head, the limit is {len(self.sealed)}")
        free = int(self.counters[k.SLAB_FREE]) + len(self.slab_next) - int(self.counters[k.SLAB_END])
        if free < count * 3 + k.FLUSH_SLABS_LIMIT:
            raise LimitError(f"open chunks of the head fill {len(self.slab_next)} slabs, which is the limit")
        self.starts.check_room(count)
        self.chunk_log.check_room()

    def admit(
        self, refs: U32Array, t_ms: I64Array, bits: U64Array, rules: I64Array
    ) -> tuple[U8Array, U64Array]:
        """Codes u8[N] (kernels.append) and the undo log; moves the newest sample of each series on."""
        codes = np.empty(len(refs), dtype=np.uint8)
        undo = np.empty((len(refs), 3), dtype=np.uint64)
        admit(refs, t_ms, bits, self.series.alive, self.series.generation, self.rows, rules, codes, undo)
        return codes, undo

    def append_plain(
        self, refs: U32Array, t_ms: I64Array, bits: U64Array, rules: I64Array, segment: int, log: LogBuffers
    ) -> tuple[U8Array, U64Array]:
        """Judge as `admit` does; a batch that is accepted as a whole is also coded for a segment of the log,
        into `log`, and stored. `log.outcome` says which (kernels.appendbatch)."""
        count = len(refs)
        codes = np.empty(count, dtype=np.uint8)
        undo = log.make_room(count)
        append_batch(
            refs,
            t_ms,
            bits,
            codes,
            undo,
            self.series.alive,
            self.series.generation,
            rules,
            segment,
            log.keys,
            log.coded,
            log.outcome,
            self.rows,
            *self._arenas(),
        )
        stored = int(log.outcome[STORED])
        if stored != UNUSUAL:
            self.store(refs, t_ms, bits, codes, done=stored)
        return codes, undo

    def _arenas(
        self,
    ) -> tuple[U8Array, U32Array, U32Array, U64Array, U8Array, U64Array, I64Array, U8Array]:
        """What `store` writes to, in its order, after the rows."""
        return (
            self.slabs,
            self.slab_next,
            self.slab_free,
            self.sealed,
            self.chunk_log.current,
            self.late,
            self.counters,
            self._scratch,
        )

    def retract(self, refs: U32Array, codes: U8Array, undo: U64Array) -> None:
        """Take back what `admit` did."""
        retract(refs, codes, undo, self.rows)

    def store(
        self,
        refs: U32Array,
        t_ms: I64Array,
        bits: U64Array,
        codes: U8Array,
        start_t_ms: I64Array | None = None,
        done: int = 0,
    ) -> None:
        """Store what `admit` accepted from sample `done` on, with start timestamps (0 = unset; None: all
        are)."""
        stuck = -1
        while done < len(refs):
            done = k.store(refs, t_ms, bits, codes, done, self.rows, *self._arenas())
            if done < len(refs):
                if done == stuck:
                    raise LimitError("the arenas of the head are full")
                stuck = done
                self.next_chunk_segment()
        self.starts.store(refs, t_ms, codes, start_t_ms, int(self.counters[k.LATE_END]))

    def next_chunk_segment(self) -> None:
        """Begin another segment of sealed chunks."""
        self.chunk_log.rotate()
        self.counters[k.SEGMENT_USED] = 0
        self.counters[k.SEGMENT_BASE] = self.chunk_log.base

    def admit_histograms(self, columns: HistogramColumns, rules: I64Array) -> tuple[U8Array, U64Array]:
        """As `admit`; a sample at the series' newest time is a repetition only if all its parts are equal."""
        batch = columns.batch
        codes, undo = self.admit(columns.refs, batch.t_ms, np.zeros(len(batch), dtype=np.uint64), rules)
        for i in np.flatnonzero(codes == k.COMPARE).tolist():
            slot = int(columns.refs[i]) & SLOT_MASK
            codes[i] = k.REPEATED if self._same_histogram(slot, batch, i) else Rejected.DUPLICATE
        return codes, undo

    def _same_histogram(self, slot: int, batch: HistogramBatch, i: int) -> bool:
        t = int(batch.t_ms[i])
        slots = np.array([slot], dtype=np.uint32)
        stored = self.histograms.select(slots, t, t)
        if stored is None:
            # The equal one is earlier in the same batch.
            earlier = [j for j in range(i) if int(batch.t_ms[j]) == t]
            return any(equal_samples(batch, j, batch, i) for j in earlier)
        return equal_samples(stored, 0, batch, i)

    def store_histograms(self, columns: HistogramColumns, codes: U8Array) -> None:
        """Store what `admit_histograms` accepted."""
        rows = np.flatnonzero((codes == k.ACCEPTED) | (codes == k.LATE))
        if not len(rows):
            return
        picked = take(columns.batch, rows, np.zeros(1, dtype=np.int64))
        self.histograms.append(columns.refs[rows] & np.uint32(SLOT_MASK), picked)
        self.counters[k.MIN_T] = min(self.min_time, int(picked.t_ms.min()))
        self.counters[k.MAX_T] = max(self.max_time, int(picked.t_ms.max()))
        late = columns.batch.t_ms[codes == k.LATE]
        if len(late):
            self.counters[k.MIN_LATE_T] = min(self.min_late_time, int(late.min()))
            self.counters[k.STORED_LATE] += len(late)
        self.counters[k.STORED] += len(rows) - len(late)

    # Reads.

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS
    ) -> HeadSelection:
        """Consistent copy of the matching series with samples possible in [mint, maxt]."""
        while True:
            seen, generation = self.collections, self.postings.generation
            found = self.kept_series.get(matchers, generation)
            slots = self.postings.select(matchers) if found is None else found.slots
            with self.lock:
                if self.collections != seen or (found and self.postings.generation != generation):
                    continue
                if found is None and len(slots) <= ROWS_MAX:
                    labels = self.series.labels_of(slots).kept()
                    found = FoundSeries(slots, self.series.refs_of(slots), labels)
                    self.kept_series.put(matchers, generation, found)
                return HeadSelection.capture(self, slots, mint, maxt, hints, found)

    # Truncation.

    def truncate(self, oldest: int) -> int:
        """Drop samples before `oldest` (they are in a block) and series without any; return how many
        series."""
        with self.lock:
            counters, series = self.counters, self.series
            moved_sealed = np.zeros(int(counters[k.SEALED_END]), dtype=np.uint32)
            moved_late = np.zeros(int(counters[k.LATE_END]), dtype=np.uint32)
            counters[k.MIN_T] = NO_MIN_TIME
            lowest = compact_sealed(oldest, self.sealed, counters, moved_sealed)
            self.starts.compact_late(oldest, self.late, len(moved_late))
            compact_late(oldest, self.late, counters, moved_late)
            if len(self.histograms):
                kept = self.histograms.columns["t_ms"][: self.histograms.end] >= oldest
                kept[0] = False
                if kept.any():
                    times = self.histograms.columns["t_ms"][: self.histograms.end][kept]
                    counters[k.MIN_T] = min(self.min_time, int(times.min()))
                self.histograms = self.histograms.rebuilt(kept)
            dead = np.zeros(series.slots_used, dtype=np.uint32)
            dead_count = sweep_series(
                oldest,
                series.slots_used,
                series.alive,
                self.rows,
                self.histograms.newest,
                self.slab_next,
                self.slab_free,
                counters,
                moved_sealed,
                moved_late,
                dead,
            )
            if dead_count:
                self.collections += 1
                series.remove(dead[:dead_count])
                self.postings.remove(dead[:dead_count])
            self.starts.compact(oldest, series.alive, series.slots_used)
            self.chunk_log.drop_before(min(lowest, self.chunk_log.base))
            self.min_valid_t = max(self.min_valid_t, oldest)
            return int(dead_count)
