"""Sums and averages of histograms of one resolution: the usual case, without the accumulator.

Where all members of a run have one exponential schema and one zero threshold, and no bucket lies inside of
the zero bucket, a sum needs no sorted columns: each bucket has its place in a dense column. Order of
operations is that of `promql.kernels.histogramcombine`, which does all other runs, so that results agree bit
for bit. Nothing here allocates, for the reason given in `promql.kernels.histogramplain`.

In: a pool, `members` i64[M] (histograms in the order they are added) and runs `lo`, `hi` i64[N] of it.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, exponential_bound
from promql.kernels.cell import kahan
from promql.kernels.histogramcombine import COLLISION
from promql.kernels.histogrampool import (
    COUNT,
    CUSTOM_OFFSETS,
    F64,
    HINT,
    HINT_NOT_RESET,
    HINT_RESET,
    I32,
    I64,
    NEG_COUNT,
    NEG_INDEX,
    NEG_OFFSETS,
    POOL,
    POS_COUNT,
    POS_INDEX,
    POS_OFFSETS,
    SCHEMA,
    SUM,
    U8,
    ZERO_COUNT,
    ZERO_THRESHOLD,
    Pool,
)
from promql.kernels.histogramwork import adjust_hint
from tsdb.kernels.compile import device, kernel

Bools = npt.NDArray[np.bool_]

SPREAD_MAX = 1 << 16
"""Bucket indexes of a pool from the lowest to the highest; beyond it there are no dense columns."""


@kernel(f"void({POOL}, int64[:, ::1])", group="read")
def index_ranges(pool: Pool, ranges: I64) -> None:
    """The lowest index and one past the highest, i64[2, 2], of the positive and the negative side."""
    for side in range(2):
        index = pool[POS_INDEX] if side == 0 else pool[NEG_INDEX]
        low, high = np.int64(1 << 40), np.int64(-(1 << 40))
        for i in range(len(index)):
            low, high = min(low, np.int64(index[i])), max(high, np.int64(index[i]) + 1)
        ranges[side, 0], ranges[side, 1] = (low, high) if high > low else (np.int64(0), np.int64(0))


@kernel(
    f"int64({POOL}, int64[::1], int64[::1], int64[::1], int64[:, ::1], boolean[::1], int64[::1])",
    group="read",
)
def dense_runs(pool: Pool, members: I64, lo: I64, hi: I64, ranges: I64, others: Bools, room: I64) -> int:
    """`others` bool[N]: the runs that are not of one resolution. `room` i64[3] gets histograms, positive and
    negative buckets that the sums of the rest have at most. Returns the number of `others`."""
    room[0], room[1], room[2] = 0, 0, 0
    left = 0
    for i in range(len(lo)):
        others[i] = False
        if hi[i] <= lo[i]:
            continue
        first = members[lo[i]]
        schema, threshold = np.int64(pool[SCHEMA][first]), pool[ZERO_THRESHOLD][first]
        dense = schema != CUSTOM_SCHEMA
        positives, negatives = 0, 0
        for m in range(lo[i], hi[i]):
            h = members[m]
            if pool[SCHEMA][h] != schema or pool[ZERO_THRESHOLD][h] != threshold or not dense:
                dense = False
                break
            a, b = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
            if b > a:
                dense = exponential_bound(np.int64(pool[POS_INDEX][a]), schema) > threshold
            positives += b - a
            a, b = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1]
            if b > a:
                dense = dense and exponential_bound(np.int64(pool[NEG_INDEX][a]), schema) > threshold
            negatives += b - a
        if not dense:
            others[i] = True
            left += 1
            continue
        room[0] += 1
        room[1] += min(positives, ranges[0, 1] - ranges[0, 0])
        room[2] += min(negatives, ranges[1, 1] - ranges[1, 0])
    return left


@device
def add_side(index: I32, count: F64, lo: int, hi: int, base: int, value: F64, comp: F64, seen: U8) -> None:
    """Add buckets lo..hi to the dense columns."""
    for i in range(lo, hi):
        at = np.int64(index[i]) - base
        if seen[at] == 0:
            seen[at], value[at], comp[at] = 1, count[i], 0.0
        else:
            total, c = kahan(count[i], value[at], comp[at])
            value[at], comp[at] = total, c


@device
def folded(value: float, comp: float, n: float) -> float:
    """A total with its compensation, divided by `n` where that is not 0."""
    if n != 0.0:
        value /= n
        if comp != 0.0:
            comp /= n
    return value + comp


@device
def take_side(
    base: int,
    low: int,
    high: int,
    value: F64,
    comp: F64,
    seen: U8,
    n: float,
    compact: bool,
    out_index: I32,
    out: F64,
    at: int,
) -> int:
    """Write buckets low..high of the dense columns behind `at` and clear these; returns the new end."""
    for i in range(low, high):
        if seen[i] != 0:
            total = folded(value[i], comp[i], n)
            if not compact or total != 0.0:
                out_index[at], out[at] = base + i, total
                at += 1
            seen[i] = 0
    return at


@device
def _is_finite(value: F64, seen: U8, low: int, high: int) -> bool:
    for i in range(low, high):  # noqa: SIM110 (numba)
        if seen[i] != 0 and not math.isfinite(value[i]):
            return False
    return True


@kernel(
    f"int64({POOL}, int64[::1], int64[::1], int64[::1], int64[:, ::1], boolean, boolean, float64[::1],"
    " float64[::1], uint8[::1], float64[::1], float64[::1], uint8[::1], boolean[::1],"
    f" {POOL}, int32[::1], uint8[::1], int64[::1])",
    group="read",
)
def dense_sums(
    pool: Pool,
    members: I64,
    lo: I64,
    hi: I64,
    ranges: I64,
    average: bool,
    compact: bool,
    pos_value: F64,
    pos_comp: F64,
    pos_seen: U8,
    neg_value: F64,
    neg_comp: F64,
    neg_seen: U8,
    others: Bools,
    out: Pool,
    index: I32,
    flags: U8,
    fill: I64,
) -> int:
    """The sums, or averages, of the runs that are not in `others`, into `out`; `index` i32[N] and `flags`
    u8[N] as `histogramcombine.combine`. The dense columns of both sides are as long as their range, and
    `seen` is all zero. An average whose sum overflows is put into `others`. Returns the number of those
    added; `fill` i64[4] gets histograms, positive and negative buckets and bounds written."""
    written, positives, negatives, added = 0, 0, 0, 0
    pos_base, neg_base = ranges[0, 0], ranges[1, 0]
    out[POS_OFFSETS][0], out[NEG_OFFSETS][0], out[CUSTOM_OFFSETS][0] = 0, 0, 0
    for i in range(len(lo)):
        index[i], flags[i] = -1, 0
        if hi[i] <= lo[i] or others[i]:
            continue
        h = members[lo[i]]
        hint, hints = np.int64(pool[HINT][h]), 0
        zero, count, total = pool[ZERO_COUNT][h], pool[COUNT][h], pool[SUM][h]
        zero_c, count_c, total_c = 0.0, 0.0, 0.0
        low, high, neg_low, neg_high = len(pos_seen), 0, len(neg_seen), 0
        for m in range(lo[i], hi[i]):
            h = members[m]
            if pool[HINT][h] == HINT_RESET:
                hints |= 1
            elif pool[HINT][h] == HINT_NOT_RESET:
                hints |= 2
            if m > lo[i]:
                hint = np.int64(adjust_hint(hint, np.int64(pool[HINT][h])))
                zero, zero_c = kahan(pool[ZERO_COUNT][h], zero, zero_c)
                count, count_c = kahan(pool[COUNT][h], count, count_c)
                total, total_c = kahan(pool[SUM][h], total, total_c)
            a, b = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
            if b > a:
                low = min(low, np.int64(pool[POS_INDEX][a]) - pos_base)
                high = max(high, np.int64(pool[POS_INDEX][b - 1]) - pos_base + 1)
                add_side(pool[POS_INDEX], pool[POS_COUNT], a, b, pos_base, pos_value, pos_comp, pos_seen)
            a, b = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1]
            if b > a:
                neg_low = min(neg_low, np.int64(pool[NEG_INDEX][a]) - neg_base)
                neg_high = max(neg_high, np.int64(pool[NEG_INDEX][b - 1]) - neg_base + 1)
                add_side(pool[NEG_INDEX], pool[NEG_COUNT], a, b, neg_base, neg_value, neg_comp, neg_seen)
        finite = math.isfinite(zero) and math.isfinite(count) and math.isfinite(total)
        if average and not (
            finite
            and _is_finite(pos_value, pos_seen, low, high)
            and _is_finite(neg_value, neg_seen, neg_low, neg_high)
        ):
            for k in range(low, high):
                pos_seen[k] = 0
            for k in range(neg_low, neg_high):
                neg_seen[k] = 0
            others[i] = True
            added += 1
            continue
        if hints == 3:
            flags[i] = COLLISION
        n = float(hi[i] - lo[i]) if average else 0.0
        out[SCHEMA][written], out[HINT][written] = pool[SCHEMA][h], hint
        out[ZERO_THRESHOLD][written] = pool[ZERO_THRESHOLD][h]
        out[ZERO_COUNT][written] = folded(zero, zero_c, n)
        out[COUNT][written], out[SUM][written] = folded(count, count_c, n), folded(total, total_c, n)
        positives = take_side(
            pos_base, low, high, pos_value, pos_comp, pos_seen, n, compact, out[POS_INDEX], out[POS_COUNT],
            positives,
        )  # fmt: skip
        negatives = take_side(
            neg_base, neg_low, neg_high, neg_value, neg_comp, neg_seen, n, compact, out[NEG_INDEX],
            out[NEG_COUNT], negatives,
        )  # fmt: skip
        index[i] = written
        written += 1
        out[POS_OFFSETS][written], out[NEG_OFFSETS][written] = positives, negatives
        out[CUSTOM_OFFSETS][written] = 0
    fill[0], fill[1], fill[2], fill[3] = written, positives, negatives, 0
    return added
