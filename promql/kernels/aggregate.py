"""Streaming aggregation kernels: pieces of rows f64[R, K] into group accumulators f64[G, K].

`group` i64[R] gives each row's group. Accumulators start ABSENT, which doubles as "nothing seen yet", so one
pass over contiguous memory does it (about 1 G cells/s for sum). Order of operations is Prometheus's, in the
order of rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, kahan
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


@kernel("void(int64[::1], float64[:,::1], float64[:,::1], float64[:,::1])", group="read")
def accumulate_sum(group: I64, values: F64, total: F64, comp: F64) -> None:
    """Compensated sum; the result is total + comp where total is not ABSENT."""
    total_bits = total.view(np.uint64)
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            x = values[row, k]
            s = total[g, k]
            c = comp[g, k]
            new = s + x
            small = (s - new) + x if abs(s) >= abs(x) else (x - new) + s
            grown = 0.0 if math.isinf(new) else c + small
            fresh = total_bits[g, k] == ABSENT_U64
            here = bits[row, k] != ABSENT_U64
            total[g, k] = (x if fresh else new) if here else s
            comp[g, k] = (0.0 if fresh else grown) if here else c


@kernel("void(float64[:,::1], float64[:,::1])", group="read")
def finish_sum(total: F64, comp: F64) -> None:
    """Add the compensation where there is a sum."""
    bits = total.view(np.uint64)
    for g in range(total.shape[0]):
        for k in range(total.shape[1]):
            if bits[g, k] != ABSENT_U64:
                total[g, k] += comp[g, k]


@kernel("void(int64[::1], float64[:,::1], float64[:,::1], float64[:,::1], float64[:,::1])", group="read")
def accumulate_mean(group: I64, values: F64, total: F64, comp: F64, count: F64) -> None:
    """Mean: a compensated sum until it would overflow, then an incremental mean in `total` (count < 0)."""
    bits = values.view(np.uint64)
    total_bits = total.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            if bits[row, k] == ABSENT_U64:
                continue
            x = values[row, k]
            if total_bits[g, k] == ABSENT_U64:
                total[g, k] = x
                count[g, k] = 1.0
                continue
            n = abs(count[g, k]) + 1.0
            if count[g, k] > 0.0:
                new, new_c = kahan(x, total[g, k], comp[g, k])
                if not math.isinf(new):
                    total[g, k] = new
                    comp[g, k] = new_c
                    count[g, k] = n
                    continue
                total[g, k] /= n - 1.0
                comp[g, k] /= n - 1.0
            q = (n - 1.0) / n
            mean, mean_c = kahan(x / n, q * total[g, k], q * comp[g, k])
            total[g, k] = mean
            comp[g, k] = mean_c
            count[g, k] = -n


@kernel("void(float64[:,::1], float64[:,::1], float64[:,::1])", group="read")
def finish_mean(total: F64, comp: F64, count: F64) -> None:
    """Divide, or add the compensation of an incremental mean."""
    bits = total.view(np.uint64)
    for g in range(total.shape[0]):
        for k in range(total.shape[1]):
            if bits[g, k] == ABSENT_U64:
                continue
            n = count[g, k]
            if n < 0.0:
                total[g, k] += comp[g, k]
            else:
                total[g, k] = total[g, k] / n + comp[g, k] / n


@kernel("void(int64[::1], float64[:,::1], float64[:,::1], int64)", group="read")
def accumulate_extreme(group: I64, values: F64, best: F64, is_max: int) -> None:
    """min or max; a NaN stays only where there is nothing else."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            x = values[row, k]
            b = best[g, k]
            better = (b < x if is_max != 0 else b > x) or b != b
            here = bits[row, k] != ABSENT_U64
            best[g, k] = x if better and here else b


@kernel("void(int64[::1], float64[:,::1], float64[:,::1], int64)", group="read")
def accumulate_count(group: I64, values: F64, count: F64, is_group: int) -> None:
    """count, or group (1 wherever a sample is)."""
    bits = values.view(np.uint64)
    count_bits = count.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            here = bits[row, k] != ABSENT_U64
            n = count[g, k]
            fresh = count_bits[g, k] == ABSENT_U64 or is_group != 0
            count[g, k] = (1.0 if fresh else n + 1.0) if here else n


@kernel("void(int64[::1], int32[:,::1], float64[:,::1], int64)", group="read")
def accumulate_count_histograms(group: I64, index: I32, count: F64, is_group: int) -> None:
    """The same for histogram cells."""
    count_bits = count.view(np.uint64)
    for row in range(index.shape[0]):
        g = group[row]
        for k in range(index.shape[1]):
            if index[row, k] >= 0:
                fresh = count_bits[g, k] == ABSENT_U64 or is_group != 0
                count[g, k] = 1.0 if fresh else count[g, k] + 1.0


