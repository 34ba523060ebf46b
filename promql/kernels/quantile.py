"""Quantiles and fractions of classic histograms: a group is a set of bucket series that differ in `le` only.

In: `values` f64[S, K] of bucket counts (ABSENT where none); `offsets` i64[G+1] and `rows` i64[M], the
rows of each group in ascending order of `bounds` f64[M]. Out: f64[G, K], ABSENT where a group has
no bucket at a step.
Semantics: prometheus-surface.md 2.9.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import device, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

ABSENT_BITS = np.uint64(0x7FF8000000000AB5)
NAN_BITS = np.uint64(0x7FF8000000000001)
SMALL_DELTA = 1e-12
_NORMAL_MIN = 2.2250738585072014e-308


@device
def _almost_equal(left: float, right: float) -> bool:
    """Equal but for a relative difference that summing floats explains."""
    if math.isnan(left) and math.isnan(right):
        return True
    if left == right:
        return True
    total = abs(left) + abs(right)
    difference = abs(left - right)
    if left == 0.0 or right == 0.0 or total < _NORMAL_MIN:
        return difference < SMALL_DELTA * _NORMAL_MIN
    return difference / min(total, 1.7976931348623157e308) < SMALL_DELTA


@device
def gather_buckets(
    bits: U64, values: F64, rows: I64, bounds: F64, lo: int, hi: int, k: int, le: F64, counts: F64
) -> int:
    """Buckets of one group at one step into `le` and `counts`, equal bounds merged; returns their number."""
    n = 0
    for m in range(lo, hi):
        row = rows[m]
        if bits[row, k] == ABSENT_BITS:
            continue
        if n > 0 and le[n - 1] == bounds[m]:
            counts[n - 1] += values[row, k]
        else:
            le[n] = bounds[m]
            counts[n] = values[row, k]
            n += 1
    return n


@device
def fix_monotonicity(le: F64, counts: F64, n: int, fixed: F64) -> bool:
    """Flatten tiny differences silently and raise counts that fall; `fixed` f64[3] gets the lowest and
    highest raised bound and the largest fall."""
    forced = False
    previous = counts[0]
    fixed[0], fixed[1], fixed[2] = math.inf, -math.inf, 0.0
    for i in range(1, n):
        current = counts[i]
        if current == previous:
            continue
        if _almost_equal(previous, current):
            counts[i] = previous
        elif current < previous:
            counts[i] = previous
            forced = True
            fixed[0] = min(fixed[0], le[i])
            fixed[1] = max(fixed[1], le[i])
            fixed[2] = max(fixed[2], previous - current)
        else:
            previous = current
    return forced


@device
def bucket_quantile(q: float, le: F64, counts: F64, n: int) -> float:
    """The quantile of cumulative, monotone buckets that end in +Inf."""
    if n < 2 or counts[n - 1] == 0.0:
        return math.nan
    rank = q * counts[n - 1]
    b = 0
    top = n - 1
    while b < top:
        middle = (b + top) >> 1
        if counts[middle] >= rank:
            top = middle
        else:
            b = middle + 1
    if b == n - 1:
        return le[n - 2]
    if b == 0 and le[0] <= 0.0:
        return le[0]
    start = 0.0
    count = counts[b]
    if b > 0:
        start = le[b - 1]
        count -= counts[b - 1]
        rank -= counts[b - 1]
    return start + (le[b] - start) * (rank / count)


@kernel(
    "void(float64[:, ::1], int64[::1], int64[::1], float64[::1], float64[::1], float64[:, ::1],"
    " float64[:, ::1], int64[:, ::1])",
    group="read",
)
def classic_quantile(
    values: F64, offsets: I64, rows: I64, bounds: F64, q: F64, out: F64, fix: F64, fix_steps: I64
) -> None:
    """histogram_quantile: `q` f64[K].

    `fix` f64[G, 3] gets the lowest and highest bound raised for monotonicity and the largest fall, over all
    steps; `fix_steps` i64[G, 3] how many steps, the first and the last of them.
    """
    bits = values.view(np.uint64)
    out_bits = out.view(np.uint64)
    width = 0
    for g in range(len(offsets) - 1):
        width = max(width, offsets[g + 1] - offsets[g])
    le, counts, fixed = np.empty(width), np.empty(width), np.empty(3)
    for g in range(len(offsets) - 1):
        fix[g, 0], fix[g, 1], fix[g, 2] = math.inf, -math.inf, 0.0
        fix_steps[g, 0] = 0
        for k in range(values.shape[1]):
            n = gather_buckets(bits, values, rows, bounds, offsets[g], offsets[g + 1], k, le, counts)
            if n == 0:
                out_bits[g, k] = ABSENT_BITS
                continue
            if math.isnan(q[k]):
                out_bits[g, k] = NAN_BITS
                continue
            if q[k] < 0.0 or q[k] > 1.0:
                out[g, k] = -math.inf if q[k] < 0.0 else math.inf
                continue
            if le[n - 1] != math.inf:
                out_bits[g, k] = NAN_BITS
                continue
            if fix_monotonicity(le, counts, n, fixed):
                fix[g, 0] = min(fix[g, 0], fixed[0])
                fix[g, 1] = max(fix[g, 1], fixed[1])
                fix[g, 2] = max(fix[g, 2], fixed[2])
                if fix_steps[g, 0] == 0:
                    fix_steps[g, 1] = k
                fix_steps[g, 0] += 1
                fix_steps[g, 2] = k
            result = bucket_quantile(q[k], le, counts, n)
            if math.isnan(result):
                out_bits[g, k] = NAN_BITS
            else:
                out[g, k] = result


@device
def _rank_in_bucket(v: float, lower: float, upper: float, rank: float, count: float) -> float:
    if lower == -math.inf:
        return count
    return rank + (count - rank) * (v - lower) / (upper - lower)


@device
def bucket_fraction(lower: float, upper: float, le: F64, counts: F64, n: int) -> float:
    """The fraction of observations in (lower, upper] of cumulative buckets."""
    if le[n - 1] != math.inf:
        return math.nan
    total = counts[n - 1]
    if total == 0.0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    rank, lower_rank, upper_rank = 0.0, 0.0, 0.0
    lower_set, upper_set = False, False
    start = -math.inf if le[0] <= 0.0 else 0.0
    for i in range(n):
        if i > 0:
            start = le[i - 1]
        if not lower_set and start >= lower:
            lower_rank, lower_set = rank, True
        if not upper_set and start >= upper:
            upper_rank, upper_set = rank, True
        if lower_set and upper_set:
            break
        if not lower_set and start < lower and le[i] > lower:
            lower_rank, lower_set = _rank_in_bucket(lower, start, le[i], rank, counts[i]), True
        if not upper_set and start < upper and le[i] > upper:
            upper_rank, upper_set = _rank_in_bucket(upper, start, le[i], rank, counts[i]), True
        if lower_set and upper_set:
            break
        rank = counts[i]
    if not lower_set or lower_rank > total:
        lower_rank = total
    if not upper_set or upper_rank > total:
        upper_rank = total
    return (upper_rank - lower_rank) / total


@kernel(
    "void(float64[:, ::1], int64[::1], int64[::1], float64[::1], float64[::1], float64[::1],"
    " float64[:, ::1])",
    group="read",
)
def classic_fraction(
    values: F64, offsets: I64, rows: I64, bounds: F64, lower: F64, upper: F64, out: F64
) -> None:
    """histogram_fraction: `lower` and `upper` f64[K]."""
    bits = values.view(np.uint64)
    out_bits = out.view(np.uint64)
    width = 0
    for g in range(len(offsets) - 1):
        width = max(width, offsets[g + 1] - offsets[g])
    le, counts = np.empty(width), np.empty(width)
    for g in range(len(offsets) - 1):
        for k in range(values.shape[1]):
            n = gather_buckets(bits, values, rows, bounds, offsets[g], offsets[g + 1], k, le, counts)
            if n == 0:
                out_bits[g, k] = ABSENT_BITS
                continue
            result = bucket_fraction(lower[k], upper[k], le, counts, n)
            if math.isnan(result):
                out_bits[g, k] = NAN_BITS
            else:
                out[g, k] = result
