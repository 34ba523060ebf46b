"""The *_over_time window kernels on floats.

CSR samples to cells f64[R, K], windows (end - range, end]. Sums follow Prometheus's compensated order per
window, neighbouring windows side by side. Where all values of a row are integers small enough that every
partial sum is exact, running sums give the same bits in O(1) a window.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, kahan
from promql.kernels.windowborders import next_window
from promql.kernels.windowextreme import BLOCK, COMPARISONS_MAX, comparisons, extreme_row, has_one_order
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

_EXACT_MAX = 2.0**52
"""Integers whose absolute values sum to less than this add without rounding in any order."""


@inline
def sums_exactly(v: F64, lo: int, hi: int) -> bool:
    """Whether any run of v[lo:hi] sums without rounding: integers, no negative zero among them."""
    total = 0.0
    for i in range(lo, hi):
        x = v[i]
        if not (abs(x) < _EXACT_MAX) or x != math.floor(x):
            return False
        if x == 0.0 and math.copysign(1.0, x) < 0.0:
            return False
        total += abs(x)
    return total < _EXACT_MAX


@inline
def _window_sum(v: F64, a: int, b: int) -> float:
    total, comp = 0.0, 0.0
    for i in range(a, b):
        total, comp = kahan(v[i], total, comp)
    return total if math.isinf(total) else total + comp


@inline
def _window_mean(v: F64, a: int, b: int) -> float:
    total, comp, mean, count = v[a], 0.0, 0.0, 1.0
    incremental = False
    for i in range(a + 1, b):
        count = float(i - a + 1)
        if not incremental:
            new_total, new_comp = kahan(v[i], total, comp)
            if not math.isinf(new_total):
                total, comp = new_total, new_comp
                continue
            incremental = True
            mean = total / (count - 1.0)
            comp /= count - 1.0
        q = (count - 1.0) / count
        mean, comp = kahan(v[i] / count, q * mean, q * comp)
    if incremental:
        return mean + comp
    return float(total / count + comp / count)


@inline
def _find_windows(
    t_ms: I64, lo: int, hi: int, first_end_ms: int, step_ms: int, range_ms: int, begins: I64, ends: I64
) -> None:
    """Sample indexes [begins[k], ends[k]) of every window of a row."""
    a, b = lo, lo
    end_ms = first_end_ms
    for k in range(len(begins)):
        a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
        begins[k] = a
        ends[k] = b
        end_ms += step_ms


RUN_MIN = 8
"""Windows that must follow each other for the loop over samples of all of them to pay."""


@inline
def _run_length(begins: I64, ends: I64, k: int) -> int:
    """Windows from k on that have the same number of samples and each move on by one sample."""
    n = 1
    width = ends[k] - begins[k]
    while k + n < len(begins) and begins[k + n] == begins[k] + n and ends[k + n] - begins[k + n] == width:
        n += 1
    return n


@inline
def _run_sums(run: F64, width: int, n: int, start_with_first: int, total: F64, comp: F64) -> None:
    """Compensated sums of windows run[i : i+width] for i < n, sample by sample over all of them: the same
    operations a window, but of independent windows side by side, which the compiler makes vectors of."""
    first = 0
    if start_with_first != 0:
        first = 1
        for i in range(n):
            total[i] = run[i]
            comp[i] = 0.0
    else:
        for i in range(n):
            total[i] = 0.0
            comp[i] = 0.0
    for j in range(first, width):
        for i in range(n):
            new, new_comp = kahan(run[i + j], total[i], comp[i])
            total[i] = new
            comp[i] = new_comp


@inline
def _run_variances(run: F64, width: int, n: int, moments: F64) -> None:
    """Mean, its compensation, sum of squares and its compensation of n windows, f64[4, n], as `_run_sums`."""
    for m in range(4):
        for i in range(n):
            moments[m, i] = 0.0
    for j in range(width):
        count = float(j + 1)
        for i in range(n):
            x = run[i + j]
            delta = x - (moments[0, i] + moments[1, i])
            mean, mean_c = kahan(delta / count, moments[0, i], moments[1, i])
            moments[0, i] = mean
            moments[1, i] = mean_c
            m2, m2_c = kahan(delta * (x - (mean + mean_c)), moments[2, i], moments[3, i])
            moments[2, i] = m2
            moments[3, i] = m2_c


@inline
def _window_variance(v: F64, a: int, b: int) -> float:
    count, mean, mean_c, m2, m2_c = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(a, b):
        count += 1.0
        delta = v[i] - (mean + mean_c)
        mean, mean_c = kahan(delta / count, mean, mean_c)
        m2, m2_c = kahan(delta * (v[i] - (mean + mean_c)), m2, m2_c)
    return (m2 + m2_c) / count


@inline
def _exact_row(
    t_ms: I64,
    v: F64,
    lo: int,
    hi: int,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_mean: int,
    out: F64,
    out_bits: U64,
) -> int:
    """A row whose partial sums are exact: the sum runs along with the window."""
    a, b = lo, lo
    running, present = 0.0, 0
    end_ms = first_end_ms
    for k in range(len(out)):
        while b < hi and t_ms[b] <= end_ms:
            running += v[b]
            b += 1
        while a < b and t_ms[a] <= end_ms - range_ms:
            running -= v[a]
            a += 1
        if b > a:
            out[k] = running / (b - a) if is_mean != 0 else running
            present += 1
        else:
            out_bits[k] = ABSENT_U64
        end_ms += step_ms
    return present


LANES = 16
"""Windows that are summed side by side where they do not follow each other."""

PACKED = 64
"""Samples of each that are laid side by side at a time, so that the compiler makes vectors of windows."""


@inline
def _lane_sums(v: F64, jobs: I64, n: int, is_mean: int, packed: F64, total: F64, comp: F64) -> None:
    """Compensated sums of n windows of jobs[1, i] samples from v[jobs[0, i]] on, none empty."""
    common, first = jobs[1, 0], 0
    for i in range(n):
        common = min(common, jobs[1, i])
        total[i] = 0.0
        comp[i] = 0.0
    if is_mean != 0:
        first = 1
        for i in range(n):
            total[i] = v[jobs[0, i]]
    while first < common:
        count = min(PACKED, common - first)
        for i in range(n):
            part = v[jobs[0, i] + first : jobs[0, i] + first + count]
            for j in range(len(part)):
                packed[j * n + i] = part[j]
        for j in range(count):
            side = packed[j * n : j * n + n]
            for i in range(n):
                new, new_comp = kahan(side[i], total[i], comp[i])
                total[i] = new
                comp[i] = new_comp
        first += count
    for i in range(n):
        t, c = total[i], comp[i]
        for k in range(jobs[0, i] + common, jobs[0, i] + jobs[1, i]):
            t, c = kahan(v[k], t, c)
        total[i] = t
        comp[i] = c


@inline
def _result(v: F64, a: int, width: int, is_mean: int, total: float, comp: float) -> float:
    """Of a window v[a : a + width] whose sum is known."""
    if is_mean == 0:
        return total if math.isinf(total) else total + comp
    if math.isinf(total) or math.isnan(total):
        return _window_mean(v, a, a + width)
    return float(total / width + comp / width)


@inline
def sum_lanes(v: F64, jobs: I64, n: int, is_mean: int, packed: F64, total: F64, comp: F64, out: F64) -> None:
    """Work off n windows of jobs[1, i] samples from v[jobs[0, i]] on, of cells jobs[2, i], jobs[3, i]."""
    if n == 0:
        return
    _lane_sums(v, jobs, n, is_mean, packed, total, comp)
    for i in range(n):
        out[jobs[2, i], jobs[3, i]] = _result(v, jobs[0, i], jobs[1, i], is_mean, total[i], comp[i])


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def sum_or_mean(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_mean: int,
    out: F64,
) -> int:
    """sum_over_time, or avg_over_time. Returns cells present."""
    out_bits = out.view(np.uint64)
    steps = out.shape[1]
    begins, ends = np.empty(steps, dtype=np.int64), np.empty(steps, dtype=np.int64)
    total, comp = np.empty(max(steps, LANES)), np.empty(max(steps, LANES))
    jobs, packed, waiting = np.empty((4, LANES), dtype=np.int64), np.empty(PACKED * LANES), 0
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        if sums_exactly(v, lo, hi):
            present += _exact_row(
                t_ms, v, lo, hi, first_end_ms, step_ms, range_ms, is_mean, out[row], out_bits[row]
            )
            continue
        _find_windows(t_ms, lo, hi, first_end_ms, step_ms, range_ms, begins, ends)
        k = 0
        while k < steps:
            a, width = begins[k], ends[k] - begins[k]
            n = _run_length(begins, ends, k)
            if width == 0:
                out_bits[row, k] = ABSENT_U64
                k += 1
                continue
            if n < RUN_MIN:
                jobs[0, waiting], jobs[1, waiting], jobs[2, waiting], jobs[3, waiting] = a, width, row, k
                waiting += 1
                present += 1
                k += 1
                if waiting == LANES:
                    sum_lanes(v, jobs, waiting, is_mean, packed, total, comp, out)
                    waiting = 0
                continue
            _run_sums(v[a : a + width + n - 1], width, n, is_mean, total, comp)
            for i in range(n):
                out[row, k + i] = _result(v, a + i, width, is_mean, total[i], comp[i])
            present += n
            k += n
    sum_lanes(v, jobs, waiting, is_mean, packed, total, comp, out)
    return present


EDGE_COUNT, EDGE_PRESENT, EDGE_LAST, EDGE_FIRST, EDGE_LAST_TIME, EDGE_FIRST_TIME = range(6)


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def edges(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    what: int,
    out: F64,
) -> int:
    """What only the window's borders tell: count, presence, first and last value and time (s)."""
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
                if what == EDGE_COUNT:
                    out[row, k] = b - a
                elif what == EDGE_PRESENT:
                    out[row, k] = 1.0
                elif what == EDGE_LAST:
                    out[row, k] = v[b - 1]
                elif what == EDGE_FIRST:
                    out[row, k] = v[a]
                elif what == EDGE_LAST_TIME:
                    out[row, k] = t_ms[b - 1] / 1000.0
                else:
                    out[row, k] = t_ms[a] / 1000.0
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def extreme(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_max: int,
    want_time: int,
    out: F64,
) -> int:
    """min/max_over_time (earliest of equal values) or the time in s of the extreme (latest of equal ones).

    Where equal values are equal bits, and windows are few for their length, from the extremes of blocks
    (promql.kernels.windowextreme). Else a queue of two parts: of the samples before `middle` the extreme from
    each to `middle` is in `suffix`, of those behind it the extreme so far is kept. Where the first part is
    used up it is made anew of all that is in the window, so every sample is looked at twice, and no branch
    depends on values. NaN wins only against nothing. Returns cells present."""
    out_bits = out.view(np.uint64)
    longest = 1
    for row in range(out.shape[0]):
        longest = max(longest, offsets[row + 1] - offsets[row])
    suffix, blocks = np.empty(longest, dtype=np.int64), np.empty(longest // BLOCK + 1)
    begins, ends = np.empty(out.shape[1], dtype=np.int64), np.empty(out.shape[1], dtype=np.int64)
    present = 0
    sign = 1.0 if is_max != 0 else -1.0
    latest = want_time != 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        if not latest and hi > lo and has_one_order(v, lo, hi):
            _find_windows(t_ms, lo, hi, first_end_ms, step_ms, range_ms, begins, ends)
            if comparisons(begins, ends) < COMPARISONS_MAX * (hi - lo):
                present += extreme_row(v, lo, begins, ends, sign, blocks[: (hi - lo) // BLOCK], out[row])
                continue
        a, b, middle = lo, lo, lo
        best_at, best = lo, math.nan
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            while b < hi and t_ms[b] <= end_ms:
                x = v[b] * sign
                wins = math.isnan(best) or x > best or (latest and x == best)
                best, best_at = (x, b) if wins else (best, best_at)
                b += 1
            while a < b and t_ms[a] <= end_ms - range_ms:
                a += 1
            end_ms += step_ms
            if b == a:
                out_bits[row, k] = ABSENT_U64
                continue
            if a >= middle:
                middle = b
                best, best_at = math.nan, b - 1
                for i in range(b - 1, a - 1, -1):
                    x = v[i] * sign
                    wins = x > best or (not latest and x == best) or (math.isnan(best) and not math.isnan(x))
                    best, best_at = (x, i) if wins else (best, best_at)
                    suffix[i - lo] = best_at
                best, best_at = math.nan, b
            at = suffix[a - lo]
            if b > middle:
                x = v[at] * sign
                at = best_at if math.isnan(x) or best > x or (latest and best == x) else at
            out[row, k] = t_ms[at] / 1000.0 if latest else v[at]
            present += 1
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def variance(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_deviation: int,
    out: F64,
) -> int:
    """stdvar_over_time, or stddev_over_time: Welford's method, compensated. Returns cells present."""
    out_bits = out.view(np.uint64)
    steps = out.shape[1]
    begins, ends = np.empty(steps, dtype=np.int64), np.empty(steps, dtype=np.int64)
    moments = np.empty((4, steps))
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        _find_windows(t_ms, lo, hi, first_end_ms, step_ms, range_ms, begins, ends)
        k = 0
        while k < steps:
            a, width = begins[k], ends[k] - begins[k]
            n = _run_length(begins, ends, k)
            if width == 0:
                out_bits[row, k] = ABSENT_U64
                k += 1
                continue
            if n < RUN_MIN:
                n = 1
                out[row, k] = _window_variance(v, a, a + width)
            else:
                _run_variances(v[a : a + width + n - 1], width, n, moments)
                for i in range(n):
                    out[row, k + i] = (moments[2, i] + moments[3, i]) / width
            if is_deviation != 0:
                for i in range(k, k + n):
                    out[row, i] = math.sqrt(out[row, i])
            present += n
            k += n
    return present
