"""Samples that each step of a query looks at and reads, as Prometheus's `totalQueryableSamples` and
`samplesRead` count them.

An instant selector looks at one sample a series, a range at all samples of its window, a step-invariant part
at every step at what it looked at once. Cells in the windows of a subquery are looked at, what its inside
looks at is not counted, unless the subquery is the whole query.

Read is what is looked at, but each sample of a range once: at the first step all of the window, at a later
one what is newer than an interval before its end. A step-invariant part is read at the first step, the inside
of a subquery at the first step whose window holds the inner step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from promql.matrix import Grid

I64Array = npt.NDArray[np.int64]
Forward = Callable[[I64Array, I64Array], tuple[I64Array, I64Array]]


class Consumer(NamedTuple):
    """The windows through which a subquery is seen: step k those of (end - range_ms, end] with end =
    first_end_ms + k * step_ms; `step_ms` is 0 where `@` pins all of them."""

    first_end_ms: int
    step_ms: int
    steps: int
    range_ms: int

    def first_step(self, t_ms: I64Array) -> I64Array:
        """First step whose window holds each time, -1 where none does."""
        if self.step_ms == 0:
            step = np.zeros(len(t_ms), dtype=np.int64)
        else:
            step = np.maximum(-((self.first_end_ms - t_ms) // self.step_ms), 0)
        ends = self.first_end_ms + step * self.step_ms
        inside = (step < self.steps) & (t_ms <= ends) & (t_ms > ends - self.range_ms)
        return np.where(inside, step, -1)


class StepCounts:
    """Counts of one grid's steps. Any thread of the query may add.

    Those of an inner grid become counts of the grid above when `settle` is called, once for all, so that a
    deep query does not hand each count through all levels.
    """

    def __init__(self, steps: int, above: StepCounts | None = None, forward: Forward | None = None) -> None:
        """`forward` says how what was added here looks from `above`."""
        self._lock = threading.Lock()
        self._above = above
        self._forward = forward
        self._inner: list[StepCounts] = above._inner if above is not None else []
        """All inner ones of the query, those above before those below."""
        if above is not None:
            self._inner.append(self)
        self.counts: I64Array = np.zeros(steps, dtype=np.int64)
        self.read: I64Array = np.zeros(steps, dtype=np.int64)

    def add(self, counts: npt.NDArray[np.integer], read: npt.NDArray[np.integer]) -> None:
        """Samples looked at and samples read, one count a step each."""
        with self._lock:
            self.counts += counts
            self.read += read

    def known(self) -> int:
        """Inner grids so far."""
        return len(self._inner)

    def settle(self, first: int = 0) -> None:
        """Hand up the counts of inner grids, but for the first ones, and forget those; when all that is
        evaluated on them has been."""
        while len(self._inner) > first:
            inner = self._inner.pop()
            assert inner._above is not None
            assert inner._forward is not None
            inner._above.add(*inner._forward(inner.counts, inner.read))

    def repeated(self) -> StepCounts:
        """For a part that is evaluated at one step and looked at from all of these."""
        steps = len(self.counts)

        def forward(counts: I64Array, read: I64Array) -> tuple[I64Array, I64Array]:
            first = np.zeros(steps, dtype=np.int64)
            first[:1] = read.sum()
            return np.full(steps, counts.sum()), first

        return StepCounts(1, self, forward)

    def inside(self, grid: Grid, consumer: Consumer, whole: bool) -> StepCounts:
        """For the inside of a subquery on a grid of its own. What it looks at counts where the subquery is
        the `whole` query."""
        steps = len(self.counts)

        def forward(counts: I64Array, read: I64Array) -> tuple[I64Array, I64Array]:
            seen = np.zeros(steps, dtype=np.int64)
            if whole:
                seen[-1] = counts.sum()
            target = consumer.first_step(grid.times_ms())
            held = target >= 0
            once = np.bincount(target[held], weights=read[held], minlength=steps).astype(np.int64)
            return seen, once

        return StepCounts(grid.steps, self, forward)

    @property
    def total(self) -> int:
        """Samples looked at, over all steps."""
        return int(self.counts.sum())

    @property
    def total_read(self) -> int:
        """Samples read, over all steps."""
        return int(self.read.sum())
