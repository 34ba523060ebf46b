"""Writing a block: a selection's samples of a time range become an immutable directory.

Series are sorted by metric name and labels, so that pages hold like with like. Samples are read a batch at a
time; only labels and the places of runs stay in memory until the end. The directory is built under a
temporary name, synced, and renamed last.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb import histogrampage, page
from tsdb.blockmeta import META_FILE, BlockDesc, BlockMeta, BlockStats
from tsdb.columnsfile import COLUMNS_FILE, FLOATS, HISTOGRAMS, ColumnsWriter
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.index import INDEX_FILE, write_index
from tsdb.kernels import merge as merge_kernels
from tsdb.labels import METRIC_NAME
from tsdb.samplerows import clip_samples, read_rows, take_histograms
from tsdb.select import SampleBatch, Selection
from tsdb.seriesfile import SERIES_FILE, Runs, SeriesRows, write_series
from tsdb.serieslabels import SeriesLabels
from tsdb.timecolumn import TimeColumnWriter
from tsdb.ulid import make_ulid

I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

TEMPORARY_SUFFIX = ".tmp-for-creation"

BATCH_SAMPLES = 1 << 20
"""Samples read at a time: some 16 MB, and sixteen pages."""

RUN_SAMPLES = 8192
"""Longest run of floats: a query of an hour in a block of a month decodes a part of it only."""

RUN_HISTOGRAMS = 512

STREAM_COST = 16
"""What a stream weighs when a page is filled, besides its numbers: thousands of runs of one sample would
otherwise share a page that is nothing but headers."""


def write_block(
    fs: FileSystem,
    parent_dir: Path,
    mint: int,
    maxt: int,
    selection: Selection,
    *,
    level: int = 1,
    sources: Sequence[str] = (),
    parents: Sequence[BlockDesc] = (),
    ulid: str | None = None,
    resolution_ms: int = 0,
) -> BlockMeta:
    """Write the samples of [mint, maxt) of a selection as a block below `parent_dir`.

    Without any sample in the range nothing is written, and the meta says 0 samples. `sources` defaults to the
    block itself; `resolution_ms` > 0 marks a roll-up. Raises DiskFullError, OSError, CorruptionError of
    the selection; the temporary directory is then removed.
    """
    name = ulid or make_ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10))
    temporary, final = parent_dir / (name + TEMPORARY_SUFFIX), parent_dir / name
    fs.make_directory(temporary)
    try:
        stats = _BlockFiles(fs, temporary, mint, maxt).write(selection)
        meta = BlockMeta(
            name, mint, maxt, stats, level, tuple(sources) or (name,), tuple(parents), resolution_ms
        )
        if stats.num_samples:
            fs.write_file(temporary / META_FILE, [meta.to_json()])
            fs.sync_directory(temporary)
            fs.rename(temporary, final)
        else:
            fs.remove_tree(temporary)
    except BaseException:
        # The start removes what a failing disk leaves here.
        with contextlib.suppress(OSError):
            fs.remove_tree(temporary)
        raise
    return meta


def block_order(labels: SeriesLabels) -> I64Array:
    """Rows by metric name, then by label set."""
    order = labels.sort_order()
    names = labels.column(METRIC_NAME)[order]
    distinct, places = np.unique(names, return_inverse=True)
    texts = labels.symbols.texts(distinct)
    ranks = np.empty(len(distinct), dtype=np.int64)
    ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(distinct))
    return order[np.argsort(ranks[places], kind="stable")]


def _offsets(lengths: npt.NDArray[np.integer]) -> I64Array:
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


@dataclass(frozen=True, slots=True)
class _NewRuns:
    """Runs as they were written: `rows` i64 are rows of the block's order."""

    rows: I64Array
    kind: int
    stream: U32Array
    times: U32Array
    starts: U32Array


