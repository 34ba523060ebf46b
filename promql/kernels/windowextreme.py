"""Largest values of long windows of one row, from those of the blocks of samples that lie in them whole.

For rows without NaN and negative zero: equal values are then equal bits, whichever of them is found first.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from tsdb.kernels.bits import float_bits
from tsdb.kernels.compile import device

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

BLOCK = 16
"""Samples of a block."""

COMPARISONS_MAX = 12
"""So many of blocks take as long as a sample of the queue that `overtime.extreme` has else."""

PARTS = 4
"""Comparisons of a range that do not wait for each other."""

_SIGN = np.uint64(1) << np.uint64(63)


@device
def has_one_order(v: F64, lo: int, hi: int) -> bool:
    """Whether no value of v[lo:hi] is NaN or negative zero."""
    odd = 0
    part = v[lo:hi]
    for i in range(len(part)):
        odd |= int(math.isnan(part[i])) | int(float_bits(part[i]) == _SIGN)
    return odd == 0


@device
def largest(v: F64, a: int, b: int, sign: float) -> float:
    """The largest of v[i] * sign, a <= i < b."""
    m0 = m1 = m2 = m3 = v[a] * sign
    i = a
    while i + PARTS <= b:
        x0, x1, x2, x3 = v[i] * sign, v[i + 1] * sign, v[i + 2] * sign, v[i + 3] * sign
        m0 = x0 if x0 > m0 else m0
        m1 = x1 if x1 > m1 else m1
        m2 = x2 if x2 > m2 else m2
        m3 = x3 if x3 > m3 else m3
        i += PARTS
    while i < b:
        x0 = v[i] * sign
        m0 = x0 if x0 > m0 else m0
        i += 1
    m0 = m1 if m1 > m0 else m0
    m2 = m3 if m3 > m2 else m2
    return float(m2 if m2 > m0 else m0)


@device
def comparisons(begins: I64, ends: I64) -> int:
    """About how many there are for windows begins[k] to ends[k] of a row."""
    count = 0
    for k in range(len(begins)):
        width = ends[k] - begins[k]
        count += BLOCK + min(width, width // BLOCK + BLOCK)
    return count


@device
def largest_of_window(v: F64, lo: int, a: int, b: int, sign: float, blocks: F64) -> float:
    """`largest` of a window of a row that begins at `lo` and has these blocks."""
    first, last = (a - lo + BLOCK - 1) // BLOCK, (b - lo) // BLOCK
    if last <= first:
        return largest(v, a, b, sign)
    found = largest(blocks, first, last, 1.0)
    if a < lo + first * BLOCK:
        x = largest(v, a, lo + first * BLOCK, sign)
        found = x if x > found else found
    if lo + last * BLOCK < b:
        x = largest(v, lo + last * BLOCK, b, sign)
        found = x if x > found else found
    return found


@device
def extreme_row(v: F64, lo: int, begins: I64, ends: I64, sign: float, blocks: F64, out: F64) -> int:
    """The largest (`sign` 1) or smallest (-1) value of each window to `out`; `blocks` has room for the whole
    blocks of the row, which begins at `lo`. Returns cells present."""
    for block in range(len(blocks)):
        at = lo + block * BLOCK
        blocks[block] = largest(v, at, at + BLOCK, sign)
    present, out_bits = 0, out.view(np.uint64)
    for k in range(len(begins)):
        if ends[k] > begins[k]:
            out[k] = sign * largest_of_window(v, lo, begins[k], ends[k], sign, blocks)
            present += 1
        else:
            out_bits[k] = ABSENT_U64
    return present
