"""Selectors that count what each step looks at, for `stats`; planned only where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promql.heldsamples import HeldNode
from promql.histogrampool import sample_weight
from promql.matrix import ABSENT
from promql.operators.operator import Explain, Piece, RangeOperator, RangePiece, RowwiseOperator, Series
from promql.operators.window import window_counts
from promql.stepcounts import StepCounts


class CountedVector(RowwiseOperator):
    """An instant selector: one sample a cell, a native histogram as its size in units of 16 bytes."""

    def __init__(self, child: RowwiseOperator, counts: StepCounts) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._counts = counts

    def _announce(self) -> Series:
        return self._child.series()

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """The child's, counted."""
        piece = self._child.load(lo, hi)
        self._counts.add((piece.values.view(np.uint64) != ABSENT.view(np.uint64)).sum(axis=0))
        if piece.histograms is not None:
            each = (piece.histograms.index >= 0).sum(axis=0)
            weights = [sample_weight(piece.histograms.pool, count) for count in each.tolist()]
            self._counts.add(np.array(weights, dtype=np.int64))
        return piece

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()


class CountedRange(RangeOperator):
    """A range selector or subquery: the samples of each window."""

    def __init__(self, child: RangeOperator, counts: StepCounts | None, node: HeldNode) -> None:
        """`node` is told of the windows that the function above holds at a time."""
        super().__init__(child.ctx)
        self.window = child.window
        self._child = child
        self._counts = counts
        self._node = node

    def _announce(self) -> Series:
        series = self._child.series()
        self._node.announce(len(series))
        return series

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def samples_a_window(self) -> int:
        """The child's."""
        return self._child.samples_a_window()

    def load(self, lo: int, hi: int) -> RangePiece:
        """The child's, counted."""
        piece = self._child.load(lo, hi)
        floats, histograms = window_counts(piece.samples, self.window)
        pool = piece.samples.histograms
        counts = floats if pool is None else floats + histograms * sample_weight(pool, 1)
        if self._counts is not None:
            self._counts.add(counts.sum(axis=0))
        node = self._node
        node.last[lo:hi], node.most[lo:hi] = counts[:, -1], counts.max(axis=1)
        if node.by_window:
            node.rows[lo:hi] = (counts > 0).sum(axis=1)
        node.add(0)
        return piece

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()
