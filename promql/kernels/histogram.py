"""One number of each histogram: quantile, fraction, variance.

In: a pool and `cells` i32[N], the histograms asked for. Out: f64[N], and flags u8[N] for annotations.
Semantics: prometheus-surface.md 2.7, 2.9.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math

import numpy as np

from promql.kernels.bucketbounds import CUSTOM_SCHEMA
from promql.kernels.cell import kahan
from promql.kernels.histogrampool import (
    COUNT,
    F64,
    I32,
    POOL,
    SCHEMA,
    SUM,
    U8,
    Pool,
    bucket_at,
    bucket_total,
    log_fraction,
    one_sided,
)
from tsdb.kernels.compile import device, kernel

NAN_RESULT = 1
"""The rank lies beyond all buckets: the histogram has NaN observations."""
NAN_SKEW = 2
"""The histogram has NaN observations, so the quantile comes out too high."""
NAN_EXCLUDED = 4
"""The histogram has NaN observations, which no fraction contains."""


@device
def _narrow_zero(pool: Pool, h: int, lower: float, upper: float) -> tuple[float, float]:
    """A bucket around zero holds only one sign where the other side has no buckets."""
    side = one_sided(pool, h)
    return (0.0 if side > 0 else lower), (0.0 if side < 0 else upper)


@device
def _interpolate(custom: bool, lower: float, upper: float, fraction: float) -> float:
    if custom or (lower <= 0.0 and upper >= 0.0):
        return lower + (upper - lower) * fraction
    log_lower, log_upper = math.log2(abs(lower)), math.log2(abs(upper))
    if lower > 0.0:
        return 2.0 ** (log_lower + (log_upper - log_lower) * fraction)
    return -(2.0 ** (log_upper + (log_lower - log_upper) * (1.0 - fraction)))


@device
def native_quantile(pool: Pool, h: int, q: float) -> tuple[float, int]:
    """The quantile of histogram `h`, and flags."""
    if math.isnan(q):
        return math.nan, 0
    if q < 0.0 or q > 1.0:
        return (-math.inf if q < 0.0 else math.inf), 0
    observed = pool[COUNT][h]
    if observed == 0.0:
        return math.nan, 0
    total = bucket_total(pool, h)
    nan_sum = math.isnan(pool[SUM][h])
    forward = nan_sum or q < 0.5
    rank = q * observed if forward else (1.0 - q) * observed
    lower, upper, inside, count = 0.0, 0.0, 0.0, 0.0
    at = 0
    while at < total:
        lower, upper, inside = bucket_at(pool, h, at if forward else total - 1 - at)
        at += 1
        if inside == 0.0:
            continue
        count += inside
        if count >= rank:
            break
    custom = pool[SCHEMA][h] == CUSTOM_SCHEMA
    if custom:
        if lower == -math.inf:
            if upper <= 0.0:
                return upper, 0
            lower = 0.0
        elif upper == math.inf:
            return lower, 0
    elif lower < 0.0 and upper > 0.0:
        lower, upper = _narrow_zero(pool, h, lower, upper)
    count = min(count, observed)
    if count < rank:
        if nan_sum:
            return math.nan, NAN_RESULT
        return upper, 0
    flags = 0
    rank = rank - (count - inside) if forward else count - rank
    if nan_sum:
        while at < total:
            count += bucket_at(pool, h, at)[2]
            at += 1
        if count < observed:
            flags = NAN_SKEW
    return _interpolate(custom, lower, upper, rank / inside), flags


@kernel(f"void({POOL}, int32[::1], float64[::1], float64[::1], uint8[::1])", group="read")
def quantiles(pool: Pool, cells: I32, q: F64, out: F64, flags: U8) -> None:
    """histogram_quantile of each cell at its own `q` f64[N]."""
    for i in range(len(cells)):
        out[i], flags[i] = native_quantile(pool, cells[i], q[i])


@device
def _rank_of(
    custom: bool, v: float, lower: float, upper: float, around_zero: bool, rank: float, count: float
) -> float:
    if custom or around_zero:
        if lower == -math.inf:
            return count
        return rank + count * (v - lower) / (upper - lower)
    return rank + count * log_fraction(v, lower, upper)


@device
def native_fraction(pool: Pool, h: int, lower: float, upper: float) -> tuple[float, int]:
    """The fraction of observations of histogram `h` in (lower, upper], and flags."""
    observed = pool[COUNT][h]
    if observed == 0.0 or math.isnan(lower) or math.isnan(upper):
        return math.nan, 0
    if lower >= upper:
        return 0.0, 0
    custom = pool[SCHEMA][h] == CUSTOM_SCHEMA
    total = bucket_total(pool, h)
    count, rank, lower_rank, upper_rank = 0.0, 0.0, 0.0, 0.0
    lower_set, upper_set = False, False
    at = 0
    while at < total:
        start, end, inside = bucket_at(pool, h, at)
        at += 1
        count += inside
        around_zero = start <= 0.0 and end >= 0.0
        if around_zero:
            start, end = _narrow_zero(pool, h, start, end)
        if not lower_set and start >= lower:
            lower_rank, lower_set = rank, True
        if not upper_set and start >= upper:
            upper_rank, upper_set = rank, True
        if lower_set and upper_set:
            break
        if not lower_set and start < lower and end > lower:
            lower_rank, lower_set = _rank_of(custom, lower, start, end, around_zero, rank, inside), True
        if not upper_set and start < upper and end > upper:
            upper_rank, upper_set = _rank_of(custom, upper, start, end, around_zero, rank, inside), True
        if lower_set and upper_set:
            break
        rank += inside
    flags = 0
    if math.isnan(pool[SUM][h]):
        while at < total:
            count += bucket_at(pool, h, at)[2]
            at += 1
        if count < observed:
            flags = NAN_EXCLUDED
    else:
        count = observed
    if not lower_set or lower_rank > count:
        lower_rank = count
    if not upper_set or upper_rank > count:
        upper_rank = count
    return (upper_rank - lower_rank) / observed, flags


@kernel(f"void({POOL}, int32[::1], float64[::1], float64[::1], float64[::1], uint8[::1])", group="read")
def fractions(pool: Pool, cells: I32, lower: F64, upper: F64, out: F64, flags: U8) -> None:
    """histogram_fraction of each cell between its own borders f64[N]."""
    for i in range(len(cells)):
        out[i], flags[i] = native_fraction(pool, cells[i], lower[i], upper[i])


@kernel(f"void({POOL}, int32[::1], float64[::1])", group="read")
def variances(pool: Pool, cells: I32, out: F64) -> None:
    """histogram_stdvar of each cell: observations taken at the middle of their bucket."""
    for i in range(len(cells)):
        h = cells[i]
        custom = pool[SCHEMA][h] == CUSTOM_SCHEMA
        mean = pool[SUM][h] / pool[COUNT][h]
        total, comp = 0.0, 0.0
        for j in range(bucket_total(pool, h)):
            lower, upper, inside = bucket_at(pool, h, j)
            if inside == 0.0:
                continue
            if custom:
                middle = (upper + lower) / 2.0
            elif lower <= 0.0 and upper >= 0.0:
                middle = 0.0
            else:
                middle = math.sqrt(upper * lower)
                if upper < 0.0:
                    middle = -middle
            delta = middle - mean
            total, comp = kahan(inside * delta * delta, total, comp)
        out[i] = (total + comp) / pool[COUNT][h]


@kernel(f"void({POOL}, float64[:, ::1], int32[:, ::1], uint8)", group="read")
def fields(pool: Pool, out: F64, cells: I32, field: int) -> None:
    """Count (0), sum (1) or average (2) of each cell i32[R, K] into f64[R, K]; others are left alone."""
    bits = out.view(np.uint64)
    for r in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            h = cells[r, k]
            if h < 0:
                continue
            if field == 0:
                value = pool[COUNT][h]
            elif field == 1:
                value = pool[SUM][h]
            else:
                value = pool[SUM][h] / pool[COUNT][h]
            if math.isnan(value):
                bits[r, k] = np.uint64(0x7FF8000000000001)
            else:
                out[r, k] = value
