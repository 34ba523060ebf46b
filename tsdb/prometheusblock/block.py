"""A block that Prometheus wrote, as a `Selection`: read-only, samples bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.labels import Matcher
from tsdb.prometheusblock.chunks import CHUNKS_DIRECTORY, ChunkFiles, Chunks, decode_floats, decode_histograms
from tsdb.prometheusblock.index import INDEX_FILE, PrometheusIndex
from tsdb.prometheusblock.tombstones import read_tombstones
from tsdb.samplerows import clip_samples, take_histograms
from tsdb.select import SampleBatch
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from tsdb.tombstone import matching_rows

I64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

META_FILE = "meta.json"
META_VERSION = 1

COUNTED_SERIES = 16_384
"""Series whose chunks are looked at together when samples are counted: some 50 MB of references."""


@dataclass(frozen=True, slots=True)
class PrometheusMeta:
    """meta.json of a Prometheus block; it covers [min_time, max_time) ms."""

    ulid: str
    min_time: int
    max_time: int
    level: int
    sources: tuple[str, ...]
    num_samples: int


def read_meta(fs: FileSystem, directory: Path) -> PrometheusMeta:
    """Raises CorruptionError, UnknownVersionError, FileNotFoundError."""
    path = directory / META_FILE
    try:
        document = json.loads(fs.read_file(path))
        version = document["version"]
        if version != META_VERSION or "format" in document:
            form = document.get("format", "prometheus")
            raise UnknownVersionError(f"{path}: format {form} version {version}, not a block of Prometheus")
        compaction = document.get("compaction") or {}
        ulid = str(document["ulid"])
        return PrometheusMeta(
            ulid,
            int(document["minTime"]),
            int(document["maxTime"]),
            int(compaction.get("level", 1)),
            tuple(map(str, compaction.get("sources") or [ulid])),
            int((document.get("stats") or {}).get("numSamples", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{path}: not a block's meta.json: {error}") from None


class PrometheusBlock:
    """Immutable; any thread may select and read."""

    def __init__(self, fs: FileSystem, directory: Path, symbols: SymbolTable) -> None:
        """Raises CorruptionError, UnknownVersionError, FileNotFoundError."""
        self.path = directory
        self.meta = read_meta(fs, directory)
        self.index = PrometheusIndex(fs, directory / INDEX_FILE)
        self.chunks = ChunkFiles(fs, directory / CHUNKS_DIRECTORY)
        self.tombstones = read_tombstones(fs, directory)
        ids = symbols.intern_many(self.index.symbols)
        self._labels = SeriesLabels(
            self.index.label_offsets, ids[self.index.name_ids], ids[self.index.value_ids], symbols
        )

    def select(self, matchers: Sequence[Matcher], mint: int, maxt: int) -> PrometheusSelection:
        """Series that satisfy every matcher; samples in [mint, maxt], both inclusive."""
        rows = np.flatnonzero(matching_rows(self._labels, matchers))
        return PrometheusSelection(self, self._labels.take(rows), rows, mint, maxt)


class PrometheusSelection:
    """A `select.Selection` over a Prometheus block, less what its tombstones delete."""

    def __init__(
        self, block: PrometheusBlock, labels: SeriesLabels, rows: I64Array, mint: int, maxt: int
    ) -> None:
        self._block, self._rows = block, rows
        self._mint, self._maxt = mint, maxt
        self._labels = labels
        stones = block.tombstones
        refs = block.index.refs[rows].tolist() if stones else []
        self._deleted = {row: stones[ref] for row, ref in enumerate(refs) if ref in stones}

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series, in the block's order."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: samples of the chunks that touch the time range, deleted ones included."""
        out = np.zeros(len(self._rows), dtype=np.int64)
        for lo in range(0, len(out), COUNTED_SERIES):
            part = slice(lo, lo + COUNTED_SERIES)
            owners, refs = self._touched(self._rows[part])
            counts = self._block.chunks.sample_counts(refs)
            out[part] = np.bincount(owners, weights=counts, minlength=len(out[part])).astype(np.int64)
        return out

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive). Raises CorruptionError."""
        return self.read_rows(np.arange(lo, hi, dtype=np.int64))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Samples of any rows, in the given order. Raises CorruptionError."""
        owners, refs = self._touched(self._rows[rows])
        chunks = self._block.chunks.read(refs)
        of_histograms = chunks.is_histogram
        batch = self._floats(chunks.keep(~of_histograms), owners[~of_histograms], len(rows))
        if of_histograms.any():
            found = self._histograms(chunks.keep(of_histograms), owners[of_histograms], len(rows))
            batch = SampleBatch(batch.offsets, batch.t_ms, batch.values, batch.start_t_ms, found)
        batch = clip_samples(batch, self._mint, self._maxt)
        deleted = [(at, self._deleted[row]) for at, row in enumerate(rows.tolist()) if row in self._deleted]
        return _without(batch, deleted) if deleted else batch

    def _touched(self, rows: I64Array) -> tuple[I64Array, I64Array]:
        """Owners (places in `rows`) and references of the chunks that touch the time range."""
        found = self._block.index.chunk_refs(rows)
        owners = np.repeat(np.arange(len(rows)), np.diff(found.offsets))
        touched = (found.mint <= self._maxt) & (found.maxt >= self._mint)
        return owners[touched], found.refs[touched]

    def _floats(self, chunks: Chunks, owners: I64Array, row_count: int) -> SampleBatch:
        samples = decode_floats(chunks, str(self._block.path))
        row = np.repeat(owners, chunks.counts)
        starts = samples.start_t_ms if samples.start_t_ms.any() else None
        order = _order(row, samples.t_ms)
        if order is None:
            return SampleBatch(_offsets(row, row_count), samples.t_ms, samples.values, starts)
        return SampleBatch(
            _offsets(row[order], row_count),
            samples.t_ms[order],
            samples.values.view(np.uint64)[order].view(np.float64),
            None if starts is None else starts[order],
        )

    def _histograms(self, chunks: Chunks, owners: I64Array, row_count: int) -> HistogramBatch:
        row = np.repeat(owners, chunks.counts)
        batch = decode_histograms(chunks, _offsets(row, row_count), str(self._block.path))
        order = _order(row, batch.t_ms)
        if order is None:
            return batch
        return take_histograms(batch, order, _offsets(row[order], row_count))


