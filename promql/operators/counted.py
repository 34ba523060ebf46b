"""Selectors that count what each step looks at and reads, for `stats`; planned only where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from promql.heldsamples import HeldNode
from promql.histogrampool import sample_weight
from promql.matrix import ABSENT
from promql.operators.operator import (
    Explain,
    Piece,
    RangeOperator,
    RangePiece,
    RowwiseOperator,
    Series,
    WindowGrid,
)
from promql.operators.subquery import Subquery
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
        floats = (piece.values.view(np.uint64) != ABSENT.view(np.uint64)).sum(axis=0)
        self._counts.add(floats, floats)
        if piece.histograms is not None:
            each = (piece.histograms.index >= 0).sum(axis=0)
            weights = [sample_weight(piece.histograms.pool, count) for count in each.tolist()]
            self._counts.add(*[np.array(weights, dtype=np.int64)] * 2)
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
        counts = self._samples_of(piece, self.window)
        if self._counts is not None:
            self._counts.add(counts.sum(axis=0), self._read(piece, counts))
        node = self._node
        node.last[lo:hi], node.most[lo:hi] = counts[:, -1], counts.max(axis=1)
        if node.by_window:
            node.rows[lo:hi] = (counts > 0).sum(axis=1)
        node.add(0)
        return piece

    def _samples_of(self, piece: RangePiece, window: WindowGrid) -> npt.NDArray[np.int32]:
        """i32[R, K]: samples of each window, or roll-ups in their place."""
        samples = piece.samples
        floats, histograms = window_counts(samples, window)
        if piece.rolled is not None:
            floats, _ = window_counts(piece.rolled.column("count"), window)
        if samples.histograms is None:
            return floats
        return floats + histograms * sample_weight(samples.histograms, 1)

    def _read(self, piece: RangePiece, counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """i64[K]: samples that no step before has seen. Those of a subquery are counted inside of it."""
        window = self.window
        read = np.zeros(window.steps, dtype=np.int64)
        if isinstance(self._child, Subquery):
            return read
        read[:1] = counts[:, 0].sum()
        if window.steps > 1 and window.step_ms:
            newer = window._replace(range_ms=min(window.range_ms, window.step_ms))
            read[1:] = self._samples_of(piece, newer)[:, 1:].sum(axis=0)
        return read

    def explain(self) -> Explain:
        """The child's plan."""
        return self._child.explain()
