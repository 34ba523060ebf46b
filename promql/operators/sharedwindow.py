"""Instant selectors, rate, increase and delta over rows that share columns of timestamps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels import shared as kernels
from promql.matrix import F64Array
from promql.operators.operator import WindowGrid
from tsdb.select import SharedSamples

I32Array = npt.NDArray[np.int32]

EXTRAPOLATED = {"rate": (1, 1), "increase": (1, 0), "delta": (0, 0)}
"""Functions that `extrapolated` has: whether of counters, whether per second."""


def window_bounds(
    samples: SharedSamples, first_end_ms: int, step_ms: int, range_ms: int, steps: int
) -> tuple[I32Array, I32Array]:
    """i32[D, K] twice: where the windows of each column begin and end."""
    shape = (len(samples.column_offsets) - 1, steps)
    begins, ends = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
    kernels.window_bounds(samples.column_offsets, samples.t_ms, first_end_ms, step_ms, range_ms, begins, ends)
    return begins, ends


def latest_values(samples: SharedSamples, bounds: tuple[I32Array, I32Array], out: F64Array) -> int:
    """The last sample of each window to `out` f64[R, K]. Returns cells present."""
    return kernels.latest_value(
        samples.offsets, samples.values.view(np.uint64), samples.column, *bounds, out.view(np.uint64)
    )


def extrapolated(name: str, samples: SharedSamples, window: WindowGrid, out: F64Array) -> int:
    """A function of EXTRAPOLATED to `out` f64[R, K]. Returns cells present; -1 where there are stale markers,
    or NaNs that could be taken for absent cells, and `out` is then undefined."""
    is_counter, is_rate = EXTRAPOLATED[name]
    first, step, steps, span, _ = window
    begins, ends = window_bounds(samples, first, step, span, steps)
    times = np.empty((*begins.shape, 4))
    kernels.extrapolation(
        samples.column_offsets, samples.t_ms, begins, ends, first, step, span, is_rate, times
    )
    return kernels.extrapolated(
        samples.offsets, samples.values, samples.column, begins, ends, times, span, is_counter, is_rate, out,
    )  # fmt: skip
