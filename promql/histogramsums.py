"""Sums and averages of runs of histograms, by whichever kernel each run allows."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from promql.histogrampool import (
    batch_of,
    concat_cells,
    empty_pool,
    first_of_pool,
    joined_cells,
    pool_with_room,
)
from promql.kernels import histogramcombine, histogramsum
from promql.kernels.histogrampool import Pool
from promql.looks import look
from promql.matrix import HistogramCells

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

PART_MEMBERS = 1 << 17
"""Histograms that are added up between two looks at the query's flag: 50 to 200 ns each."""


def combined(
    pool: Pool, members: I64Array, lo: I64Array, hi: I64Array, average: bool, compact: bool
) -> tuple[HistogramCells, U8Array]:
    """Of each run members[lo[i]:hi[i]] the sum, or average: cells i32[N], -1 for an empty run or an
    incompatible one, and flags u8[N] of `promql.kernels.histogramcombine`. `compact` drops empty buckets."""
    ranges = np.empty((2, 2), dtype=np.int64)
    histogramsum.index_ranges(pool, ranges)
    sum_up = _sorted if (ranges[:, 1] - ranges[:, 0]).max() > histogramsum.SPREAD_MAX else _summed
    ends = _parts(lo, hi)
    if len(ends) == 1:
        return sum_up(pool, members, lo, hi, ranges, average, compact)
    parts, flags = [], np.empty(len(lo), dtype=np.uint8)
    for at, end in itertools.pairwise([0, *ends]):
        look()
        cells, flags[at:end] = sum_up(pool, members, lo[at:end], hi[at:end], ranges, average, compact)
        parts.append((at, HistogramCells(cells.index.reshape(-1, 1), cells.pool)))
    joined = concat_cells(parts, len(lo), 1)
    if joined is None:
        return HistogramCells(np.full(len(lo), -1, dtype=np.int32), batch_of(empty_pool())), flags
    return HistogramCells(joined.index.ravel(), joined.pool), flags


def _parts(lo: I64Array, hi: I64Array) -> list[int]:
    """Where to cut the runs so that each part has about PART_MEMBERS."""
    done = np.cumsum(hi - lo)
    total = int(done[-1]) if len(done) else 0
    if total <= PART_MEMBERS:
        return [len(lo)]
    marks = np.arange(PART_MEMBERS, total, PART_MEMBERS)
    cuts = np.searchsorted(done, marks) + 1
    return np.unique([*cuts[cuts < len(lo)].tolist(), len(lo)]).tolist()  # type: ignore[no-any-return]


def _summed(
    pool: Pool, members: I64Array, lo: I64Array, hi: I64Array, ranges: I64Array, average: bool, compact: bool
) -> tuple[HistogramCells, U8Array]:
    positive, negative = (int(high - low) for low, high in ranges)
    index, flags = np.empty(len(lo), dtype=np.int32), np.empty(len(lo), dtype=np.uint8)
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
    slow, rest_flags = _sorted(pool, members, lo, np.where(others, hi, lo), ranges, average, compact)
    return joined_cells(cells, slow), flags | rest_flags


def _dense(width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], U8Array]:
    """Values, compensations and marks of one side."""
    return np.empty(width), np.empty(width), np.zeros(width, dtype=np.uint8)


def _sorted(
    pool: Pool, members: I64Array, lo: I64Array, hi: I64Array, _: I64Array, average: bool, compact: bool
) -> tuple[HistogramCells, U8Array]:
    index, flags = np.empty(len(lo), dtype=np.int32), np.empty(len(lo), dtype=np.uint8)
    out = histogramcombine.combine(pool, members, lo, hi, average, compact, index, flags)
    return HistogramCells(index, batch_of(out)), flags
