"""Subqueries, and step-invariant expressions.

A subquery evaluates its child on a grid of its own, aligned to absolute multiples of the step, and turns the
cells back into samples for window functions. A step-invariant expression is evaluated at one step and
repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promql.ast import SubqueryExpr
from promql.context import EvalContext
from promql.histogrampool import batch_of, pool_of, take_pool
from promql.kernels import subquery as kernels
from promql.matrix import F64Array, Grid, HistogramCells
from promql.operators.collect import rowwise
from promql.operators.operator import (
    Explain,
    Piece,
    RangeOperator,
    RangePiece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
    WindowGrid,
    refined,
)
from promql.operators.scan import SelectorTimes
from tsdb.histogram import HistogramBatch, ResetHint
from tsdb.select import SampleBatch
from tsdb.serieslabels import SeriesLabels


def subquery_grid(times: SelectorTimes, range_ms: int, step_ms: int) -> Grid:
    """Inner evaluation times: multiples of the step, the first strictly after the first window's start.
    May have no steps."""
    start = (times.first_ms - range_ms) // step_ms * step_ms + step_ms
    steps = (times.last_ms - start) // step_ms + 1 if times.last_ms >= start else 0
    return Grid(start, step_ms, steps)


class Subquery(RangeOperator):
    """Range vectors from an instant-vector child on `ctx.grid` of the child."""

    def __init__(
        self,
        ctx: EvalContext,
        expr: SubqueryExpr,
        child: VectorOperator,
        times: SelectorTimes,
        range_ms: int,
    ) -> None:
        super().__init__(ctx)
        self.window = WindowGrid(times.first_ms, times.step_ms, times.steps, range_ms, ctx.grid)
        self._expr = expr
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return self._child.series()

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's, cut for the cells of the windows."""
        return refined(self._child.splits(), self.window.steps)

    def samples_a_window(self) -> int:
        """Inner steps in the range."""
        return self.window.range_ms // self._child.grid.step_ms

    def load(self, lo: int, hi: int) -> RangePiece:
        """The child's cells as samples."""
        piece = self._child.load(lo, hi)
        grid = self._child.grid
        values = np.ascontiguousarray(piece.values)
        offsets = np.empty(len(values) + 1, dtype=np.int64)
        t_ms = np.empty(values.size, dtype=np.int64)
        flat = np.empty(values.size)
        n = kernels.cells_to_samples(values, grid.start_ms, grid.step_ms, offsets, t_ms, flat)
        histograms = None if piece.histograms is None else histogram_samples(piece.histograms, grid)
        return RangePiece(lo, SampleBatch(offsets, t_ms[:n], flat[:n], None, histograms))

    def explain(self) -> Explain:
        """Range, inner grid and child."""
        grid = self._child.grid
        text = f"range={self.window.range_ms}ms inner={grid.start_ms}..{grid.end_ms}ms step={grid.step_ms}ms"
        return Explain("Subquery", text, (self._child.explain(),))


def histogram_samples(cells: HistogramCells, grid: Grid) -> HistogramBatch | None:
    """Histogram cells as samples of rows. A cell's reset hint speaks about the sample before it in the store,
    which need not be the one before it here: hints other than gauge become unknown."""
    rows, steps = np.nonzero(cells.index >= 0)
    if not len(rows):
        return None
    picked = cells.index[rows, steps]
    taken = batch_of(take_pool(pool_of(cells.pool), picked))
    offsets = np.searchsorted(rows, np.arange(len(cells.index) + 1)).astype(np.int64)
    hints = np.where(
        taken.reset_hint == ResetHint.GAUGE, taken.reset_hint, np.uint8(ResetHint.UNKNOWN)
    ).astype(np.uint8)
    return replace(
        taken,
        row_offsets=offsets,
        t_ms=grid.start_ms + steps.astype(np.int64) * grid.step_ms,
        reset_hint=hints,
    )


class EmptyVector(RowwiseOperator):
    """No series: a sub-tree on a grid without steps."""

    def _announce(self) -> Series:
        labels = SeriesLabels.from_labels([], self.ctx.symbols)
        return Series(labels, np.zeros(0, dtype=np.bool_))

    def splits(self) -> Sequence[tuple[int, int]]:
        """None."""
        return []

    def load(self, lo: int, hi: int) -> Piece:
        """Never called: there are no splits."""
        raise AssertionError("an empty vector has no rows")

    def explain(self) -> Explain:
        """Its name."""
        return Explain("Empty")


class Repeat(RowwiseOperator):
    """A child that was evaluated at one step, at every step of the grid."""

    def __init__(self, ctx: EvalContext, child: VectorOperator) -> None:
        super().__init__(ctx)
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return self._child.series()

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's, cut for the repeated rows."""
        return refined(self._child.splits(), self.grid.steps)

    def load(self, lo: int, hi: int) -> Piece:
        """The child's column, repeated."""
        piece = self._child.load(lo, hi)
        steps = self.grid.steps
        cells = piece.histograms
        if cells is not None:
            cells = HistogramCells(np.repeat(cells.index, steps, axis=1), cells.pool)
        return Piece(lo, np.repeat(piece.values, steps, axis=1), cells)

    def explain(self) -> Explain:
        """The child's plan below."""
        return Explain("StepInvariant", "", (self._child.explain(),))


class RepeatScalar(ScalarOperator):
    """A scalar that was evaluated at one step, at every step of the grid."""

    def __init__(self, ctx: EvalContext, child: ScalarOperator) -> None:
        super().__init__(ctx)
        self._child = child

    def values(self) -> F64Array:
        """The one value, repeated."""
        return np.repeat(self._child.values(), self.grid.steps)

    def explain(self) -> Explain:
        """The child's plan below."""
        return Explain("StepInvariant", "", (self._child.explain(),))