def _offsets(rows: I64Array, row_count: int) -> I64Array:
    out = np.zeros(row_count + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=row_count), out=out[1:])
    return out


def _order(rows: I64Array, t_ms: I64Array) -> I64Array | None:
    """None where time ascends within each row; else an order in which it does, repeated times left out.

    Blocks of old releases have chunks that overlap; of two samples of one time the first chunk's is kept.
    """
    wrong = (t_ms[1:] <= t_ms[:-1]) & (rows[1:] == rows[:-1])
    if not wrong.any():
        return None
    order = np.lexsort((t_ms, rows))
    repeated = np.zeros(len(order), dtype=np.bool_)
    repeated[1:] = (np.diff(t_ms[order]) == 0) & (np.diff(rows[order]) == 0)
    return order[~repeated]


def _without(batch: SampleBatch, deleted: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> SampleBatch:
    """The batch less the deleted intervals of some of its rows."""
    keep = _kept(batch.offsets, batch.t_ms, deleted)
    histograms = batch.histograms
    if histograms is not None:
        h_keep = _kept(histograms.row_offsets, histograms.t_ms, deleted)
        offsets = np.concatenate([[0], np.cumsum(h_keep)])[histograms.row_offsets]
        histograms = take_histograms(histograms, np.flatnonzero(h_keep), offsets)
    return SampleBatch(
        np.concatenate([[0], np.cumsum(keep)])[batch.offsets],
        batch.t_ms[keep],
        batch.values.view(np.uint64)[keep].view(np.float64),
        None if batch.start_t_ms is None else batch.start_t_ms[keep],
        histograms,
    )


def _kept(
    offsets: I64Array, t_ms: I64Array, deleted: Sequence[tuple[int, Sequence[tuple[int, int]]]]
) -> BoolArray:
    keep = np.ones(len(t_ms), dtype=np.bool_)
    for row, intervals in deleted:
        part = slice(int(offsets[row]), int(offsets[row + 1]))
        times = t_ms[part]
        for mint, maxt in intervals:
            lo = np.searchsorted(times, mint, side="left")
            keep[part][lo : np.searchsorted(times, maxt, side="right")] = False
    return keep
