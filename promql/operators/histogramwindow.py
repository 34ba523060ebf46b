"""Range functions over histograms: what `operators.window` calls for windows that hold any.

Windows that mix floats and histograms are sorted out before; here a window's floats matter only to changes
and resets. Reports go to `note(row, kind, text)` with `{name}` and `{for_metric}` to be filled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.contiguous import contiguous
from promql.histogrampool import batch_of, joined_cells, pool_of
from promql.histogramresets import resets_and_runs
from promql.histogramsums import combined
from promql.kernels import histogramcombine, histogramextended, histogramrate
from promql.kernels.histogramarith import neighbours
from promql.kernels.histogrampool import Pool
from promql.matrix import BoolArray, F64Array, HistogramCells
from promql.operators.histogramplain import plain_rates
from promql.operators.operator import RangePiece, WindowGrid
from tsdb.histogram import HistogramBatch

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]
Note = Callable[[int, str, str], None]

_MIXED_BUCKETS = (
    "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name}"
)
_RATE_NOTES = (
    (histogramrate.MIXED_BUCKETS, "warn", _MIXED_BUCKETS),
    (histogramrate.NOT_COUNTER, "warn", "this native histogram metric is not a counter: {name}"),
    (histogramrate.NOT_GAUGE, "warn", "this native histogram metric is not a gauge: {name}"),
    (histogramrate.RECONCILED_SUB, "info", "mismatched custom buckets were reconciled during subtraction"),
    (histogramrate.RECONCILED_ADD, "info", "mismatched custom buckets were reconciled during addition"),
)
COMBINE_NOTES = (
    (histogramcombine.INCOMPATIBLE, "warn", _MIXED_BUCKETS),
    (histogramcombine.COLLISION, "warn", "conflicting counter resets during histogram aggregation"),
    (histogramcombine.RECONCILED, "info", "mismatched custom buckets were reconciled during aggregation"),
)


@dataclass(frozen=True, slots=True)
class WindowResult:
    """`cells` of functions that give histograms, `values` f64[R, K] of those that give floats."""

    cells: HistogramCells | None = None
    values: F64Array | None = None


@dataclass(frozen=True, slots=True)
class Extended:
    """`modifier` is "anchored", "smoothed" or empty; samples count from `lookback_ms` beyond the windows."""

    modifier: str = ""
    lookback_ms: int = 0

    def reach(self, window: WindowGrid) -> WindowGrid:
        """The windows with everything the modifier may look at."""
        if not self.modifier:
            return window
        after = self.lookback_ms if self.modifier == "smoothed" else 0
        return window._replace(
            first_end_ms=window.first_end_ms + after, range_ms=window.range_ms + self.lookback_ms + after
        )


def window_histograms(
    name: str,
    piece: RangePiece,
    window: WindowGrid,
    which: BoolArray,
    note: Note,
    use_start_times: bool = False,
    extended: Extended = Extended(),
) -> WindowResult:
    """Evaluate a range function at the windows `which` bool[R, K]."""
    batch = piece.samples.histograms
    if batch is None:
        return WindowResult()
    if name in ("changes", "resets"):
        values = _transitions(name, piece, batch, window, use_start_times, extended)
        return WindowResult(values=values)
    if name in ("sum_over_time", "avg_over_time"):
        return WindowResult(_combined(name, batch, window, which, note))
    if extended.modifier:
        return WindowResult(_extended_rates(name, batch, window, which, note, extended))
    return WindowResult(_rates(name, batch, window, which, note, use_start_times))


def _report(flags: U8Array, table: tuple[tuple[int, str, str], ...], note: Note) -> None:
    for row in np.flatnonzero(flags).tolist():
        for flag, kind, text in table:
            if flags[row] & flag:
                note(row, kind, text)


def _flat(array: npt.NDArray[np.int64]) -> I64Array:
    return contiguous(array, np.int64)


def start_time_resets(offsets: I64Array, t_ms: I64Array, start_ms: I64Array | None) -> BoolArray:
    """bool[N]: samples whose start time tells of a reset since the sample before: it lies after that sample,
    or on it where that sample has an earlier start of its own (as kernels.starttimes for floats)."""
    out = np.zeros(len(t_ms), dtype=np.bool_)
    if start_ms is None or len(t_ms) < 2:
        return out
    start, start_before, before = start_ms[1:], start_ms[:-1], t_ms[:-1]
    known = (start != 0) & (start < t_ms[1:])
    again = (start == before) & (start_before != 0) & (start_before < before)
    out[1:] = known & ((start > before) | again)
    firsts = offsets[:-1]
    out[firsts[firsts < len(out)]] = False
    return out


def _warn_of_overlaps(rows: I64Array, batch: HistogramBatch, note: Note) -> None:
    """Warn of rows where a sample starts before the one before it ended."""
    starts = batch.start_t_ms
    if starts is None or len(batch) < 2:
        return
    overlaps = np.zeros(len(batch), dtype=np.bool_)
    overlaps[1:] = (starts[1:] != 0) & (starts[1:] < batch.t_ms[:-1]) & (starts[1:] != starts[:-1])
    firsts = rows[:-1]
    overlaps[firsts[firsts < len(batch)]] = False
    for row in np.unique(np.searchsorted(rows, np.flatnonzero(overlaps), side="right") - 1).tolist():
        text = "sample has start time that overlaps with previous sample timestamp for metric {name}"
        note(row, "warn", text)


def _resets(pool: Pool, batch: HistogramBatch, use_start_times: bool) -> U8Array:
    rows = _flat(batch.row_offsets)
    out, _ = resets_and_runs(pool, rows)
    if use_start_times:
        out |= start_time_resets(rows, batch.t_ms, batch.start_t_ms)
    return out


def _rates(
    name: str, batch: HistogramBatch, window: WindowGrid, which: BoolArray, note: Note, use_start_times: bool
) -> HistogramCells:
    if name in ("irate", "idelta"):
        return _last_two(name, batch, window, which, note, use_start_times)
    pool, rows = pool_of(batch), _flat(batch.row_offsets)
    starts = batch.start_t_ms if use_start_times and name != "delta" else None
    reset, run = resets_and_runs(pool, rows, name != "delta")
    if starts is None:
        plain = plain_rates(name, batch, pool, run, window, which)
        _report(plain.flags, _RATE_NOTES, note)
        if plain.others is None:
            return plain.cells
        which = plain.others
    else:
        _warn_of_overlaps(rows, batch, note)
        reset |= start_time_resets(rows, batch.t_ms, starts)
    index = np.empty(which.shape, dtype=np.int32)
    flags = np.empty(len(which), dtype=np.uint8)
    out = histogramrate.extrapolated(
        pool,
        rows,
        _flat(batch.t_ms),
        reset,
        np.zeros(0, dtype=np.int64) if starts is None else _flat(starts),
        np.ascontiguousarray(which),
        window.first_end_ms,
        window.step_ms,
        window.range_ms,
        name != "delta",
        name == "rate",
        index,
        flags,
    )
    _report(flags, _RATE_NOTES, note)
    cells = HistogramCells(index, batch_of(out))
    return cells if starts is not None else joined_cells(plain.cells, cells)


def _last_two(
    name: str, batch: HistogramBatch, window: WindowGrid, which: BoolArray, note: Note, use_start_times: bool
) -> HistogramCells:
    pool, rows = pool_of(batch), _flat(batch.row_offsets)
    index = np.empty(which.shape, dtype=np.int32)
    flags = np.empty(len(which), dtype=np.uint8)
    out = histogramrate.last_two(
        pool,
        rows,
        _flat(batch.t_ms),
        _resets(pool, batch, use_start_times),
        np.ascontiguousarray(which),
        window.first_end_ms,
        window.step_ms,
        window.range_ms,
        name == "irate",
        index,
        flags,
    )
    _report(flags, _RATE_NOTES, note)
    return HistogramCells(index, batch_of(out))


def _extended_rates(
    name: str, batch: HistogramBatch, window: WindowGrid, which: BoolArray, note: Note, extended: Extended
) -> HistogramCells:
    pool, rows = pool_of(batch), _flat(batch.row_offsets)
    index = np.empty(which.shape, dtype=np.int32)
    flags = np.empty(len(which), dtype=np.uint8)
    out = histogramextended.extended_rate(
        pool,
        rows,
        _flat(batch.t_ms),
        _resets(pool, batch, False),
        np.ascontiguousarray(which),
        window.first_end_ms,
        window.step_ms,
        window.range_ms,
        extended.lookback_ms,
        extended.modifier == "smoothed",
        name != "delta",
        name == "rate",
        index,
        flags,
    )
    _report(flags, _RATE_NOTES, note)
    return HistogramCells(index, batch_of(out))


def smoothed_histograms(
    batch: HistogramBatch, first_ms: int, step_ms: int, lookback_ms: int, which: BoolArray, note: Note
) -> HistogramCells:
    """Cells of a smoothed instant selector where `which` bool[R, K]."""
    pool = pool_of(batch)
    index = np.empty(which.shape, dtype=np.int32)
    flags = np.empty(len(which), dtype=np.uint8)
    out = histogramextended.smoothed_cells(
        pool,
        _flat(batch.row_offsets),
        _flat(batch.t_ms),
        _resets(pool, batch, False),
        np.ascontiguousarray(which),
        first_ms,
        step_ms,
        lookback_ms,
        index,
        flags,
    )
    _report(flags, _RATE_NOTES, note)
    return HistogramCells(index, batch_of(out))


def _combined(
    name: str, batch: HistogramBatch, window: WindowGrid, which: BoolArray, note: Note
) -> HistogramCells:
    rows, times = _flat(batch.row_offsets), batch.t_ms
    lo, hi = np.empty(which.shape, dtype=np.int64), np.empty(which.shape, dtype=np.int64)
    ends = window.ends_ms()
    for row in range(len(which)):
        first, last = int(rows[row]), int(rows[row + 1])
        part = times[first:last]
        lo[row] = first + np.searchsorted(part, ends - window.range_ms, side="right")
        hi[row] = first + np.searchsorted(part, ends, side="right")
    hi[~which] = lo[~which]
    members = np.arange(len(batch), dtype=np.int64)
    average = name == "avg_over_time"
    cells, flags = combined(pool_of(batch), members, lo.ravel(), hi.ravel(), average, False)
    _report(np.bitwise_or.reduce(flags.reshape(which.shape), axis=1), COMBINE_NOTES, note)
    return HistogramCells(cells.index.reshape(which.shape), cells.pool)


def _transitions(
    name: str,
    piece: RangePiece,
    batch: HistogramBatch,
    window: WindowGrid,
    use_start_times: bool,
    extended: Extended,
) -> F64Array:
    samples = piece.samples
    pool = pool_of(batch)
    rows = _flat(batch.row_offsets)
    if name == "resets":
        differs = _resets(pool, batch, use_start_times)
    else:
        differs = np.empty(len(batch), dtype=np.uint8)
        neighbours(pool, rows, True, differs)
    offsets, times = _flat(samples.offsets), _flat(samples.t_ms)
    starts = samples.start_t_ms if use_start_times and name == "resets" else None
    float_reset = start_time_resets(offsets, times, starts).astype(np.uint8)
    out = np.empty((len(samples), window.steps))
    histogramrate.transitions(
        offsets,
        times,
        contiguous(samples.values, np.float64),
        rows,
        _flat(batch.t_ms),
        differs,
        float_reset,
        window.first_end_ms,
        window.step_ms,
        window.range_ms,
        extended.lookback_ms,
        name == "resets",
        out,
    )
    return out
