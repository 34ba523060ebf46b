"""One selection over several: head, blocks, out-of-order samples.

Equal label sets become one row. Of samples with equal time the one of the first selection in the list that
has it is kept, so the caller lists the most trusted source first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.distinct import distinct
from tsdb.histogram import HistogramBatch
from tsdb.histogramparts import BatchPart, HistogramPart, assemble
from tsdb.kernels import merge as kernels
from tsdb.kernels.blockrows import copy_runs
from tsdb.samplerows import concat_samples, empty_samples, read_rows, take_histograms
from tsdb.select import SampleBatch, Selection, work_bounds_of
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def merge_selections(selections: Sequence[Selection]) -> Selection:
    """A selection with each label set once. All must use one symbol table; at least one is needed."""
    if not selections:
        raise ValueError("merge_selections needs at least one selection")
    filled = [selection for selection in selections if len(selection.labels)]
    if len(filled) <= 1:
        return filled[0] if filled else selections[0]
    return MergedSelection(filled)


@dataclass(frozen=True, slots=True)
class _Segments:
    """Of each output row the runs of samples that belong to it, most trusted source first."""

    offsets: I64Array
    lo: I64Array
    hi: I64Array


class MergedSelection:
    """Immutable after construction; any thread may read."""

    def __init__(self, selections: Sequence[Selection]) -> None:
        self._selections = list(selections)
        parts = [selection.labels for selection in selections]
        counts = np.array([len(part) for part in parts], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        joined = SeriesLabels.concat(parts, parts[0].symbols)
        ids, first = joined.group_first_rows()
        self._labels = joined.take(first)
        self._members = np.argsort(ids, kind="stable")
        self._offsets = np.zeros(len(first) + 1, dtype=np.int64)
        np.cumsum(np.bincount(ids, minlength=len(first)), out=self._offsets[1:])
        bounds = np.concatenate([selection.sample_bounds() for selection in selections])
        self._bounds = np.add.reduceat(bounds[self._members], self._offsets[:-1])

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series, in order of first appearance over the sources."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: the sum of the sources' bounds."""
        return self._bounds

    def work_bounds(self) -> I64Array:
        """i64[S]: the same with histograms counted by their weight."""
        bounds = np.concatenate([work_bounds_of(selection) for selection in self._selections])
        return np.add.reduceat(bounds[self._members], self._offsets[:-1])

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Merged samples of rows lo to hi (exclusive)."""
        first, last = int(self._offsets[lo]), int(self._offsets[hi])
        return self._merged(self._members[first:last], self._offsets[lo : hi + 1] - first)

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Merged samples of any rows in the given order."""
        lengths = self._offsets[rows + 1] - self._offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        picks = np.repeat(self._offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return self._merged(self._members[picks], offsets)

    def _merged(self, members: I64Array, offsets: I64Array) -> SampleBatch:
        """`members` are rows of the concatenated sources; output row r owns offsets[r]..offsets[r+1]."""
        row_count = len(offsets) - 1
        if not len(members):
            return empty_samples(row_count)
        sources = np.searchsorted(self._starts, members, side="right") - 1
        places = np.empty(len(members), dtype=np.int64)
        owners = np.repeat(np.arange(row_count), np.diff(offsets))
        read: list[_Read] = []
        read_count = 0
        used = distinct(sources).tolist()
        for source in used:
            mine = np.flatnonzero(sources == source)
            read.append(_read(self._selections[source], members[mine] - self._starts[source], owners[mine]))
            places[mine] = read_count + np.arange(len(mine))
            read_count += len(mine)
        if len(used) == 1 and len(members) == row_count:
            return read[0].whole()
        order = _order_in_time(read)
        if order is not None:
            return _chain([read[k] for k in order], row_count)
        return _merge_batches([each.whole() for each in read], places, offsets)


class _Read(NamedTuple):
    """What a source has of output rows `rows`: floats, and histograms to be placed."""

    rows: I64Array
    floats: SampleBatch
    histograms: HistogramPart | None

    def whole(self) -> SampleBatch:
        """As a batch of its own, a row each."""
        if self.histograms is None:
            return self.floats
        count = len(self.rows)
        return replace(self.floats, histograms=assemble([(self.histograms, np.arange(count))], count))

    def span_ms(self) -> tuple[int, int] | None:
        """First and last time, None without samples; rows ascend, so only their ends are looked at."""
        found = [None if self.histograms is None else self.histograms.span_ms()]
        batch = self.floats
        if len(batch.t_ms):
            filled = np.flatnonzero(np.diff(batch.offsets))
            firsts, lasts = batch.offsets[:-1][filled], batch.offsets[1:][filled] - 1
            found.append((int(batch.t_ms[firsts].min()), int(batch.t_ms[lasts].max())))
        spans = [span for span in found if span is not None]
        return (min(lo for lo, _ in spans), max(hi for _, hi in spans)) if spans else None


def _read(selection: Selection, wanted: I64Array, rows: I64Array) -> _Read:
    """Rows `wanted` of a source, which continue the output rows `rows`, ascending. A source that can leave
    histograms to be read later has `read_apart` (`tsdb.block.BlockSelection`)."""
    apart = getattr(selection, "read_apart", None)
    if apart is not None:
        return _Read(rows, *apart(wanted))
    batch = read_rows(selection, wanted)
    if batch.histograms is None:
        return _Read(rows, batch, None)
    return _Read(rows, replace(batch, histograms=None), BatchPart(batch.histograms))


def _order_in_time(read: Sequence[_Read]) -> list[int] | None:
    """The order in which all samples of one source come before all of the next, None where there is none."""
    spans = sorted((*span, k) for k, each in enumerate(read) if (span := each.span_ms()) is not None)
    if any(before[1] >= after[0] for before, after in itertools.pairwise(spans)):
        return None
    return [k for _, _, k in spans]


def _chain(read: Sequence[_Read], row_count: int) -> SampleBatch:
    """Sources one after the other in time: row i of each continues its output row rows[i].

    The usual merge, of blocks and the head: nothing is compared, every sample is copied once.
    """
    rows, batches = [each.rows for each in read], [each.floats for each in read]
    counts = np.zeros(row_count, dtype=np.int64)
    for batch, mine in zip(batches, rows, strict=True):
        counts[mine] += np.diff(batch.offsets)
    offsets = np.zeros(row_count + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    t_ms, values = np.empty(int(offsets[-1]), dtype=np.int64), np.empty(int(offsets[-1]), dtype=np.int64)
    starts = None
    if any(batch.start_t_ms is not None for batch in batches):
        starts = np.zeros(len(t_ms), dtype=np.int64)
    places = offsets[:-1].copy()
    for batch, mine in zip(batches, rows, strict=True):
        lo, hi, at = batch.offsets[:-1], batch.offsets[1:], places[mine]
        copy_runs(batch.t_ms, lo, hi, at, t_ms)
        copy_runs(np.ascontiguousarray(batch.values).view(np.int64), lo, hi, at, values)
        if starts is not None and batch.start_t_ms is not None:
            copy_runs(batch.start_t_ms, lo, hi, at, starts)
        places[mine] += hi - lo
    parts = [(each.histograms, each.rows) for each in read if each.histograms is not None]
    histograms = assemble(parts, row_count) if parts else None
    return SampleBatch(offsets, t_ms, values.view(np.float64), starts, histograms)


def _merge_batches(batches: Sequence[SampleBatch], places: I64Array, offsets: I64Array) -> SampleBatch:
    joined = concat_samples(batches)
    order = np.empty(int(np.diff(offsets).max()), dtype=np.int64)
    segments = _Segments(offsets, joined.offsets[places], joined.offsets[places + 1])
    out_offsets, picks = _merge_times(segments, joined.t_ms, order)
    histograms = joined.histograms
    if histograms is None:
        return _gather(joined, picks, out_offsets, None)
    rows = histograms.row_offsets
    h_segments = _Segments(offsets, rows[places], rows[places + 1])
    h_offsets, h_picks = _merge_times(h_segments, histograms.t_ms, order)
    merged = take_histograms(histograms, h_picks, h_offsets)
    batch = _gather(joined, picks, out_offsets, merged)
    starts = np.cumsum([0, *(len(b.t_ms) for b in batches)])
    h_starts = np.cumsum([0, *(0 if b.histograms is None else len(b.histograms) for b in batches)])
    return _without_conflicts(
        batch,
        merged,
        np.searchsorted(starts, picks, side="right"),
        np.searchsorted(h_starts, h_picks, side="right"),
    )


def _merge_times(segments: _Segments, t_ms: I64Array, order: I64Array) -> tuple[I64Array, I64Array]:
    """Row offsets and the indices of the samples to take."""
    out_offsets = np.zeros(len(segments.offsets), dtype=np.int64)
    out = np.empty(int((segments.hi - segments.lo).sum()), dtype=np.int64)
    total = kernels.merge_rows(
        segments.offsets, segments.lo, segments.hi, t_ms, order, np.empty_like(order), out_offsets, out
    )
    return out_offsets, out[:total]


def _gather(
    joined: SampleBatch, picks: I64Array, offsets: I64Array, histograms: HistogramBatch | None
) -> SampleBatch:
    starts = None if joined.start_t_ms is None else joined.start_t_ms[picks]
    return SampleBatch(offsets, joined.t_ms[picks], joined.values[picks], starts, histograms)


def _without_conflicts(
    batch: SampleBatch, histograms: HistogramBatch, source: I64Array, h_source: I64Array
) -> SampleBatch:
    """A float and a histogram of one series at one time: the earlier source's is kept."""
    keep = np.ones(len(batch.t_ms), dtype=np.bool_)
    h_keep = np.ones(len(histograms), dtype=np.bool_)
    dropped = kernels.mark_conflicts(
        batch.offsets, batch.t_ms, source, histograms.row_offsets, histograms.t_ms, h_source, keep, h_keep
    )
    if not dropped:
        return batch
    kept = take_histograms(
        histograms, np.flatnonzero(h_keep), _offsets_of_kept(histograms.row_offsets, h_keep)
    )
    return _gather(batch, np.flatnonzero(keep), _offsets_of_kept(batch.offsets, keep), kept)


def _offsets_of_kept(offsets: I64Array, keep: BoolArray) -> I64Array:
    running = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=running[1:])
    return running[offsets]
