"""rate, increase, delta, irate and idelta of histograms, and changes and resets of ranges with histograms.

In: a pool in CSR rows (`row_offsets` i64[R+1], `t_ms` i64[H]), `reset` u8[H] (see `neighbours`), and `which`
bool[R, K], the windows asked for; window k is (end - range, end], end = first_end + k * step. Out: a pool,
`index` i32[R, K] and `flags` u8[R] over the windows of a row. Semantics: prometheus-surface.md 2.8.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels import histogramoutput as output
from promql.kernels import histogramwork as work
from promql.kernels.bucketbounds import CUSTOM_SCHEMA
from promql.kernels.cell import ABSENT_U64
from promql.kernels.histogrampool import COUNT, F64, HINT, HINT_GAUGE, I32, I64, POOL, SCHEMA, U8, Pool
from promql.kernels.histogramwindows import extrapolation_from, extrapolation_of
from promql.kernels.histogramwork import I_HINT, N_COUNT, Work
from tsdb.kernels.compile import device, kernel

Bools = npt.NDArray[np.bool_]

MIXED_BUCKETS = 1
"""Exponential and custom buckets in one window: no result."""
NOT_COUNTER = 2
NOT_GAUGE = 4
RECONCILED_ADD = 8
RECONCILED_SUB = 16


@device
def _increase(
    pool: Pool, reset: U8, a: int, b: int, is_counter: bool, total: Work, other: Work
) -> tuple[bool, int]:
    """last - first of samples a..b, plus what was there before each reset. Returns (has a result, flags)."""
    flags = 0
    custom = pool[SCHEMA][a] == CUSTOM_SCHEMA
    nulled = is_counter and reset[a + 1] != 0
    first = a
    if is_counter and (pool[HINT][a] == HINT_GAUGE or pool[HINT][b - 1] == HINT_GAUGE):
        flags = NOT_COUNTER
    if nulled:
        first = a + 1
        custom = pool[SCHEMA][first] == CUSTOM_SCHEMA
    if (pool[SCHEMA][b - 1] == CUSTOM_SCHEMA) != custom:
        return False, flags | MIXED_BUCKETS
    schema = np.int64(min(pool[SCHEMA][b - 1], pool[SCHEMA][first]))
    if is_counter:
        for h in range(a + 1, b - 1):
            if pool[HINT][h] == HINT_GAUGE:
                flags |= NOT_COUNTER
            schema = min(schema, np.int64(pool[SCHEMA][h]))
            if (pool[SCHEMA][h] == CUSTOM_SCHEMA) != custom:
                return False, MIXED_BUCKETS
    elif pool[HINT][a] != HINT_GAUGE or pool[HINT][b - 1] != HINT_GAUGE:
        flags |= NOT_GAUGE
    work.load(total, pool, b - 1)
    work.reduce_schema(total, schema, False)
    if nulled:
        work.load_empty(other, pool, first)
    else:
        work.load(other, pool, first)
    if work.add(total, other, -1.0, False) & work.RECONCILED:
        flags |= RECONCILED_SUB
    if is_counter:
        for h in range(a + 2, b):
            if reset[h] != 0:
                work.load(other, pool, h - 1)
                if work.add(total, other, 1.0, False) & work.RECONCILED:
                    flags |= RECONCILED_ADD
    total[0][I_HINT] = HINT_GAUGE
    return True, flags


@kernel(
    f"{POOL}({POOL}, int64[::1], int64[::1], uint8[::1], int64[::1], boolean[:, ::1], int64, int64, int64,"
    " boolean, boolean, int32[:, ::1], uint8[::1])",
    group="read",
)
def extrapolated(
    pool: Pool,
    row_offsets: I64,
    t_ms: I64,
    reset: U8,
    start_ms: I64,
    which: Bools,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_counter: bool,
    is_rate: bool,
    index: I32,
    flags: U8,
) -> Pool:
    """rate (counter, rate), increase (counter), delta (neither).

    `start_ms` i64[H] are start times, or it is empty. Where the first sample of a window started inside the
    window, the counter was zero then: its value is added and nothing is extrapolated to the left, and one
    sample is enough.
    """
    size = work.work_size(pool)
    total, other = work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for row in range(len(row_offsets) - 1):
        a = row_offsets[row]
        b = a
        hi = row_offsets[row + 1]
        flags[row] = 0
        for k in range(which.shape[1]):
            end_ms = first_end_ms + k * step_ms
            while b < hi and t_ms[b] <= end_ms:
                b += 1
            while a < b and t_ms[a] <= end_ms - range_ms:
                a += 1
            index[row, k] = -1
            if not which[row, k] or b == a:
                continue
            # A start of 0 is none, also where the window reaches back beyond the time 0.
            born = len(start_ms) > 0 and start_ms[a] != 0 and end_ms - range_ms < start_ms[a] < t_ms[a]
            if b - a < 2 and not born:
                continue
            if b - a < 2:
                work.load(total, pool, a)
            else:
                found, noticed = _increase(pool, reset, a, b, is_counter, total, other)
                flags[row] |= noticed
                if not found:
                    continue
            if born:
                if b - a >= 2:
                    work.load(other, pool, a)
                    if work.add(total, other, 1.0, False) < 0:
                        flags[row] |= MIXED_BUCKETS
                        continue
                factor = extrapolation_from(t_ms, a, b, start_ms[a], end_ms)
            else:
                first, result = pool[COUNT][a], total[1][N_COUNT]
                factor = extrapolation_of(t_ms, a, b, end_ms - range_ms, end_ms, is_counter, first, result)
            if is_rate:
                factor /= range_ms / 1000.0
            work.scale(total, factor, False)
            total[0][I_HINT] = HINT_GAUGE
            index[row, k] = fill[0]
            out = output.emit(out, fill, total, True)
    return output.finish(out, fill)


@kernel(
    f"{POOL}({POOL}, int64[::1], int64[::1], uint8[::1], boolean[:, ::1], int64, int64, int64, boolean,"
    " int32[:, ::1], uint8[::1])",
    group="read",
)
def last_two(
    pool: Pool,
    row_offsets: I64,
    t_ms: I64,
    reset: U8,
    which: Bools,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_rate: bool,
    index: I32,
    flags: U8,
) -> Pool:
    """irate and idelta: between the last two histograms of the window."""
    size = work.work_size(pool)
    total, other = work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for row in range(len(row_offsets) - 1):
        lo, hi = row_offsets[row], row_offsets[row + 1]
        b = lo
        flags[row] = 0
        for k in range(which.shape[1]):
            end_ms = first_end_ms + k * step_ms
            while b < hi and t_ms[b] <= end_ms:
                b += 1
            index[row, k] = -1
            if (
                not which[row, k]
                or b - lo < 2
                or t_ms[b - 2] <= end_ms - range_ms
                or t_ms[b - 1] == t_ms[b - 2]
            ):
                continue
            gauges = (pool[HINT][b - 1] == HINT_GAUGE) + (pool[HINT][b - 2] == HINT_GAUGE)
            if is_rate and gauges > 0:
                flags[row] |= NOT_COUNTER
            if not is_rate and gauges < 2:
                flags[row] |= NOT_GAUGE
            work.load(total, pool, b - 1)
            if not is_rate or reset[b - 1] == 0:
                work.load(other, pool, b - 2)
                noticed = work.add(total, other, -1.0, False)
                if noticed < 0:
                    flags[row] |= MIXED_BUCKETS
                    continue
                if noticed & work.RECONCILED:
                    flags[row] |= RECONCILED_SUB
            total[0][I_HINT] = HINT_GAUGE
            if is_rate:
                work.scale(total, (t_ms[b - 1] - t_ms[b - 2]) / 1000.0, True)
            index[row, k] = fill[0]
            out = output.emit(out, fill, total, True)
    return output.finish(out, fill)


@kernel(
    "void(int64[::1], int64[::1], float64[::1], int64[::1], int64[::1], uint8[::1], uint8[::1],"
    " int64, int64, int64, int64, boolean, float64[:, ::1])",
    group="read",
)
def transitions(
    offsets: I64,
    t_ms: I64,
    v: F64,
    row_offsets: I64,
    histogram_t_ms: I64,
    differs: U8,
    float_reset: U8,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    anchor_ms: int,
    resets_only: bool,
    out: F64,
) -> None:
    """changes, or resets, of rows that mix floats and histograms: a change of kind counts as one. `differs`
    u8[H] says which histograms differ from (or are a reset of) the one before; `float_reset` u8[N] which
    floats are resets by their start time. With `anchor_ms` > 0 a window also sees the last sample before it,
    at most that much earlier, if any sample lies inside."""
    bits = out.view(np.uint64)
    for row in range(out.shape[0]):
        for k in range(out.shape[1]):
            end_ms = first_end_ms + k * step_ms
            f, f_hi = offsets[row], offsets[row + 1]
            h, h_hi = row_offsets[row], row_offsets[row + 1]
            while f < f_hi and t_ms[f] <= end_ms - range_ms:
                f += 1
            while h < h_hi and histogram_t_ms[h] <= end_ms - range_ms:
                h += 1
            before = 0
            count = 0
            inside = (f < f_hi and t_ms[f] <= end_ms) or (h < h_hi and histogram_t_ms[h] <= end_ms)
            if anchor_ms > 0 and inside:
                oldest = end_ms - range_ms - anchor_ms
                has_float = f > offsets[row] and t_ms[f - 1] > oldest
                has_histogram = h > row_offsets[row] and histogram_t_ms[h - 1] > oldest
                if has_float and (not has_histogram or t_ms[f - 1] >= histogram_t_ms[h - 1]):
                    f -= 1
                elif has_histogram:
                    h -= 1
            while True:
                has_float = f < f_hi and t_ms[f] <= end_ms
                has_histogram = h < h_hi and histogram_t_ms[h] <= end_ms
                if not has_float and not has_histogram:
                    break
                if has_float and (not has_histogram or t_ms[f] < histogram_t_ms[h]):
                    if before == 2:
                        count += 1
                    elif before == 1:
                        if resets_only:
                            count += v[f] < v[f - 1] or float_reset[f] != 0
                        else:
                            count += v[f] != v[f - 1] and not (np.isnan(v[f]) and np.isnan(v[f - 1]))
                    before = 1
                    f += 1
                else:
                    if before == 1:
                        count += 1
                    elif before == 2:
                        count += differs[h] != 0
                    before = 2
                    h += 1
            if before == 0:
                bits[row, k] = ABSENT_U64
            else:
                out[row, k] = count
