"""Window kernels that fit: deriv, predict_linear, double_exponential_smoothing.

CSR samples to cells f64[R, K], windows (end - range, end]; order of operations is Prometheus's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, kahan
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@inline
def _regression(t_ms: I64, v: F64, a: int, b: int, origin_ms: int) -> tuple[float, float]:
    """Slope a second and intercept at `origin_ms` of the least squares line through samples a to b."""
    n, constant = 0.0, True
    sum_x, c_x, sum_y, c_y = 0.0, 0.0, 0.0, 0.0
    sum_xy, c_xy, sum_xx, c_xx = 0.0, 0.0, 0.0, 0.0
    for i in range(a, b):
        y = v[i]
        if constant and i > a and y != v[a]:
            constant = False
        n += 1.0
        x = (t_ms[i] - origin_ms) / 1e3
        sum_x, c_x = kahan(x, sum_x, c_x)
        sum_y, c_y = kahan(y, sum_y, c_y)
        sum_xy, c_xy = kahan(x * y, sum_xy, c_xy)
        sum_xx, c_xx = kahan(x * x, sum_xx, c_xx)
    if constant:
        if math.isinf(v[a]):
            return math.nan, math.nan
        return 0.0, v[a]
    sum_x += c_x
    sum_y += c_y
    sum_xy += c_xy
    sum_xx += c_xx
    cov_xy = sum_xy - sum_x * sum_y / n
    var_x = sum_xx - sum_x * sum_x / n
    slope = cov_xy / var_x
    return slope, sum_y / n - slope * sum_x / n


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, float64[:,::1])",
    group="read",
)
def deriv(offsets: I64, t_ms: I64, v: F64, first_end_ms: int, step_ms: int, range_ms: int, out: F64) -> int:
    """deriv: slope per second; x counts from the first sample of the window. Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            if b - a >= 2:
                slope, _ = _regression(t_ms, v, a, b, t_ms[a])
                out[row, k] = slope
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, float64[::1],"
    " float64[:,::1])",
    group="read",
)
def predict_linear(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    eval_start_ms: int,
    eval_step_ms: int,
    ahead_s: F64,
    out: F64,
) -> int:
    """predict_linear: the line's value `ahead_s[k]` s after evaluation time k. Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            if b - a >= 2:
                slope, intercept = _regression(t_ms, v, a, b, eval_start_ms + k * eval_step_ms)
                out[row, k] = slope * ahead_s[k] + intercept
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, float64[::1], float64[::1],"
    " float64[:,::1])",
    group="read",
)
def smooth(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    level: F64,
    trend: F64,
    out: F64,
) -> int:
    """double_exponential_smoothing with factors f64[K]. Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            if b - a >= 2:
                sf, tf = level[k], trend[k]
                s0, s1 = 0.0, v[a]
                slope = v[a + 1] - v[a]
                for i in range(a + 1, b):
                    if i > a + 1:
                        slope = tf * (s1 - s0) + (1.0 - tf) * slope
                    x = sf * v[i]
                    y = (1.0 - sf) * (s1 + slope)
                    s0, s1 = s1, x + y
                out[row, k] = s1
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present
