"""Roll-ups: windows (T - r, T] of float series kept as columns (docs/formats/rollup.md).

`Windows` are the columns of some rows in memory; `roll_up` makes coarser ones of them, and
`windows_of_samples` takes samples for windows of their own, so that one kernel serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.kernels import rollup as kernels
from tsdb.select import NAN_BITS, STALE_BITS, SampleBatch

I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

ROLLUP_LABEL = "__rollup__"
COLUMNS = ("count", "sum", "min", "max", "first", "last", "resets", "first_age", "last_age")
STALE, HISTOGRAM = "stale", "histogram"
KINDS = (*COLUMNS, STALE, HISTOGRAM)
"""Values of ROLLUP_LABEL."""

RANGE_DIVISIBLE_MS = 2 * 3600 * 1000
"""A resolution divides the range of the smallest block, so that windows end where blocks do."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Samples older than `after_ms` are also kept as windows of `resolution_ms`, for `retention_ms` where
    that is not 0."""

    after_ms: int
    resolution_ms: int
    retention_ms: int = 0


@dataclass(frozen=True, slots=True)
class SeriesRetention:
    """Series that satisfy all matchers (label name, RE2 pattern) are kept for `retention_ms` only."""

    match: tuple[tuple[str, str], ...]
    retention_ms: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Columns of R rows: row i owns the windows `offsets[i] .. offsets[i+1]`, which end at `t_ms`."""

    offsets: I64Array
    t_ms: I64Array
    columns: dict[str, F64Array]
    stale_offsets: I64Array
    stale_t_ms: I64Array
    histograms: HistogramBatch | None


def row_counts_to_offsets(keep: npt.NDArray[np.bool_], offsets: I64Array) -> I64Array:
    """Offsets of the kept elements of a CSR."""
    running = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=running[1:])
    return running[offsets]


def without_stale(batch: SampleBatch) -> SampleBatch:
    """The floats that are not stale markers; no histograms, no start timestamps."""
    keep = np.ascontiguousarray(batch.values).view(np.uint64) != np.uint64(STALE_BITS)
    if keep.all():
        return SampleBatch(batch.offsets, batch.t_ms, batch.values)
    return SampleBatch(row_counts_to_offsets(keep, batch.offsets), batch.t_ms[keep], batch.values[keep])


def windows_of_samples(batch: SampleBatch) -> Windows:
    """Each sample as a window of its own, each stale marker as the end of one."""
    stale = np.ascontiguousarray(batch.values).view(np.uint64) == np.uint64(STALE_BITS)
    plain = without_stale(batch)
    columns = {column: column_of_samples(plain, column) for column in COLUMNS}
    return Windows(
        np.ascontiguousarray(plain.offsets),
        np.ascontiguousarray(plain.t_ms),
        columns,
        row_counts_to_offsets(stale, batch.offsets),
        batch.t_ms[stale],
        batch.histograms,
    )


def column_of_samples(batch: SampleBatch, column: str) -> F64Array:
    """One column of samples without stale markers."""
    if column == "count":
        return np.ones(len(batch.values))
    if column in ("resets", "first_age", "last_age"):
        return np.zeros(len(batch.values))
    return np.ascontiguousarray(batch.values)


def roll_up(windows: Windows, resolution_ms: int) -> Windows:
    """Windows of a multiple of the resolution."""
    inputs = windows.columns
    size = len(windows.t_ms)
    offsets, t_ms = np.zeros_like(windows.offsets), np.empty(size, dtype=np.int64)
    outs = {column: np.empty(size) for column in COLUMNS}
    count = kernels.roll_up(
        windows.offsets,
        windows.t_ms,
        inputs["count"],
        inputs["sum"],
        inputs["min"],
        inputs["max"],
        inputs["first"],
        inputs["last"],
        inputs["resets"],
        windows.t_ms - inputs["first_age"].astype(np.int64),
        windows.t_ms - inputs["last_age"].astype(np.int64),
        resolution_ms,
        offsets,
        t_ms,
        outs["count"],
        outs["sum"],
        outs["min"],
        outs["max"],
        outs["first"],
        outs["last"],
        outs["resets"],
        outs["first_age"],
        outs["last_age"],
    )
    columns = {column: _plain_nan(values[:count]) for column, values in outs.items()}
    stale_offsets = np.zeros_like(offsets)
    stale_t = np.empty(len(windows.stale_t_ms), dtype=np.int64)
    stale_count = kernels.stale_ends(
        np.ascontiguousarray(windows.stale_offsets),
        np.ascontiguousarray(windows.stale_t_ms),
        offsets,
        t_ms[:count],
        columns["last_age"],
        resolution_ms,
        stale_offsets,
        stale_t,
    )
    return Windows(offsets, t_ms[:count], columns, stale_offsets, stale_t[:stale_count], windows.histograms)


def _plain_nan(values: F64Array) -> F64Array:
    bits = values.view(np.uint64)
    bits[np.isnan(values)] = np.uint64(NAN_BITS)
    return values


def stale_samples(offsets: I64Array, t_ms: I64Array) -> SampleBatch:
    """Stale markers at the given times."""
    values = np.full(len(t_ms), STALE_BITS, dtype=np.uint64).view(np.float64)
    return SampleBatch(offsets, t_ms, values)


def floor_borders(t_ms: I64Array, ranges: Sequence[tuple[int, int, int]]) -> I64Array:
    """Times within one of the disjoint, ascending ranges (lo, hi] of (lo, hi, resolution) moved back to a
    multiple of its resolution."""
    if not ranges:
        return t_ms
    lo, hi, resolution = np.array(ranges, dtype=np.int64).T
    place = np.searchsorted(lo, t_ms, side="left") - 1
    at = np.maximum(place, 0)
    inside = (place >= 0) & (t_ms <= hi[at])
    return np.where(inside, t_ms // resolution[at] * resolution[at], t_ms)
