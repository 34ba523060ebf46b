"""and, or, unless: samples kept by whether their match group has a sample on the other side at that step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from promql.ast import BinaryExpr, VectorMatching
from promql.histogrampool import concat_cells
from promql.kernels import aggregate as aggregate_kernels
from promql.kernels import binary as kernels
from promql.matching import Signatures, signatures
from promql.matrix import BoolArray, HistogramCells
from promql.operators.collect import Collected, collect
from promql.operators.merge import merge_equal
from promql.operators.operator import Explain, Piece, Series, VectorOperator
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]


def group_presence(rows: Collected, groups: I64Array, count: int) -> BoolArray:
    """bool[count, K]: groups with a sample at a step."""
    out = np.zeros((count, rows.values.shape[1]), dtype=np.int32)
    kernels.count_by_signature(rows.values, np.ascontiguousarray(rows.index()), groups, out)
    return np.asarray(out > 0)


class SetOperator(VectorOperator):
    """Holds both sides. `and` and `unless` announce the left side's series, `or` those of both."""

    def __init__(self, expr: BinaryExpr, lhs: VectorOperator, rhs: VectorOperator) -> None:
        super().__init__(lhs.ctx)
        self._expr = expr
        self._lhs, self._rhs = lhs, rhs
        self._rows: Collected | None = None

    def _announce(self) -> Series:
        lhs, rhs = collect(self._lhs), collect(self._rhs)
        matching = self._expr.matching or VectorMatching()
        sigs = signatures(lhs.series.labels, rhs.series.labels, matching)
        if self._expr.op == "or":
            self._rows = self._union(lhs, rhs, sigs)
        else:
            there = group_presence(rhs, sigs.one, sigs.count)[sigs.many]
            self._rows = _masked(lhs, there if self._expr.op == "and" else ~there)
        return self._rows.series

    def _union(self, lhs: Collected, rhs: Collected, sigs: Signatures) -> Collected:
        """Rows of the left side and what the right side adds. Equal label sets of both sides are merged: the
        signature keeps them from sharing a step, unless on() or ignoring() lets them."""
        there = group_presence(lhs, sigs.many, sigs.count)[sigs.one]
        rest = _masked(rhs, ~there)
        labels = SeriesLabels.concat([lhs.series.labels, rest.series.labels], self.ctx.symbols)
        drop = np.concatenate([lhs.series.drop_name, rest.series.drop_name])
        values = np.concatenate([lhs.values, rest.values])
        parts = [(0, lhs.histograms), (len(lhs.values), rest.histograms)]
        cells = concat_cells(parts, len(values), self.grid.steps)
        both = Collected(Series(labels, drop), values, cells)
        return both if self.grid.steps == 1 else merge_equal(both, flags_merge=True)

    def batches(self) -> Iterator[Piece]:
        """The result."""
        self.series()
        assert self._rows is not None
        yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """Operator and operands."""
        return Explain("SetOperator", self._expr.op, (self._lhs.explain(), self._rhs.explain()))


def _masked(rows: Collected, keep: BoolArray) -> Collected:
    """Rows with cells blanked where `keep` is false."""
    aggregate_kernels.blank_unless(rows.values, np.ascontiguousarray(keep).view(np.uint8))
    cells = rows.histograms
    if cells is not None:
        cells = HistogramCells(np.where(keep, cells.index, np.int32(-1)), cells.pool)
    return Collected(rows.series, rows.values, cells)
