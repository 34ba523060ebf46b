"""An open block: selects over its index, samples decoded from its pages when read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.blockcache import NOT_KEPT, BlockCache, CachePart
from tsdb.blockmeta import META_FILE, BlockMeta
from tsdb.columnsfile import COLUMNS_FILE, FLOATS, HISTOGRAMS, ColumnsFile
from tsdb.distinct import distinct
from tsdb.errors import CorruptionError, NotAtOnceError
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.histogramparts import HistogramPart, assemble
from tsdb.histogramread import HistogramPage
from tsdb.index import INDEX_FILE, BlockIndex
from tsdb.kernels import blockrows as kernels
from tsdb.kernels import merge as merge_kernels
from tsdb.labels import Matcher
from tsdb.matcherplan import resolve
from tsdb.postings import Cardinality
from tsdb.samplerows import empty_samples
from tsdb.select import HISTOGRAM_WORK, SampleBatch, SelectHints
from tsdb.seriesfile import SERIES_FILE, Runs, SeriesFile
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from tsdb.timecolumn import TimeColumns

U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

_NO_HINTS = SelectHints()


MATCHING_KEPT_MAX = 4096
"""Series of a selection that is remembered for the next query with the same matchers."""


class _Matching(NamedTuple):
    """The series that satisfy some matchers: numbers, labels, runs."""

    refs: U32Array
    labels: SeriesLabels
    runs: Runs


def _matching_bytes(found: _Matching) -> int:
    labels, runs = found.labels, found.runs
    columns = (found.refs, labels.offsets, labels.name_ids, labels.value_ids, runs.offsets, runs.kind)
    size = sum(column.nbytes for column in (*columns, runs.stream, runs.times, runs.starts))
    return size if len(found.refs) <= MATCHING_KEPT_MAX else NOT_KEPT


def _not_at_once() -> _Matching:
    raise NotAtOnceError("what matches in a block is not known")


class Block:
    """Immutable. Any thread may select and read; `close` only when nobody does."""

    def __init__(
        self, fs: FileSystem, path: Path, symbols: SymbolTable, meta: BlockMeta, cache: BlockCache
    ) -> None:
        """Use `open`."""
        self.meta = meta
        self.path = path
        self.symbols = symbols
        self.index = BlockIndex(fs, path / INDEX_FILE, meta.stats.num_series, cache)
        self._series = SeriesFile(
            fs, path / SERIES_FILE, meta.stats.num_series, len(self.index.symbols), cache
        )
        self.columns = ColumnsFile(fs, path / COLUMNS_FILE, cache)
        self.times = TimeColumns(
            self.columns, self._series.time_directory(), f"{path / SERIES_FILE}: time directory", cache
        )
        self._matches: CachePart[tuple[Matcher, ...], _Matching] = cache.part(_matching_bytes)
        self.histogram_pages: CachePart[int, HistogramPage] = cache.part(attrgetter("nbytes"))
        self._global = np.zeros(len(self.index.symbols), dtype=np.uint32)

    @classmethod
    def open(cls, fs: FileSystem, path: Path, symbols: SymbolTable, cache: BlockCache | None = None) -> Block:
        """Open a block's directory; label ids will be those of `symbols`.

        Decoded pieces are kept in `cache`, which a store shares among its blocks; None makes one for this
        block.
        Raises CorruptionError, UnknownVersionError, FileNotFoundError.
        """
        meta = BlockMeta.from_json(fs.read_file(path / META_FILE), str(path / META_FILE))
        return cls(fs, path, symbols, meta, cache if cache is not None else BlockCache())

    @property
    def size(self) -> int:
        """Bytes of index, series and columns."""
        return self.index.size + self._series.size + self.columns.size

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = _NO_HINTS
    ) -> BlockSelection:
        """Series with samples possible in [mint, maxt] (inclusive) that satisfy every matcher.

        Raises CorruptionError, InvalidRegexError, and NotAtOnceError for a caller that must not wait where
        it is not known what matches.
        """
        # What matches is the same for ever; deleted samples are left out by who asks.
        make = _not_at_once if hints.at_once else lambda: self._matching(matchers)
        refs, labels, runs = self._matches.get(tuple(matchers), make)
        touched = (self.times.mint[runs.times] <= maxt) & (self.times.maxt[runs.times] >= mint)
        if not touched.all():
            runs = runs.keep(touched)
            filled = np.flatnonzero(np.diff(runs.offsets))
            if len(filled) < len(labels):
                labels, runs, refs = labels.take(filled), runs.take(filled), refs[filled]
        return BlockSelection(self, refs, labels, runs, mint, maxt)

    def _matching(self, matchers: Sequence[Matcher]) -> _Matching:
        refs = np.frombuffer(resolve(self.index, matchers).to_array(), dtype=np.uint32)
        rows = self._series.rows(refs)
        runs = rows.runs
        if len(runs.times) and int(runs.times.max()) >= len(self.times.counts):
            raise CorruptionError(f"{self.path}: a run names timestamps that are not there")
        names, values = self._interned(rows.name_ids), self._interned(rows.value_ids)
        return _Matching(refs, SeriesLabels(rows.offsets, names, values, self.symbols), runs)

    def _interned(self, local: U32Array) -> U32Array:
        """Ids of the process's table; strings are taken over when a selection first names them."""
        found = self._global[local]
        if not found.all():
            missing = distinct(local[found == 0])
            self._global[missing] = self.symbols.intern_many(self.index.symbols.texts(missing))
            found = self._global[local]
        return found

    def label_names(self, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Sorted label names of the series that match."""
        return self.index.label_names(resolve(self.index, matchers) if matchers else None)

    def label_values(self, name: str, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Sorted values of a label over the series that match."""
        return self.index.label_values(name, resolve(self.index, matchers) if matchers else None)

    def cardinality(self, limit: int = 10) -> Cardinality:
        """Series, values and bytes by label name and pair."""
        return self.index.cardinality(limit)

    def forget(self) -> None:
        """Drop decoded pieces from the cache; the block stays readable."""
        self.index.forget()
        self._series.forget()
        self.columns.forget()
        self.times.forget()
        self._matches.clear()
        self.histogram_pages.clear()

    def close(self) -> None:
        """Let go of the mappings; arrays handed out stay valid."""
        self.index.close()
        self._series.close()
        self.columns.close()
        self.times.forget()
        self._matches.clear()
        self.histogram_pages.clear()


class PlacedRuns(NamedTuple):
    """Runs of floats, row after row: row i owns `offsets[i]:offsets[i+1]`.

    Run k is stream `stream[k]` of page `page[k]`, of `length[k]` samples at the times of vectors[vector[k]].
    The vectors, ascending, have `vector_samples` timestamps, from span_ms[0] to span_ms[1].
    """

    offsets: I64Array
    page: I64Array
    stream: I64Array
    vector: I64Array
    length: I64Array
    vectors: I64Array
    vector_samples: int
    span_ms: tuple[int, int]


class BlockSelection:
    """A `select.Selection` over a block. Immutable; any thread may read."""

    def __init__(
        self, block: Block, refs: U32Array, labels: SeriesLabels, runs: Runs, mint: int, maxt: int
    ) -> None:
        self._block, self._runs = block, runs
        self._mint, self._maxt = mint, maxt
        self._labels = labels
        self.refs = refs
        """u32[S]: numbers of the series in the block."""

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series, by metric name and labels."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: samples of the runs that touch the time range."""
        counts = np.zeros(len(self._runs.times) + 1, dtype=np.int64)
        np.cumsum(self._block.times.counts[self._runs.times], out=counts[1:])
        return counts[self._runs.offsets[1:]] - counts[self._runs.offsets[:-1]]

    def work_bounds(self) -> I64Array:
        """i64[S]: the same with histograms counted as `HISTOGRAM_WORK`."""
        runs = self._runs
        weights = np.where(runs.kind == FLOATS, 1, HISTOGRAM_WORK)
        done = np.zeros(len(runs.times) + 1, dtype=np.int64)
        np.cumsum(self._block.times.counts[runs.times] * weights, out=done[1:])
        return done[runs.offsets[1:]] - done[runs.offsets[:-1]]

    def spans(self) -> tuple[I64Array, I64Array]:
        """First and last timestamp of each row's runs, i64[S] each, not clipped to the select."""
        runs, times = self._runs, self._block.times
        begins = runs.offsets[:-1]
        first = np.minimum.reduceat(times.mint[runs.times], begins)
        return first, np.maximum.reduceat(times.maxt[runs.times], begins)

    def run_samples(self) -> tuple[I64Array, I64Array]:
        """Samples of each run of floats, and of each run of histograms."""
        counts, is_float = self._block.times.counts[self._runs.times], self._runs.kind == FLOATS
        return counts[is_float], counts[~is_float]

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive) within the bounds of the select. Raises CorruptionError."""
        return self.read_rows(np.arange(lo, hi, dtype=np.int64))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Samples of any rows in the given order. Raises CorruptionError."""
        batch, part = self.read_apart(rows)
        if part is None:
            return batch
        return replace(batch, histograms=assemble([(part, np.arange(len(rows)))], len(rows)))

    def read_apart(self, rows: I64Array) -> tuple[SampleBatch, HistogramPart | None]:
        """As `read_rows`: the floats, and the histograms as a part that is not read yet."""
        runs = self._runs.take(rows)
        owners = np.repeat(np.arange(len(rows)), np.diff(runs.offsets))
        is_float = runs.kind == FLOATS
        part = None
        if not is_float.all():
            mixed = runs.keep(~is_float) if is_float.any() else runs
            part = _Timed.of(self._block, mixed, self._mint, self._maxt).histograms(owners[~is_float])
            if mixed is runs:
                return empty_samples(len(rows)), part
        floats = _Timed.of(self._block, runs.keep(is_float), self._mint, self._maxt)
        values = floats.values()
        offsets = _row_offsets(owners[is_float], floats.counts, len(rows))
        return SampleBatch(offsets, floats.t_ms, values, floats.start_t_ms()), part

    def placed_runs(self) -> PlacedRuns | None:
        """Where the samples of all rows lie; None where there are histograms or start timestamps. Raises
        CorruptionError."""
        runs, block = self._runs, self._block
        if (runs.kind != FLOATS).any() or runs.starts.any():
            return None
        distinct, which = block.times.distinct(runs.times)
        streams = runs.stream.astype(np.int64)
        pages = block.columns.pages_of(FLOATS, streams)
        counts = block.times.counts[distinct]
        first_ms = block.times.mint[distinct].min(initial=np.iinfo(np.int64).max)
        last_ms = block.times.maxt[distinct].max(initial=np.iinfo(np.int64).min)
        return PlacedRuns(
            runs.offsets,
            pages,
            streams - block.columns.directory(FLOATS).first[pages],
            which,
            counts[which],
            distinct,
            int(counts.sum()),
            (int(first_ms), int(last_ms)),
        )


