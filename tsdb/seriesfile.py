"""The `series` file of a block: label sets of the series, and where each one's samples are.

Series are numbered 0.. in the order of metric name, then labels, and stored a few thousand a piece; pieces
are decoded when they are asked for and cached. docs/formats/block.md has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.blockcache import BlockCache, CachePart
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.columnsfile import FLOATS, HISTOGRAMS
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.kernels import blockrows as kernels
from tsdb.kernels import labels as label_kernels
from tsdb.kernels import merge as merge_kernels
from tsdb.sectionfile import SectionFile, SectionWriter, crc32c

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

SERIES_FILE = "series"
SERIES_KIND = 2

ROWS = 1
ROW_DIRECTORY = 2
TIME_DIRECTORY = 3

PIECE_SERIES = 4096

_PIECE = (np.uint32, np.uint32, np.uint32, np.uint32, np.uint8, np.uint32, np.uint32, np.uint32)
_DIRECTORY = (np.uint64, np.uint32, np.uint32)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of samples: row i owns `offsets[i] .. offsets[i+1]`, ascending in time.

    `kind` u8 (FLOATS or HISTOGRAMS), `stream` u32 of that kind, `times` u32 the timestamp vector, `starts`
    u32 the vector of start timestamps plus one, 0 where there is none.
    """

    offsets: I64Array
    kind: U8Array
    stream: U32Array
    times: U32Array
    starts: U32Array

    def take(self, rows: I64Array) -> Runs:
        """The given rows in the given order."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        picks = np.empty(int((self.offsets[rows + 1] - self.offsets[rows]).sum()), dtype=np.int64)
        merge_kernels.spread_rows(self.offsets[:-1], self.offsets[1:], rows, offsets, picks)
        return Runs(offsets, self.kind[picks], self.stream[picks], self.times[picks], self.starts[picks])

    def keep(self, mask: npt.NDArray[np.bool_]) -> Runs:
        """Only the runs of the mask; rows stay."""
        running = np.zeros(len(mask) + 1, dtype=np.int64)
        np.cumsum(mask, out=running[1:])
        offsets = running[self.offsets]
        return Runs(offsets, self.kind[mask], self.stream[mask], self.times[mask], self.starts[mask])


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """Some series: label pairs as local ids in CSR form, and their runs."""

    offsets: I64Array
    name_ids: U32Array
    value_ids: U32Array
    runs: Runs

    def take(self, rows: I64Array) -> SeriesRows:
        """The given rows in the given order."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        total = int((self.offsets[rows + 1] - self.offsets[rows]).sum())
        names, values = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.uint32)
        label_kernels.take_rows(self.offsets, self.name_ids, self.value_ids, rows, offsets, names, values)
        return SeriesRows(offsets, names, values, self.runs.take(rows))

    @classmethod
    def concat(cls, parts: list[SeriesRows]) -> SeriesRows:
        """The rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        runs = [part.runs for part in parts]
        empty = np.empty(0, dtype=np.uint32)
        return cls(
            _joined([part.offsets for part in parts]),
            np.concatenate([empty, *(part.name_ids for part in parts)]),
            np.concatenate([empty, *(part.value_ids for part in parts)]),
            Runs(
                _joined([run.offsets for run in runs]),
                np.concatenate([np.empty(0, dtype=np.uint8), *(run.kind for run in runs)]),
                np.concatenate([empty, *(run.stream for run in runs)]),
                np.concatenate([empty, *(run.times for run in runs)]),
                np.concatenate([empty, *(run.starts for run in runs)]),
            ),
        )


def _joined(parts: list[I64Array]) -> I64Array:
    out = np.zeros(1 + sum(len(part) - 1 for part in parts), dtype=np.int64)
    if parts:
        np.cumsum(np.concatenate([np.diff(part) for part in parts]), out=out[1:])
    return out


def write_series(fs: FileSystem, path: Path, rows: SeriesRows, time_directory: bytes) -> int:
    """Write the series of a block; the size of the file."""
    writer = SectionWriter(fs, path, SERIES_KIND)
    try:
        offsets, lengths, checksums = [], [], []
        writer.begin(ROWS)
        count = len(rows.offsets) - 1
        for start in range(0, count, PIECE_SERIES):
            stored = _pack_piece(rows, start, min(start + PIECE_SERIES, count))
            offsets.append(writer.append(stored))
            lengths.append(len(stored))
            checksums.append(crc32c(stored))
        writer.end()
        columns = zip((offsets, lengths, checksums), _DIRECTORY, strict=True)
        writer.add(ROW_DIRECTORY, pack_columns([np.array(values, dtype=dtype) for values, dtype in columns]))
        writer.add(TIME_DIRECTORY, time_directory)
    except BaseException:
        writer.abandon()
        raise
    return writer.finish()


def _steps(ids: U32Array) -> U32Array:
    return np.diff(ids, prepend=np.uint32(0))


def _pack_piece(rows: SeriesRows, lo: int, hi: int) -> bytes:
    offsets = rows.offsets[lo : hi + 1] - rows.offsets[lo]
    pairs = slice(int(rows.offsets[lo]), int(rows.offsets[hi]))
    names, values = np.empty(offsets[-1], dtype=np.uint32), np.empty(offsets[-1], dtype=np.uint32)
    kernels.row_steps(offsets, rows.name_ids[pairs], names)
    kernels.row_steps(offsets, rows.value_ids[pairs], values)
    runs = rows.runs
    mine = slice(int(runs.offsets[lo]), int(runs.offsets[hi]))
    return pack_columns(
        [
            np.diff(offsets).astype(np.uint32),
            names,
            values,
            np.diff(runs.offsets[lo : hi + 1]).astype(np.uint32),
            runs.kind[mine],
            _steps(runs.stream[mine]),
            _steps(runs.times[mine]),
            runs.starts[mine],
        ]
    )


def _piece_bytes(rows: SeriesRows) -> int:
    runs = rows.runs
    columns = (rows.offsets, rows.name_ids, rows.value_ids, runs.offsets, runs.kind, runs.stream)
    return sum(column.nbytes for column in (*columns, runs.times, runs.starts))


class SeriesFile:
    """Open series of a block. Any thread."""

    def __init__(
        self, fs: FileSystem, path: Path, series_count: int, symbol_count: int, cache: BlockCache
    ) -> None:
        """Raises CorruptionError or UnknownVersionError."""
        self._file = SectionFile(fs, path, SERIES_KIND)
        self._count, self._symbol_count = series_count, symbol_count
        where = f"{path}: directory"
        columns = unpack_columns(self._file.section(ROW_DIRECTORY), _DIRECTORY, where)
        self._offsets, self._lengths, self._checksums = (column.tolist() for column in columns)
        if len(self._offsets) != -(-series_count // PIECE_SERIES):
            raise CorruptionError(f"{where}: {len(self._offsets)} pieces for {series_count} series")
        self._pieces: CachePart[int, SeriesRows] = cache.part(_piece_bytes)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def time_directory(self) -> U8Array:
        """The directory of timestamp vectors, checked."""
        return self._file.section(TIME_DIRECTORY)

    def rows(self, refs: U32Array) -> SeriesRows:
        """Series by number, ascending."""
        numbers = refs.astype(np.int64)
        pieces = numbers // PIECE_SERIES
        cuts = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(numbers)]
        found = []
        for k in range(len(cuts) - 1 if len(numbers) else 0):
            mine = numbers[cuts[k] : cuts[k + 1]]
            piece = self._piece(int(pieces[cuts[k]]))
            local = mine % PIECE_SERIES
            whole = len(local) == len(piece.offsets) - 1
            found.append(piece if whole else piece.take(local))
        return SeriesRows.concat(found)

    def _piece(self, number: int) -> SeriesRows:
        return self._pieces.get(number, lambda: self._load(number))

    def _load(self, number: int) -> SeriesRows:
        where = f"{self._file.path}: series piece {number}"
        start = self._offsets[number]
        stored = self._file.raw(ROWS)[start : start + self._lengths[number]].tobytes()
        if crc32c(stored) != self._checksums[number]:
            raise CorruptionError(f"{where} does not match its checksum")
        pairs, names, values, run_counts, kind, stream, times, starts = unpack_columns(stored, _PIECE, where)
        offsets = np.zeros(len(pairs) + 1, dtype=np.int64)
        np.cumsum(pairs, out=offsets[1:])
        run_offsets = np.zeros(len(run_counts) + 1, dtype=np.int64)
        np.cumsum(run_counts, out=run_offsets[1:])
        expected = min(PIECE_SERIES, self._count - number * PIECE_SERIES)
        sizes = {len(kind), len(stream), len(times), len(starts), int(run_offsets[-1])}
        if len(pairs) != expected or len(run_counts) != expected or len(sizes) != 1:
            raise CorruptionError(f"{where}: columns do not fit {expected} series")
        if not len(names) == len(values) == offsets[-1]:
            raise CorruptionError(f"{where}: labels do not fit {expected} series")
        name_ids, value_ids = names.astype(np.uint32), values.astype(np.uint32)
        kernels.undo_row_steps(offsets, name_ids)
        kernels.undo_row_steps(offsets, value_ids)
        for ids in (name_ids, value_ids):
            if len(ids) and int(ids.max()) >= self._symbol_count:
                raise CorruptionError(f"{where}: names string {ids.max()} of {self._symbol_count}")
        kinds = kind.astype(np.uint8)
        if not np.isin(kinds, (FLOATS, HISTOGRAMS)).all():
            raise CorruptionError(f"{where}: unknown kind of run")
        runs = Runs(
            run_offsets,
            kinds,
            np.cumsum(stream, dtype=np.uint32),
            np.cumsum(times, dtype=np.uint32),
            starts.astype(np.uint32),
        )
        return SeriesRows(offsets, name_ids, value_ids, runs)

    def forget(self) -> None:
        """Drop decoded pieces from the cache."""
        self._pieces.clear()

    def close(self) -> None:
        """Forget what was decoded."""
        self.forget()
        self._file.close()
