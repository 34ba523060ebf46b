"""Holding all rows of an operator at once, for operators that cannot work piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promql.context import EvalContext
from promql.histogrampool import concat_cells, sample_weight
from promql.kernels import aggregate as kernels
from promql.matrix import ABSENT, BoolArray, F64Array, HistogramCells, I32Array
from promql.operators.operator import Explain, Piece, RowwiseOperator, Series, VectorOperator

NO_CELLS: I32Array = np.empty((0, 0), dtype=np.int32)
"""What kernels get as histogram index where there are no histograms."""


@dataclass(frozen=True, slots=True)
class Collected:
    """All rows of an operator: `values` f64[S, K] and histogram cells over one pool."""

    series: Series
    values: F64Array
    histograms: HistogramCells | None

    def index(self) -> I32Array:
        """Histogram index i32[S, K], or i32[0, 0] without histograms, as kernels take it."""
        return NO_CELLS if self.histograms is None else self.histograms.index

    def present(self) -> BoolArray:
        """bool[S]: rows with a sample at any step."""
        return rows_present(self.values, self.histograms)

    def float_rows(self) -> BoolArray:
        """bool[S]: rows with a float at any step."""
        return rows_present(self.values, None)

    def histogram_rows(self) -> BoolArray:
        """bool[S]: rows with a histogram at any step."""
        if self.histograms is None:
            return np.zeros(len(self.values), dtype=np.bool_)
        return np.asarray((self.histograms.index >= 0).any(axis=1))

    def release(self, ctx: EvalContext) -> None:
        """Give the memory back to the budget."""
        ctx.budget.release_bytes(self.values.nbytes)


def absent_cells(rows: int, steps: int) -> F64Array:
    """f64[rows, steps] without a sample."""
    return np.full((rows, steps), ABSENT)


def rows_present(values: F64Array, histograms: HistogramCells | None) -> BoolArray:
    """bool[R]: rows with a float or a histogram at any step."""
    seen = np.zeros(len(values), dtype=np.uint8)
    kernels.rows_present(values, seen)
    out = seen.view(np.bool_)
    if histograms is not None:
        out |= (histograms.index >= 0).any(axis=1)
    return out


def sample_count(values: F64Array, histograms: HistogramCells | None) -> int:
    """Samples of cells as --query.max-samples counts them."""
    count = kernels.count_present(values)
    if histograms is not None:
        count += sample_weight(histograms.pool, int((histograms.index >= 0).sum()))
    return count


def collect(operator: VectorOperator) -> Collected:
    """Evaluate an operator and hold all rows, counted against the budget."""
    ctx = operator.ctx
    series = operator.series()
    if isinstance(operator, CollectedOperator):
        return operator.collected
    rows, steps = len(series), operator.grid.steps
    ctx.budget.hold_bytes(rows * steps * 8)
    values: F64Array | None = None
    parts: list[tuple[int, HistogramCells | None]] = []
    for piece in operator.batches():
        if piece.lo == 0 and piece.hi == rows:
            values = piece.values
        else:
            if values is None:
                values = np.empty((rows, steps))
            values[piece.lo : piece.hi] = piece.values
        parts.append((piece.lo, piece.histograms))
    if values is None:
        values = absent_cells(rows, steps)
    histograms = concat_cells(parts, rows, steps)
    return Collected(series, values, histograms)


class CollectedOperator(RowwiseOperator):
    """Rows that are already there, as an operator."""

    def __init__(self, ctx: EvalContext, collected: Collected) -> None:
        super().__init__(ctx)
        self.collected = collected

    def _announce(self) -> Series:
        return self.collected.series

    def splits(self) -> Sequence[tuple[int, int]]:
        """One run of all rows."""
        return [(0, len(self.collected.series))]

    def load(self, lo: int, hi: int) -> Piece:
        """A copy of the rows; the receiver may overwrite it."""
        cells = self.collected.histograms
        part = None if cells is None else HistogramCells(cells.index[lo:hi].copy(), cells.pool)
        return Piece(lo, self.collected.values[lo:hi].copy(), part)

    def explain(self) -> Explain:
        """Only for completeness: plans show the operator that was collected."""
        return Explain("Collected")


class BufferedOperator(RowwiseOperator):
    """Makes any operator row-wise by collecting it when its series are announced."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._rows: Collected | None = None

    def _announce(self) -> Series:
        self._rows = collect(self._child)
        return self._rows.series

    def splits(self) -> Sequence[tuple[int, int]]:
        """One run of all rows."""
        return [(0, len(self.series()))]

    def load(self, lo: int, hi: int) -> Piece:
        """The collected rows themselves."""
        rows = self._rows
        assert rows is not None, "announced before loading"
        cells = rows.histograms
        part = None if cells is None else HistogramCells(cells.index[lo:hi], cells.pool)
        return Piece(lo, rows.values[lo:hi], part)

    def explain(self) -> Explain:
        """The child's plan: buffering is not a step of its own."""
        return self._child.explain()


def rowwise(operator: VectorOperator) -> RowwiseOperator:
    """The operator itself if its rows are independent, else a buffer over it."""
    return operator if isinstance(operator, RowwiseOperator) else BufferedOperator(operator)
