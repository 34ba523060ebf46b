"""Native histogram samples of the head: columns in the form queries read, one backward chain a series.

Buckets of both sides and custom bounds lie in pools; a sample notes where its run starts and how long it is.
The columns only grow; a truncation of the head builds a new store, so a reader may keep the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import LimitError
from tsdb.histogram import HistogramBatch
from tsdb.kernels.bucketruns import copy_buckets, place_runs
from tsdb.kernels.chains import count_histograms, latest_histograms, link_histograms, walk_histograms

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

SAMPLES_PER_SLOT, BUCKETS_PER_SLOT, CUSTOM_VALUES_PER_SLOT = 4, 64, 16
"""Address space a slot of the head; say a fourth of the series with 16 histograms of 16 buckets."""

SCALARS = {
    "t_ms": np.int64,
    "start_t_ms": np.int64,
    "schema": np.int32,
    "reset_hint": np.uint8,
    "zero_threshold": np.float64,
    "zero_count": np.float64,
    "count": np.float64,
    "sum": np.float64,
    "is_float": np.uint8,
}
"""Columns with one value a sample. Floats are moved as uint64, so that no bit of a marker changes."""


def runs(starts: I64Array, lengths: I64Array) -> I64Array:
    """Flat indexes of runs: `starts[i] .. starts[i] + lengths[i]` one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def offsets_of(lengths: I64Array) -> I64Array:
    """CSR offsets i64[N+1] of run lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    lengths.cumsum(out=offsets[1:])
    return offsets


def take(batch: HistogramBatch, rows: npt.NDArray[np.intp], row_offsets: I64Array) -> HistogramBatch:
    """Samples of a batch in the given order, with new row offsets."""
    sides: list[Any] = []
    for offsets, columns in (
        (batch.pos_offsets, (batch.pos_index, batch.pos_count)),
        (batch.neg_offsets, (batch.neg_index, batch.neg_count)),
        (batch.custom_offsets, (batch.custom_values,)),
    ):
        lengths = np.diff(offsets)[rows]
        picked = runs(offsets[:-1][rows], lengths)
        sides.append(offsets_of(lengths))
        sides.extend(column[picked] for column in columns)
    scalars = {name: getattr(batch, name)[rows] for name in SCALARS if getattr(batch, name) is not None}
    scalars.setdefault("start_t_ms", None)
    return HistogramBatch(
        row_offsets=row_offsets,
        pos_offsets=sides[0],
        pos_index=sides[1],
        pos_count=sides[2],
        neg_offsets=sides[3],
        neg_index=sides[4],
        neg_count=sides[5],
        custom_offsets=sides[6],
        custom_values=sides[7],
        **scalars,
    )


class HeadHistograms:
    """Written under the head's lock. `capture` and `select` are called under it as well; what was captured is
    read without, since an entry stays as it is and a truncated head has a store of its own."""

    def __init__(self, slot_capacity: int) -> None:
        """Limits grow with the slots of the head; raises MemoryError."""
        self.slot_capacity = slot_capacity
        samples = SAMPLES_PER_SLOT * slot_capacity
        buckets = BUCKETS_PER_SLOT * slot_capacity
        self.columns: dict[str, npt.NDArray[Any]] = {
            name: reserve(kind, samples) for name, kind in SCALARS.items()
        }
        self.slots: U32Array = reserve(np.uint32, samples)
        self.newest: U32Array = reserve(np.uint32, slot_capacity)
        """Newest sample of each slot, the begin of its chain; 0 for none."""
        self.previous: U32Array = reserve(np.uint32, samples)
        self.starts: I64Array = reserve(np.int64, 3 * samples).reshape(-1, 3)
        self.lengths: npt.NDArray[np.int32] = reserve(np.int32, 3 * samples).reshape(-1, 3)
        self.bucket_index: npt.NDArray[np.int32] = reserve(np.int32, buckets)
        self.bucket_count: npt.NDArray[np.float64] = reserve(np.float64, buckets)
        self.custom: npt.NDArray[np.float64] = reserve(np.float64, CUSTOM_VALUES_PER_SLOT * slot_capacity)
        self.end = 1
        self.bucket_end = 0
        self.custom_end = 0
        self.has_start_t = False
        self.is_ordered = True
        """Whether no entry is older than the one before it in its chain, so that walks can end early."""

    def __len__(self) -> int:
        return self.end - 1

    def check_room(self, batch: HistogramBatch) -> None:
        """Raise LimitError where a batch does not fit."""
        buckets = int(batch.pos_offsets[-1] + batch.neg_offsets[-1])
        for what, used, more, limit in (
            ("histogram samples", self.end, len(batch), len(self.previous)),
            ("histogram buckets", self.bucket_end, buckets, len(self.bucket_index)),
            ("custom bucket bounds", self.custom_end, int(batch.custom_offsets[-1]), len(self.custom)),
        ):
            if used + more > limit:
                raise LimitError(f"{used} {what} in the head, {more} more exceed the limit of {limit}")

    def append(self, slots: U32Array, batch: HistogramBatch) -> None:
        """Store a batch; sample i belongs to `slots[i]`."""
        first, count = self.end, len(batch)
        for name, column in self.columns.items():
            values = getattr(batch, name)
            if values is not None:
                column[first : first + count] = values
        self.has_start_t |= batch.start_t_ms is not None
        self.slots[first : first + count] = slots
        for side, (offsets, index, counts) in enumerate(
            (
                (batch.pos_offsets, batch.pos_index, batch.pos_count),
                (batch.neg_offsets, batch.neg_index, batch.neg_count),
            )
        ):
            base, total = self.bucket_end, int(offsets[-1])
            self.starts[first : first + count, side] = base + offsets[:-1]
            self.lengths[first : first + count, side] = np.diff(offsets)
            self.bucket_index[base : base + total] = index[:total]
            self.bucket_count[base : base + total] = counts[:total]
            self.bucket_end += total
        total = int(batch.custom_offsets[-1])
        self.starts[first : first + count, 2] = self.custom_end + batch.custom_offsets[:-1]
        self.lengths[first : first + count, 2] = np.diff(batch.custom_offsets)
        self.custom[self.custom_end : self.custom_end + total] = batch.custom_values[:total]
        self.custom_end += total
        chains = self.newest, self.previous, self.columns["t_ms"]
        if link_histograms(np.ascontiguousarray(slots), first, *chains):
            self.is_ordered = False
        self.end += count

    def batch(
        self, entries: I64Array, row_offsets: I64Array, with_starts: bool | None = None
    ) -> HistogramBatch:
        """Copy of the given entries, with start timestamps where any entry has or as `with_starts` says."""
        offsets = np.empty((3, len(entries) + 1), dtype=np.int64)
        place_runs(entries, self.lengths, offsets)
        sides: list[Any] = []
        for side, size in enumerate(offsets[:2, -1].tolist()):
            index, count = np.empty(size, dtype=np.int32), np.empty(size)
            if size:
                copy_buckets(
                    entries,
                    self.starts,
                    offsets[side],
                    side,
                    self.bucket_index,
                    self.bucket_count,
                    index,
                    count,
                )
            sides += index, count
        custom = np.empty(0)
        if offsets[2, -1]:
            custom = self.custom[runs(self.starts[entries, 2], offsets[2, 1:] - offsets[2, :-1])]
        if with_starts is None:
            with_starts = self.has_start_t
        wanted = SCALARS if with_starts else SCALARS.keys() - {"start_t_ms"}
        scalars: dict[str, Any] = {"start_t_ms": None} | {
            name: self.columns[name][entries] for name in wanted
        }
        return HistogramBatch(
            row_offsets=row_offsets,
            pos_offsets=offsets[0],
            pos_index=sides[0],
            pos_count=sides[1],
            neg_offsets=offsets[1],
            neg_index=sides[2],
            neg_count=sides[3],
            custom_offsets=offsets[2],
            custom_values=custom,
            **scalars,
        )

    def counts(self, slots: U32Array, mint: int, maxt: int) -> I64Array | None:
        """i64[S]: samples of series in [mint, maxt], repeated ones included; None where there are none."""
        if self.end == 1:
            return None
        counts = np.empty(len(slots), dtype=np.int64)
        chains = self.newest, self.previous, self.columns["t_ms"]
        return counts if count_histograms(slots, mint, maxt, self.is_ordered, *chains, counts) else None

    def select(self, slots: U32Array, mint: int, maxt: int) -> HistogramBatch | None:
        """What `capture` finds, copied."""
        found = self.capture(slots, mint, maxt)
        return None if found is None else found.batch(0, len(slots))

    def capture(
        self, slots: U32Array, mint: int, maxt: int, latest_only: bool = False
    ) -> CapturedHistograms | None:
        """Samples of series in [mint, maxt] as a CSR over `slots`, ascending, each timestamp once (the first
        to arrive), or only the last of each series; None where there are none."""
        if latest_only:
            return self._latest(slots, mint, maxt)
        counts = self.counts(slots, mint, maxt)
        if counts is None:
            return None
        t_ms, total = self.columns["t_ms"], int(counts.sum())
        entries = np.empty(total, dtype=np.int64)
        walk_histograms(slots, mint, maxt, self.is_ordered, self.newest, self.previous, t_ms, entries)
        rows = np.repeat(np.arange(len(slots)), counts)
        order = np.lexsort((entries, t_ms[entries], rows))
        entries, rows = entries[order], rows[order]
        times = t_ms[entries]
        fresh = np.ones(total, dtype=np.bool_)
        fresh[1:] = (times[1:] != times[:-1]) | (rows[1:] != rows[:-1])
        entries, rows = entries[fresh], rows[fresh]
        offsets = offsets_of(np.bincount(rows, minlength=len(slots)).astype(np.int64))
        return CapturedHistograms(self, entries, offsets, self.has_start_t)

    def _latest(self, slots: U32Array, mint: int, maxt: int) -> CapturedHistograms | None:
        if self.end == 1:
            return None
        entries = np.empty(len(slots), dtype=np.int64)
        chains = self.newest, self.previous, self.columns["t_ms"]
        if not latest_histograms(slots, mint, maxt, self.is_ordered, *chains, entries):
            return None
        found = entries > 0
        return CapturedHistograms(self, entries[found], offsets_of(found.astype(np.int64)), self.has_start_t)

    def rebuilt(self, keep: npt.NDArray[np.bool_]) -> HeadHistograms:
        """A store of the entries in the mask (one flag an entry, entry 0 never); chains are linked anew."""
        fresh = HeadHistograms(self.slot_capacity)
        entries = np.flatnonzero(keep)
        if len(entries):
            fresh.append(self.slots[entries], self.batch(entries, np.zeros(1, dtype=np.int64)))
        return fresh


def equal_samples(left: HistogramBatch, i: int, right: HistogramBatch, j: int) -> bool:
    """Whether two histogram samples are equal in every part that is stored, floats by their bits."""
    for name in ("schema", "zero_threshold", "zero_count", "count", "sum", "is_float"):
        a, b = getattr(left, name)[i : i + 1], getattr(right, name)[j : j + 1]
        if a.tobytes() != b.tobytes():
            return False
    for offsets, columns in (
        ("pos_offsets", ("pos_index", "pos_count")),
        ("neg_offsets", ("neg_index", "neg_count")),
        ("custom_offsets", ("custom_values",)),
    ):
        a0, a1 = getattr(left, offsets)[i : i + 2].tolist()
        b0, b1 = getattr(right, offsets)[j : j + 2].tolist()
        for name in columns:
            if getattr(left, name)[a0:a1].tobytes() != getattr(right, name)[b0:b1].tobytes():
                return False
    return True


@dataclass(frozen=True, slots=True)
class CapturedHistograms:
    """Rows of samples of a head, which are copied when they are read: row i has
    `entries[row_offsets[i]:row_offsets[i+1]]`, i64. Immutable; any thread may read."""

    store: HeadHistograms
    entries: I64Array
    row_offsets: I64Array
    has_starts: bool

    @property
    def counts(self) -> I64Array:
        """i64[S]: samples of each row."""
        return self.row_offsets[1:] - self.row_offsets[:-1]

    def take(self, rows: npt.NDArray[np.integer]) -> CapturedHistograms:
        """The given rows in the given order."""
        lengths = self.counts[rows]
        entries = self.entries[runs(self.row_offsets[:-1][rows], lengths)]
        return CapturedHistograms(self.store, entries, offsets_of(lengths), self.has_starts)

    def batch(self, lo: int, hi: int) -> HistogramBatch | None:
        """Copy of rows lo to hi (exclusive); None where they have no samples."""
        first, last = self.row_offsets[[lo, hi]].tolist()
        if first == last:
            return None
        offsets = self.row_offsets[lo : hi + 1]
        return self.store.batch(
            self.entries[first:last], offsets - first if first else offsets, self.has_starts
        )
