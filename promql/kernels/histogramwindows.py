"""How far the rate of histograms is extrapolated: from the increase between samples to that of the window."""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

from promql.kernels.histogrampool import I64
from tsdb.kernels.compile import device


@device
def extrapolation_of(
    t_ms: I64, a: int, b: int, start_ms: int, end_ms: int, is_counter: bool, first: float, result: float
) -> float:
    """The factor from the increase between the samples to that of the window."""
    to_start = (t_ms[a] - start_ms) / 1000.0
    to_end = (end_ms - t_ms[b - 1]) / 1000.0
    sampled = (t_ms[b - 1] - t_ms[a]) / 1000.0
    average = sampled / (b - a - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if is_counter and result > 0 and first >= 0:
        to_zero = sampled * (first / result)
        to_start = min(to_start, to_zero)
    if to_end >= threshold:
        to_end = average / 2
    return (sampled + to_start + to_end) / sampled


@device
def extrapolation_from(t_ms: I64, a: int, b: int, start_ms: int, end_ms: int) -> float:
    """As `extrapolation_of` for a counter that is known to have started at `start_ms`."""
    to_end = (end_ms - t_ms[b - 1]) / 1000.0
    known = (t_ms[b - 1] - start_ms) / 1000.0
    average = (t_ms[b - 1] - t_ms[a]) / 1000.0 / max(1, b - a - 1)
    if to_end >= average * 1.1:
        to_end = average / 2
    return (known + to_end) / known
