"""The trim operators `</` and `>/`: keep the observations below, or above, a value.

The bucket that the value cuts is interpolated; the sum is estimated anew from the middles of what is kept, if
anything was trimmed (prometheus-surface.md section 4).
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math

import numpy as np

from promql.kernels import histogramoutput as output
from promql.kernels import histogramwork as work
from promql.kernels.bucketbounds import CUSTOM_SCHEMA
from promql.kernels.histogrampool import (
    F64,
    I32,
    NEG_OFFSETS,
    POOL,
    POS_OFFSETS,
    SCHEMA,
    Pool,
    negative_bucket,
    positive_bucket,
)
from promql.kernels.histogramwork import N_COUNT, N_SUM, N_THRESHOLD, N_ZERO, Work
from tsdb.kernels.compile import device, kernel


@device
def _middle(lower: float, upper: float, positive: bool, linear: bool) -> float:
    """What an observation between the bounds is taken to be."""
    if math.isinf(lower):
        if math.isinf(upper):
            return 0.0
        return upper / 2.0 if upper > 0.0 else upper
    if math.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2.0
    geometric = math.sqrt(abs(lower * upper))
    return geometric if positive else -geometric


@device
def _cut(
    lower: float, upper: float, count: float, x: float, keep_below: bool, positive: bool, linear: bool
) -> tuple[float, float]:
    """(kept count, middle) of the bucket that `x` cuts. Nothing is known inside an infinite bucket, so it
    goes whole, with the exceptions of the surface document."""
    if lower == -math.inf:
        if keep_below:
            if x > 0.0 and upper > 0.0 and upper != math.inf:
                return count * x / upper, x / 2.0
            if upper <= 0.0:
                return count, x
        elif x >= 0.0 and upper > x and upper != math.inf:
            return count * (1.0 - x / upper), (x + upper) / 2.0
        return 0.0, 0.0
    if upper == math.inf:
        if keep_below:
            return 0.0, 0.0
        return count, x
    if linear:
        share = (x - lower) / (upper - lower)
    else:
        low, high, mid = math.log2(abs(lower)), math.log2(abs(upper)), math.log2(abs(x))
        share = (mid - low) / (high - low) if positive else 1.0 - (mid - high) / (low - high)
    below = count * share
    if keep_below:
        return below, _middle(lower, x, positive, linear)
    return count - below, _middle(x, upper, positive, linear)


@device
def _keep(
    lower: float, upper: float, count: float, x: float, keep_below: bool, positive: bool, linear: bool
) -> tuple[float, float]:
    if (upper <= x) if keep_below else (lower >= x):
        return count, _middle(lower, upper, positive, linear)
    if (lower < x) if keep_below else (upper > x):
        return _cut(lower, upper, count, x, keep_below, positive, linear)
    return 0.0, 0.0


@device
def _keep_zero(width: float, count: float, x: float, keep_below: bool, side: int) -> tuple[float, float]:
    """The zero bucket, one-sided (`side` 1 or -1) where only that side has observations."""
    lower = 0.0 if side > 0 else -width
    upper = 0.0 if side < 0 else width
    if x <= lower:
        return (0.0, 0.0) if keep_below else (count, (lower + upper) / 2.0)
    if x >= upper:
        return (count, (lower + upper) / 2.0) if keep_below else (0.0, 0.0)
    if keep_below:
        return count * ((x - lower) / (upper - lower)), (lower + x) / 2.0
    return count * ((upper - x) / (upper - lower)), (x + upper) / 2.0


@device
def _trim(pool: Pool, h: int, x: float, keep_below: bool, w: Work) -> bool:
    """Trim `w`, loaded with histogram `h`; returns whether anything was."""
    linear = pool[SCHEMA][h] == CUSTOM_SCHEMA
    count, total = 0.0, 0.0
    trimmed = False
    side = 0
    lo = pool[POS_OFFSETS][h]
    for i in range(pool[POS_OFFSETS][h + 1] - lo):
        lower, upper, inside = positive_bucket(pool, h, lo + i)
        if inside == 0.0:
            continue
        side |= 1
        kept, middle = _keep(lower, upper, inside, x, keep_below, True, linear)
        if kept != inside:
            trimmed = True
        w[3][i] = kept
        count += kept
        total += middle * kept
    lo = pool[NEG_OFFSETS][h]
    for i in range(pool[NEG_OFFSETS][h + 1] - lo):
        lower, upper, inside = negative_bucket(pool, h, lo + i)
        if inside == 0.0:
            continue
        side |= 2
        kept, middle = _keep(lower, upper, inside, x, keep_below, False, linear)
        if kept != inside:
            trimmed = True
        w[6][i] = kept
        count += kept
        total += middle * kept
    nums = w[1]
    if nums[N_ZERO] > 0.0:
        one_sided = 1 if side == 1 else (-1 if side == 2 else 0)
        kept, middle = _keep_zero(nums[N_THRESHOLD], nums[N_ZERO], x, keep_below, one_sided)
        if kept != nums[N_ZERO]:
            trimmed = True
        nums[N_ZERO] = kept
        total += middle * kept
        count += kept
    if trimmed:
        nums[N_COUNT], nums[N_SUM] = count, total
    return trimmed


@kernel(f"{POOL}({POOL}, int32[::1], float64[::1], boolean)", group="read")
def trim_each(pool: Pool, cells: I32, x: F64, keep_below: bool) -> Pool:
    """Each histogram trimmed at its own value f64[N]."""
    w = work.new_work(work.work_size(pool))
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for i in range(len(cells)):
        work.load(w, pool, cells[i])
        trimmed = _trim(pool, cells[i], x[i], keep_below, w)
        out = output.emit(out, fill, w, trimmed)
    return output.finish(out, fill)
