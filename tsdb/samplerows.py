"""Rearranging samples in CSR form: rows of a batch in another order, several batches end to end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.kernels import merge as kernels
from tsdb.select import SampleBatch, Selection

I64Array = npt.NDArray[np.int64]


def _gathered(offsets: I64Array, picks: I64Array) -> tuple[I64Array, I64Array]:
    """Offsets and element indices of the variable-length parts `picks` of a CSR."""
    total = int((offsets[picks + 1] - offsets[picks]).sum())
    out_offsets, out = np.zeros(len(picks) + 1, dtype=np.int64), np.empty(total, dtype=np.int64)
    kernels.spread_rows(
        np.ascontiguousarray(offsets[:-1]), np.ascontiguousarray(offsets[1:]), picks, out_offsets, out
    )
    return out_offsets, out


def empty_histograms(row_count: int) -> HistogramBatch:
    """No histograms in each of the rows."""
    i64, i32 = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
    f64, u8, zero = np.empty(0), np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    return HistogramBatch(
        np.zeros(row_count + 1, dtype=np.int64), i64, None, i32, u8, f64, f64, f64, f64,
        zero, i32, f64, zero, i32, f64, zero, f64, u8,
    )  # fmt: skip


def take_histograms(batch: HistogramBatch, picks: I64Array, row_offsets: I64Array) -> HistogramBatch:
    """Histograms `picks` of a batch, laid out as rows by `row_offsets`."""
    pos_offsets, pos = _gathered(batch.pos_offsets, picks)
    neg_offsets, neg = _gathered(batch.neg_offsets, picks)
    custom_offsets, custom = _gathered(batch.custom_offsets, picks)
    return HistogramBatch(
        row_offsets=row_offsets,
        t_ms=batch.t_ms[picks],
        start_t_ms=None if batch.start_t_ms is None else batch.start_t_ms[picks],
        schema=batch.schema[picks],
        reset_hint=batch.reset_hint[picks],
        zero_threshold=batch.zero_threshold[picks],
        zero_count=batch.zero_count[picks],
        count=batch.count[picks],
        sum=batch.sum[picks],
        pos_offsets=pos_offsets,
        pos_index=batch.pos_index[pos],
        pos_count=batch.pos_count[pos],
        neg_offsets=neg_offsets,
        neg_index=batch.neg_index[neg],
        neg_count=batch.neg_count[neg],
        custom_offsets=custom_offsets,
        custom_values=batch.custom_values[custom],
        is_float=batch.is_float[picks],
    )


def _joined_offsets(parts: Sequence[I64Array]) -> I64Array:
    out = np.zeros(1 + sum(len(part) - 1 for part in parts), dtype=np.int64)
    np.cumsum(np.concatenate([np.diff(part) for part in parts]), out=out[1:])
    return out


def _joined_starts(parts: Sequence[tuple[I64Array, I64Array | None]]) -> I64Array | None:
    """Start timestamps of all parts, 0 where a part has none; None where no part has any."""
    if all(start is None for _, start in parts):
        return None
    return np.concatenate([np.zeros_like(t) if start is None else start for t, start in parts])


def concat_histograms(batches: Sequence[HistogramBatch]) -> HistogramBatch:
    """The rows of all batches, one batch after the other."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return empty_histograms(0)
    return HistogramBatch(
        row_offsets=_joined_offsets([b.row_offsets for b in batches]),
        t_ms=np.concatenate([b.t_ms for b in batches]),
        start_t_ms=_joined_starts([(b.t_ms, b.start_t_ms) for b in batches]),
        schema=np.concatenate([b.schema for b in batches]),
        reset_hint=np.concatenate([b.reset_hint for b in batches]),
        zero_threshold=np.concatenate([b.zero_threshold for b in batches]),
        zero_count=np.concatenate([b.zero_count for b in batches]),
        count=np.concatenate([b.count for b in batches]),
        sum=np.concatenate([b.sum for b in batches]),
        pos_offsets=_joined_offsets([b.pos_offsets for b in batches]),
        pos_index=np.concatenate([b.pos_index for b in batches]),
        pos_count=np.concatenate([b.pos_count for b in batches]),
        neg_offsets=_joined_offsets([b.neg_offsets for b in batches]),
        neg_index=np.concatenate([b.neg_index for b in batches]),
        neg_count=np.concatenate([b.neg_count for b in batches]),
        custom_offsets=_joined_offsets([b.custom_offsets for b in batches]),
        custom_values=np.concatenate([b.custom_values for b in batches]),
        is_float=np.concatenate([b.is_float for b in batches]),
    )