@kernel("void(int64[::1], float64[:,::1], float64[:,::1], float64[:,::1], float64[:,::1])", group="read")
def accumulate_variance(group: I64, values: F64, m2: F64, mean: F64, count: F64) -> None:
    """Welford's method without compensation, as Prometheus; a first NaN or infinity makes NaN."""
    bits = values.view(np.uint64)
    m2_bits = m2.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            if bits[row, k] == ABSENT_U64:
                continue
            x = values[row, k]
            if m2_bits[g, k] == ABSENT_U64:
                m2[g, k] = math.nan if math.isnan(x) or math.isinf(x) else 0.0
                mean[g, k] = x
                count[g, k] = 1.0
                continue
            count[g, k] += 1.0
            delta = x - mean[g, k]
            mean[g, k] += delta / count[g, k]
            m2[g, k] += delta * (x - mean[g, k])


@kernel("void(float64[:,::1], float64[:,::1], int64)", group="read")
def finish_variance(m2: F64, count: F64, is_deviation: int) -> None:
    """Population variance, or its root."""
    bits = m2.view(np.uint64)
    for g in range(m2.shape[0]):
        for k in range(m2.shape[1]):
            if bits[g, k] != ABSENT_U64:
                var = m2[g, k] / count[g, k]
                m2[g, k] = math.sqrt(var) if is_deviation != 0 else var


@inline
def _lower(x: float, y: float, is_top: int) -> bool:
    """Whether x leaves a heap of the best before y does: NaN always first."""
    if math.isnan(x):
        return True
    if is_top != 0:
        return x < y
    return x > y


@inline
def _sift_up(heap_v: F64, heap_row: I64, g: int, k: int, at: int, is_top: int) -> None:
    while at > 0:
        parent = (at - 1) >> 1
        if parent == at or not _lower(heap_v[g, k, at], heap_v[g, k, parent], is_top):
            return
        _swap(heap_v, heap_row, g, k, at, parent)
        at = parent


@inline
def _swap(heap_v: F64, heap_row: I64, g: int, k: int, i: int, j: int) -> None:
    v = heap_v[g, k, i]
    heap_v[g, k, i] = heap_v[g, k, j]
    heap_v[g, k, j] = v
    row = heap_row[g, k, i]
    heap_row[g, k, i] = heap_row[g, k, j]
    heap_row[g, k, j] = row


@inline
def _sift_down(heap_v: F64, heap_row: I64, g: int, k: int, size: int, is_top: int) -> None:
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        other = child + 1
        if other < size and _lower(heap_v[g, k, other], heap_v[g, k, child], is_top):
            child = other
        if not _lower(heap_v[g, k, child], heap_v[g, k, at], is_top):
            return
        _swap(heap_v, heap_row, g, k, at, child)
        at = child


