"""Operators with a stopwatch, for `explain` with analysis: rows, pieces, samples and time of each operator.

Times include the children's, and are summed over threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from promql.operators.operator import (
    Explain,
    Piece,
    RangeOperator,
    RangePiece,
    RowwiseOperator,
    Series,
    VectorOperator,
)


class Figures:
    """Counters of one operator. Any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._pieces = 0
        self._samples = 0
        self.rows = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of the block."""
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        with self._lock:
            self._seconds += spent

    def add_piece(self, samples: int = 0) -> None:
        """Count a piece and the samples read for it."""
        with self._lock:
            self._pieces += 1
            self._samples += samples

    def on(self, plan: Explain) -> Explain:
        """The plan's line with the figures behind it."""
        text = f"[rows={self.rows} pieces={self._pieces}"
        text += f" samples={self._samples}" if self._samples else ""
        text += f" time={self._seconds * 1000:.3f}ms]"
        return replace(plan, details=f"{plan.details} {text}".strip())


class MeasuredVector(VectorOperator):
    """Any vector operator that is not row-wise."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._figures = Figures()

    def _announce(self) -> Series:
        with self._figures.timed():
            series = self._child.series()
        self._figures.rows = len(series)
        return series

    def batches(self) -> Iterator[Piece]:
        """The child's."""
        self.series()
        pieces = self._child.batches()
        while True:
            with self._figures.timed():
                piece = next(pieces, None)
            if piece is None:
                return
            self._figures.add_piece()
            yield piece

    def explain(self) -> Explain:
        """The child's plan with figures."""
        return self._figures.on(self._child.explain())


class MeasuredRowwise(RowwiseOperator):
    """A row-wise operator."""

    def __init__(self, child: RowwiseOperator) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._figures = Figures()

    def _announce(self) -> Series:
        with self._figures.timed():
            series = self._child.series()
        self._figures.rows = len(series)
        return series

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """The child's."""
        with self._figures.timed():
            piece = self._child.load(lo, hi)
        self._figures.add_piece()
        return piece

    def explain(self) -> Explain:
        """The child's plan with figures."""
        return self._figures.on(self._child.explain())


class MeasuredRange(RangeOperator):
    """A range operator."""

    def __init__(self, child: RangeOperator) -> None:
        super().__init__(child.ctx)
        self.window = child.window
        self._child = child
        self._figures = Figures()

    def _announce(self) -> Series:
        with self._figures.timed():
            series = self._child.series()
        self._figures.rows = len(series)
        return series

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def samples_a_window(self) -> int:
        """The child's."""
        return self._child.samples_a_window()

    def load(self, lo: int, hi: int) -> RangePiece:
        """The child's."""
        with self._figures.timed():
            piece = self._child.load(lo, hi)
        self._figures.add_piece(len(piece.samples.t_ms))
        return piece

    def explain(self) -> Explain:
        """The child's plan with figures."""
        return self._figures.on(self._child.explain())


def measured(operator: VectorOperator) -> VectorOperator:
    """The operator with a stopwatch."""
    if isinstance(operator, RowwiseOperator):
        return MeasuredRowwise(operator)
    return MeasuredVector(operator)
