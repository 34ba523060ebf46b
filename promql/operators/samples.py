"""Samples as operators take them: stale markers removed, NaNs canonical, chosen by index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from promql.histogrampool import batch_of, pool_of, take_pool
from promql.kernels import scan as kernels
from promql.matrix import ABSENT, F64Array
from tsdb.histogram import HistogramBatch
from tsdb.select import NAN_BITS, STALE_BITS, SampleBatch

I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]


def values_at(batch: SampleBatch, index: I32Array) -> F64Array:
    """The values of the samples chosen; absent for none and for stale ones."""
    bits = gather(batch.values.view(np.uint64), index, np.uint64(STALE_BITS))
    values = np.where((bits & kernels.MAGNITUDE) > kernels.EXPONENT, np.uint64(NAN_BITS), bits)
    values[bits == np.uint64(STALE_BITS)] = ABSENT.view(np.uint64)
    return values.view(np.float64)


def gather(column: npt.NDArray[Any], index: I32Array, missing: object) -> npt.NDArray[Any]:
    """column[index], `missing` where an index is negative."""
    if not len(column):
        return np.full(index.shape, missing, dtype=column.dtype)
    return np.where(index >= 0, column[index], np.asarray(missing, dtype=column.dtype))


def clean(batch: SampleBatch) -> SampleBatch:
    """A range vector's samples: no stale markers, canonical NaNs."""
    bits = batch.values.view(np.uint64)
    if kernels.count_odd_nans(bits):
        offsets = np.empty_like(batch.offsets)
        t_ms, values, kept = np.empty_like(batch.t_ms), np.empty_like(bits), np.empty_like(batch.t_ms)
        n = kernels.strip_stale(batch.offsets, batch.t_ms, bits, offsets, t_ms, values, kept)
        starts = None if batch.start_t_ms is None else batch.start_t_ms[kept[:n]]
        batch = replace(
            batch, offsets=offsets, t_ms=t_ms[:n], values=values[:n].view(np.float64), start_t_ms=starts
        )
    pool = batch.histograms
    if pool is not None:
        stale = pool.sum.view(np.uint64) == np.uint64(STALE_BITS)
        if stale.any():
            pool = keep_histograms(pool, np.flatnonzero(~stale))
        batch = replace(batch, histograms=pool if len(pool) else None)
    return batch


def keep_histograms(batch: HistogramBatch, kept: I64Array) -> HistogramBatch:
    """The given samples, ascending, with the rows' offsets adjusted."""
    taken = batch_of(take_pool(pool_of(batch), kept))
    offsets = np.searchsorted(kept, batch.row_offsets).astype(np.int64)
    starts = None if batch.start_t_ms is None else batch.start_t_ms[kept]
    return replace(
        taken,
        row_offsets=offsets,
        t_ms=batch.t_ms[kept],
        start_t_ms=starts,
        is_float=batch.is_float[kept],
    )
