"""The selection that is written as a roll-up block: every source series as a series a column."""

from __future__ import annotations

import numpy as np

from tsdb.rollup import (
    HISTOGRAM,
    KINDS,
    ROLLUP_LABEL,
    STALE,
    I64Array,
    Windows,
    roll_up,
    stale_samples,
)
from tsdb.rollupselect import windows_of_rows
from tsdb.samplerows import concat_samples, empty_samples, take_sample_rows
from tsdb.select import SampleBatch, Selection
from tsdb.serieslabels import SeriesLabels

READ_SAMPLES = 1 << 20
"""Samples read at a time; their windows are a few per cent of that."""


class RolledUp:
    """A `select.Selection`: row kind * S + i is column KINDS[kind] of series i of the source."""

    def __init__(self, source: Selection, resolution_ms: int, lo: int, hi: int) -> None:
        """`source` holds the samples of (lo, hi]."""
        self._source, self._resolution_ms = source, resolution_ms
        self._count = len(source.labels)
        self._window_limit = (hi - lo) // resolution_ms
        self._labels = _with_kinds(source.labels)
        self.source_sample_count = 0
        """Samples and finer windows read so far, once a batch."""

    @property
    def labels(self) -> SeriesLabels:
        """Label sets with the hidden label."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[rows]: windows; those of histograms are not known and count as windows."""
        bounds = np.minimum(self._source.sample_bounds(), self._window_limit)
        return np.tile(bounds, len(KINDS))

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Columns of rows lo to hi (exclusive)."""
        return self.read_rows(np.arange(lo, hi, dtype=np.int64))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Columns of any rows in the given order; each source series is read once."""
        if not len(rows):
            return empty_samples(0)
        kinds, sources = np.divmod(rows, self._count)
        distinct, places = np.unique(sources, return_inverse=True)
        used = np.unique(kinds).tolist()
        pieces: dict[int, list[SampleBatch]] = {kind: [] for kind in used}
        for part in self._parts(distinct):
            windows = roll_up(windows_of_rows(self._source, part), self._resolution_ms)
            for kind in used:
                pieces[kind].append(_column(windows, KINDS[kind]))
        joined = concat_samples([piece for kind in used for piece in pieces[kind]])
        at = np.searchsorted(np.array(used), kinds) * len(distinct) + places
        return take_sample_rows(joined, at.astype(np.int64))

    def _parts(self, rows: I64Array) -> list[I64Array]:
        done = np.cumsum(self._source.sample_bounds()[rows])
        self.source_sample_count += int(done[-1])
        cuts = np.searchsorted(done, np.arange(READ_SAMPLES, int(done[-1]), READ_SAMPLES), side="right")
        return [part for part in np.split(rows, np.unique(cuts)) if len(part)]


def _column(windows: Windows, kind: str) -> SampleBatch:
    if kind == STALE:
        return stale_samples(windows.stale_offsets, windows.stale_t_ms)
    if kind == HISTOGRAM:
        empty = empty_samples(len(windows.offsets) - 1)
        return SampleBatch(empty.offsets, empty.t_ms, empty.values, None, windows.histograms)
    return SampleBatch(windows.offsets, windows.t_ms, windows.columns[kind])


def _with_kinds(labels: SeriesLabels) -> SeriesLabels:
    """Every row once a kind, with the hidden label where it belongs in the order of names."""
    symbols = labels.symbols
    name_id = symbols.intern(ROLLUP_LABEL)
    distinct, places = np.unique(labels.name_ids, return_inverse=True)
    before = np.array([text < ROLLUP_LABEL for text in symbols.texts(distinct.tolist())], dtype=np.bool_)
    running = np.zeros(len(labels.name_ids) + 1, dtype=np.int64)
    np.cumsum(before[places], out=running[1:])
    at = labels.offsets[:-1] + running[labels.offsets[1:]] - running[labels.offsets[:-1]]
    offsets = labels.offsets + np.arange(len(labels) + 1)
    names = np.insert(labels.name_ids, at, np.uint32(name_id))
    parts = [
        SeriesLabels(
            offsets, names, np.insert(labels.value_ids, at, np.uint32(symbols.intern(kind))), symbols
        )
        for kind in KINDS
    ]
    return SeriesLabels.concat(parts, symbols)