def _split(offsets: I64Array, longest: int) -> tuple[I64Array, I64Array, I64Array]:
    """Rows cut into runs: row, first and last sample of each; first runs of all rows before second ones."""
    lengths = np.diff(offsets)
    pieces = -(-lengths // longest)
    rows = np.repeat(np.arange(len(lengths)), pieces)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    order = np.lexsort((rows, numbers))
    rows, numbers = rows[order], numbers[order]
    lo = offsets[rows] + numbers * longest
    return rows, lo, np.minimum(lo + longest, offsets[rows + 1])


def _end_to_end(numbers: U64Array, lo: I64Array, hi: I64Array) -> tuple[I64Array, U64Array]:
    """The parts [lo, hi) of numbers end to end, and where each begins; no copy where they are so already."""
    offsets = _offsets(hi - lo)
    if bool((lo == offsets[:-1]).all()) and offsets[-1] == len(numbers):
        return offsets, numbers
    picks = np.empty(int(offsets[-1]), dtype=np.int64)
    merge_kernels.spread_rows(lo, hi, np.arange(len(lo)), np.empty_like(offsets), picks)
    return offsets, numbers[picks]


def _page_cuts(sizes: I64Array, group: U32Array) -> list[int]:
    """Where pages begin, of runs of `sizes` numbers: full pages, ended early between metrics if half full."""
    cuts, filled = [0], 0
    half = page.PAGE_SAMPLES // 2
    new_group = np.ones(len(group), dtype=np.bool_)
    new_group[1:] = group[1:] != group[:-1]
    for k, (size, new) in enumerate(zip(sizes.tolist(), new_group.tolist(), strict=True)):
        if filled and (filled + size > page.PAGE_SAMPLES or (new and filled >= half)):
            cuts.append(k)
            filled = 0
        filled += size + STREAM_COST
    cuts.append(len(sizes))
    return cuts


class _BlockFiles:
    """The files of one block being written."""

    def __init__(self, fs: FileSystem, directory: Path, mint: int, maxt: int) -> None:
        self._fs, self._directory = fs, directory
        self._mint, self._maxt = mint, maxt
        self._columns = ColumnsWriter(fs, directory / COLUMNS_FILE)
        self._times = TimeColumnWriter(self._columns)
        self._runs: list[_NewRuns] = []
        self._float_count = self._histogram_count = 0

    def write(self, selection: Selection) -> BlockStats:
        """Write everything but meta.json."""
        try:
            order = block_order(selection.labels)
            labels = selection.labels.take(order)
            metric = labels.column(METRIC_NAME)
            ends = np.cumsum(selection.sample_bounds()[order])
            lo = 0
            while lo < len(order):
                before = int(ends[lo - 1]) if lo else 0
                hi = max(lo + 1, int(np.searchsorted(ends, before + BATCH_SAMPLES, side="right")))
                batch = clip_samples(read_rows(selection, order[lo:hi]), self._mint, self._maxt - 1)
                self._write_floats(batch, lo, metric[lo:hi])
                if batch.histograms is not None:
                    self._write_histograms(batch.histograms, lo, metric[lo:hi])
                lo = hi
            directory = self._times.finish()
        except BaseException:
            self._columns.abandon()
            raise
        self._columns.finish()
        return self._write_series(labels, directory)

    def _write_floats(self, batch: SampleBatch, first_row: int, metric: U32Array) -> None:
        rows, lo, hi = _split(batch.offsets, RUN_SAMPLES)
        if not len(rows):
            return
        times = self._times.numbers(batch.t_ms, lo, hi)
        starts = self._start_vectors(batch.start_t_ms, lo, hi)
        offsets, bits = _end_to_end(np.ascontiguousarray(batch.values).view(np.uint64), lo, hi)
        # The samples of a run ascend in time.
        firsts, lasts = batch.t_ms[lo], batch.t_ms[hi - 1]
        cuts = _page_cuts(hi - lo, metric[rows])
        streams = np.empty(len(rows), dtype=np.uint32)
        for a, b in itertools.pairwise(cuts):
            mine = slice(int(offsets[a]), int(offsets[b]))
            stored = page.encode_floats(offsets[a : b + 1] - offsets[a], bits[mine])
            first = self._columns.add_page(
                FLOATS, b - a, stored, int(firsts[a:b].min()), int(lasts[a:b].max())
            )
            streams[a:b] = np.arange(first, first + b - a)
        self._runs.append(_NewRuns(rows + first_row, FLOATS, streams, times, starts))
        self._float_count += len(batch.t_ms)

    def _start_vectors(self, start_t_ms: I64Array | None, lo: I64Array, hi: I64Array) -> U32Array:
        """Vector of start timestamps plus one of each run; 0 where all are unset."""
        out = np.zeros(len(lo), dtype=np.uint32)
        if start_t_ms is None:
            return out
        running = _offsets(start_t_ms != 0)
        some = np.flatnonzero(running[hi] > running[lo])
        out[some] = self._times.numbers(start_t_ms, lo[some], hi[some]) + np.uint32(1)
        return out

    def _write_histograms(self, batch: HistogramBatch, first_row: int, metric: U32Array) -> None:
        rows, lo, hi = _split(batch.row_offsets, RUN_HISTOGRAMS)
        if not len(rows):
            return
        times = self._times.numbers(batch.t_ms, lo, hi)
        starts = self._start_vectors(batch.start_t_ms, lo, hi)
        sizes = 8 * (hi - lo) + batch.pos_offsets[hi] - batch.pos_offsets[lo]
        sizes += batch.neg_offsets[hi] - batch.neg_offsets[lo]
        cuts = _page_cuts(sizes, metric[rows])
        streams = np.empty(len(rows), dtype=np.uint32)
        for a, b in itertools.pairwise(cuts):
            offsets, picks = (
                np.zeros(b - a + 1, dtype=np.int64),
                np.empty(int((hi - lo)[a:b].sum()), np.int64),
            )
            merge_kernels.spread_rows(lo, hi, np.arange(a, b), offsets, picks)
            part = take_histograms(batch, picks, offsets)
            first = self._columns.add_page(
                HISTOGRAMS, b - a, histogrampage.encode(part), int(part.t_ms.min()), int(part.t_ms.max())
            )
            streams[a:b] = np.arange(first, first + b - a)
        self._runs.append(_NewRuns(rows + first_row, HISTOGRAMS, streams, times, starts))
        self._histogram_count += len(batch)

    def _write_series(self, labels: SeriesLabels, time_directory: bytes) -> BlockStats:
        """Series with samples, their index, and where their runs are."""
        runs, rows = self._ordered_runs()
        filled = np.unique(rows)
        kept = labels.take(filled)
        run_counts = np.bincount(np.searchsorted(filled, rows), minlength=len(filled))
        symbols = np.unique(np.concatenate([kept.name_ids, kept.value_ids]))
        texts = kept.symbols.texts(symbols)
        by_text = np.array(sorted(range(len(texts)), key=texts.__getitem__), dtype=np.int64)
        ranks = np.empty(len(symbols), dtype=np.uint32)
        ranks[by_text] = np.arange(len(symbols), dtype=np.uint32)
        name_ids = ranks[np.searchsorted(symbols, kept.name_ids)]
        value_ids = ranks[np.searchsorted(symbols, kept.value_ids)]
        ordered = [texts[k] for k in by_text.tolist()]
        series = SeriesRows(
            kept.offsets,
            name_ids,
            value_ids,
            Runs(_offsets(run_counts), runs.kind, runs.stream, runs.times, runs.starts),
        )
        write_series(self._fs, self._directory / SERIES_FILE, series, time_directory)
        write_index(self._fs, self._directory / INDEX_FILE, ordered, kept.offsets, name_ids, value_ids)
        return BlockStats(
            num_samples=self._float_count + self._histogram_count,
            num_float_samples=self._float_count,
            num_histogram_samples=self._histogram_count,
            num_series=len(filled),
            num_chunks=len(rows),
        )

    def _ordered_runs(self) -> tuple[Runs, I64Array]:
        """All runs by row, a row's floats before its histograms, each ascending in time; and their rows."""
        empty = np.empty(0, dtype=np.uint32)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *(run.rows for run in self._runs)])
        kind = np.concatenate(
            [np.empty(0, dtype=np.uint8), *(np.full(len(r.rows), r.kind, dtype=np.uint8) for r in self._runs)]
        )
        # Stable, and runs were written in order of time within a row and kind.
        order = np.lexsort((kind, rows))
        stream, times, starts = (
            np.concatenate([empty, *(getattr(run, column) for run in self._runs)])[order]
            for column in ("stream", "times", "starts")
        )
        return Runs(np.empty(0, dtype=np.int64), kind[order], stream, times, starts), rows[order]
