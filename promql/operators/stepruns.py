"""A window kernel over runs of steps, with a look at the query's budget between two of them.

One row of windows of a million samples (a subquery of one millisecond) takes a kernel seconds, and a query is
to end soon after its client has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from promql.matrix import F64Array
from promql.operators.operator import WindowGrid
from tsdb.select import SampleBatch

FloatKernel = Callable[[SampleBatch, WindowGrid, Sequence[F64Array], F64Array], int]
"""(samples, windows, scalar arguments f64[K] each, out f64[R, K]) -> cells present."""

RUN_NS = 50_000_000
"""The most that a run of steps should take, as a piece does; its first window is found anew."""


def steps_of_run(samples: SampleBatch, window: WindowGrid, sample_ns: int) -> int:
    """Steps that take about RUN_NS for all rows, at least one; a window costs `sample_ns` a sample."""
    span_ms = window.range_ms + window.step_ms * (window.steps - 1)
    step_samples = len(samples.t_ms) * window.range_ms // max(span_ms, 1)
    return max(1, RUN_NS // max(step_samples * sample_ns, 1))


def in_runs(
    kernel: FloatKernel,
    samples: SampleBatch,
    window: WindowGrid,
    args: Sequence[F64Array],
    out: F64Array,
    steps_max: int,
    check: Callable[[], None],
) -> int:
    """As `kernel`, at most `steps_max` steps at a time; `check` is called between runs and may raise."""
    if steps_max >= window.steps:
        return kernel(samples, window, args, out)
    present = 0
    for at in range(0, window.steps, steps_max):
        if at:
            check()
        end = min(at + steps_max, window.steps)
        part = np.empty((len(out), end - at))
        present += kernel(samples, window.part(at, end), [values[at:end] for values in args], part)
        out[:, at:end] = part
    return present
