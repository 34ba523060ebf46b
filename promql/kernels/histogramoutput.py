"""A pool that grows: where kernels put the histograms they make.

`fill` i64[4] counts histograms, positive buckets, negative buckets and custom bounds written so far. `emit`
returns the pool because growing replaces columns; `finish` cuts the columns to their lengths.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

from typing import TypeVar

import numpy as np

from promql.kernels.histogrampool import F64, I32, I64, U8, Pool
from promql.kernels.histogramwork import (
    I_CUSTOM,
    I_HINT,
    I_NEG,
    I_POS,
    I_SCHEMA,
    N_COUNT,
    N_SUM,
    N_THRESHOLD,
    N_ZERO,
    Work,
)
from tsdb.kernels.compile import device

_FIRST = 64

Column = TypeVar("Column", F64, I64, I32, U8)


@device
def new_output() -> Pool:
    """An empty pool with some room."""
    return (
        np.empty(_FIRST, np.int32),
        np.empty(_FIRST, np.uint8),
        np.empty(_FIRST, np.float64),
        np.empty(_FIRST, np.float64),
        np.empty(_FIRST, np.float64),
        np.empty(_FIRST, np.float64),
        np.zeros(_FIRST + 1, np.int64),
        np.empty(_FIRST, np.int32),
        np.empty(_FIRST, np.float64),
        np.zeros(_FIRST + 1, np.int64),
        np.empty(_FIRST, np.int32),
        np.empty(_FIRST, np.float64),
        np.zeros(_FIRST + 1, np.int64),
        np.empty(_FIRST, np.float64),
    )


@device
def _copied(column: Column, kept: int, length: int) -> Column:
    """A column of `length`, with the first `kept` entries."""
    out = np.empty(length, column.dtype)
    for i in range(kept):
        out[i] = column[i]
    return out


@device
def _grown(column: Column, need: int) -> Column:
    """A column with room for `need` entries; twice as long as before if it has to be made."""
    if need <= len(column):
        return column
    return _copied(column, len(column), max(need, 2 * len(column)))


@device
def _with_room(out: Pool, heads: int, positives: int, negatives: int, bounds: int) -> Pool:
    return (
        _grown(out[0], heads),
        _grown(out[1], heads),
        _grown(out[2], heads),
        _grown(out[3], heads),
        _grown(out[4], heads),
        _grown(out[5], heads),
        _grown(out[6], heads + 1),
        _grown(out[7], positives),
        _grown(out[8], positives),
        _grown(out[9], heads + 1),
        _grown(out[10], negatives),
        _grown(out[11], negatives),
        _grown(out[12], heads + 1),
        _grown(out[13], bounds),
    )


@device
def emit(out: Pool, fill: I64, w: Work, compact: bool) -> Pool:
    """Append a work histogram, without its empty buckets if `compact`."""
    ints, nums = w[0], w[1]
    h = fill[0]
    out = _with_room(out, h + 1, fill[1] + ints[I_POS], fill[2] + ints[I_NEG], fill[3] + ints[I_CUSTOM])
    out[0][h] = ints[I_SCHEMA]
    out[1][h] = ints[I_HINT]
    out[2][h] = nums[N_THRESHOLD]
    out[3][h] = nums[N_ZERO]
    out[4][h] = nums[N_COUNT]
    out[5][h] = nums[N_SUM]
    at = fill[1]
    for i in range(ints[I_POS]):
        if not compact or w[3][i] != 0.0:
            out[7][at], out[8][at] = w[2][i], w[3][i]
            at += 1
    fill[1] = at
    at = fill[2]
    for i in range(ints[I_NEG]):
        if not compact or w[6][i] != 0.0:
            out[10][at], out[11][at] = w[5][i], w[6][i]
            at += 1
    fill[2] = at
    for i in range(ints[I_CUSTOM]):
        out[13][fill[3] + i] = w[8][i]
    fill[3] += ints[I_CUSTOM]
    fill[0] = h + 1
    out[6][h + 1], out[9][h + 1], out[12][h + 1] = fill[1], fill[2], fill[3]
    return out


@device
def _cut(column: Column, count: int) -> Column:
    return _copied(column, count, count)


@device
def finish(out: Pool, fill: I64) -> Pool:
    """The columns without their unused rest."""
    h = fill[0]
    return (
        _cut(out[0], h),
        _cut(out[1], h),
        _cut(out[2], h),
        _cut(out[3], h),
        _cut(out[4], h),
        _cut(out[5], h),
        _cut(out[6], h + 1),
        _cut(out[7], fill[1]),
        _cut(out[8], fill[1]),
        _cut(out[9], h + 1),
        _cut(out[10], fill[2]),
        _cut(out[11], fill[2]),
        _cut(out[12], h + 1),
        _cut(out[13], fill[3]),
    )
