"""One histogram taken apart so that it can be added to: the accumulator of all histogram arithmetic.

A work histogram is a tuple: ints i64[5] (schema, hint, lengths of the positive and the negative side, number
of custom bounds), nums f64[7] (zero threshold, zero count, count, sum, and compensations of the last three),
then index i64[], count f64[], compensation f64[] of the positive and of the negative side, custom bounds
f64[], and three spare columns. Capacities are fixed when it is made (`work_size`). Order of additions is
Prometheus's.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, custom_bound, exponential_bound, reduced_index
from promql.kernels.cell import kahan
from promql.kernels.histogrampool import (
    COUNT,
    CUSTOM_OFFSETS,
    CUSTOM_VALUES,
    F64,
    HINT,
    HINT_GAUGE,
    HINT_NOT_RESET,
    HINT_RESET,
    HINT_UNKNOWN,
    I64,
    NEG_COUNT,
    NEG_INDEX,
    NEG_OFFSETS,
    POS_COUNT,
    POS_INDEX,
    POS_OFFSETS,
    SCHEMA,
    SUM,
    ZERO_COUNT,
    ZERO_THRESHOLD,
    Pool,
)
from tsdb.kernels.compile import device

Work: TypeAlias = tuple[I64, F64, I64, F64, F64, I64, F64, F64, F64, I64, F64, F64]

W_INTS, W_NUMS, W_POS, W_NEG, W_CUSTOM, W_SPARE = 0, 1, 2, 5, 8, 9
I_SCHEMA, I_HINT, I_POS, I_NEG, I_CUSTOM = 0, 1, 2, 3, 4
N_THRESHOLD, N_ZERO, N_COUNT, N_SUM, N_ZERO_COMP, N_COUNT_COMP, N_SUM_COMP = 0, 1, 2, 3, 4, 5, 6

INCOMPATIBLE = -1
COLLISION = 1
RECONCILED = 2


@device
def copy_floats(source: F64, target: F64, n: int) -> None:
    """The first n elements. Loops, because assigning slices makes kernels compile for much longer."""
    for i in range(n):
        target[i] = source[i]


@device
def copy_ints(source: I64, target: I64, n: int) -> None:
    """The first n elements."""
    for i in range(n):
        target[i] = source[i]


@device
def _load_bounds(w: Work, pool: Pool, h: int) -> None:
    lo, hi = pool[CUSTOM_OFFSETS][h], pool[CUSTOM_OFFSETS][h + 1]
    w[0][I_CUSTOM] = hi - lo
    for i in range(hi - lo):
        w[8][i] = pool[CUSTOM_VALUES][lo + i]


@device
def work_size(pool: Pool) -> int:
    """Capacity for the sum of any histograms of a pool: the spread of bucket indexes, if that is less than
    their number."""
    size = 1
    for side in range(2):
        index = pool[POS_INDEX] if side == 0 else pool[NEG_INDEX]
        low, high = 0, 1
        for i in range(len(index)):
            low, high = min(low, int(index[i])), max(high, int(index[i]))
        size = max(size, min(len(index), high - low + 1))
    for h in range(len(pool[SCHEMA])):
        size = max(size, pool[CUSTOM_OFFSETS][h + 1] - pool[CUSTOM_OFFSETS][h] + 1)
    return size


@device
def new_work(size: int) -> Work:
    """A work histogram with room for `size` buckets a side."""
    return (
        np.zeros(5, np.int64),
        np.zeros(7, np.float64),
        np.empty(size, np.int64),
        np.empty(size, np.float64),
        np.empty(size, np.float64),
        np.empty(size, np.int64),
        np.empty(size, np.float64),
        np.empty(size, np.float64),
        np.empty(size, np.float64),
        np.empty(size, np.int64),
        np.empty(size, np.float64),
        np.empty(size, np.float64),
    )


@device
def load(w: Work, pool: Pool, h: int) -> None:
    """Fill `w` with histogram `h`, compensations zero."""
    ints, nums = w[0], w[1]
    ints[I_SCHEMA] = pool[SCHEMA][h]
    ints[I_HINT] = pool[HINT][h]
    nums[N_THRESHOLD] = pool[ZERO_THRESHOLD][h]
    nums[N_ZERO] = pool[ZERO_COUNT][h]
    nums[N_COUNT] = pool[COUNT][h]
    nums[N_SUM] = pool[SUM][h]
    nums[N_ZERO_COMP], nums[N_COUNT_COMP], nums[N_SUM_COMP] = 0.0, 0.0, 0.0
    lo, hi = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
    ints[I_POS] = hi - lo
    for i in range(hi - lo):
        w[2][i], w[3][i], w[4][i] = pool[POS_INDEX][lo + i], pool[POS_COUNT][lo + i], 0.0
    lo, hi = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1]
    ints[I_NEG] = hi - lo
    for i in range(hi - lo):
        w[5][i], w[6][i], w[7][i] = pool[NEG_INDEX][lo + i], pool[NEG_COUNT][lo + i], 0.0
    _load_bounds(w, pool, h)


@device
def load_empty(w: Work, pool: Pool, h: int) -> None:
    """Fill `w` with an empty histogram of the schema and custom bounds of histogram `h`."""
    for i in range(len(w[0])):
        w[0][i] = 0
    for i in range(len(w[1])):
        w[1][i] = 0.0
    w[0][I_SCHEMA] = pool[SCHEMA][h]
    _load_bounds(w, pool, h)


@device
def copy_work(source: Work, target: Work) -> None:
    """Make `target` equal `source`."""
    positives, negatives, bounds = source[0][I_POS], source[0][I_NEG], source[0][I_CUSTOM]
    copy_ints(source[0], target[0], len(source[0]))
    copy_floats(source[1], target[1], len(source[1]))
    copy_ints(source[2], target[2], positives)
    copy_floats(source[3], target[3], positives)
    copy_floats(source[4], target[4], positives)
    copy_ints(source[5], target[5], negatives)
    copy_floats(source[6], target[6], negatives)
    copy_floats(source[7], target[7], negatives)
    copy_floats(source[8], target[8], bounds)


@device
def _reduce_side(index: I64, value: F64, comp: F64, n: int, steps: int, compensated: bool) -> int:
    out = 0
    for i in range(n):
        target = reduced_index(index[i], steps)
        if out > 0 and index[out - 1] == target:
            total, c = kahan(value[i], value[out - 1], comp[out - 1])
            if compensated:
                total, c = kahan(comp[i], total, c)
            value[out - 1], comp[out - 1] = total, c if compensated else 0.0
        else:
            index[out], value[out], comp[out] = target, value[i], comp[i]
            out += 1
    return out


@device
def reduce_schema(w: Work, schema: int, compensated: bool) -> None:
    """Lower the resolution to `schema`, merging buckets."""
    ints = w[0]
    steps = ints[I_SCHEMA] - schema
    if steps > 0:
        ints[I_POS] = _reduce_side(w[2], w[3], w[4], ints[I_POS], steps, compensated)
        ints[I_NEG] = _reduce_side(w[5], w[6], w[7], ints[I_NEG], steps, compensated)
        ints[I_SCHEMA] = schema


@device
def zero_count_for(w: Work, threshold: float) -> tuple[float, float, float]:
    """(count, compensation, threshold) of a zero bucket that reaches at least to `threshold`: it is widened
    to the border of a populated bucket that it would cut, until it cuts none on either side."""
    schema = w[0][I_SCHEMA]
    if threshold == w[1][N_THRESHOLD]:
        return w[1][N_ZERO], w[1][N_ZERO_COMP], threshold
    while True:
        total, c = w[1][N_ZERO], w[1][N_ZERO_COMP]
        again = False
        for side in range(2):
            index, value, comp = (w[2], w[3], w[4]) if side == 0 else (w[5], w[6], w[7])
            for i in range(w[0][I_POS + side]):
                if exponential_bound(index[i] - 1, schema) >= threshold:
                    break
                total, c = kahan(value[i], total, c)
                total, c = kahan(comp[i], total, c)
                upper = exponential_bound(index[i], schema)
                if upper > threshold:
                    if value[i] != 0.0:
                        threshold = upper
                        again = side == 1
                    break
        if not again:
            return total, c, threshold


@device
def _swallow_side(index: I64, value: F64, comp: F64, n: int, schema: int, threshold: float) -> int:
    out = 0
    for i in range(n):
        if exponential_bound(index[i] - 1, schema) < threshold or (value[i] == 0.0 and comp[i] == 0.0):
            continue
        index[out], value[out], comp[out] = index[i], value[i], comp[i]
        out += 1
    return out


@device
def _widen_zero(w: Work, threshold: float, compensated: bool) -> None:
    """Make the zero bucket reach to `threshold` (or beyond, see zero_count_for), and drop empty buckets."""
    nums = w[1]
    count, c, reached = zero_count_for(w, threshold)
    nums[N_ZERO], nums[N_THRESHOLD] = count, reached
    nums[N_ZERO_COMP] = c if compensated else 0.0
    w[0][I_POS] = _swallow_side(w[2], w[3], w[4], w[0][I_POS], w[0][I_SCHEMA], reached)
    w[0][I_NEG] = _swallow_side(w[5], w[6], w[7], w[0][I_NEG], w[0][I_SCHEMA], reached)


@device
def _reconcile_zero(w: Work, other: Work, compensated: bool) -> tuple[float, float]:
    """Widen `w`'s zero bucket until it holds both; returns what the other's then counts, and compensation."""
    count, c, threshold = other[1][N_ZERO], 0.0, other[1][N_THRESHOLD]
    while threshold != w[1][N_THRESHOLD]:
        if w[1][N_THRESHOLD] > threshold:
            count, c, threshold = zero_count_for(other, w[1][N_THRESHOLD])
        if threshold > w[1][N_THRESHOLD]:
            _widen_zero(w, threshold, compensated)
    return count, c


@device
def _add_pair(total: float, c: float, x: float, extra: float, compensated: bool) -> tuple[float, float]:
    if not compensated:
        return total + x, 0.0
    total, c = kahan(x, total, c)
    if extra != 0.0:
        total, c = kahan(extra, total, c)
    return total, c


@device
def _merge_side(
    index: I64,
    value: F64,
    comp: F64,
    n: int,
    other_index: I64,
    other_value: F64,
    other_comp: F64,
    first: int,
    m: int,
    sign: float,
    compensated: bool,
    spare_index: I64,
    spare_value: F64,
    spare_comp: F64,
) -> int:
    """Add the other's buckets first..m; returns the new length."""
    same = m - first == n
    if same:
        for i in range(n):
            if index[i] != other_index[first + i]:
                same = False
                break
    if same:
        for i in range(n):
            value[i], comp[i] = _add_pair(
                value[i], comp[i], sign * other_value[first + i], sign * other_comp[first + i], compensated
            )
        return n
    a, b, out = 0, first, 0
    while a < n or b < m:
        if b >= m or (a < n and index[a] < other_index[b]):
            spare_index[out], spare_value[out], spare_comp[out] = index[a], value[a], comp[a]
            a += 1
        elif a >= n or other_index[b] < index[a]:
            spare_index[out], spare_value[out] = other_index[b], sign * other_value[b]
            spare_comp[out] = sign * other_comp[b] if compensated else 0.0
            b += 1
        else:
            spare_index[out] = index[a]
            spare_value[out], spare_comp[out] = _add_pair(
                value[a], comp[a], sign * other_value[b], sign * other_comp[b], compensated
            )
            a += 1
            b += 1
        out += 1
    copy_ints(spare_index, index, out)
    copy_floats(spare_value, value, out)
    copy_floats(spare_comp, comp, out)
    return out


