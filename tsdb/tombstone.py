"""Deleted data that is still stored: time ranges of series, left out of every read until a rewrite drops
them.

In the head a tombstone names refs; in a block it names matchers, which mean the same for ever because a block
does not change. A block's tombstones are a file of JSON beside it (docs/formats/tombstones.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt
import orjson

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.headhistograms import take
from tsdb.labels import Matcher, MatchType
from tsdb.samplerows import read_rows
from tsdb.select import SampleBatch, Selection
from tsdb.serieslabels import SeriesLabels

BoolArray = npt.NDArray[np.bool_]
I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]

FILE_NAME = "tombstones"
DRAFT_NAME = f"{FILE_NAME}.tmp"
VERSION = 1


@dataclass(frozen=True, slots=True)
class BlockTombstone:
    """Samples of the matching series with mint <= t <= maxt are deleted."""

    matchers: tuple[Matcher, ...]
    mint: int
    maxt: int


@dataclass(frozen=True, slots=True)
class HeadTombstone:
    """As BlockTombstone, for series by ref."""

    refs: U32Array
    mint: int
    maxt: int


def draft_tombstones(fs: FileSystem, directory: Path, tombstones: Sequence[BlockTombstone]) -> None:
    """Write tombstones beside a block's, which they replace with `keep_tombstones`."""
    rows = [
        [[[int(m.type), m.name, m.value] for m in stone.matchers], stone.mint, stone.maxt]
        for stone in tombstones
    ]
    body = orjson.dumps(rows)
    head = orjson.dumps({"version": VERSION, "crc32c": google_crc32c.value(body)})
    fs.write_file(directory / DRAFT_NAME, [head, b"\n", body])


def keep_tombstones(fs: FileSystem, directory: Path) -> None:
    """Let the draft be the tombstones of a block, whole or not at all."""
    fs.rename(directory / DRAFT_NAME, directory / FILE_NAME)


def discard_tombstones(fs: FileSystem, directory: Path) -> None:
    """Remove the draft, if there is one."""
    if fs.exists(directory / DRAFT_NAME):
        fs.remove(directory / DRAFT_NAME)


def read_tombstones(fs: FileSystem, directory: Path) -> list[BlockTombstone]:
    """Tombstones of a block; none where there is no file. Raises CorruptionError, UnknownVersionError."""
    path = directory / FILE_NAME
    if not fs.exists(path):
        return []
    head, _, body = fs.read_file(path).partition(b"\n")
    try:
        fields = orjson.loads(head)
        if fields["version"] != VERSION:
            raise UnknownVersionError(f"{path} has format version {fields['version']}, known is {VERSION}")
        if fields["crc32c"] != google_crc32c.value(body):
            raise CorruptionError(f"{path} does not match its checksum")
        return [
            BlockTombstone(tuple(Matcher(MatchType(k), n, v) for k, n, v in matchers), mint, maxt)
            for matchers, mint, maxt in orjson.loads(body)
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(f"{path} is damaged: {error}") from error


def matching_rows(labels: SeriesLabels, matchers: Sequence[Matcher]) -> BoolArray:
    """Mask of the rows that satisfy every matcher; each distinct value is looked at once."""
    found = np.ones(len(labels), dtype=np.bool_)
    for matcher in matchers:
        distinct, places = np.unique(labels.column(matcher.name), return_inverse=True)
        texts = labels.symbols.texts(distinct.tolist())
        found &= np.array([matcher.matches(text) for text in texts], dtype=np.bool_)[places]
    return found


@dataclass(frozen=True, slots=True)
class Mask:
    """Rows (a mask over a selection's rows) whose samples in [mint, maxt] are not to be seen."""

    rows: BoolArray
    mint: int
    maxt: int


class MaskedSelection:
    """A selection without deleted samples."""

    def __init__(self, selection: Selection, masks: Sequence[Mask]) -> None:
        self._selection = selection
        self._masks = [mask for mask in masks if mask.rows.any()]

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        return self._selection.labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: an upper bound of each row's samples."""
        return self._selection.sample_bounds()

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi that are not deleted."""
        return self._unmasked(self._selection.read(lo, hi), np.arange(lo, hi))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Samples of any rows, in the given order, that are not deleted."""
        return self._unmasked(read_rows(self._selection, rows), rows)

    def _unmasked(self, batch: SampleBatch, rows: I64Array) -> SampleBatch:
        offsets, keep = self._keep(batch.offsets, batch.t_ms, rows)
        histograms = batch.histograms
        if histograms is not None:
            row_offsets, kept = self._keep(histograms.row_offsets, histograms.t_ms, rows)
            histograms = take(histograms, np.flatnonzero(kept), row_offsets)
        start = batch.start_t_ms[keep] if batch.start_t_ms is not None else None
        return SampleBatch(offsets, batch.t_ms[keep], batch.values[keep], start, histograms)

    def _keep(self, offsets: I64Array, t_ms: I64Array, rows: I64Array) -> tuple[I64Array, BoolArray]:
        row = np.repeat(rows, np.diff(offsets))
        keep = np.ones(len(t_ms), dtype=np.bool_)
        for mask in self._masks:
            keep &= ~(mask.rows[row] & (t_ms >= mask.mint) & (t_ms <= mask.maxt))
        running = np.zeros(len(keep) + 1, dtype=np.int64)
        np.cumsum(keep, out=running[1:])
        return running[offsets], keep


def masked(selection: Selection, masks: Sequence[Mask]) -> Selection:
    """The selection less the masked samples."""
    hidden = [mask for mask in masks if mask.rows.any()]
    return MaskedSelection(selection, hidden) if hidden else selection
