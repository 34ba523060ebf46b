"""Functions of native histograms that give one number each, and the builders of all histogram functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from promql.ast import Call
from promql.histogrampool import pool_of
from promql.kernels import histogram as kernels
from promql.looks import look
from promql.matrix import F64Array, HistogramCells
from promql.operators.collect import absent_cells, rowwise
from promql.operators.histogramquantile import (
    RUN_CELLS,
    HistogramFraction,
    HistogramQuantile,
    HistogramQuantiles,
)
from promql.operators.merge import checked
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Piece,
    RowwiseOperator,
    Series,
    VectorOperator,
    drop_metadata,
)

_FIELDS = {"histogram_count": 0, "histogram_sum": 1, "histogram_avg": 2}


def _field(name: str) -> Callable[[HistogramCells, F64Array], None]:
    def fill(cells: HistogramCells, out: F64Array) -> None:
        kernels.fields(pool_of(cells.pool), out, np.ascontiguousarray(cells.index), _FIELDS[name])

    return fill


def _variance(root: bool) -> Callable[[HistogramCells, F64Array], None]:
    def fill(cells: HistogramCells, out: F64Array) -> None:
        here = cells.index >= 0
        result = np.empty(int(np.count_nonzero(here)))
        pool, asked = pool_of(cells.pool), cells.index[here]
        for at in range(0, len(asked), RUN_CELLS):
            look()
            run = slice(at, at + RUN_CELLS)
            kernels.variances(pool, asked[run], result[run])
        if root:
            with np.errstate(invalid="ignore"):
                result = np.sqrt(result)
        out[here] = np.where(np.isnan(result), np.nan, result)

    return fill


NUMBERS: dict[str, Callable[[HistogramCells, F64Array], None]] = {
    **{name: _field(name) for name in _FIELDS},
    "histogram_stddev": _variance(True),
    "histogram_stdvar": _variance(False),
}


class HistogramNumber(RowwiseOperator):
    """histogram_count, _sum, _avg, _stddev, _stdvar: one float a histogram; floats fall out."""

    def __init__(self, name: str, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._name = name
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Numbers of the child's histograms."""
        piece = self._child.load(lo, hi)
        out = absent_cells(*piece.values.shape)
        if piece.histograms is not None:
            NUMBERS[self._name](piece.histograms, out)
        return Piece(piece.lo, out)

    def explain(self) -> Explain:
        """Function and child."""
        return Explain("HistogramNumber", self._name, (self._child.explain(),))


def _number(call: Call, builder: Builder) -> VectorOperator:
    return checked(HistogramNumber(call.function, builder.vector(call.args[0])))


def _quantile(call: Call, builder: Builder) -> VectorOperator:
    q, vector = call.args
    child = builder.vector(vector)
    return checked(HistogramQuantile(builder.ctx, builder.scalar(q), child, q.pos, vector.pos))


def _quantiles(call: Call, builder: Builder) -> VectorOperator:
    vector, label, *rest = call.args
    asked = [(builder.scalar(q), q.pos) for q in rest]
    child = builder.vector(vector)
    return checked(HistogramQuantiles(builder.ctx, child, builder.string(label), asked, vector.pos))


def _fraction(call: Call, builder: Builder) -> VectorOperator:
    lower, upper, vector = call.args
    child = builder.vector(vector)
    lowest, highest = builder.scalar(lower), builder.scalar(upper)
    return checked(HistogramFraction(builder.ctx, lowest, highest, child, vector.pos))


FUNCTIONS: dict[str, FunctionBuilder] = {
    **dict.fromkeys(NUMBERS, _number),
    "histogram_quantile": _quantile,
    "histogram_quantiles": _quantiles,
    "histogram_fraction": _fraction,
}
