"""Histograms of several sources put together, each decoded straight to its place.

A native histogram is some hundred bytes, and a query may look at a million: none is copied from array to
array on its way. Every source says first how many samples, buckets and bounds its runs have; then one set of
columns is made, and every source writes its part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.scratch import scratch

I64Array = npt.NDArray[np.int64]

_FIELDS = ("t_ms", "schema", "reset_hint", "zero_threshold", "zero_count", "count", "sum", "is_float")
_LISTS = (
    ("pos_offsets", ("pos_index", "pos_count")),
    ("neg_offsets", ("neg_index", "neg_count")),
    ("custom_offsets", ("custom_values",)),
)


class HistogramPart(Protocol):
    """Runs of histograms of one source, ascending in time within a row. `rows` i64[N] are their rows in what
    was read, `sizes` i64[N, 4] their samples, positive and negative buckets, and custom bounds."""

    rows: I64Array
    sizes: I64Array
    has_starts: bool

    def span_ms(self) -> tuple[int, int] | None:
        """First and last time, None without samples."""
        ...

    def place(self, places: I64Array, out: HistogramBatch) -> None:
        """Write the runs to `places` i64[N, 4] of the columns of `out`, which has start timestamps where any
        part has. Raises CorruptionError."""
        ...


def empty_batch(row_offsets: I64Array, totals: Sequence[int], with_starts: bool) -> HistogramBatch:
    """Columns for so many samples, positive and negative buckets, and custom bounds, to be written to. The
    large ones are scratch memory; times are zero."""
    samples, positives, negatives, bounds = totals
    ends = [np.zeros(samples + 1, dtype=np.int64) for _ in range(3)]
    zero_threshold, zero_count, count, total = (np.empty(samples) for _ in range(4))
    return HistogramBatch(
        row_offsets, np.zeros(samples, dtype=np.int64),
        np.zeros(samples, dtype=np.int64) if with_starts else None,
        np.empty(samples, dtype=np.int32), np.empty(samples, dtype=np.uint8),
        zero_threshold, zero_count, count, total,
        ends[0], scratch(positives, np.int32), scratch(positives, np.float64),
        ends[1], scratch(negatives, np.int32), scratch(negatives, np.float64),
        ends[2], np.empty(bounds), np.empty(samples, dtype=np.uint8),
    )  # fmt: skip


def assemble(parts: Sequence[tuple[HistogramPart, I64Array]], row_count: int) -> HistogramBatch:
    """Rows of all parts, each with the output rows of its rows. Of one output row parts follow in the given
    order, which must be that of time. Raises CorruptionError."""
    rows = np.concatenate([outputs[part.rows] for part, outputs in parts])
    sizes = np.concatenate([part.sizes for part, _ in parts])
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(sizes[order], axis=0)
    places = np.empty_like(sizes)
    places[order] = ends - sizes[order]
    row_offsets = np.zeros(row_count + 1, dtype=np.int64)
    row_offsets[1:] = np.bincount(rows, weights=sizes[:, 0], minlength=row_count)
    np.cumsum(row_offsets, out=row_offsets)
    totals = ends[-1].tolist() if len(ends) else [0, 0, 0, 0]
    out = empty_batch(row_offsets, totals, any(part.has_starts for part, _ in parts))
    at = 0
    for part, _ in parts:
        part.place(places[at : at + len(part.rows)], out)
        at += len(part.rows)
    return out


class BatchPart:
    """Histograms that are decoded already: the rows of a batch."""

    def __init__(self, batch: HistogramBatch) -> None:
        filled = np.flatnonzero(np.diff(batch.row_offsets))
        self._batch = batch
        self._lo, self._hi = batch.row_offsets[:-1][filled], batch.row_offsets[1:][filled]
        self.rows = filled
        columns = [self._hi - self._lo]
        for name, _ in _LISTS:
            offsets = getattr(batch, name)
            columns.append(offsets[self._hi] - offsets[self._lo])
        self.sizes = np.stack(columns, axis=1)
        self.has_starts = batch.start_t_ms is not None

    def span_ms(self) -> tuple[int, int] | None:
        """See `HistogramPart`."""
        if not len(self._lo):
            return None
        t_ms = self._batch.t_ms
        return int(t_ms[self._lo].min()), int(t_ms[self._hi - 1].max())

    def place(self, places: I64Array, out: HistogramBatch) -> None:
        """See `HistogramPart`."""
        batch = self._batch
        names = (*_FIELDS, "start_t_ms") if self.has_starts else _FIELDS
        for at, lo, hi in zip(places.tolist(), self._lo.tolist(), self._hi.tolist(), strict=True):
            for name in names:
                getattr(out, name)[at[0] : at[0] + hi - lo] = getattr(batch, name)[lo:hi]
            for place, (offsets_name, columns) in zip(at[1:], _LISTS, strict=True):
                offsets = getattr(batch, offsets_name)[lo : hi + 1]
                first, last = int(offsets[0]), int(offsets[-1])
                moved = offsets[1:] + (place - first)
                getattr(out, offsets_name)[at[0] + 1 : at[0] + 1 + hi - lo] = moved
                for name in columns:
                    getattr(out, name)[place : place + last - first] = getattr(batch, name)[first:last]
