"""Counter windows of histograms whose buckets stay the same: the usual case, without the accumulator.

A run is a series of neighbours in a row with equal schema, zero threshold and buckets, and no reset between
them. The rate of a window inside of one run is a difference of columns; `promql.kernels.histogramrate` does
the rest. Order of operations is the same, so that results agree bit for bit. Nothing here allocates: arrays
would then be counted at each call (tsdb.kernels.compile), which costs more than the arithmetic.

In: a pool in CSR rows (`row_offsets` i64[R+1], `t_ms` i64[H]); window k is (end - range, end], where end is
first_end + k * step.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, exponential_bound
from promql.kernels.cell import seek_after
from promql.kernels.histogrampool import (
    COUNT,
    CUSTOM_OFFSETS,
    CUSTOM_VALUES,
    F64,
    HINT,
    HINT_GAUGE,
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
from promql.kernels.histogramwindows import extrapolation_of
from tsdb.kernels.compile import device, kernel

Bools = npt.NDArray[np.bool_]

UNSURE = 2
"""A sample of which only `histogramarith.neighbours` can tell whether it is a reset."""


@device
def _same_bounds(pool: Pool, h: int) -> bool:
    """Whether histograms h and h - 1 have equal custom bounds."""
    offsets, values = pool[CUSTOM_OFFSETS], pool[CUSTOM_VALUES]
    n = offsets[h + 1] - offsets[h]
    if offsets[h] - offsets[h - 1] != n:
        return False
    for i in range(n):  # noqa: SIM110 (numba)
        if values[offsets[h] + i] != values[offsets[h - 1] + i]:
            return False
    return True


@device
def _grown(offsets: I64, index: I32, count: F64, h: int) -> int:
    """Of one side of h against h - 1: 0 other buckets, 1 some bucket fell, 2 neither."""
    lo, before = offsets[h], offsets[h - 1]
    n = offsets[h + 1] - lo
    if lo - before != n:
        return 0
    now_index, old_index = index[lo : lo + n], index[before : before + n]
    now, old = count[lo : lo + n], count[before : before + n]
    others, falls = 0, 0
    for i in range(n):
        others += now_index[i] != old_index[i]
        falls += now[i] < old[i]
    if others > 0:
        return 0
    return 1 if falls > 0 else 2


@kernel(f"int64({POOL}, int64[::1], boolean, uint8[::1], int64[::1])", group="read")
def runs_of(pool: Pool, row_offsets: I64, is_counter: bool, reset: U8, run: I64) -> int:
    """`reset` u8[H]: 1 where a sample is a reset since the one before in its row, 0 where not (and for the
    first of a row), else UNSURE. `run` i64[H]: the first sample of its run. Returns how many are unsure.

    Gauges are in no run of a counter. Without `is_counter` resets do not matter and are not looked for."""
    schema, hint, total = pool[SCHEMA], pool[HINT], pool[COUNT]
    threshold, zero = pool[ZERO_THRESHOLD], pool[ZERO_COUNT]
    unsure = 0
    for row in range(len(row_offsets) - 1):
        lo = row_offsets[row]
        for h in range(lo, row_offsets[row + 1]):
            run[h] = h
            reset[h] = 0
            if h == lo:
                continue
            positive = _grown(pool[POS_OFFSETS], pool[POS_INDEX], pool[POS_COUNT], h)
            negative = _grown(pool[NEG_OFFSETS], pool[NEG_INDEX], pool[NEG_COUNT], h)
            same = schema[h] == schema[h - 1] and positive > 0 and negative > 0
            if schema[h] == CUSTOM_SCHEMA:
                same = same and _same_bounds(pool, h)
            else:
                same = same and threshold[h] == threshold[h - 1]
            if not is_counter:
                if same:
                    run[h] = run[h - 1]
                continue
            if hint[h] == HINT_RESET:
                reset[h] = 1
            elif hint[h] != HINT_NOT_RESET:
                if total[h] < total[h - 1]:
                    reset[h] = 1
                elif not same or positive == 1 or negative == 1 or zero[h] < zero[h - 1]:
                    reset[h] = UNSURE
                    unsure += 1
            if same and reset[h] == 0 and hint[h] != HINT_GAUGE and hint[h - 1] != HINT_GAUGE:
                run[h] = run[h - 1]
    return unsure


@kernel(
    f"int64({POOL}, int64[::1], int64[::1], int64[::1], boolean[:, ::1], int64, int64, int64, int32[:, ::1],"
    " int32[:, ::1], boolean[:, ::1], int64[::1])",
    group="read",
)
def plain_windows(
    pool: Pool,
    row_offsets: I64,
    t_ms: I64,
    run: I64,
    which: Bools,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    begins: I32,
    ends: I32,
    others: Bools,
    room: I64,
) -> int:
    """Find the windows of `which` bool[R, K] that lie in one run: samples [begins, ends) i32[R, K], ends 0
    for none. `others` are those of `which` that do not. `room` i64[4] gets histograms, positive and negative
    buckets and bounds that the result has at most. Returns the number of `others` with two samples."""
    for i in range(4):
        room[i] = 0
    left = 0
    for row in range(which.shape[0]):
        hi = row_offsets[row + 1]
        a = row_offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(which.shape[1]):
            a = seek_after(t_ms, a, hi, end_ms - range_ms)
            b = seek_after(t_ms, max(a, b), hi, end_ms)
            end_ms += step_ms
            begins[row, k], ends[row, k], others[row, k] = a, 0, False
            if not which[row, k] or b - a < 2:
                continue
            plain = run[b - 1] <= a
            schema = np.int64(pool[SCHEMA][a])
            positives = pool[POS_OFFSETS][a + 1] - pool[POS_OFFSETS][a]
            negatives = pool[NEG_OFFSETS][a + 1] - pool[NEG_OFFSETS][a]
            if schema == CUSTOM_SCHEMA:
                plain = plain and negatives == 0
            elif plain:
                # Buckets inside of the zero bucket are not subtracted.
                zero = pool[ZERO_THRESHOLD][a]
                if positives > 0:
                    at = np.int64(pool[POS_INDEX][pool[POS_OFFSETS][a]])
                    plain = exponential_bound(at, schema) > zero
                if negatives > 0:
                    at = np.int64(pool[NEG_INDEX][pool[NEG_OFFSETS][a]])
                    plain = plain and exponential_bound(at, schema) > zero
            if not plain:
                others[row, k] = True
                left += 1
                continue
            ends[row, k] = b
            room[0] += 1
            room[1] += positives
            room[2] += negatives
            room[3] += pool[CUSTOM_OFFSETS][a + 1] - pool[CUSTOM_OFFSETS][a]
    return left


@device
def _differences(
    index: I32, count: F64, first: int, last: int, n: int, factor: float, out_index: I32, out: F64, at: int
) -> int:
    """(last - first) * factor of n buckets without those that are zero, from `at` on; where they end."""
    for i in range(n):
        value = (count[last + i] - count[first + i]) * factor
        if value != 0.0:
            out_index[at] = index[last + i]
            out[at] = value
            at += 1
    return at


@kernel(
    f"void({POOL}, int64[::1], int32[:, ::1], int32[:, ::1], int64, int64, int64, boolean, boolean, {POOL},"
    " int32[:, ::1], uint8[::1], int64[::1])",
    group="read",
)
def plain_rates(
    pool: Pool,
    t_ms: I64,
    begins: I32,
    ends: I32,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_counter: bool,
    is_rate: bool,
    out: Pool,
    index: I32,
    gauges: U8,
    fill: I64,
) -> None:
    """rate (counter, rate), increase (counter), delta (neither) of the windows of `plain_windows` into `out`,
    which has their room; `index` i32[R, K], -1 for the others. `gauges` u8[R]: 1 where delta met a counter.
    `fill` i64[4]: histograms, positive and negative buckets and bounds written."""
    pos, neg, custom = pool[POS_OFFSETS], pool[NEG_OFFSETS], pool[CUSTOM_OFFSETS]
    hint, total = pool[HINT], pool[COUNT]
    h, positives, negatives, bounds = 0, 0, 0, 0
    out[POS_OFFSETS][0], out[NEG_OFFSETS][0], out[CUSTOM_OFFSETS][0] = 0, 0, 0
    for row in range(index.shape[0]):
        gauges[row] = 0
        end_ms = first_end_ms
        for k in range(index.shape[1]):
            a, b = np.int64(begins[row, k]), np.int64(ends[row, k])
            index[row, k] = -1
            if b > 0:
                last = b - 1
                if not is_counter and (hint[a] != HINT_GAUGE or hint[last] != HINT_GAUGE):
                    gauges[row] = 1
                increase = total[last] - total[a]
                factor = extrapolation_of(
                    t_ms, a, b, end_ms - range_ms, end_ms, is_counter, total[a], increase
                )
                if is_rate:
                    factor /= range_ms / 1000.0
                out[SCHEMA][h], out[HINT][h] = pool[SCHEMA][a], HINT_GAUGE
                out[ZERO_THRESHOLD][h] = pool[ZERO_THRESHOLD][last]
                zero = pool[ZERO_COUNT][last]
                if pool[SCHEMA][a] != CUSTOM_SCHEMA:
                    zero -= pool[ZERO_COUNT][a]
                out[ZERO_COUNT][h], out[COUNT][h] = zero * factor, increase * factor
                out[SUM][h] = (pool[SUM][last] - pool[SUM][a]) * factor
                positives = _differences(
                    pool[POS_INDEX], pool[POS_COUNT], pos[a], pos[last], pos[a + 1] - pos[a], factor,
                    out[POS_INDEX], out[POS_COUNT], positives,
                )  # fmt: skip
                negatives = _differences(
                    pool[NEG_INDEX], pool[NEG_COUNT], neg[a], neg[last], neg[a + 1] - neg[a], factor,
                    out[NEG_INDEX], out[NEG_COUNT], negatives,
                )  # fmt: skip
                for i in range(custom[last + 1] - custom[last]):
                    out[CUSTOM_VALUES][bounds] = pool[CUSTOM_VALUES][custom[last] + i]
                    bounds += 1
                index[row, k] = h
                h += 1
                out[POS_OFFSETS][h], out[NEG_OFFSETS][h] = positives, negatives
                out[CUSTOM_OFFSETS][h] = bounds
            end_ms += step_ms
    fill[0], fill[1], fill[2], fill[3] = h, positives, negatives, bounds
