"""The result of an instant query whose expression is a range vector: raw samples of each series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from promql.histogrampool import batch_of, concat_pools, pool_of, take_pool
from promql.operators.operator import RangeOperator, RangePiece
from promql.operators.samples import keep_histograms
from promql.result import RangeVectors
from tsdb.histogram import HistogramBatch
from tsdb.select import SampleBatch

I64Array = npt.NDArray[np.int64]


def range_vectors(operator: RangeOperator) -> RangeVectors:
    """Collect the one window's samples of every series that has any, in order of labels."""
    series = operator.series()
    window = operator.window
    lo_ms, hi_ms = window.first_end_ms - window.range_ms, window.first_end_ms
    cut = []
    for piece in operator.ctx.ordered_map(lambda split: operator.load(*split), operator.splits()):
        inside = cut_to(piece, lo_ms, hi_ms)
        operator.ctx.budget.hold_bytes(inside.t_ms.nbytes * 2)
        cut.append(inside)
    joined = join(cut)
    counts = np.diff(joined.offsets)
    if joined.histograms is not None:
        counts = counts + np.diff(joined.histograms.row_offsets)
    kept = np.flatnonzero(counts)
    order = series.labels.take(kept).sort_order()
    rows = kept[order]
    return RangeVectors(series.labels.take(rows), take_rows(joined, rows))


def cut_to(piece: RangePiece, after_ms: int, upto_ms: int) -> SampleBatch:
    """The samples of (after, upto]."""
    batch = piece.samples
    inside = (batch.t_ms > after_ms) & (batch.t_ms <= upto_ms)
    running = np.zeros(len(inside) + 1, dtype=np.int64)
    np.cumsum(inside, out=running[1:])
    pool = batch.histograms
    if pool is not None:
        pool = keep_histograms(pool, np.flatnonzero((pool.t_ms > after_ms) & (pool.t_ms <= upto_ms)))
    starts = None if batch.start_t_ms is None else batch.start_t_ms[inside]
    return SampleBatch(running[batch.offsets], batch.t_ms[inside], batch.values[inside], starts, pool)


def join(batches: list[SampleBatch]) -> SampleBatch:
    """Rows of all batches, one after the other. Start timestamps are not part of a result."""
    if not batches:
        return SampleBatch(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(b.offsets) for b in batches]))])
    t_ms = np.concatenate([b.t_ms for b in batches])
    values = np.concatenate([b.values for b in batches])
    return SampleBatch(offsets.astype(np.int64), t_ms, values, None, _join_histograms(batches))


def _join_histograms(batches: list[SampleBatch]) -> HistogramBatch | None:
    pools = [b.histograms for b in batches]
    found = [pool for pool in pools if pool is not None]
    if not found:
        return None
    lengths = [
        np.zeros(len(b), dtype=np.int64) if b.histograms is None else np.diff(b.histograms.row_offsets)
        for b in batches
    ]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    merged = batch_of(concat_pools([pool_of(pool) for pool in found]))
    times = np.concatenate([pool.t_ms for pool in found])
    return replace(merged, row_offsets=offsets, t_ms=times)


def rows_between(batch: SampleBatch, lo: int, hi: int) -> SampleBatch:
    """Rows lo to hi (exclusive), start timestamps included; floats are not copied."""
    first, last = int(batch.offsets[lo]), int(batch.offsets[hi])
    pool = batch.histograms
    if pool is not None:
        pool = keep_histograms(pool, np.arange(pool.row_offsets[lo], pool.row_offsets[hi]))
        pool = replace(pool, row_offsets=pool.row_offsets[lo : hi + 1]) if len(pool) else None
    starts = None if batch.start_t_ms is None else batch.start_t_ms[first:last]
    return SampleBatch(
        batch.offsets[lo : hi + 1] - first, batch.t_ms[first:last], batch.values[first:last], starts, pool
    )


def take_rows(batch: SampleBatch, rows: I64Array) -> SampleBatch:
    """The given rows in the given order."""
    offsets, picked = _gather(batch.offsets, rows)
    pool = batch.histograms
    if pool is not None:
        row_offsets, chosen = _gather(pool.row_offsets, rows)
        taken = batch_of(take_pool(pool_of(pool), chosen))
        pool = replace(taken, row_offsets=row_offsets, t_ms=pool.t_ms[chosen])
        if not len(pool):
            pool = None
    return SampleBatch(offsets, batch.t_ms[picked], batch.values[picked], None, pool)


def _gather(offsets: I64Array, rows: I64Array) -> tuple[I64Array, I64Array]:
    """CSR offsets of the rows, and the flat positions of their samples."""
    lengths = np.diff(offsets)[rows]
    out = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out, np.repeat(offsets[:-1][rows] - out[:-1], lengths) + np.arange(out[-1])
