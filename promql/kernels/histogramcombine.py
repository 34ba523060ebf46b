"""Sums and averages of many histograms: sum_over_time and avg_over_time, sum and avg.

In: a pool, `members` i64[M] (histograms in the order they are added) and runs `lo`, `hi` i64[N] of it. Out: a
pool of results, `index` i32[N] into it (-1 for an empty run or an incompatible one) and `flags` u8[N].
Totals are compensated; an average divides the sum until that overflows, then it becomes incremental
(prometheus-surface.md 2.6).
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np

from promql.kernels import histogramoutput as output
from promql.kernels import histogramwork as work
from promql.kernels.histogrampool import HINT, HINT_NOT_RESET, HINT_RESET, I32, I64, POOL, U8, Pool
from promql.kernels.histogramwork import Work
from tsdb.kernels.compile import device, kernel

INCOMPATIBLE = 1
"""Exponential and custom buckets met: no result."""
COLLISION = 2
"""Hints reset and not_reset both occurred."""
RECONCILED = 4
"""Different custom bounds were reduced to those in common."""


@device
def _fold_run(
    pool: Pool, members: I64, lo: int, hi: int, average: bool, total: Work, other: Work, saved: Work
) -> int:
    """Sum or average of members lo..hi into `total`; returns flags."""
    flags = 0
    seen = 0
    for m in range(lo, hi):
        hint = pool[HINT][members[m]]
        if hint == HINT_RESET:
            seen |= 1
        elif hint == HINT_NOT_RESET:
            seen |= 2
    if seen == 3:
        flags = COLLISION
    work.load(total, pool, members[lo])
    incremental = False
    for m in range(lo + 1, hi):
        n = float(m - lo + 1)
        work.load(other, pool, members[m])
        if not incremental:
            if average:
                work.copy_work(total, saved)
            noticed = work.add(total, other, 1.0, True)
            if noticed < 0:
                return flags | INCOMPATIBLE
            if noticed & work.RECONCILED:
                flags |= RECONCILED
            if not average or not work.has_overflow(total):
                continue
            incremental = True
            work.copy_work(saved, total)
            work.scale(total, n - 1.0, True)
            work.load(other, pool, members[m])
        work.scale(total, (n - 1.0) / n, False)
        work.scale(other, n, True)
        noticed = work.add(total, other, 1.0, True)
        if noticed < 0:
            return flags | INCOMPATIBLE
        if noticed & work.RECONCILED:
            flags |= RECONCILED
    if average and not incremental:
        work.scale(total, float(hi - lo), True)
    work.fold_compensation(total)
    return flags


@kernel(
    f"{POOL}({POOL}, int64[::1], int64[::1], int64[::1], boolean, boolean, int32[::1], uint8[::1])",
    group="read",
)
def combine(
    pool: Pool, members: I64, lo: I64, hi: I64, average: bool, compact: bool, index: I32, flags: U8
) -> Pool:
    """Sum, or average, of each run; `compact` drops empty buckets of the results."""
    size = work.work_size(pool)
    total, other, saved = work.new_work(size), work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for i in range(len(lo)):
        index[i] = -1
        flags[i] = 0
        if hi[i] <= lo[i]:
            continue
        flags[i] = _fold_run(pool, members, lo[i], hi[i], average, total, other, saved)
        if flags[i] & INCOMPATIBLE:
            continue
        index[i] = fill[0]
        out = output.emit(out, fill, total, compact)
    return output.finish(out, fill)
