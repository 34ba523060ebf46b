"""Samples that each step of a query looks at, as Prometheus's `totalQueryableSamples` counts them.

An instant selector looks at one sample a series, a range at all samples of its window, a step-invariant part
at every step at what it looked at once. What a subquery reads is not counted, the cells in its windows are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

I64Array = npt.NDArray[np.int64]


class StepCounts:
    """Counts of one grid's steps. Any thread of the query may add."""

    def __init__(self, steps: int, forward: Callable[[I64Array], None] | None = None) -> None:
        """`forward` gets what is added in place of this object's own counts."""
        self._lock = threading.Lock()
        self._forward = forward
        self.counts: I64Array = np.zeros(steps, dtype=np.int64)

    def add(self, counts: npt.NDArray[np.integer]) -> None:
        """Samples looked at, one count a step."""
        if self._forward is not None:
            self._forward(counts.astype(np.int64))
            return
        with self._lock:
            self.counts += counts

    def repeated(self) -> StepCounts:
        """For a part that is evaluated at one step and looked at from all of these."""
        return StepCounts(1, lambda counts: self.add(np.full(len(self.counts), counts.sum())))

    @property
    def total(self) -> int:
        """Over all steps."""
        return int(self.counts.sum())