@device
def _first_beyond(index: I64, n: int, schema: int, threshold: float) -> int:
    """First bucket that does not lie inside the zero bucket."""
    for i in range(n):
        if exponential_bound(index[i], schema) > threshold:
            return i
    return n


@device
def custom_target(bounds: F64, n: int, upper: float) -> int:
    """The bucket of `bounds` f64[n] that takes in a bucket with this upper bound."""
    for i in range(n):
        if bounds[i] >= upper:
            return i
    return n


@device
def _map_to_bounds(w: Work, bounds: F64, n: int, sign: float, compensated: bool, out: F64, comp: F64) -> None:
    for i in range(w[0][I_POS]):
        target = custom_target(bounds, n, custom_bound(w[2][i], w[8], 0, w[0][I_CUSTOM]))
        out[target], comp[target] = kahan(sign * w[3][i], out[target], comp[target])
        if compensated:
            out[target], comp[target] = kahan(w[4][i], out[target], comp[target])


@device
def _add_custom(w: Work, other: Work, sign: float, compensated: bool) -> int:
    """Custom buckets: with different bounds, both are mapped to the bounds they share."""
    mine, theirs = w[0][I_CUSTOM], other[0][I_CUSTOM]
    same = mine == theirs
    if same:
        for i in range(mine):
            if w[8][i] != other[8][i]:
                same = False
                break
    if same:
        w[0][I_POS] = _merge_side(
            w[2], w[3], w[4], w[0][I_POS], other[2], other[3], other[4], 0, other[0][I_POS], sign,
            compensated, w[9], w[10], w[11],
        )  # fmt: skip
        return 0
    shared = np.empty(min(mine, theirs), np.float64)
    n, a, b = 0, 0, 0
    while a < mine and b < theirs:
        if w[8][a] == other[8][b]:
            shared[n] = w[8][a]
            n += 1
            a += 1
            b += 1
        elif w[8][a] < other[8][b]:
            a += 1
        else:
            b += 1
    totals, comps = np.zeros(n + 1), np.zeros(n + 1)
    _map_to_bounds(w, shared, n, 1.0, compensated, totals, comps)
    _map_to_bounds(other, shared, n, sign, False, totals, comps)
    out = 0
    for i in range(n + 1):
        if totals[i] == 0.0 and (not compensated or comps[i] == 0.0):
            continue
        w[2][out], w[3][out], w[4][out] = i, totals[i], comps[i] if compensated else 0.0
        out += 1
    w[0][I_POS], w[0][I_CUSTOM] = out, n
    copy_floats(shared, w[8], n)
    return RECONCILED


