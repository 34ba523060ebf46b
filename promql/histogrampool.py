"""Pools of histograms: from HistogramBatch to the tuples of kernels and back, joined, and taken apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from promql.contiguous import contiguous
from promql.kernels.histogrampool import Pool
from promql.looks import look
from promql.matrix import HistogramCells
from tsdb.histogram import HistogramBatch

HISTOGRAM_HEAD_BYTES = 168
"""Prometheus's size of a float histogram without its buckets; a sample counts 16 bytes."""

RUN_HISTOGRAMS = 1 << 14
"""Histograms that are copied between two looks at the query's flag: 1 to 20 ms."""


def _flat(array: npt.NDArray[np.generic], dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    return contiguous(array, dtype)


def pool_of(batch: HistogramBatch) -> Pool:
    """The columns kernels read. Arrays that are not writable (mapped files) are copied: a kernel's signature
    names writable arrays only."""
    f8, i4, i8 = np.float64, np.int32, np.int64
    columns = (
        _flat(batch.schema, i4),
        _flat(batch.reset_hint, np.uint8),
        *(_flat(c, f8) for c in (batch.zero_threshold, batch.zero_count, batch.count, batch.sum)),
        *(_flat(batch.pos_offsets, i8), _flat(batch.pos_index, i4), _flat(batch.pos_count, f8)),
        *(_flat(batch.neg_offsets, i8), _flat(batch.neg_index, i4), _flat(batch.neg_count, f8)),
        *(_flat(batch.custom_offsets, i8), _flat(batch.custom_values, f8)),
    )
    return columns  # type: ignore[return-value]


def batch_of(pool: Pool) -> HistogramBatch:
    """A batch without rows and times, for cells. Results of queries are float histograms."""
    count = len(pool[0])
    return HistogramBatch(
        row_offsets=np.zeros(1, dtype=np.int64),
        t_ms=np.zeros(count, dtype=np.int64),
        start_t_ms=None,
        schema=pool[0],
        reset_hint=pool[1],
        zero_threshold=pool[2],
        zero_count=pool[3],
        count=pool[4],
        sum=pool[5],
        pos_offsets=pool[6],
        pos_index=pool[7],
        pos_count=pool[8],
        neg_offsets=pool[9],
        neg_index=pool[10],
        neg_count=pool[11],
        custom_offsets=pool[12],
        custom_values=pool[13],
        is_float=np.ones(count, dtype=np.uint8),
    )


def pool_with_room(heads: int, positives: int, negatives: int, bounds: int) -> Pool:
    """A pool of undefined content for kernels to write to."""
    i4, i8 = np.int32, np.int64
    scalars = (np.empty(heads) for _ in range(4))
    sides = (
        (np.empty(heads + 1, dtype=i8), np.empty(n, dtype=i4), np.empty(n)) for n in (positives, negatives)
    )
    customs = (np.empty(heads + 1, dtype=i8), np.empty(bounds))
    columns = (np.empty(heads, dtype=i4), np.empty(heads, dtype=np.uint8), *scalars, *itertools.chain(*sides))
    return (*columns, *customs)  # type: ignore[return-value]


def first_of_pool(pool: Pool, fill: Sequence[int]) -> Pool:
    """The part of `pool_with_room` that was written, as views: histograms, buckets of both sides, bounds."""
    heads, positives, negatives, bounds = fill
    ends = [*[heads] * 6, heads + 1, positives, positives, heads + 1, negatives, negatives, heads + 1, bounds]
    columns: list[npt.NDArray[np.generic]] = [*pool]
    return tuple(column[:end] for column, end in zip(columns, ends, strict=True))  # type: ignore[return-value]


def empty_pool() -> Pool:
    """A pool of no histograms."""
    floats, indexes, start = np.empty(0), np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64)
    head = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8), floats, floats, floats, floats)
    return (*head, start, indexes, floats, start, indexes, floats, start, floats)