def _row_offsets(owners: I64Array, counts: I64Array, row_count: int) -> I64Array:
    """Offsets of rows, of which run k gives owners[k] counts[k] samples; owners ascend."""
    before = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=before[1:])
    return before[np.searchsorted(owners, np.arange(row_count + 1))]


class _Timed:
    """Runs of one kind with their timestamps, and the part of each that lies in the time range."""

    def __init__(self, block: Block, runs: Runs, lengths: I64Array, lo: I64Array, hi: I64Array) -> None:
        self.block, self.runs = block, runs
        self.lengths, self.lo, self.hi = lengths, lo, hi
        self.counts = hi - lo
        self.places = np.cumsum(self.counts) - self.counts
        self.t_ms = np.empty(int(self.counts.sum()), dtype=np.int64)

    @classmethod
    def of(cls, block: Block, runs: Runs, mint: int, maxt: int) -> _Timed:
        """Decode the distinct timestamp vectors of the runs and copy each run's part of them."""
        distinct, which = block.times.distinct(runs.times)
        offsets, t_ms = block.times.read(distinct)
        all_vectors = np.arange(len(distinct), dtype=np.int64)
        lo, hi = np.empty_like(all_vectors), np.empty_like(all_vectors)
        merge_kernels.clip_rows(offsets, t_ms, all_vectors, mint, maxt, lo, hi)
        first = offsets[:-1][which]
        made = cls(block, runs, np.diff(offsets)[which], lo[which] - first, hi[which] - first)
        _copy(t_ms, lo[which], hi[which], made.places, made.t_ms)
        return made

    @property
    def _whole(self) -> bool:
        return bool((self.counts == self.lengths).all())

    def _clipped(self, numbers: I64Array, starts: I64Array) -> I64Array:
        """Of whole runs that begin at `starts` the parts in the time range."""
        if self._whole:
            return numbers
        out = np.empty(len(self.t_ms), dtype=np.int64)
        _copy(numbers, starts + self.lo, starts + self.hi, self.places, out)
        return out

    def values(self) -> npt.NDArray[np.float64]:
        """The float values, bits as stored."""
        starts = np.cumsum(self.lengths) - self.lengths
        out = np.empty(int(self.lengths.sum()), dtype=np.uint64)
        streams = self.runs.stream.astype(np.int64)
        self.block.columns.read(FLOATS, streams, starts, self.lengths, out)
        return self._clipped(out.view(np.int64), starts).view(np.float64)

    def start_t_ms(self) -> I64Array | None:
        """Start timestamps, 0 where a run has none; None where no run has any."""
        some = np.flatnonzero(self.runs.starts)
        if not len(some):
            return None
        vectors = self.runs.starts[some] - np.uint32(1)
        if int(vectors.max()) >= len(self.block.times.counts):
            raise CorruptionError(f"{self.block.path}: a run names start timestamps that are not there")
        distinct, which = self.block.times.distinct(vectors)
        offsets, numbers = self.block.times.read(distinct)
        if not np.array_equal(np.diff(offsets)[which], self.lengths[some]):
            raise CorruptionError(f"{self.block.path}: start timestamps do not fit their run")
        out = np.zeros(len(self.t_ms), dtype=np.int64)
        first = offsets[:-1][which]
        _copy(numbers, first + self.lo[some], first + self.hi[some], self.places[some], out)
        return out

    def histograms(self, rows: I64Array) -> _BlockHistograms:
        """The histograms of the runs, which are of these rows."""
        return _BlockHistograms(self, rows)