@device
def adjust_hint(left: int, right: int) -> int:
    """The hint of a sum: gauge wins, then unknown; reset and not_reset collide to unknown."""
    if left == right:
        return left
    if left == HINT_GAUGE or right == HINT_GAUGE:
        return HINT_GAUGE
    return HINT_UNKNOWN


@device
def add(w: Work, other: Work, sign: float, compensated: bool) -> int:
    """w += sign * other. `other` may come out with a lower resolution. Returns INCOMPATIBLE (nothing done) or
    flags COLLISION of reset hints, RECONCILED custom bounds."""
    custom = w[0][I_SCHEMA] == CUSTOM_SCHEMA
    if custom != (other[0][I_SCHEMA] == CUSTOM_SCHEMA):
        return INCOMPATIBLE
    flags = 0
    left, right = w[0][I_HINT], other[0][I_HINT]
    if (left == HINT_RESET and right == HINT_NOT_RESET) or (left == HINT_NOT_RESET and right == HINT_RESET):
        flags = COLLISION
    w[0][I_HINT] = adjust_hint(left, right)
    nums = w[1]
    if not custom:
        count, c = _reconcile_zero(w, other, compensated)
        nums[N_ZERO], nums[N_ZERO_COMP] = _add_pair(
            nums[N_ZERO], nums[N_ZERO_COMP], sign * count, sign * c, compensated
        )
    for field in range(N_COUNT, N_SUM + 1):
        total, c = _add_pair(nums[field], nums[field + 3], sign * other[1][field], 0.0, compensated)
        nums[field], nums[field + 3] = total, c
    if custom:
        return flags | _add_custom(w, other, sign, compensated)
    schema = min(w[0][I_SCHEMA], other[0][I_SCHEMA])
    reduce_schema(w, schema, compensated)
    reduce_schema(other, schema, compensated)
    for side in range(2):
        if side == 0:
            index, value, comp = w[2], w[3], w[4]
            theirs, theirs_value, theirs_comp = other[2], other[3], other[4]
        else:
            index, value, comp = w[5], w[6], w[7]
            theirs, theirs_value, theirs_comp = other[5], other[6], other[7]
        m = other[0][I_POS + side]
        first = _first_beyond(theirs, m, schema, nums[N_THRESHOLD])
        w[0][I_POS + side] = _merge_side(
            index, value, comp, w[0][I_POS + side], theirs, theirs_value, theirs_comp, first, m, sign,
            compensated, w[9], w[10], w[11],
        )  # fmt: skip
    return flags


