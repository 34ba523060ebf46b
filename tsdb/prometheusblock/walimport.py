"""The newest samples of a Prometheus directory: what its write-ahead log holds beyond its blocks.

The log is read twice: first for series and deletes, then for samples, so that a delete applies to everything
before it however large the log is. Samples that the log and the blocks both have are taken from the blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.blockmeta import BlockMeta
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels, Matcher
from tsdb.prometheusblock.wal import wal_files, wal_records
from tsdb.prometheusblock.walrecords import (
    FLOAT_HISTOGRAMS,
    HISTOGRAMS,
    PASSED_OVER,
    SAMPLES,
    SERIES,
    TOMBSTONES,
    WalHistogram,
    read_histograms,
    read_samples,
    read_series,
    read_tombstones,
)
from tsdb.sampleblocks import GatheredSamples, write_sample_blocks
from tsdb.samplerows import take_histograms

I64Array = npt.NDArray[np.int64]

BLOCK_RANGE_MS = 2 * 3600 * 1000
SAMPLES_IN_MEMORY = 32 << 20
"""Samples gathered before blocks are written, some 2 GiB while they are sorted."""

_KNOWN_RECORDS = (SERIES, SAMPLES, TOMBSTONES, *HISTOGRAMS, *FLOAT_HISTOGRAMS, *PASSED_OVER)


def wal_source(fs: FileSystem, directory: Path) -> str:
    """A name for the log as it is now, empty where there is none; another one when it has grown."""
    files = wal_files(fs, directory)
    if not files:
        return ""
    named = "".join(f"{path.parent.name}/{path.name}:{fs.size(path)};" for path in files)
    return "wal-" + hashlib.blake2b(named.encode(), digest_size=8).hexdigest()


class WalImport:
    """One import of the log; used once."""

    def __init__(
        self, fs: FileSystem, directory: Path, mint: int, maxt: int, matcher_sets: Sequence[Sequence[Matcher]]
    ) -> None:
        """Samples in [mint, maxt] of series that match any of the sets (of all for none)."""
        self._fs, self._files = fs, wal_files(fs, directory)
        self._mint, self._maxt, self._sets = mint, maxt, matcher_sets
        self._series: list[Labels] = []
        self._deleted: dict[int, list[tuple[int, int]]] = {}
        self._refs = np.empty(0, dtype=np.int64)
        self._rows = np.empty(0, dtype=np.int64)
        self._floats: list[tuple[I64Array, I64Array, npt.NDArray[np.uint64]]] = []
        self._histograms: list[WalHistogram] = []
        self._histogram_rows: list[int] = []
        self._count = 0
        self.damage = ""
        """Where and why the reading ended early, or what was not understood."""

    def write(self, store: Path, source: str, progress: Callable[[int], None]) -> list[BlockMeta]:
        """Write blocks to the store; the last one written has `source` among its sources.

        Damage in the log is not raised but remembered: what lies before it is written. Raises DiskFullError,
        OSError.
        """
        metas: list[BlockMeta] = []
        try:
            self._read_series()
            for record in wal_records(self._fs, self._files):
                progress(self._take(record))
                if self._count >= SAMPLES_IN_MEMORY:
                    metas += self._flush(store, (f"{source}/part",))
        except CorruptionError as error:
            self.damage = str(error)
        metas += self._flush(store, (f"{source}/part",), () if self.damage else (source,))
        return metas

    def _read_series(self) -> None:
        """Refs, label sets and deletes of the whole log. Damage is met again when samples are read."""
        by_ref: dict[int, int] = {}
        by_labels: dict[Labels, int] = {}
        deleted: list[tuple[int, int, int]] = []
        unknown = set[int]()
        try:
            for record in wal_records(self._fs, self._files):
                if record[0] == SERIES:
                    for ref, labels in read_series(record):
                        row = by_labels.get(labels)
                        if row is None:
                            row = len(self._series) if self._wanted(labels) else -1
                            by_labels[labels] = row
                            if row >= 0:
                                self._series.append(labels)
                        by_ref[ref] = row
                elif record[0] == TOMBSTONES:
                    deleted += read_tombstones(record)
                elif record[0] not in _KNOWN_RECORDS:
                    unknown.add(record[0])
        except CorruptionError as error:
            self.damage = str(error)
        if unknown:
            self.damage = f"records of types {sorted(unknown)} are not known and were left out"
        self._refs = np.array(sorted(by_ref), dtype=np.int64)
        self._rows = np.array([by_ref[ref] for ref in self._refs.tolist()], dtype=np.int64)
        for ref, mint, maxt in deleted:
            row = by_ref.get(ref, -1)
            if row >= 0:
                self._deleted.setdefault(row, []).append((mint, maxt))

    def _wanted(self, labels: Labels) -> bool:
        return not self._sets or any(
            all(matcher.matches(labels.get(matcher.name)) for matcher in matchers) for matchers in self._sets
        )

    def _rows_of(self, refs: I64Array) -> I64Array:
        """Rows of refs, -1 for series that are unknown or not wanted."""
        if not len(self._refs):
            return np.full(len(refs), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._refs, refs), len(self._refs) - 1)
        return np.where(self._refs[at] == refs, self._rows[at], -1)

    def _take(self, record: bytes) -> int:
        """Gather the samples of a record; returns how many."""
        if record[0] == SAMPLES:
            refs, t_ms, bits = read_samples(record)
            rows = self._rows_of(refs)
            keep = (rows >= 0) & (t_ms >= self._mint) & (t_ms <= self._maxt)
            self._floats.append((rows[keep], t_ms[keep], bits[keep]))
            taken = len(self._floats[-1][0])
        elif record[0] in HISTOGRAMS or record[0] in FLOAT_HISTOGRAMS:
            found = read_histograms(record)
            rows = self._rows_of(np.array([each.ref for each in found], dtype=np.int64))
            taken = 0
            for row, each in zip(rows.tolist(), found, strict=True):
                if row >= 0 and self._mint <= each.t_ms <= self._maxt:
                    self._histograms.append(each)
                    self._histogram_rows.append(row)
                    taken += 1
        else:
            return 0
        self._count += taken
        return taken

    def _flush(
        self, store: Path, sources: Sequence[str], last_sources: Sequence[str] = ()
    ) -> list[BlockMeta]:
        if not self._count:
            return []
        floats = [np.concatenate(part) for part in zip(*self._floats, strict=True)] if self._floats else []
        rows, t_ms, bits = floats or (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64))
        keep = self._not_deleted(rows, t_ms)
        pool = histogram_pool(self._histograms)
        h_rows = np.array(self._histogram_rows, dtype=np.int64)
        h_keep = np.flatnonzero(self._not_deleted(h_rows, pool.t_ms))
        pool = take_histograms(pool, h_keep, np.array([0, len(h_keep)], dtype=np.int64))
        samples = GatheredSamples(rows[keep], t_ms[keep], bits[keep], h_rows[h_keep], pool)
        self._floats, self._histograms, self._histogram_rows, self._count = [], [], [], 0
        return write_sample_blocks(
            self._fs,
            store,
            self._series,
            samples,
            BLOCK_RANGE_MS,
            sources=sources,
            last_sources=last_sources,
        )

    def _not_deleted(self, rows: I64Array, t_ms: I64Array) -> npt.NDArray[np.bool_]:
        keep = np.ones(len(rows), dtype=np.bool_)
        if not self._deleted:
            return keep
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        for row, intervals in self._deleted.items():
            mine = order[np.searchsorted(ordered, row) : np.searchsorted(ordered, row, side="right")]
            for mint, maxt in intervals:
                keep[mine] &= (t_ms[mine] < mint) | (t_ms[mine] > maxt)
        return keep


def histogram_pool(items: Sequence[WalHistogram]) -> HistogramBatch:
    """Columns of histograms, all in one row."""

    def offsets(lengths: list[int]) -> I64Array:
        out = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=out[1:])
        return out

    positive = [bucket for item in items for bucket in item.positive]
    negative = [bucket for item in items for bucket in item.negative]
    return HistogramBatch(
        row_offsets=np.array([0, len(items)], dtype=np.int64),
        t_ms=np.array([item.t_ms for item in items], dtype=np.int64),
        start_t_ms=None,
        schema=np.array([item.schema for item in items], dtype=np.int32),
        reset_hint=np.array([item.hint for item in items], dtype=np.uint8),
        zero_threshold=np.array([item.zero_threshold for item in items], dtype=np.float64),
        zero_count=np.array([item.zero_count for item in items], dtype=np.float64),
        count=np.array([item.count for item in items], dtype=np.float64),
        sum=np.array([item.sum_bits for item in items], dtype=np.uint64).view(np.float64),
        pos_offsets=offsets([len(item.positive) for item in items]),
        pos_index=np.array([index for index, _ in positive], dtype=np.int32),
        pos_count=np.array([count for _, count in positive], dtype=np.float64),
        neg_offsets=offsets([len(item.negative) for item in items]),
        neg_index=np.array([index for index, _ in negative], dtype=np.int32),
        neg_count=np.array([count for _, count in negative], dtype=np.float64),
        custom_offsets=offsets([len(item.custom) for item in items]),
        custom_values=np.array([value for item in items for value in item.custom], dtype=np.float64),
        is_float=np.array([item.is_float for item in items], dtype=np.uint8),
    )
