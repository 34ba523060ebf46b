"""Selections of the head: what may change is copied once under the lock, decoding happens in `read`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tsdb.chunks import gather
from tsdb.errors import CorruptionError, NotAtOnceError
from tsdb.headhistograms import CapturedHistograms, offsets_of, runs
from tsdb.headstarts import CapturedStarts
from tsdb.kernels.headread import capture, decode_rows, measure, sort_late_rows
from tsdb.kernels.xor import READ_PADDING
from tsdb.scratch import scratch
from tsdb.select import HISTOGRAM_WORK, SampleBatch, SelectHints
from tsdb.serieslabels import SeriesLabels

if TYPE_CHECKING:
    from tsdb.head import Head
    from tsdb.keptseries import FoundSeries

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]


_NO_CHUNKS = np.empty((0, 2), dtype=np.int64)
_NO_BYTES = np.empty(0, dtype=np.uint8)
_NO_TIMES = np.empty(0, dtype=np.int64)
_NO_VALUES = np.empty(0, dtype=np.uint64)


class HeadSelection:
    """A `select.Selection` over captured rows. Immutable; several threads may read."""

    def __init__(
        self, labels: SeriesLabels, refs: U32Array, mint: int, maxt: int, bounds: I64Array | None = None
    ) -> None:
        """An empty capture; see `capture`, which fills in what it passes `bounds` for."""
        self._labels = labels
        self.refs = refs
        """Ref of each row, u32[S]."""
        self._mint, self._maxt = mint, maxt
        none = np.zeros(len(labels) + 1, dtype=np.int64) if bounds is None else bounds
        self._bounds: I64Array = none[1:] if bounds is None else bounds
        self._chunk_offsets: I64Array = none
        self._chunks: I64Array = _NO_CHUNKS
        self._open_bytes: U8Array = _NO_BYTES
        self._loose_offsets: I64Array = none
        self._tail_counts: I64Array = none[1:]
        self._loose_t: I64Array = _NO_TIMES
        self._loose_v: U64Array = _NO_VALUES
        self._segments: dict[int, U8Array] = {}
        self._histograms: CapturedHistograms | None = None
        self._starts: CapturedStarts | None = None

    @classmethod
    def capture(
        cls,
        head: Head,
        slots: U32Array,
        mint: int,
        maxt: int,
        hints: SelectHints,
        found: FoundSeries | None = None,
    ) -> HeadSelection:
        """Copy the rows of some slots, of which `found` tells what is known; the caller holds the head's
        lock."""
        if 0 < hints.at_once < len(slots):
            raise NotAtOnceError(f"{len(slots)} series are more than {hints.at_once}")
        offsets, bounds = np.empty((3, len(slots) + 1), dtype=np.int64), np.empty(len(slots), dtype=np.int64)
        filled_count = measure(
            slots, mint, maxt, hints.latest_only, head.rows, head.sealed, head.late, offsets, bounds
        )
        if hints.labels_only:
            counts = head.histograms.counts(slots, mint, maxt)
            if counts is not None:
                bounds += counts
            filled = bounds > 0
            labels, refs = _named(head, slots, None if filled.all() else np.flatnonzero(filled), found)
            named = cls(labels, refs, mint, maxt)
            named._bounds = bounds[filled]
            return named
        histograms = head.histograms.capture(slots, mint, maxt, hints.latest_only)
        rows = None
        if filled_count < len(slots):
            filled = bounds > 0
            if histograms is not None:
                filled |= histograms.counts > 0
            rows = None if filled.all() else np.flatnonzero(filled)
        labels, refs = _named(head, slots, rows, found)
        if rows is not None:
            slots, bounds = slots[rows], bounds[rows]
            counted, offsets = offsets, np.zeros((3, len(rows) + 1), dtype=np.int64)
            (counted[:, 1:] - counted[:, :-1])[:, rows].cumsum(axis=1, out=offsets[:, 1:])
            if histograms is not None:
                histograms = histograms.take(rows)
        self = cls(labels, refs, mint, maxt, bounds)
        if histograms is not None:
            self._histograms = histograms
            self._bounds = bounds + histograms.counts
        self._chunk_offsets, byte_offsets, self._loose_offsets = offsets
        chunks, open_bytes, loose = offsets[:, -1].tolist()
        self._chunks = np.empty((chunks, 2), dtype=np.int64)
        self._open_bytes = np.zeros(open_bytes + READ_PADDING, dtype=np.uint8)
        self._tail_counts = np.empty(len(slots), dtype=np.int64)
        self._loose_t = np.empty(loose, dtype=np.int64)
        self._loose_v = np.empty(loose, dtype=np.uint64)
        capture(
            slots,
            mint,
            maxt,
            head.rows,
            head.sealed,
            head.sealed_end,
            head.late,
            head.slabs,
            head.slab_next,
            self._chunk_offsets,
            byte_offsets,
            self._loose_offsets,
            self._chunks,
            self._open_bytes,
            self._tail_counts,
            self._loose_t,
            self._loose_v,
        )
        sort_late_rows(self._loose_offsets, self._tail_counts, self._loose_t, self._loose_v)
        self._starts = head.starts.capture(
            slots, mint, maxt, head.rows, head.late, self._loose_offsets, self._tail_counts
        )
        self._segments = head.chunk_log.view()
        return self

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: an upper bound of each row's samples."""
        return self._bounds

    def work_bounds(self) -> I64Array:
        """i64[S]: the same with histograms counted as `HISTOGRAM_WORK`."""
        if self._histograms is None:
            return self._bounds
        return self._bounds + (HISTOGRAM_WORK - 1) * self._histograms.counts

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi. Raises CorruptionError for a chunk that does not decode."""
        chunks = self._chunks[self._chunk_offsets[lo] : self._chunk_offsets[hi]]
        buffer, starts, lengths = gather(self._segments, chunks, self._open_bytes)
        room = int(self._bounds[lo:hi].sum())
        t_ms, bits = scratch(room, np.int64), scratch(room, np.uint64)
        offsets = np.empty(hi - lo + 1, dtype=np.int64)
        wants_late = self._starts is not None and len(self._loose_t) > int(self._tail_counts.sum())
        late_used = np.zeros(len(self._loose_t) if wants_late else 0, dtype=np.uint8)
        count = decode_rows(
            self._chunk_offsets,
            starts,
            lengths,
            buffer,
            self._loose_offsets,
            self._tail_counts,
            self._loose_t,
            self._loose_v,
            late_used,
            lo,
            hi,
            self._mint,
            self._maxt,
            offsets,
            t_ms,
            bits,
        )
        if count < 0:
            raise CorruptionError(f"chunk {-1 - count} of {len(chunks)} in the head does not decode")
        begun = None
        if self._starts is not None:
            begun = self._starts.fill(
                lo,
                offsets,
                t_ms[:count],
                self._loose_offsets,
                self._tail_counts,
                self._loose_t,
                late_used,
            )
        histograms = None if self._histograms is None else self._histograms.batch(lo, hi)
        return SampleBatch(offsets, t_ms[:count], bits[:count].view(np.float64), begun, histograms)

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Samples of any rows in the given order: blocks are written by label, the head lies by ref."""
        return self.in_order(rows).read(0, len(rows))

    def in_order(self, rows: I64Array) -> HeadSelection:
        """The given rows in the given order."""
        view = HeadSelection(self._labels.take(rows), self.refs[rows], self._mint, self._maxt)
        chunk_counts, loose_counts = np.diff(self._chunk_offsets)[rows], np.diff(self._loose_offsets)[rows]
        loose = runs(self._loose_offsets[:-1][rows], loose_counts)
        view._bounds = self._bounds[rows]
        view._chunk_offsets, view._loose_offsets = offsets_of(chunk_counts), offsets_of(loose_counts)
        view._chunks = self._chunks[runs(self._chunk_offsets[:-1][rows], chunk_counts)]
        view._open_bytes, view._segments = self._open_bytes, self._segments
        view._tail_counts = self._tail_counts[rows]
        view._loose_t, view._loose_v = self._loose_t[loose], self._loose_v[loose]
        if self._starts is not None:
            view._starts = self._starts.take(rows, loose)
        if self._histograms is not None:
            view._histograms = self._histograms.take(rows)
        return view


def _named(
    head: Head, slots: U32Array, rows: I64Array | None, found: FoundSeries | None
) -> tuple[SeriesLabels, U32Array]:
    """Label sets and refs of some rows (None for all) of the slots."""
    if found is not None:
        return (found.labels, found.refs) if rows is None else (found.labels.take(rows), found.refs[rows])
    chosen = slots if rows is None else slots[rows]
    return head.series.labels_of(chosen), head.series.refs_of(chosen)