@device
def scale(w: Work, factor: float, divide: bool) -> None:
    """Multiply by, or divide by, a number; dividing by zero drops all buckets. Compensations too."""
    nums = w[1]
    for field in range(N_ZERO, N_SUM_COMP + 1):
        if field <= N_SUM or nums[field] != 0.0:
            nums[field] = nums[field] / factor if divide else nums[field] * factor
    if divide and factor == 0.0:
        w[0][I_POS], w[0][I_NEG] = 0, 0
        return
    for i in range(w[0][I_POS]):
        w[3][i] = w[3][i] / factor if divide else w[3][i] * factor
        if w[4][i] != 0.0:
            w[4][i] = w[4][i] / factor if divide else w[4][i] * factor
    for i in range(w[0][I_NEG]):
        w[6][i] = w[6][i] / factor if divide else w[6][i] * factor
        if w[7][i] != 0.0:
            w[7][i] = w[7][i] / factor if divide else w[7][i] * factor
    if factor < 0.0:
        w[0][I_HINT] = HINT_GAUGE


@device
def fold_compensation(w: Work) -> None:
    """Add the compensations to the totals."""
    nums = w[1]
    for field in range(N_ZERO, N_SUM + 1):
        nums[field] += nums[field + 3]
    for i in range(w[0][I_POS]):
        w[3][i] += w[4][i]
    for i in range(w[0][I_NEG]):
        w[6][i] += w[7][i]


@device
def has_overflow(w: Work) -> bool:
    """Whether any total is infinite."""
    for field in range(N_ZERO, N_SUM + 1):
        if math.isinf(w[1][field]):
            return True
    for i in range(w[0][I_POS]):
        if math.isinf(w[3][i]):
            return True
    for i in range(w[0][I_NEG]):  # noqa: SIM110 (numba)
        if math.isinf(w[6][i]):
            return True
    return False