def empty_samples(row_count: int) -> SampleBatch:
    """No samples in each of the rows."""
    offsets = np.zeros(row_count + 1, dtype=np.int64)
    return SampleBatch(offsets, np.empty(0, dtype=np.int64), np.empty(0))


def concat_samples(batches: Sequence[SampleBatch]) -> SampleBatch:
    """The rows of all batches, one batch after the other."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return empty_samples(0)
    histograms = None
    if any(batch.histograms is not None for batch in batches):
        histograms = concat_histograms(
            [empty_histograms(len(b)) if b.histograms is None else b.histograms for b in batches]
        )
    return SampleBatch(
        _joined_offsets([b.offsets for b in batches]),
        np.concatenate([b.t_ms for b in batches]),
        np.concatenate([b.values for b in batches]),
        _joined_starts([(b.t_ms, b.start_t_ms) for b in batches]),
        histograms,
    )


def take_sample_rows(batch: SampleBatch, rows: I64Array) -> SampleBatch:
    """The given rows of a batch in the given order."""
    if len(rows) == len(batch) and bool((rows == np.arange(len(rows))).all()):
        return batch
    offsets, picks = _gathered(batch.offsets, rows)
    histograms = None
    if batch.histograms is not None:
        row_offsets, chosen = _gathered(batch.histograms.row_offsets, rows)
        histograms = take_histograms(batch.histograms, chosen, row_offsets)
    starts = None if batch.start_t_ms is None else batch.start_t_ms[picks]
    return SampleBatch(offsets, batch.t_ms[picks], batch.values[picks], starts, histograms)


def clip_samples(batch: SampleBatch, mint: int, maxt: int) -> SampleBatch:
    """Only the samples with mint <= t <= maxt, all rows kept."""
    h = batch.histograms
    inside = _spans_within(batch.t_ms, mint, maxt) and (h is None or _spans_within(h.t_ms, mint, maxt))
    if inside:
        return batch
    offsets, picks = _clipped(batch.offsets, batch.t_ms, mint, maxt)
    histograms = None
    if h is not None:
        row_offsets, chosen = _clipped(h.row_offsets, h.t_ms, mint, maxt)
        histograms = take_histograms(h, chosen, row_offsets)
    starts = None if batch.start_t_ms is None else batch.start_t_ms[picks]
    return SampleBatch(offsets, batch.t_ms[picks], batch.values[picks], starts, histograms)


def _spans_within(t_ms: I64Array, mint: int, maxt: int) -> bool:
    return not len(t_ms) or (int(t_ms.min()) >= mint and int(t_ms.max()) <= maxt)


def _clipped(offsets: I64Array, t_ms: I64Array, mint: int, maxt: int) -> tuple[I64Array, I64Array]:
    rows = np.arange(len(offsets) - 1, dtype=np.int64)
    lo, hi = np.empty_like(rows), np.empty_like(rows)
    kernels.clip_rows(offsets, t_ms, rows, mint, maxt, lo, hi)
    out_offsets = np.zeros(len(offsets), dtype=np.int64)
    out = np.empty(int((hi - lo).sum()), dtype=np.int64)
    kernels.spread_rows(lo, hi, rows, out_offsets, out)
    return out_offsets, out


def read_rows(selection: Selection, rows: I64Array) -> SampleBatch:
    """Samples of any rows of a selection, in the given order.

    A selection that has its own `read_rows(rows)` is asked; of others the runs of neighbouring rows are read.
    """
    own = getattr(selection, "read_rows", None)
    if own is not None:
        batch: SampleBatch = own(rows)
        return batch
    if not len(rows):
        return empty_samples(0)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    starts = np.concatenate([[0], breaks])
    ends = np.concatenate([breaks, [len(rows)]])
    parts = [
        selection.read(int(ascending[a]), int(ascending[b - 1]) + 1)
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    back = np.empty(len(rows), dtype=np.int64)
    back[order] = np.arange(len(rows))
    return take_sample_rows(concat_samples(parts), back)
