"""Arithmetic of pairs of histograms, scaling, and comparison.

In: pools and `left`, `right` i32[N] into them. Out: a pool with `index` i32[N] (-1 where incompatible) and
flags u8[N], or bool[N]. Results of arithmetic are without empty buckets. See prometheus-surface.md 2.5, 4.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels import histogramoutput as output
from promql.kernels import histogramwork as work
from promql.kernels.bucketbounds import CUSTOM_SCHEMA, custom_bound, exponential_bound
from promql.kernels.histogramplain import UNSURE
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
from promql.kernels.histogramwork import I_CUSTOM, I_HINT, I_NEG, I_POS, Work
from tsdb.kernels.compile import device, kernel

INCOMPATIBLE = 1
COLLISION = 2
RECONCILED = 4


@kernel(
    f"{POOL}({POOL}, int32[::1], {POOL}, int32[::1], float64, boolean, int32[::1], uint8[::1])",
    group="read",
)
def add_pairs(
    a: Pool, left: I32, b: Pool, right: I32, sign: float, gauge: bool, index: I32, flags: U8
) -> Pool:
    """left + sign * right of each pair; `gauge` makes the results gauges."""
    size = work.work_size(a) + work.work_size(b)
    total, other = work.new_work(size), work.new_work(size)
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for i in range(len(left)):
        index[i], flags[i] = -1, 0
        work.load(total, a, left[i])
        work.load(other, b, right[i])
        noticed = work.add(total, other, sign, False)
        if noticed < 0:
            flags[i] = INCOMPATIBLE
            continue
        if noticed & work.COLLISION:
            flags[i] |= COLLISION
        if noticed & work.RECONCILED:
            flags[i] |= RECONCILED
        if gauge:
            total[0][I_HINT] = HINT_GAUGE
        index[i] = fill[0]
        out = output.emit(out, fill, total, True)
    return output.finish(out, fill)


@kernel(f"{POOL}({POOL}, int32[::1], float64[::1], boolean)", group="read")
def scale_each(pool: Pool, cells: I32, factor: F64, divide: bool) -> Pool:
    """Each histogram times (or divided by) its own number f64[N]."""
    total = work.new_work(work.work_size(pool))
    out = output.new_output()
    fill = np.zeros(4, np.int64)
    for i in range(len(cells)):
        work.load(total, pool, cells[i])
        work.scale(total, factor[i], divide)
        out = output.emit(out, fill, total, True)
    return output.finish(out, fill)


@device
def _same_side(
    ao: I64,
    ai: I32,
    ac: npt.NDArray[np.uint64],
    bo: I64,
    bi: I32,
    bc: npt.NDArray[np.uint64],
    left: int,
    right: int,
) -> bool:
    n = ao[left + 1] - ao[left]
    if bo[right + 1] - bo[right] != n:
        return False
    for i in range(n):
        if ai[ao[left] + i] != bi[bo[right] + i] or ac[ao[left] + i] != bc[bo[right] + i]:
            return False
    return True


@device
def same_histogram(a: Pool, left: int, b: Pool, right: int) -> bool:
    """Whether two histograms hold the same data, bit for bit; hints do not matter."""
    if a[SCHEMA][left] != b[SCHEMA][right] or a[ZERO_THRESHOLD][left] != b[ZERO_THRESHOLD][right]:
        return False
    if a[COUNT].view(np.uint64)[left] != b[COUNT].view(np.uint64)[right]:
        return False
    if a[SUM].view(np.uint64)[left] != b[SUM].view(np.uint64)[right]:
        return False
    if a[ZERO_COUNT].view(np.uint64)[left] != b[ZERO_COUNT].view(np.uint64)[right]:
        return False
    if a[SCHEMA][left] == CUSTOM_SCHEMA:
        n = a[CUSTOM_OFFSETS][left + 1] - a[CUSTOM_OFFSETS][left]
        if b[CUSTOM_OFFSETS][right + 1] - b[CUSTOM_OFFSETS][right] != n:
            return False
        for i in range(n):
            if (
                a[CUSTOM_VALUES][a[CUSTOM_OFFSETS][left] + i]
                != b[CUSTOM_VALUES][b[CUSTOM_OFFSETS][right] + i]
            ):
                return False
    return _same_side(
        a[POS_OFFSETS], a[POS_INDEX], a[POS_COUNT].view(np.uint64),
        b[POS_OFFSETS], b[POS_INDEX], b[POS_COUNT].view(np.uint64), left, right,
    ) and _same_side(
        a[NEG_OFFSETS], a[NEG_INDEX], a[NEG_COUNT].view(np.uint64),
        b[NEG_OFFSETS], b[NEG_INDEX], b[NEG_COUNT].view(np.uint64), left, right,
    )  # fmt: skip


@kernel(f"void({POOL}, int32[::1], {POOL}, int32[::1], boolean[::1])", group="read")
def equal_pairs(a: Pool, left: I32, b: Pool, right: I32, out: npt.NDArray[np.bool_]) -> None:
    """Whether the histograms of each pair are the same."""
    for i in range(len(left)):
        out[i] = same_histogram(a, left[i], b, right[i])


@device
def _side_fell(
    index: I32, count: F64, lo: int, hi: int, old: I64, old_count: F64, n: int, first: int
) -> bool:
    """Whether any bucket of the previous side is missing or larger; both ascend."""
    at = lo
    for i in range(first, n):
        while at < hi and index[at] < old[i]:
            at += 1
        if at < hi and index[at] == old[i]:
            if count[at] < old_count[i]:
                return True
        elif old_count[i] != 0.0:
            return True
    return False


@device
def _custom_fell(pool: Pool, h: int, previous: Work) -> bool:
    """As `_side_fell` with different custom bounds: compares at the bounds in common."""
    custom, lo = pool[CUSTOM_VALUES], pool[CUSTOM_OFFSETS][h]
    hi = pool[CUSTOM_OFFSETS][h + 1]
    shared = np.empty(min(hi - lo, previous[0][I_CUSTOM]), np.float64)
    n, a, b = 0, lo, 0
    while a < hi and b < previous[0][I_CUSTOM]:
        if custom[a] == previous[8][b]:
            shared[n] = custom[a]
            n += 1
            a += 1
            b += 1
        elif custom[a] < previous[8][b]:
            a += 1
        else:
            b += 1
    now, before = np.zeros(n + 1), np.zeros(n + 1)
    for i in range(pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]):
        upper = custom_bound(np.int64(pool[POS_INDEX][i]), custom, lo, hi)
        now[work.custom_target(shared, n, upper)] += pool[POS_COUNT][i]
    for i in range(previous[0][I_POS]):
        upper = custom_bound(previous[2][i], previous[8], 0, previous[0][I_CUSTOM])
        before[work.custom_target(shared, n, upper)] += previous[3][i]
    for i in range(n + 1):  # noqa: SIM110 (numba)
        if now[i] < before[i]:
            return True
    return False


@device
def _first_outside(index: I64, n: int, schema: int, threshold: float) -> int:
    for i in range(n):
        if exponential_bound(index[i], schema) > threshold:
            return i
    return n


@device
def detect_reset(pool: Pool, h: int, before: Pool, p: int, previous: Work) -> bool:
    """Whether counter histogram `h` was reset since `p` of pool `before`. `previous` is scratch."""
    hint = pool[HINT][h]
    if hint == HINT_RESET:
        return True
    if hint == HINT_NOT_RESET:
        return False
    if pool[COUNT][h] < before[COUNT][p]:
        return True
    schema = np.int64(pool[SCHEMA][h])
    lo, hi = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
    work.load(previous, before, p)
    if schema == CUSTOM_SCHEMA:
        if before[SCHEMA][p] != CUSTOM_SCHEMA:
            return True
        n = pool[CUSTOM_OFFSETS][h + 1] - pool[CUSTOM_OFFSETS][h]
        same = n == previous[0][I_CUSTOM]
        for i in range(n):
            if same and pool[CUSTOM_VALUES][pool[CUSTOM_OFFSETS][h] + i] != previous[8][i]:
                same = False
        if not same:
            return _custom_fell(pool, h, previous)
        return _side_fell(
            pool[POS_INDEX], pool[POS_COUNT], lo, hi, previous[2], previous[3], previous[0][I_POS], 0
        )
    threshold = pool[ZERO_THRESHOLD][h]
    if schema > before[SCHEMA][p] or threshold < before[ZERO_THRESHOLD][p]:
        return True
    zero, _, reached = work.zero_count_for(previous, threshold)
    if reached != threshold or pool[ZERO_COUNT][h] < zero:
        return True
    work.reduce_schema(previous, schema, False)
    n = previous[0][I_POS]
    first = _first_outside(previous[2], n, schema, threshold)
    if _side_fell(pool[POS_INDEX], pool[POS_COUNT], lo, hi, previous[2], previous[3], n, first):
        return True
    lo, hi, n = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1], previous[0][I_NEG]
    first = _first_outside(previous[5], n, schema, threshold)
    return _side_fell(pool[NEG_INDEX], pool[NEG_COUNT], lo, hi, previous[5], previous[6], n, first)


@kernel(f"void({POOL}, int64[::1], boolean, uint8[::1])", group="read")
def neighbours(pool: Pool, row_offsets: I64, changes: bool, out: U8) -> None:
    """Each sample of a row against the one before it: whether it differs (`changes`), or is a reset, of which
    only those are judged that are UNSURE in `out`. u8[H], 0 for the first of a row."""
    previous = work.new_work(work.work_size(pool))
    for row in range(len(row_offsets) - 1):
        for h in range(row_offsets[row], row_offsets[row + 1]):
            if h == row_offsets[row]:
                out[h] = 0
            elif changes:
                out[h] = not same_histogram(pool, h, pool, h - 1)
            elif out[h] == UNSURE:
                out[h] = detect_reset(pool, h, pool, h - 1, previous)
