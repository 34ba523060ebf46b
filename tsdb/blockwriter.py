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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb import histogrampage, page
from tsdb.blockmeta import META_FILE, BlockDesc, BlockMeta, BlockStats
from tsdb.blockseries import NewRuns, block_order, write_rows
from tsdb.columnsfile import COLUMNS_FILE, FLOATS, HISTOGRAMS, ColumnsWriter
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.kernels import merge as merge_kernels
from tsdb.labels import METRIC_NAME
from tsdb.samplerows import clip_samples, read_rows, take_histograms
from tsdb.select import SampleBatch, Selection
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
    name = ulid or new_ulid()
    meta = BlockMeta(
        name, mint, maxt, BlockStats(), level, tuple(sources) or (name,), tuple(parents), resolution_ms
    )
    return build_block(
        fs, parent_dir, meta, lambda directory: _BlockFiles(fs, directory, mint, maxt).write(selection)
    )


def new_ulid() -> str:
    """Name for a block that is made now."""
    return make_ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10))


def build_block(
    fs: FileSystem, parent_dir: Path, meta: BlockMeta, write_files: Callable[[Path], BlockStats]
) -> BlockMeta:
    """Make a block's directory, of which `write_files` writes everything but meta.json; see `write_block`.

    `meta` is what is known before; the one returned has the figures of what was written.
    """
    temporary, final = parent_dir / (meta.ulid + TEMPORARY_SUFFIX), parent_dir / meta.ulid
    fs.make_directory(temporary)
    try:
        meta = replace(meta, stats=write_files(temporary))
        if meta.stats.num_samples:
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


def _offsets(lengths: npt.NDArray[np.integer]) -> I64Array:
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


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


def _runs(rows: I64Array, kind: int, streams: U32Array, times: U32Array, starts: U32Array) -> NewRuns:
    return NewRuns(rows, np.full(len(rows), kind, dtype=np.uint8), streams, times, starts)


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
        self._runs: list[NewRuns] = []
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
        num_series, num_chunks = write_rows(self._fs, self._directory, labels, self._runs, directory)
        return BlockStats(
            num_samples=self._float_count + self._histogram_count,
            num_float_samples=self._float_count,
            num_histogram_samples=self._histogram_count,
            num_series=num_series,
            num_chunks=num_chunks,
        )

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
        self._runs.append(_runs(rows + first_row, FLOATS, streams, times, starts))
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
        self._runs.append(_runs(rows + first_row, HISTOGRAMS, streams, times, starts))
        self._histogram_count += len(batch)
