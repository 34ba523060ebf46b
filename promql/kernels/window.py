"""Window kernels of counters: rate, increase, delta, irate, idelta, changes, resets.

CSR samples (offsets i64[R+1], t_ms i64[], v f64[]) to cells f64[R, K]; window k is (end - range, end] with
end = first_end + k * step. Two pointers move forward only. Order of float operations is Prometheus's
(prometheus-surface.md 2.8), so results agree bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, seek_after
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@inline
def extrapolation_of(
    lead_ms: int, span_ms: int, tail_ms: int, count: int
) -> tuple[float, float, float, float]:
    """Of a window with `count` > 1 samples, `span_ms` from the first to the last, `lead_ms` before and
    `tail_ms` after them: seconds sampled, seconds extrapolated at the start and at the end, and the factor
    that makes of a difference one of the whole window."""
    to_start, to_end, sampled = lead_ms / 1000.0, tail_ms / 1000.0, span_ms / 1000.0
    average = sampled / (count - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if to_end >= threshold:
        to_end = average / 2
    return sampled, to_start, to_end, (sampled + to_start + to_end) / sampled


@inline
def reset_sum(v: F64, a: int, b: int, result: float) -> float:
    """Add to a counter's difference over samples a to b what was lost at each reset."""
    for j in range(a + 1, b):
        if v[j] < v[j - 1]:
            result += v[j - 1]
    return result


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def extrapolated(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_counter: int,
    is_rate: int,
    out: F64,
) -> int:
    """rate (counter, rate), increase (counter), delta (neither). Returns cells present.

    The sum over counter resets runs over the window only where the window holds a reset. Samples at regular
    times give the same extrapolation at every step: it is worked out again only where the times differ, and
    the division that finds where a counter was zero only where that may be inside the window."""
    out_bits = out.view(np.uint64)
    range_s = range_ms / 1000.0
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        last_reset = np.int64(-1)
        known_count, known_lead_ms, known_span_ms, known_tail_ms = 0, 0, 0, 0
        sampled, to_start, to_end, plain_factor = 0.0, 0.0, 0.0, 0.0
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            start_ms = end_ms - range_ms
            a = seek_after(t_ms, a, hi, start_ms)
            b = max(a, b)
            while b < hi and t_ms[b] <= end_ms:
                if b > offsets[row] and v[b] < v[b - 1]:
                    last_reset = b
                b += 1
            if b - a < 2:
                out_bits[row, k] = ABSENT_U64
                end_ms += step_ms
                continue
            first = v[a]
            result = v[b - 1] - first
            if is_counter != 0 and last_reset > a:
                result = reset_sum(v, a, b, result)
            lead_ms, span_ms, tail_ms = t_ms[a] - start_ms, t_ms[b - 1] - t_ms[a], end_ms - t_ms[b - 1]
            if not (
                b - a == known_count
                and lead_ms == known_lead_ms
                and span_ms == known_span_ms
                and tail_ms == known_tail_ms
            ):
                known_count, known_lead_ms, known_span_ms, known_tail_ms = b - a, lead_ms, span_ms, tail_ms
                sampled, to_start, to_end, plain_factor = extrapolation_of(lead_ms, span_ms, tail_ms, b - a)
                if is_rate != 0:
                    plain_factor /= range_s
            factor = plain_factor
            if is_counter != 0 and result > 0 and first >= 0 and first * sampled <= 1.01 * to_start * result:
                to_zero = sampled * (first / result)
                if to_zero < to_start:
                    factor = (sampled + to_zero + to_end) / sampled
                    if is_rate != 0:
                        factor /= range_s
            out[row, k] = result * factor
            present += 1
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def last_two(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_rate: int,
    out: F64,
) -> int:
    """irate (is_rate) and idelta: from the last two samples of the window. Returns cells present."""
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
                if is_rate != 0:
                    if v[b - 1] < v[b - 2]:
                        result = v[b - 1]
                    result /= (t_ms[b - 1] - t_ms[b - 2]) / 1000.0
                out[row, k] = result
                present += 1
            end_ms += step_ms
    return present


@inline
def _transition(before: float, after: float, resets_only: int) -> int:
    if resets_only != 0:
        return 1 if after < before else 0
    return 1 if after != before and not (np.isnan(before) and np.isnan(after)) else 0


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def transitions(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    resets_only: int,
    out: F64,
) -> int:
    """changes, or resets (decreases): pairs of neighbours within the window. NaN to NaN is no change.

    Counts up to both borders are kept as the pointers move, so a window costs O(1). Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        a, b = lo, lo
        upto_a, upto_b = 0, 0
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            while b < hi and t_ms[b] <= end_ms:
                if b > lo:
                    upto_b += _transition(v[b - 1], v[b], resets_only)
                b += 1
            while a < hi and t_ms[a] <= end_ms - range_ms:
                a += 1
                if a < hi:
                    upto_a += _transition(v[a - 1], v[a], resets_only)
            if b > a:
                out[row, k] = upto_b - upto_a
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present
