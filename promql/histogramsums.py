"""Sums and averages of runs of histograms, by whichever kernel each run allows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.histogrampool import batch_of, first_of_pool, joined_cells, pool_with_room
from promql.kernels import histogramcombine, histogramsum
from promql.kernels.histogrampool import Pool
from promql.matrix import HistogramCells

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]


def combined(
    pool: Pool, members: I64Array, lo: I64Array, hi: I64Array, average: bool, compact: bool
) -> tuple[HistogramCells, U8Array]:
    """Of each run members[lo[i]:hi[i]] the sum, or average: cells i32[N], -1 for an empty run or an
    incompatible one, and flags u8[N] of `promql.kernels.histogramcombine`. `compact` drops empty buckets."""
    ranges = np.empty((2, 2), dtype=np.int64)
    histogramsum.index_ranges(pool, ranges)
    positive, negative = (int(high - low) for low, high in ranges)
    index, flags = np.empty(len(lo), dtype=np.int32), np.empty(len(lo), dtype=np.uint8)
    if max(positive, negative) > histogramsum.SPREAD_MAX:
        return _sorted(pool, members, lo, hi, average, compact, index, flags)
    others, room = np.empty(len(lo), dtype=np.bool_), np.empty(3, dtype=np.int64)
    left = histogramsum.dense_runs(pool, members, lo, hi, ranges, others, room)
    heads, positives, negatives = room.tolist()
    out, fill = pool_with_room(heads, positives, negatives, 0), np.empty(4, dtype=np.int64)
    left += histogramsum.dense_sums(
        pool, members, lo, hi, ranges, average, compact, *_dense(positive), *_dense(negative), others, out,
        index, flags, fill,
    )  # fmt: skip
    cells = HistogramCells(index, batch_of(first_of_pool(out, fill.tolist())))
    if not left:
        return cells, flags
    rest, rest_flags = np.empty_like(index), np.empty_like(flags)
    hi = np.where(others, hi, lo)
    slow, _ = _sorted(pool, members, lo, hi, average, compact, rest, rest_flags)
    return joined_cells(cells, slow), flags | rest_flags


def _dense(width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], U8Array]:
    """Values, compensations and marks of one side."""
    return np.empty(width), np.empty(width), np.zeros(width, dtype=np.uint8)


def _sorted(
    pool: Pool,
    members: I64Array,
    lo: I64Array,
    hi: I64Array,
    average: bool,
    compact: bool,
    index: npt.NDArray[np.int32],
    flags: U8Array,
) -> tuple[HistogramCells, U8Array]:
    out = histogramcombine.combine(pool, members, lo, hi, average, compact, index, flags)
    return HistogramCells(index, batch_of(out)), flags
