"""Operators that report what they yield to `promql.heldsamples`; planned only where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from promql.heldsamples import WINDOW, HeldNode
from promql.histogrampool import sample_weight
from promql.matrix import ABSENT, F64Array
from promql.operators.collect import sample_count
from promql.operators.operator import Explain, Piece, RowwiseOperator, ScalarOperator, Series, VectorOperator


def report(node: HeldNode, piece: Piece) -> None:
    """Count a piece of a node's result. Raises TooManySamples."""
    if not node.by_step and node.kind != WINDOW:
        node.add(sample_count(piece.values, piece.histograms))
        return
    here = piece.values.view(np.uint64) != ABSENT.view(np.uint64)
    present, weights = here.sum(axis=0), here.sum(axis=0)
    rows = node.kind == WINDOW and not node.by_window
    if rows:
        node.rows[piece.lo : piece.hi] = here.sum(axis=1)
    if piece.histograms is not None:
        pool, cells = piece.histograms.pool, piece.histograms.index >= 0
        present = present + cells.sum(axis=0)
        each = sample_weight(pool, 1)
        weights = weights + each * cells.sum(axis=0)
        if rows:
            node.rows[piece.lo : piece.hi] += each * cells.sum(axis=1)
    node.add_steps(weights, present)


def announced(child: VectorOperator, node: HeldNode) -> Series:
    """The child's series, of which a node that counts row by row is told the number."""
    series = child.series()
    if node.kind == WINDOW and not node.by_window:
        node.announce(len(series))
    return series


class HeldRows(RowwiseOperator):
    """A row-wise operator."""

    def __init__(self, child: RowwiseOperator, node: HeldNode) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._node = node

    def _announce(self) -> Series:
        return announced(self._child, self._node)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """The child's, reported."""
        piece = self._child.load(lo, hi)
        report(self._node, piece)
        return piece

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()


class HeldPieces(VectorOperator):
    """Any other vector operator."""

    def __init__(self, child: VectorOperator, node: HeldNode) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._node = node

    def _announce(self) -> Series:
        return announced(self._child, self._node)

    def batches(self) -> Iterator[Piece]:
        """The child's, reported."""
        self.series()
        for piece in self._child.batches():
            report(self._node, piece)
            yield piece

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()


class HeldScalar(ScalarOperator):
    """A scalar: one sample a step."""

    def __init__(self, child: ScalarOperator, node: HeldNode) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._node = node

    def values(self) -> F64Array:
        """The child's, reported."""
        values = self._child.values()
        ones = np.ones(len(values), dtype=np.int64)
        self._node.add_steps(ones, ones)
        return values

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()


def held(operator: VectorOperator, node: HeldNode) -> VectorOperator:
    """The operator with its cells reported."""
    if isinstance(operator, RowwiseOperator):
        return HeldRows(operator, node)
    return HeldPieces(operator, node)
