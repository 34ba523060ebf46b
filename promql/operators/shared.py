"""One evaluation for equal sub-expressions on the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promql.operators.collect import Collected, CollectedOperator, collect
from promql.operators.operator import Explain, Piece, Series, VectorOperator

SHARED_CELLS_MAX = 1 << 23
"""Cells up to which a shared expression is held (64 MiB); above it each use evaluates for itself, so that an
aggregation over it can still stream."""


@dataclass(slots=True)
class SharedCell:
    """What the uses of one expression have in common."""

    rows: Collected | None = None


class SharedOperator(VectorOperator):
    """One use of a shared expression: the first evaluates and leaves the rows for the others."""

    def __init__(self, child: VectorOperator, cell: SharedCell) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._cell = cell

    def _announce(self) -> Series:
        if self._cell.rows is None:
            series = self._child.series()
            if len(series) * self.grid.steps > SHARED_CELLS_MAX:
                return series
            self._cell.rows = collect(self._child)
        return self._cell.rows.series

    def batches(self) -> Iterator[Piece]:
        """Copies of the shared rows, or the child's own pieces."""
        self.series()
        if self._cell.rows is None:
            yield from self._child.batches()
        else:
            yield from CollectedOperator(self.ctx, self._cell.rows).batches()

    def explain(self) -> Explain:
        """The child's plan below."""
        return Explain("Shared", "", (self._child.explain(),))
