"""Anchored and smoothed windows over histograms.

In and out as `histogramrate`; samples reach a lookback beyond the windows. Values at a border that falls
between two histograms are interpolated, across a counter reset from zero (prometheus-surface.md 2.8).
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels import histogramoutput as output
from promql.kernels import histogramwork as work
from promql.kernels.bucketbounds import CUSTOM_SCHEMA
from promql.kernels.cell import seek_after
from promql.kernels.histogrampool import HINT, HINT_GAUGE, I32, I64, POOL, SCHEMA, U8, Pool
from promql.kernels.histogramrate import (
    MIXED_BUCKETS,
    NOT_COUNTER,
    NOT_GAUGE,
    RECONCILED_ADD,
    RECONCILED_SUB,
)
from promql.kernels.histogramwork import I_HINT, Work
from tsdb.kernels.compile import device, kernel

Bools = npt.NDArray[np.bool_]


@device
def _between(pool: Pool, t_ms: I64, h: int, at_ms: int, restarted: bool, out: Work, spare: Work) -> None:
    """The histogram at a time between samples h and h+1."""
    fraction = float(at_ms - t_ms[h]) / float(t_ms[h + 1] - t_ms[h])
    work.load(out, pool, h + 1)
    if restarted:
        work.scale(out, fraction, False)
        return
    work.load(spare, pool, h)
    work.add(out, spare, -1.0, False)
    work.scale(out, fraction, False)
    work.load(spare, pool, h)
    work.add(out, spare, 1.0, False)


@device
def _check(pool: Pool, first: int, last: int, is_counter: bool) -> int:
    """Flags of the samples that take part; MIXED_BUCKETS among them means no result."""
    flags = 0
    for h in range(first, last + 1):
        if (pool[SCHEMA][h] == CUSTOM_SCHEMA) != (pool[SCHEMA][first] == CUSTOM_SCHEMA):
            flags |= MIXED_BUCKETS
        if is_counter and pool[HINT][h] == HINT_GAUGE:
            flags |= NOT_COUNTER
    if not is_counter and (pool[HINT][first] != HINT_GAUGE or pool[HINT][last] != HINT_GAUGE):
        flags |= NOT_GAUGE
    return flags


@kernel(
    f"{POOL}({POOL}, int64[::1], int64[::1], uint8[::1], boolean[:, ::1], int64, int64, int64, int64,"
    " boolean, boolean, boolean, int32[:, ::1], uint8[::1])",
    group="read",
)
def extended_rate(
    pool: Pool,
    row_offsets: I64,
    t_ms: I64,
    reset: U8,
    which: Bools,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    lookback_ms: int,
    is_smoothed: bool,
    is_counter: bool,
    is_rate: bool,
    index: I32,
    flags: U8,
) -> Pool:
    """rate (counter, rate), increase (counter), delta (neither). `reset` u8[H] marks samples that are a reset
    since the one before."""
    size = work.work_size(pool)
    total, left, spare = work.new_work(size), work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for row in range(len(row_offsets) - 1):
        a = row_offsets[row]
        b = a
        hi = row_offsets[row + 1]
        flags[row] = 0
        for k in range(which.shape[1]):
            end_ms = first_end_ms + k * step_ms
            start_ms = end_ms - range_ms
            a = seek_after(t_ms, a, hi, start_ms - lookback_ms)
            b = seek_after(t_ms, max(a, b), hi, end_ms + (lookback_ms if is_smoothed else 0))
            index[row, k] = -1
            if not which[row, k] or b == a:
                continue
            first = max(a, seek_after(t_ms, a, b - 1, start_ms) - 1)
            last = seek_after(t_ms, a, b - 1, end_ms - 1) if is_smoothed else b - 1
            if t_ms[last] <= start_ms or (is_smoothed and t_ms[first] > end_ms):
                continue
            noticed = _check(pool, first, last, is_counter)
            flags[row] |= noticed
            if noticed & MIXED_BUCKETS:
                continue
            cuts_left = is_smoothed and t_ms[first] < start_ms
            if is_smoothed and last > a and t_ms[last] > end_ms:
                restarted = is_counter and reset[last] != 0
                _between(pool, t_ms, last - 1, end_ms, restarted, total, spare)
            else:
                work.load(total, pool, last)
            if cuts_left:
                restarted = is_counter and reset[first + 1] != 0
                _between(pool, t_ms, first, start_ms, restarted, left, spare)
            else:
                work.load(left, pool, first)
            if work.add(total, left, -1.0, False) & work.RECONCILED:
                flags[row] |= RECONCILED_SUB
            if is_counter:
                for h in range(first + 2 if cuts_left else first + 1, last + 1):
                    if reset[h] != 0:
                        work.load(spare, pool, h - 1)
                        if work.add(total, spare, 1.0, False) & work.RECONCILED:
                            flags[row] |= RECONCILED_ADD
            if is_rate:
                work.scale(total, range_ms / 1000.0, True)
            total[0][I_HINT] = HINT_GAUGE
            index[row, k] = fill[0]
            out = output.emit(out, fill, total, True)
    return output.finish(out, fill)


@kernel(
    f"{POOL}({POOL}, int64[::1], int64[::1], uint8[::1], boolean[:, ::1], int64, int64, int64,"
    " int32[:, ::1], uint8[::1])",
    group="read",
)
def smoothed_cells(
    pool: Pool,
    row_offsets: I64,
    t_ms: I64,
    reset: U8,
    which: Bools,
    first_ms: int,
    step_ms: int,
    lookback_ms: int,
    index: I32,
    flags: U8,
) -> Pool:
    """A smoothed instant selector: between the neighbours within the lookback, or the last one where none
    follows. Counters restart from zero."""
    size = work.work_size(pool)
    total, spare = work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for row in range(len(row_offsets) - 1):
        lo, hi = row_offsets[row], row_offsets[row + 1]
        b = lo
        flags[row] = 0
        for k in range(which.shape[1]):
            at_ms = first_ms + k * step_ms
            b = seek_after(t_ms, b, hi, at_ms)
            index[row, k] = -1
            if not which[row, k] or b == lo or t_ms[b - 1] <= at_ms - lookback_ms:
                continue
            if t_ms[b - 1] == at_ms or b == hi or t_ms[b] > at_ms + lookback_ms:
                work.load(total, pool, b - 1)
            else:
                if (pool[SCHEMA][b] == CUSTOM_SCHEMA) != (pool[SCHEMA][b - 1] == CUSTOM_SCHEMA):
                    flags[row] |= MIXED_BUCKETS
                    continue
                restarted = reset[b] != 0 and pool[HINT][b] != HINT_GAUGE
                _between(pool, t_ms, b - 1, at_ms, restarted, total, spare)
            index[row, k] = fill[0]
            out = output.emit(out, fill, total, True)
    return output.finish(out, fill)