def _join_offsets(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    out = np.zeros(1 + sum(len(part) - 1 for part in parts), dtype=np.int64)
    at = 0
    for part in parts:
        look()
        out[at + 1 : at + len(part)] = part[1:] + (out[at] - part[0])
        at += len(part) - 1
    return out


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    out = np.empty(sum(map(len, parts)), dtype=parts[0].dtype)
    at = 0
    for part in parts:
        look()
        out[at : at + len(part)] = part
        at += len(part)
    return out


def concat_pools(pools: Sequence[Pool]) -> Pool:
    """The histograms of all pools, one pool after the other."""
    if not pools:
        return empty_pool()
    if len(pools) == 1:
        return pools[0]
    columns: list[npt.NDArray[np.generic]] = []
    for at, column in enumerate(zip(*pools, strict=True)):
        if at in (6, 9, 12):
            columns.append(_join_offsets(column))
        else:
            columns.append(_joined(column))
    return tuple(columns)  # type: ignore[return-value]


def take_pool(pool: Pool, rows: npt.NDArray[np.integer]) -> Pool:
    """The given histograms in the given order."""
    columns: list[npt.NDArray[np.generic]] = [column[rows] for column in pool[:6]]
    for at in (6, 9, 12):
        offsets = pool[at]
        first = offsets[:-1][rows]
        lengths = offsets[1:][rows] - first
        new = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=new[1:])
        columns.append(new)
        columns.extend(_picked(pool[at + 1 : min(at + 3, len(pool))], first, lengths, new))
    return tuple(columns)  # type: ignore[return-value]


def _picked(
    columns: Sequence[npt.NDArray[np.generic]],
    first: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    new: npt.NDArray[np.int64],
) -> list[npt.NDArray[np.generic]]:
    """Of each column the runs of `lengths` from `first`, one after the other; they begin at `new`."""
    out = [np.empty(int(new[-1]), dtype=column.dtype) for column in columns]
    for lo in range(0, len(first) if new[-1] else 0, RUN_HISTOGRAMS):
        look()
        hi = min(lo + RUN_HISTOGRAMS, len(first))
        begin, end = int(new[lo]), int(new[hi])
        picked = np.repeat(first[lo:hi] - new[lo:hi], lengths[lo:hi]) + np.arange(begin, end)
        for column, taken in zip(columns, out, strict=True):
            taken[begin:end] = column[picked]
    return out


def cut_cells(cells: HistogramCells) -> HistogramCells:
    """The same cells over a pool without unused histograms, if that is less than half of the pool."""
    here = cells.index >= 0
    if 2 * np.count_nonzero(here) >= len(cells.pool):
        return cells
    used, place = np.unique(cells.index[here], return_inverse=True)
    index = np.full(cells.index.shape, -1, dtype=np.int32)
    index[here] = place
    return HistogramCells(index, batch_of(take_pool(pool_of(cells.pool), used)))


def joined_cells(first: HistogramCells, second: HistogramCells) -> HistogramCells:
    """Cells of both, over one pool; no cell may be in both."""
    moved = second.index + np.int32(len(first.pool))
    index = np.where(second.index >= 0, moved, first.index)
    return HistogramCells(index, batch_of(concat_pools([pool_of(first.pool), pool_of(second.pool)])))


Parts = Sequence[tuple[int, HistogramCells | None]]
"""Pieces' first rows and cells."""


def concat_cells(parts: Parts, rows: int, steps: int) -> HistogramCells | None:
    """Cells of all pieces as one i32[rows, steps] over one pool; None if no piece has any. A pool that is
    mostly unused (a scan's, at wide steps) is cut to what the cells point at."""
    found = [(lo, cut_cells(cells)) for lo, cells in parts if cells is not None and len(cells.pool)]
    if not found:
        return None
    if len(found) == 1 and len(found[0][1].index) == rows:
        return found[0][1]
    index = np.full((rows, steps), -1, dtype=np.int32)
    base = 0
    for lo, cells in found:
        look()
        part = cells.index
        index[lo : lo + len(part)] = np.where(part >= 0, part + np.int32(base), np.int32(-1))
        base += len(cells.pool)
    return HistogramCells(index, batch_of(concat_pools([pool_of(cells.pool) for _, cells in found])))


def pool_bytes(pool: Pool) -> int:
    """Bytes of all columns."""
    return sum(column.nbytes for column in pool)


def sample_weight(batch: HistogramBatch, cells: int) -> int:
    """What `cells` histograms of this pool count against --query.max-samples: mean size over 16 bytes."""
    if not len(batch):
        return 0
    buckets = len(batch.pos_index) + len(batch.neg_index) + len(batch.custom_values)
    return cells * (HISTOGRAM_HEAD_BYTES + 8 * buckets // len(batch)) // 16
