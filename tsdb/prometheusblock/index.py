"""The index file of a Prometheus block: symbols, series, where their chunks are.

Format: Prometheus's tsdb/docs/format/index.md, versions 2 and 3. The postings offset table is read for the
list of all series; matchers are answered over the columns of labels, because an import looks at every series
anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.kernels import promindex as kernels
from tsdb.prometheusblock.checksum import crc_table, kernel_error, number, section, verify

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

INDEX_FILE = "index"
MAGIC = 0xBAAAD700
VERSIONS = (2, 3)
_HEADER_BYTES = 5
_TOC_BYTES = 6 * 8 + 4
_SERIES_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class ChunkRefs:
    """Chunks of N series (CSR): first and last timestamp, segment << 32 | offset."""

    offsets: I64Array
    mint: I64Array
    maxt: I64Array
    refs: I64Array


class PrometheusIndex:
    """Immutable after construction; any thread may read."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        """Raises CorruptionError, UnknownVersionError, FileNotFoundError."""
        self.path = path
        self._data = fs.map_file(path)
        self._toc = self._read_header()
        self.symbols = self._read_symbols()
        """Strings of the block by symbol number."""
        self.refs = self._read_all_postings()
        """u32[S]: what tombstones call the series."""
        self._offsets = self.refs.astype(np.int64) * _SERIES_ALIGNMENT
        self.label_offsets, self._chunk_counts = self._measure()
        self.name_ids = np.empty(int(self.label_offsets[-1]), dtype=np.uint32)
        """u32[P]: symbol numbers of label names; series i owns label_offsets[i] .. label_offsets[i+1]."""
        self.value_ids = np.empty_like(self.name_ids)
        kernels.read_labels(self._data, self._offsets, self.label_offsets, self.name_ids, self.value_ids)

    def __len__(self) -> int:
        return len(self.refs)

    def chunk_refs(self, rows: I64Array) -> ChunkRefs:
        """Where the chunks of the given series are."""
        offsets = _offsets(self._chunk_counts[rows])
        total = int(offsets[-1])
        mint, maxt, refs = (np.empty(total, dtype=np.int64) for _ in range(3))
        kernels.read_chunk_refs(self._data, self._offsets[rows], offsets, mint, maxt, refs)
        return ChunkRefs(offsets, mint, maxt, refs)

    def _read_header(self) -> list[int]:
        data, path = self._data, self.path
        if len(data) < _HEADER_BYTES + _TOC_BYTES:
            raise CorruptionError(f"{path}: {len(data)} bytes are too few for an index")
        magic, version = number(data, 0, 4), int(data[4])
        if magic != MAGIC:
            raise CorruptionError(f"{path}: not a Prometheus index (magic {magic:08x}, not {MAGIC:08x})")
        if version not in VERSIONS:
            raise UnknownVersionError(
                f"{path}: index format version {version}, this program reads {VERSIONS}"
            )
        toc = len(data) - _TOC_BYTES
        verify(data[toc:-4], number(data, len(data) - 4, 4), f"{path}: table of contents")
        return [number(data, toc + 8 * k, 8) for k in range(6)]

    def _read_symbols(self) -> list[str]:
        body = section(self._data, self._toc[0], f"{self.path}: symbol table").tobytes()
        count, at = int.from_bytes(body[:4], "big"), 4
        texts = []
        try:
            for _ in range(count):
                length, at = _uvarint(body, at)
                if at + length > len(body):
                    raise IndexError
                texts.append(body[at : at + length].decode())
                at += length
        except (IndexError, UnicodeDecodeError) as error:
            raise CorruptionError(
                f"{self.path}: symbol {len(texts)} of {count} is damaged: {error or 'too long'}"
            ) from None
        return texts

    def _read_all_postings(self) -> U32Array:
        """Refs of all series: the list of the empty label pair."""
        table = section(self._data, self._toc[5], f"{self.path}: postings offset table").tobytes()
        at = 4
        try:
            for _ in range(int.from_bytes(table[:4], "big")):
                keys, at = _uvarint(table, at)
                name_length, at = _uvarint(table, at)
                at += name_length
                value_length, at = _uvarint(table, at)
                at += value_length
                offset, at = _uvarint(table, at)
                if keys == 2 and not name_length and not value_length:
                    return self._postings(offset)
        except IndexError:
            raise CorruptionError(f"{self.path}: postings offset table ends in an entry") from None
        return np.empty(0, dtype=np.uint32)

    def _postings(self, offset: int) -> U32Array:
        body = section(self._data, offset, f"{self.path}: list of all series")
        count = number(body, 0, 4) if len(body) >= 4 else -1
        if len(body) != 4 + 4 * count:
            raise CorruptionError(
                f"{self.path}: list of all series has {len(body)} bytes for {count} entries"
            )
        return np.frombuffer(body[4:].tobytes(), dtype=">u4").astype(np.uint32)

    def _measure(self) -> tuple[I64Array, I64Array]:
        pairs, chunks = np.zeros(len(self), dtype=np.int64), np.zeros(len(self), dtype=np.int64)
        code = kernels.measure_series(
            self._data, self._offsets, crc_table(), len(self.symbols), pairs, chunks
        )
        if code:
            row, reason = kernel_error(int(code))
            raise CorruptionError(f"{self.path}: series at byte {int(self._offsets[row])} {reason}")
        return _offsets(pairs), chunks


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _offsets(counts: I64Array) -> I64Array:
    out = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=out[1:])
    return out
