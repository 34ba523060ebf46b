"""sum, avg, count, min, max, group, stddev, stdvar, quantile: rows reduced to groups as they arrive.

Each piece of the child is added to accumulators f64[G, K] and dropped, so memory is groups x steps and one
batch, however many series there are. Only quantile has to see all rows of a group at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from promql.annotations import for_metric, quoted
from promql.ast import AggregateExpr
from promql.kernels import aggregate as kernels
from promql.matrix import ABSENT, BoolArray, F64Array, HistogramCells
from promql.operators.collect import absent_cells, collect
from promql.operators.histogramaggregate import HistogramTotals
from promql.operators.operator import Explain, Piece, ScalarOperator, Series, VectorOperator
from promql.operators.window import warn_of_quantiles
from tsdb.labels import METRIC_NAME
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]


QUANTILE_CELLS_MAX = 1 << 21
"""Cells between two looks at the cancel flag: 20 to 80 ms."""


def grouping_names(expr: AggregateExpr) -> tuple[str, ...]:
    """The names that group: those of by(), or those of without() and the metric name."""
    return (*expr.grouping, METRIC_NAME) if expr.without else expr.grouping


def group_series(series: Series, expr: AggregateExpr) -> tuple[I64Array, SeriesLabels, BoolArray]:
    """Group of each row i64[S], the groups' label sets, and their delayed-removal flags (set if any
    member's is)."""
    names = grouping_names(expr)
    if not names and not expr.without:
        groups = np.zeros(len(series), dtype=np.int64)
        none = np.empty(0, dtype=np.uint32)
        count = min(len(series), 1)
        labels = SeriesLabels(np.zeros(count + 1, dtype=np.int64), none, none, series.labels.symbols)
    else:
        groups, labels = series.labels.group_ids(names, without=expr.without)
    drop = np.zeros(len(labels), dtype=np.bool_)
    drop[groups[series.drop_name]] = True
    return groups, labels, drop


class Accumulators:
    """Float accumulators of one aggregation: add pieces, then take the result f64[G, K]."""

    def __init__(self, op: str, groups: int, steps: int) -> None:
        self._op = op
        self.main = absent_cells(groups, steps)
        shape = (groups, steps)
        self._comp = np.zeros(shape) if op in ("sum", "avg") else None
        self._mean = np.zeros(shape) if op in ("stddev", "stdvar") else None
        self._count = np.zeros(shape) if op in ("avg", "stddev", "stdvar") else None

    def add(self, group: I64Array, values: F64Array) -> None:
        """Add rows; `group` i64[R] tells where."""
        op = self._op
        if op == "sum":
            assert self._comp is not None
            kernels.accumulate_sum(group, values, self.main, self._comp)
        elif op == "avg":
            assert self._comp is not None
            assert self._count is not None
            kernels.accumulate_mean(group, values, self.main, self._comp, self._count)
        elif op in ("min", "max"):
            kernels.accumulate_extreme(group, values, self.main, int(op == "max"))
        elif op in ("count", "group"):
            kernels.accumulate_count(group, values, self.main, int(op == "group"))
        else:
            assert self._mean is not None
            assert self._count is not None
            kernels.accumulate_variance(group, values, self.main, self._mean, self._count)

    def add_histograms(self, group: I64Array, cells: HistogramCells) -> None:
        """count and group see histograms as samples like any other."""
        kernels.accumulate_count_histograms(group, cells.index, self.main, int(self._op == "group"))

    def finish(self) -> F64Array:
        """The result; the accumulators are used up."""
        if self._op == "sum" and self._comp is not None:
            kernels.finish_sum(self.main, self._comp)
        elif self._op == "avg" and self._comp is not None and self._count is not None:
            kernels.finish_mean(self.main, self._comp, self._count)
        elif self._mean is not None and self._count is not None:
            kernels.finish_variance(self.main, self._count, int(self._op == "stddev"))
        return self.main


