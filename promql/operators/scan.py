"""Leaves of the plan: instant and range selectors over the store.

A scan announces the selection's series and reads their samples in pieces of bounded size. Windows and
lookback are left-open (prometheus-surface.md 2.3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from promql.annotations import for_metric, quoted
from promql.ast import VectorSelector
from promql.context import EvalContext
from promql.contiguous import contiguous
from promql.engineerrors import StorageReadError
from promql.histogramhints import resolve_hints
from promql.kernels import extended
from promql.kernels import rollup as rollup_kernels
from promql.kernels import scan as kernels
from promql.limits import AT_ONCE_SERIES_MAX
from promql.matrix import ABSENT, F64Array, Grid, HistogramCells
from promql.operators.operator import (
    PIECE_CELLS_MAX,
    PIECE_WORK_MAX,
    Explain,
    Piece,
    RangeOperator,
    RangePiece,
    RowwiseOperator,
    Series,
    WindowGrid,
)
from promql.operators.rollups import (
    LAST_ONLY,
    ROLLED_FUNCTIONS,
    RolledRows,
    common_border_ms,
    moved_borders,
)
from promql.operators.samplereads import SHARED_ROWS_MIN, read, read_latest, read_shared, read_values
from promql.operators.samples import clean, gather, values_at
from promql.operators.sharedwindow import ColumnWindows
from tsdb.errors import NotAtOnceError, StorageError
from tsdb.labels import METRIC_NAME
from tsdb.select import (
    STALE_BITS,
    LookBack,
    Rollup,
    RowValues,
    SampleBatch,
    SelectHints,
    Selection,
    SharedRows,
    rollup_of,
    shared_rows_of,
    work_bounds_of,
)
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SelectorTimes:
    """Where a selector looks: step k ends at `first_ms + k * step_ms`; `step_ms` 0 where `@` pins it."""

    first_ms: int
    step_ms: int
    steps: int

    @property
    def last_ms(self) -> int:
        """End of the last step."""
        return self.first_ms + self.step_ms * (self.steps - 1)


PIECES_MIN = 16
"""Pieces of a selection that has more than one, unless they became smaller than a fourth of PIECE_WORK_MAX:
what is read at a time is most of the memory of such a query, and their fixed cost is at most 2 ms more."""

PINNED_MS_MAX = 1 << 62


def selector_times(grid: Grid, offset_ms: int, at_ms: int | None) -> SelectorTimes:
    """Take offset and `@` into account."""
    if at_ms is not None:
        # The parser lets times pass that no sample can have; with offset and range they must fit an i64.
        at_ms = max(-PINNED_MS_MAX, min(at_ms, PINNED_MS_MAX))
        return SelectorTimes(at_ms - offset_ms, 0, grid.steps)
    return SelectorTimes(grid.start_ms - offset_ms, grid.step_ms, grid.steps)


def step_ends(times: SelectorTimes) -> I64Array:
    """i64[steps]: where each step looks."""
    return times.first_ms + times.step_ms * np.arange(times.steps, dtype=np.int64)


def _moving_step(times: SelectorTimes) -> int:
    """The step, 0 where there is nothing but the first."""
    return times.step_ms if times.steps > 1 else 0


def at_once(ctx: EvalContext) -> int:
    """Series a select may find: `SelectHints.at_once`."""
    return AT_ONCE_SERIES_MAX if ctx.budget.at_once else 0


def select(ctx: EvalContext, selector: VectorSelector, mint: int, maxt: int, hints: SelectHints) -> Selection:
    """Ask the store; its failures become StorageReadError."""
    ctx.budget.check()
    if not ctx.budget.at_once:
        hints = hints.checked(ctx.budget.check)
    elif not hints.at_once:
        hints = hints.aimed(hints.border_ms, hints.latest_only, at_once(ctx))
    try:
        return ctx.querier.select(selector.matchers, mint, maxt, hints)
    except NotAtOnceError:
        raise
    except StorageError as error:
        raise StorageReadError(str(error)) from error


def announced(ctx: EvalContext, selection: Selection, sample_count: int) -> Series:
    """The selection's series with the query's own symbols; of its bounds the sum is known."""
    labels, symbols = selection.labels, ctx.symbols
    cells = len(labels) * ctx.grid.steps
    ctx.budget.expect(cells)
    ctx.budget.begin(cells + sample_count)
    names, values = symbols.own_ids(labels.name_ids), symbols.own_ids(labels.value_ids)
    memo = labels.memo if names is labels.name_ids and values is labels.value_ids else None
    own = SeriesLabels(labels.offsets, names, values, symbols, memo)
    return Series(own, np.zeros(len(own), dtype=np.bool_))


def split_rows(bounds: I64Array, steps: int) -> list[tuple[int, int]]:
    """Runs of rows whose samples and cells stay near PIECE_WORK_MAX, and cells near PIECE_CELLS_MAX; a single
    row may exceed them."""
    count = len(bounds)
    if not count:
        return []
    cells = count * (steps + 1)
    work = int(bounds.sum()) + cells
    if work <= PIECE_WORK_MAX // 2:
        return [(0, count)]
    done = np.cumsum(bounds + (steps + 1))
    small = min(PIECES_MIN, -(-4 * work // PIECE_WORK_MAX))
    pieces = max(-(-work // PIECE_WORK_MAX), -(-cells // PIECE_CELLS_MAX), small)
    marks = np.arange(1, pieces, dtype=np.int64) * work // pieces
    cuts = sorted({0, *(np.searchsorted(done, marks) + 1).tolist(), count})
    return list(itertools.pairwise(cuts))


class VectorScan(RowwiseOperator):
    """Instant selector: the latest sample within the lookback at every step.

    `want` is "value", or "time" / "start_time" for timestamp() and start_timestamp() (seconds)."""

    def __init__(
        self,
        ctx: EvalContext,
        selector: VectorSelector,
        times: SelectorTimes,
        hints: SelectHints,
        want: str = "value",
    ) -> None:
        super().__init__(ctx)
        self._selector = selector
        self._times = times
        self._hints = hints
        self._want = want
        self._selection: Selection | None = None
        self._ends_ms: I64Array | None = None
        self._latest_rows: SharedRows | None = None
        self._windows: ColumnWindows | None = None
        self._bounds = np.empty(0, dtype=np.int64)
        self.resolve_hints = False
        """Whether unknown reset hints are worked out (promql.histogramhints); set by the planner."""

    def _announce(self) -> Series:
        times, selector = self._times, self._selector
        mint = times.first_ms - self.ctx.lookback_ms + 1
        maxt = times.last_ms + (self.ctx.lookback_ms if selector.smoothed else 0)
        hints = self._hints
        if not selector.smoothed and self._want != "start_time":
            border_ms = common_border_ms(times.first_ms, _moving_step(times))
            # A reset hint is worked out from the sample before.
            latest_only = _moving_step(times) == 0 and not self.resolve_hints
            hints = hints.aimed(border_ms, latest_only, at_once(self.ctx))
        self._selection = select(self.ctx, selector, mint, maxt, hints)
        rollup = rollup_of(self._selection)
        if rollup is not None:
            self._take_rollup(rollup)
        self._bounds = self._selection.sample_bounds()
        if self._only_values():
            self._windows = ColumnWindows(
                WindowGrid(times.first_ms, times.step_ms, times.steps, self.ctx.lookback_ms, self.ctx.grid)
            )
        if self._only_values() and _moving_step(times) and len(self._bounds) >= SHARED_ROWS_MIN:
            rows = shared_rows_of(self._selection)
            if rows is not None:
                self._latest_rows = rows.looking_back(
                    LookBack(times.first_ms, times.step_ms, times.steps, self.ctx.lookback_ms)
                )
        return announced(self.ctx, self._selection, int(self._bounds.sum()))

    def _only_values(self) -> bool:
        """Whether a step takes the newest sample of its lookback, and nothing else."""
        return self._want == "value" and self._ends_ms is None and not self._selector.smoothed

    def _take_rollup(self, rollup: Rollup) -> None:
        """A step inside of roll-ups looks back from the last window that had ended by then."""
        if self._selector.smoothed or self._want == "start_time":
            self.ctx.annotations.info(LAST_ONLY, self._selector.pos)
            return
        ends_ms = step_ends(self._times)
        moved = moved_borders(self.ctx, rollup, ends_ms, self._selector.pos)
        if not np.array_equal(moved, ends_ms):
            self._ends_ms = moved

    def splits(self) -> Sequence[tuple[int, int]]:
        """Runs of rows of bounded size."""
        self.series()
        return split_rows(work_bounds_of(cast(Selection, self._selection)), self._times.steps)

    def load(self, lo: int, hi: int) -> Piece:
        """Read and look back."""
        if self._only_values():
            if self._latest_rows is not None:
                shared = read_latest(self.ctx, self._latest_rows, self._bounds, lo, hi)
            else:
                shared = read_shared(self.ctx, cast(Selection, self._selection), lo, hi)
            if shared is not None:
                assert self._windows is not None
                out = np.empty((len(shared), self._times.steps))
                self._windows.latest(shared, out)
                return Piece(lo, out)
        batch = read(self.ctx, cast(Selection, self._selection), lo, hi, lead=self._ends_ms is not None)
        if self._selector.smoothed and self._want == "value":
            return self._smoothed(lo, clean(batch))
        if self._want == "value" and batch.histograms is None:
            return Piece(lo, self._values(batch))
        if self._want == "value" and self._ends_ms is None:
            return self._of_both(lo, batch)
        return self._load_by_index(lo, batch)

    def _of_both(self, lo: int, batch: SampleBatch) -> Piece:
        """Of rows with floats and histograms what is newer."""
        pool, times = batch.histograms, self._times
        assert pool is not None
        if self.resolve_hints:
            pool = resolve_hints(pool)
        out = np.empty((len(batch), times.steps))
        index = np.empty((len(batch), times.steps), dtype=np.int32)
        kernels.latest_of_both(
            batch.offsets,
            batch.t_ms,
            batch.values.view(np.uint64),
            contiguous(pool.row_offsets, np.int64),
            contiguous(pool.t_ms, np.int64),
            contiguous(pool.sum, np.float64).view(np.uint64),
            times.first_ms,
            times.step_ms,
            self.ctx.lookback_ms,
            out.view(np.uint64),
            index,
        )
        return Piece(lo, out, HistogramCells(index, pool))

    def _values(self, batch: SampleBatch) -> F64Array:
        times = self._times
        if self._ends_ms is not None:
            return values_at(batch, self._latest(batch.offsets, batch.t_ms, len(batch)))
        out = np.empty((len(batch), times.steps))
        kernels.latest_value(
            batch.offsets,
            batch.t_ms,
            batch.values.view(np.uint64),
            times.first_ms,
            times.step_ms,
            self.ctx.lookback_ms,
            out.view(np.uint64),
        )
        return out

    def _smoothed(self, lo: int, samples: SampleBatch) -> Piece:
        times = self._times
        out = np.empty((len(samples), times.steps))
        extended.smoothed_value(
            samples.offsets,
            samples.t_ms,
            samples.values,
            times.first_ms,
            times.step_ms,
            self.ctx.lookback_ms,
            out,
        )
        if samples.histograms is None:
            return Piece(lo, out)
        return Piece(lo, out, self._smoothed_histograms(lo, samples, out))

    def _smoothed_histograms(self, lo: int, samples: SampleBatch, out: F64Array) -> HistogramCells:
        """Cells of histograms; `out` loses those of lookbacks that hold both kinds."""
        from promql.operators.histogramwindow import smoothed_histograms
        from promql.operators.window import window_counts

        assert samples.histograms is not None
        times, lookback = self._times, self.ctx.lookback_ms
        window = WindowGrid(
            times.first_ms + lookback, times.step_ms, times.steps, 2 * lookback, self.ctx.grid
        )
        floats, histograms = window_counts(samples, window)
        mixed = (floats > 0) & (histograms > 0)
        names = self.series().labels.column(METRIC_NAME)

        def note(row: int, kind: str, text: str) -> None:
            name = self.ctx.symbols.text(int(names[lo + row]))
            full = text.replace("{name}", quoted(name)).replace("{for_metric}", for_metric(name))
            add = self.ctx.annotations.warn if kind == "warn" else self.ctx.annotations.info
            add(full, self._selector.pos)

        for row in np.flatnonzero(mixed.any(axis=1)).tolist():
            note(row, "warn", "encountered a mix of histograms and floats{for_metric}")
        out[mixed] = ABSENT
        return smoothed_histograms(samples.histograms, times.first_ms, times.step_ms, lookback, ~mixed, note)

    def _latest(self, offsets: I64Array, t_ms: I64Array, rows: int) -> I32Array:
        times = self._times
        out = np.empty((rows, times.steps), dtype=np.int32)
        if self._ends_ms is not None:
            rollup_kernels.latest_index_at(offsets, t_ms, self._ends_ms, self.ctx.lookback_ms, out)
            return out
        kernels.latest_index(offsets, t_ms, times.first_ms, times.step_ms, self.ctx.lookback_ms, out)
        return out

    def _load_by_index(self, lo: int, batch: SampleBatch) -> Piece:
        values = self._values(batch)
        latest = self._latest(batch.offsets, batch.t_ms, len(batch))
        float_ms = gather(batch.t_ms, latest, _NEVER_MS)
        cells = None
        chosen_ms, chosen_start = float_ms, batch.start_t_ms
        start_ms = None if chosen_start is None else gather(chosen_start, latest, 0)
        present = np.asarray(values.view(np.uint64) != ABSENT.view(np.uint64))
        pool = batch.histograms
        if pool is not None and self.resolve_hints:
            pool = resolve_hints(pool)
        if pool is not None:
            index = self._latest(
                contiguous(pool.row_offsets, np.int64),
                contiguous(pool.t_ms, np.int64),
                len(batch),
            )
            histogram_ms = gather(pool.t_ms, index, _NEVER_MS)
            newer = histogram_ms > float_ms
            stale = gather(pool.sum.view(np.uint64), index, np.uint64(0)) == np.uint64(STALE_BITS)
            index = np.where(newer & ~stale, index, np.int32(-1))
            values[newer] = ABSENT
            chosen_ms = np.where(newer, histogram_ms, float_ms)
            if start_ms is not None or pool.start_t_ms is not None:
                of_histogram = 0 if pool.start_t_ms is None else gather(pool.start_t_ms, index, 0)
                start_ms = np.where(newer, of_histogram, 0 if start_ms is None else start_ms)
            present = np.where(newer, index >= 0, present)
            cells = HistogramCells(index, pool)
        if self._want == "value":
            return Piece(lo, values, cells)
        if self._want == "start_time":
            chosen_ms = np.zeros_like(chosen_ms) if start_ms is None else start_ms
        return Piece(lo, np.where(present, chosen_ms / 1000.0, ABSENT))

    def explain(self) -> Explain:
        """Matchers and times."""
        return Explain("VectorScan", describe(self._selector, self._times, 0))


class RangeScan(RangeOperator):
    """Range selector. Anchored and smoothed ones read a lookback beyond their windows."""

    def __init__(
        self,
        ctx: EvalContext,
        selector: VectorSelector,
        times: SelectorTimes,
        range_ms: int,
        hints: SelectHints,
    ) -> None:
        super().__init__(ctx)
        self.window = WindowGrid(times.first_ms, times.step_ms, times.steps, range_ms, ctx.grid)
        self.selector = selector
        self._times = times
        self._hints = hints
        self._selection: Selection | None = None
        self._sample_count = 0
        self._rolled = False
        self.resolve_hints = False
        """Whether unknown reset hints are worked out (promql.histogramhints); set by the planner."""

    def _announce(self) -> Series:
        selector, times, lookback = self.selector, self._times, self.ctx.lookback_ms
        before = lookback if selector.anchored or selector.smoothed else 0
        after = lookback if selector.smoothed else 0
        mint = times.first_ms - self.window.range_ms - before + 1
        hints, self._rolled = self._hints, False
        if self._hints.function in ROLLED_FUNCTIONS and not (selector.anchored or selector.smoothed):
            border_ms = common_border_ms(times.first_ms, _moving_step(times), self.window.range_ms)
            hints, self._rolled = hints.aimed(border_ms, hints.latest_only, at_once(self.ctx)), True
        self._selection = select(self.ctx, selector, mint, times.last_ms + after, hints)
        bounds = self._selection.sample_bounds()
        self._sample_count = int(bounds.sum())
        # A function holds a window at a time; without one all windows are the result.
        self.ctx.budget.expect(int(bounds.max(initial=0)) if self._hints.function else self._sample_count)
        if rollup_of(self._selection) is not None and not self._rolled:
            self.ctx.annotations.info(LAST_ONLY, selector.pos)
        self.is_distinct = True
        return announced(self.ctx, self._selection, self._sample_count)

    def splits(self) -> Sequence[tuple[int, int]]:
        """Runs of rows of bounded size."""
        self.series()
        return split_rows(work_bounds_of(cast(Selection, self._selection)), self._times.steps)

    def samples_a_window(self) -> int:
        """The mean, from the selection's bounds."""
        rows = len(self.series())
        span_ms = self.window.range_ms + self.window.step_ms * (self.window.steps - 1)
        return self._sample_count * self.window.range_ms // max(span_ms * rows, 1)

    def load(self, lo: int, hi: int) -> RangePiece:
        """Read, and strip stale markers."""
        rollup = rollup_of(cast(Selection, self._selection)) if self._rolled else None
        if rollup is None:
            return RangePiece(lo, self._samples(lo, hi))
        rolled = RolledRows(self.ctx, rollup, lo, hi, self.selector.pos)
        if rollup.has_histograms:
            return RangePiece(lo, self._samples(lo, hi), rolled)
        none = np.zeros(hi - lo + 1, dtype=np.int64)
        return RangePiece(lo, SampleBatch(none, none[:0], np.empty(0)), rolled)

    def load_shared(self, lo: int, hi: int) -> RowValues | RangePiece:
        """As `load`, timestamps shared where the store has them so; stale markers are then still there."""
        selection = cast(Selection, self._selection)
        if self._rolled and rollup_of(selection) is not None:
            return self.load(lo, hi)
        shared = read_shared(self.ctx, selection, lo, hi)
        if shared is not None:
            return shared
        return RangePiece(lo, self._cleaned(read(self.ctx, selection, lo, hi)))

    def load_values(self, lo: int, hi: int) -> RowValues | RangePiece:
        """As `load`, or values without times where the store has them so."""
        found = read_values(self.ctx, cast(Selection, self._selection), lo, hi)
        return self.load(lo, hi) if found is None else found

    def _samples(self, lo: int, hi: int) -> SampleBatch:
        selection = cast(Selection, self._selection)
        shared = read_shared(self.ctx, selection, lo, hi)
        return self._cleaned(read(self.ctx, selection, lo, hi) if shared is None else shared.timed().batch())

    def _cleaned(self, batch: SampleBatch) -> SampleBatch:
        batch = clean(batch)
        if self.resolve_hints and batch.histograms is not None:
            batch = replace(batch, histograms=resolve_hints(batch.histograms))
        return batch

    def explain(self) -> Explain:
        """Matchers, range and times."""
        return Explain("RangeScan", describe(self.selector, self._times, self.window.range_ms))


_NEVER_MS = -(1 << 62)


def describe(selector: VectorSelector, times: SelectorTimes, range_ms: int) -> str:
    """Details of a scan for `explain`."""
    matchers = ", ".join(str(matcher) for matcher in selector.matchers)
    window = f" range={range_ms}ms" if range_ms else ""
    return f"{{{matchers}}}{window} ends={times.first_ms}..{times.last_ms}ms step={times.step_ms}ms"