class _BlockHistograms:
    """A block's part of histograms that are read together (`tsdb.histogramparts.HistogramPart`)."""

    def __init__(self, timed: _Timed, rows: I64Array) -> None:
        block, self._timed, self.rows = timed.block, timed, rows
        self._starts = timed.start_t_ms()
        self.has_starts = self._starts is not None
        self.sizes = np.empty((len(rows), 4), dtype=np.int64)
        self._reads: list[tuple[HistogramPage, int, I64Array]] = []
        streams = timed.runs.stream.astype(np.int64)
        order = np.argsort(streams, kind="stable")
        streams = streams[order]
        pages = block.columns.pages_of(HISTOGRAMS, streams)
        cuts = np.flatnonzero((pages[1:] != pages[:-1]) | (streams[1:] - streams[:-1] != 1)) + 1
        first = block.columns.directory(HISTOGRAMS).first
        for a, b in itertools.pairwise([0, *cuts.tolist(), len(streams)]):
            number, mine = int(pages[a]), order[a:b]
            page, stream = _histogram_page(block, number), int(streams[a] - first[number])
            ends = page.streams[stream : stream + b - a + 1]
            if (ends[1:] - ends[:-1] != timed.lengths[mine]).any():
                raise CorruptionError(f"{block.path}: histograms do not fit their timestamps")
            self.sizes[mine] = page.sizes(stream, timed.lo[mine], timed.hi[mine])
            self._reads.append((page, stream, mine))

    def span_ms(self) -> tuple[int, int] | None:
        """See `HistogramPart`."""
        t_ms = self._timed.t_ms
        return (int(t_ms.min()), int(t_ms.max())) if len(t_ms) else None

    def place(self, places: I64Array, out: HistogramBatch) -> None:
        """See `HistogramPart`."""
        timed = self._timed
        for page, stream, mine in self._reads:
            page.place(stream, timed.lo[mine], timed.hi[mine], places[mine], out)
        first, at = timed.places, np.ascontiguousarray(places[:, 0])
        _copy(timed.t_ms, first, first + timed.counts, at, out.t_ms)
        if self._starts is not None and out.start_t_ms is not None:
            _copy(self._starts, first, first + timed.counts, at, out.start_t_ms)


def _histogram_page(block: Block, number: int) -> HistogramPage:
    def parse() -> HistogramPage:
        columns = block.columns
        return HistogramPage.parse(columns.stored(HISTOGRAMS, number), columns.where(HISTOGRAMS, number))

    return block.histogram_pages.get(number, parse)


def _copy(source: I64Array, lo: I64Array, hi: I64Array, starts: I64Array, out: I64Array) -> None:
    if kernels.copy_runs(source, lo, hi, starts, out):
        raise CorruptionError("runs of a block reach beyond their columns")
