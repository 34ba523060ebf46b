"""Counter windows that know start timestamps (use-start-timestamps).

A start timestamp between the previous sample and the current one is a reset even where the value did not
fall. One equal to the previous sample's time is a reset only where the previous sample has an earlier start
of its own: otherwise it is a cumulative series with an unknown start. A start inside the window before its
first sample stands for a sample of zero there, in place of extrapolation (prometheus-surface.md 2.8).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, seek_after
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


@inline
def starts_anew(t_ms: I64, start_ms: I64, i: int) -> bool:
    """Whether sample i begins after sample i - 1 according to its start timestamp."""
    start, before = start_ms[i], t_ms[i - 1]
    if start == 0 or start >= t_ms[i]:
        return False
    if start > before:
        return True
    return bool(start == before and start_ms[i - 1] != 0 and start_ms[i - 1] < before)


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64[::1], int64, int64, int64, int64, float64[:,::1],"
    " uint8[::1])",
    group="read",
)
def extrapolated(
    offsets: I64,
    t_ms: I64,
    v: F64,
    starts: I64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_rate: int,
    out: F64,
    overlaps: U8,
) -> int:
    """rate and increase. `overlaps[row]` is set where a start lies before the previous sample."""
    out_bits = out.view(np.uint64)
    range_s = range_ms / 1000.0
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            start_ms = end_ms - range_ms
            a, b = next_window(t_ms, a, b, hi, start_ms, end_ms)
            out_bits[row, k] = ABSENT_U64
            known = b > a and starts[a] != 0 and starts[a] > start_ms and starts[a] < t_ms[a]
            if b - a >= 2 or (b - a == 1 and known):
                first = v[a]
                result = v[b - 1] - first
                for i in range(a + 1, b):
                    if v[i] < v[i - 1] or starts_anew(t_ms, starts, i):
                        result += v[i - 1]
                    if starts[i] != 0 and starts[i] < t_ms[i - 1] and starts[i] != starts[i - 1]:
                        overlaps[row] = 1
                to_end = (end_ms - t_ms[b - 1]) / 1000.0
                sampled = (t_ms[b - 1] - t_ms[a]) / 1000.0
                average = sampled / (b - a - 1) if b - a > 1 else 0.0
                threshold = average * 1.1
                to_start = (t_ms[a] - start_ms) / 1000.0
                if known:
                    result += first
                    sampled = (t_ms[b - 1] - starts[a]) / 1000.0
                    to_start = 0.0
                else:
                    if to_start >= threshold:
                        to_start = average / 2
                    if result > 0 and first >= 0:
                        to_start = min(to_start, sampled * (first / result))
                if to_end >= threshold:
                    to_end = average / 2
                factor = (sampled + to_start + to_end) / sampled
                if is_rate != 0:
                    factor /= range_s
                out[row, k] = result * factor
                present += 1
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64[::1], int64, int64, int64, float64[:,::1])",
    group="read",
)
def instant_rate(
    offsets: I64,
    t_ms: I64,
    v: F64,
    starts: I64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    out: F64,
) -> int:
    """irate: a start between the last two samples makes the last value the whole increase."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        b = lo
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            b = seek_after(t_ms, b, hi, end_ms)
            if b - lo < 2 or t_ms[b - 2] <= end_ms - range_ms or t_ms[b - 1] == t_ms[b - 2]:
                out_bits[row, k] = ABSENT_U64
            else:
                result = v[b - 1] - v[b - 2]
                if v[b - 1] < v[b - 2] or starts_anew(t_ms, starts, b - 1):
                    result = v[b - 1]
                out[row, k] = result / ((t_ms[b - 1] - t_ms[b - 2]) / 1000.0)
                present += 1
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64[::1], int64, int64, int64, float64[:,::1])",
    group="read",
)
def resets(
    offsets: I64,
    t_ms: I64,
    v: F64,
    starts: I64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    out: F64,
) -> int:
    """resets: falls of the value, and new starts."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            if b > a:
                count = 0
                for i in range(a + 1, b):
                    count += v[i] < v[i - 1] or starts_anew(t_ms, starts, i)
                out[row, k] = count
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present