class Aggregate(VectorOperator):
    """A streaming aggregation."""

    def __init__(self, expr: AggregateExpr, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._expr = expr
        self._child = child
        self._groups = np.empty(0, dtype=np.int64)
        self._ignored = False

    def _announce(self) -> Series:
        self._groups, labels, drop = group_series(self._child.series(), self._expr)
        return Series(labels, drop)

    def batches(self) -> Iterator[Piece]:
        """One piece: all groups."""
        groups, steps = len(self.series()), self.grid.steps
        held = groups * steps * 8 * 3
        self.ctx.budget.hold_bytes(held)
        totals = Accumulators(self._expr.op, groups, steps)
        summed: HistogramTotals | None = None
        for piece in self._child.batches():
            rows = self._groups[piece.lo : piece.hi]
            totals.add(rows, piece.values)
            if piece.histograms is None:
                continue
            if self._expr.op in ("count", "group"):
                totals.add_histograms(rows, piece.histograms)
            elif self._expr.op in ("sum", "avg"):
                if summed is None:
                    summed = self._histogram_totals(groups, steps)
                summed.add(piece.lo, piece.histograms)
            else:
                self._report_ignored(piece.histograms)
        values = totals.finish()
        cells = None if summed is None else self._finish_histograms(values, summed)
        self.ctx.budget.release_bytes(held)
        yield Piece(0, values, cells)

    def _report_ignored(self, cells: HistogramCells) -> None:
        if not self._ignored and (cells.index >= 0).any():
            self._ignored = True
            text = f"ignored histogram in {self._expr.op} aggregation"
            self.ctx.annotations.info(text, self._expr.expr.pos)

    def _histogram_totals(self, groups: int, steps: int) -> HistogramTotals:
        names = self._child.series().labels.column(METRIC_NAME)

        def note(row: int, kind: str, text: str) -> None:
            name = self.ctx.symbols.text(int(names[row]))
            add = self.ctx.annotations.warn if kind == "warn" else self.ctx.annotations.info
            full = text.replace("{name}", quoted(name)).replace("{for_metric}", for_metric(name))
            add(full, self._expr.expr.pos)

        return HistogramTotals(self._expr.op, self._groups, groups, steps, self.ctx.budget, note)

    def _finish_histograms(self, values: F64Array, summed: HistogramTotals) -> HistogramCells | None:
        here = summed.here
        mixed = here & (values.view(np.uint64) != ABSENT.view(np.uint64))
        if mixed.any():
            text = "encountered a mix of histograms and floats for aggregation"
            self.ctx.annotations.warn(text, self._expr.expr.pos)
            values[mixed] = ABSENT
        return summed.finish(here & ~mixed)

    def explain(self) -> Explain:
        """Operator, grouping and child."""
        return Explain("Aggregate", describe(self._expr), (self._child.explain(),))


class Quantile(VectorOperator):
    """quantile(q, v): holds all rows."""

    def __init__(self, expr: AggregateExpr, child: VectorOperator, q: ScalarOperator) -> None:
        super().__init__(child.ctx)
        self._expr = expr
        self._child = child
        self._q = q
        self._groups = np.empty(0, dtype=np.int64)

    def _announce(self) -> Series:
        self._groups, labels, drop = group_series(self._child.series(), self._expr)
        return Series(labels, drop)

    def batches(self) -> Iterator[Piece]:
        """One piece: all groups."""
        series = self.series()
        q = np.ascontiguousarray(self._q.values())
        assert self._expr.param is not None
        warn_of_quantiles(q, self.ctx.annotations.warn, self._expr.param.pos)
        rows = collect(self._child)
        if rows.histograms is not None and (rows.histograms.index >= 0).any():
            self.ctx.annotations.info("ignored histogram in quantile aggregation", self._expr.expr.pos)
        out = absent_cells(len(series), self.grid.steps)
        order = np.argsort(self._groups, kind="stable")
        bounds = np.searchsorted(self._groups[order], np.arange(len(series) + 1))
        bounds = bounds.astype(np.int64)
        steps = self.grid.steps
        stride = max(kernels.TILE_STEPS, QUANTILE_CELLS_MAX // max(len(rows.values), 1))
        for first in range(0, steps, stride):
            self.ctx.budget.check()
            here = min(stride, steps - first)
            kernels.quantile_of_groups(order, bounds, rows.values, q, first, here, out)
        rows.release(self.ctx)
        yield Piece(0, out)

    def explain(self) -> Explain:
        """Grouping, parameter and child."""
        return Explain("Quantile", describe(self._expr), (self._child.explain(), self._q.explain()))


def describe(expr: AggregateExpr) -> str:
    """`sum by (job)` for explain."""
    word = "without" if expr.without else "by"
    return f"{expr.op} {word} ({', '.join(expr.grouping)})" if expr.grouping or expr.without else expr.op