@kernel(
    "void(int64[::1], int64, float64[:,::1], int64[::1], int64, float64[:,:,::1], int64[:,:,::1],"
    " int64[:,::1])",
    group="read",
)
def accumulate_best(
    group: I64, lo: int, values: F64, limit: I64, is_top: int, heap_v: F64, heap_row: I64, size: I64
) -> None:
    """topk or bottomk: heaps f64[G, K, k] of the best per group and step, the worst at the root.

    `limit` i64[K] is k at each step, `size` i64[G, K] the heaps' fill, `lo` the number of the first row.
    Ties keep what came first, with the order of a binary heap, as in Prometheus."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            if bits[row, k] == ABSENT_U64 or limit[k] < 1:
                continue
            x = values[row, k]
            n = size[g, k]
            if n < limit[k]:
                heap_v[g, k, n] = x
                heap_row[g, k, n] = lo + row
                _sift_up(heap_v, heap_row, g, k, n, is_top)
                size[g, k] = n + 1
                continue
            worst = heap_v[g, k, 0]
            better = x > worst if is_top != 0 else x < worst
            if better or (math.isnan(worst) and not math.isnan(x)):
                heap_v[g, k, 0] = x
                heap_row[g, k, 0] = lo + row
                _sift_down(heap_v, heap_row, g, k, n, is_top)


@inline
def _select(values: F64, lo: int, hi: int, at: int) -> None:
    """Reorder values[lo:hi] (no NaN) so that values[at] is what sorting would put there, smaller ones before
    it and larger ones behind."""
    left, right = lo, hi - 1
    while left < right:
        pivot = values[(left + right) >> 1]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                swapped = values[i]
                values[i] = values[j]
                values[j] = swapped
                i += 1
                j -= 1
        if at <= j:
            right = j
        elif at >= i:
            left = i
        else:
            return


@inline
def quantile_of(q: float, values: F64, lo: int, numbers: int, nans: int) -> float:
    """The q-quantile of `nans` NaNs and values[lo : lo + numbers], which it reorders."""
    if math.isnan(q) or nans + numbers == 0:
        return math.nan
    if q < 0.0:
        return -math.inf
    if q > 1.0:
        return math.inf
    n = float(nans + numbers)
    rank = q * (n - 1.0)
    lower = max(0.0, math.floor(rank))
    upper = min(n - 1.0, lower + 1.0)
    weight = rank - math.floor(rank)
    i, j = int(lower) - nans, int(upper) - nans
    below, above = math.nan, math.nan
    if j >= 0:
        _select(values, lo, lo + numbers, lo + max(i, 0))
        if i >= 0:
            below = values[lo + i]
        above = values[lo + j]
        for at in range(lo + j + 1, lo + numbers):
            if j > i and i >= 0:
                above = min(above, values[at])
    return below * (1.0 - weight) + above * weight


TILE_STEPS = 8
"""Steps whose columns are gathered together: a cache line of a row."""


@kernel(
    "void(int64[::1], int64[::1], float64[:,::1], float64[::1], int64, int64, float64[:,::1])",
    group="read",
)
def quantile_of_groups(
    order: I64, bounds: I64, values: F64, q: F64, first_step: int, steps: int, out: F64
) -> None:
    """quantile with `q` f64[K] over rows `order[bounds[g] : bounds[g+1]]` of each group, for `steps` steps
    from `first_step`; `out` starts ABSENT."""
    bits = values.view(np.uint64)
    longest = 1
    for g in range(len(bounds) - 1):
        longest = max(longest, bounds[g + 1] - bounds[g])
    scratch = np.empty(longest * TILE_STEPS, dtype=np.float64)
    numbers = np.zeros(TILE_STEPS, dtype=np.int64)
    nans = np.zeros(TILE_STEPS, dtype=np.int64)
    for g in range(len(bounds) - 1):
        for k0 in range(first_step, first_step + steps, TILE_STEPS):
            width = min(TILE_STEPS, first_step + steps - k0)
            numbers[:] = 0
            nans[:] = 0
            for i in range(bounds[g], bounds[g + 1]):
                row = order[i]
                for c in range(width):
                    if bits[row, k0 + c] == ABSENT_U64:
                        continue
                    x = values[row, k0 + c]
                    if math.isnan(x):
                        nans[c] += 1
                    else:
                        scratch[c * longest + numbers[c]] = x
                        numbers[c] += 1
            for c in range(width):
                if numbers[c] + nans[c] > 0:
                    out[g, k0 + c] = quantile_of(q[k0 + c], scratch, c * longest, numbers[c], nans[c])


@kernel(
    "void(int64[::1], float64[:,::1], int32[:,::1], int64[::1], int64[:,::1], uint8[:,::1])", group="read"
)
def first_of_groups(group: I64, values: F64, index: I32, limit: I64, taken: I64, keep: U8) -> None:
    """limitk: mark the first `limit[k]` samples of each group and step; `taken` i64[G, K] is carried over."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        g = group[row]
        for k in range(values.shape[1]):
            here = bits[row, k] != ABSENT_U64 or (index.shape[0] > 0 and index[row, k] >= 0)
            keep[row, k] = 0
            if here and taken[g, k] < limit[k]:
                taken[g, k] += 1
                keep[row, k] = 1


@kernel("void(float64[:,::1], uint8[:,::1])", group="read")
def blank_unless(values: F64, keep: U8) -> None:
    """Make cells absent where `keep` is 0."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if keep[row, k] == 0:
                bits[row, k] = ABSENT_U64


@kernel("int64(float64[:,::1])", group="read")
def count_present(values: F64) -> int:
    """Cells that hold a float."""
    bits = values.view(np.uint64)
    total = 0
    for row in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            total += bits[row, k] != ABSENT_U64
    return total


@kernel("void(float64[:,::1], uint8[::1])", group="read")
def rows_present(values: F64, seen: U8) -> None:
    """Set `seen` for rows that hold a float at any step; other entries stay."""
    bits = values.view(np.uint64)
    for row in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            if bits[row, k] != ABSENT_U64:
                seen[row] = 1
                break
