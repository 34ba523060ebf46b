"""The *_over_time kernels of one window that holds all samples of a row: times are not looked at.

CSR values to one cell a row, f64[R, 1], with the bits that the kernels of `overtime` give. Rows with stale
markers, or NaNs that could be taken for absent cells, are left to those: the kernels here then return -1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from promql.kernels.overtime import LANES, PACKED, sum_lanes, sums_exactly
from promql.kernels.scan import EXPONENT, MAGNITUDE, NAN
from promql.kernels.windowextreme import has_one_order, largest
from tsdb.kernels.bits import float_bits
from tsdb.kernels.compile import kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

COUNT, PRESENT, LAST, FIRST = range(4)


@kernel("int64(int64[::1], float64[::1], int64, float64[:,::1])", group="read")
def row_sums(offsets: I64, v: F64, is_mean: int, out: F64) -> int:
    """sum_over_time, or avg_over_time. Returns cells present, -1 where one is NaN: what of the samples is
    to be left out is not looked for otherwise."""
    out_bits = out.view(np.uint64)
    total, comp = np.empty(LANES), np.empty(LANES)
    jobs, packed, waiting = np.empty((4, LANES), dtype=np.int64), np.empty(PACKED * LANES), 0
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        if lo == hi:
            out_bits[row, 0] = ABSENT_U64
            continue
        present += 1
        if sums_exactly(v, lo, hi):
            running, part = 0.0, v[lo:hi]
            for i in range(len(part)):
                running += part[i]
            out[row, 0] = running / (hi - lo) if is_mean != 0 else running
            continue
        jobs[0, waiting], jobs[1, waiting], jobs[2, waiting], jobs[3, waiting] = lo, hi - lo, row, 0
        waiting += 1
        if waiting == LANES:
            sum_lanes(v, jobs, waiting, is_mean, packed, total, comp, out)
            waiting = 0
    sum_lanes(v, jobs, waiting, is_mean, packed, total, comp, out)
    for row in range(out.shape[0]):
        if offsets[row] < offsets[row + 1] and math.isnan(out[row, 0]):
            return -1
    return present


@kernel("int64(int64[::1], float64[::1], int64, float64[:,::1])", group="read")
def row_extremes(offsets: I64, v: F64, is_max: int, out: F64) -> int:
    """max_over_time, or min_over_time. Returns cells present, -1 where there are NaNs or negative zeros."""
    out_bits = out.view(np.uint64)
    sign = 1.0 if is_max != 0 else -1.0
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        if lo == hi:
            out_bits[row, 0] = ABSENT_U64
            continue
        if not has_one_order(v, lo, hi):
            return -1
        out[row, 0] = sign * largest(v, lo, hi, sign)
        present += 1
    return present


@kernel("int64(int64[::1], float64[::1], int64, float64[:,::1])", group="read")
def row_edges(offsets: I64, v: F64, what: int, out: F64) -> int:
    """COUNT, PRESENT, LAST or FIRST of each row. Returns cells present, or -1."""
    odd = 0
    for i in range(len(v)):
        bits = float_bits(v[i])
        odd |= int((bits & MAGNITUDE) > EXPONENT and bits != NAN)
    if odd != 0:
        return -1
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        if lo == hi:
            out_bits[row, 0] = ABSENT_U64
            continue
        if what == COUNT:
            out[row, 0] = hi - lo
        elif what == PRESENT:
            out[row, 0] = 1.0
        else:
            out[row, 0] = v[hi - 1] if what == LAST else v[lo]
        present += 1
    return present
