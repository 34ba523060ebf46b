"""Payloads of WAL records (docs/formats/wal.md): what the head was told, as bytes and back.

Every payload may be compressed with zstandard as a whole; the record's flag says so.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from tsdb.columns import Exemplar, HistogramColumns, Metadata
from tsdb.errors import CorruptionError
from tsdb.head import NewSeries
from tsdb.headhistograms import SCALARS, offsets_of
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

COMPRESSION_LEVEL = 1
"""Level 1 costs 10 to 15 ns a sample; level 3 saves 4 % more for twice that."""
COMPRESS_FROM_BYTES = 128
PAYLOAD_BYTES_LIMIT = 1 << 30
SAMPLES_PER_RECORD_LIMIT = 1 << 26

SAMPLES_HEADER = struct.Struct("<IIII")
_SERIES_HEADER = struct.Struct("<III")
_HISTOGRAMS_HEADER = struct.Struct("<IIIIB")


class RecordType(enum.IntEnum):
    """What a record holds."""

    SERIES = 1
    SAMPLES = 2
    LATE_SAMPLES = 3
    HISTOGRAMS = 4
    EXEMPLARS = 5
    METADATA = 6
    TOMBSTONES = 7
    TRUNCATED = 8
    STARTS = 9


@dataclass(frozen=True, slots=True)
class SamplesPayload:
    """Parts of a samples record: `keys` u8[] are refs and times, `coded` u8[] values (kernels.walcodec)."""

    count: int
    refs_size: int
    times_size: int
    keys: U8Array
    coded: U8Array


class PayloadCodec:
    """Compresses and decompresses payloads; one thread at a time."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def pack(self, parts: Sequence[bytes | memoryview]) -> tuple[bytes, bool]:
        """Payload bytes and whether they are compressed."""
        raw = b"".join(parts)
        if len(raw) >= COMPRESS_FROM_BYTES:
            packed = self._compressor.compress(raw)
            if len(packed) < len(raw):
                return packed, True
        return raw, False

    def pack_samples(
        self, count: int, refs_size: int, times_size: int, keys: memoryview, coded: memoryview
    ) -> bytes:
        """Payload of a samples record: refs and times, compressed where that pays, then coded values, which
        leave nothing to compress."""
        packed, compressed = self.pack([keys])
        header = SAMPLES_HEADER.pack(count, refs_size, times_size, len(packed) if compressed else 0)
        return b"".join((header, packed, coded))

    def unpack_samples(self, data: U8Array) -> SamplesPayload:
        """Undo `pack_samples`. Raises CorruptionError."""
        if len(data) < SAMPLES_HEADER.size:
            raise CorruptionError(f"samples record of {len(data)} bytes")
        count, refs_size, times_size, packed_size = SAMPLES_HEADER.unpack_from(data.data, 0)
        if count > SAMPLES_PER_RECORD_LIMIT:
            raise CorruptionError(f"record of {count} samples, the limit is {SAMPLES_PER_RECORD_LIMIT}")
        end = SAMPLES_HEADER.size + (packed_size or refs_size + times_size)
        if end > len(data):
            raise CorruptionError(f"samples record of {len(data)} bytes is too short for its columns")
        keys = self.unpack(data[SAMPLES_HEADER.size : end], bool(packed_size))
        return SamplesPayload(count, refs_size, times_size, keys, data[end:])

    def unpack(self, payload: U8Array, compressed: bool) -> U8Array:
        """The payload as it was before `pack`. Raises CorruptionError."""
        if not compressed:
            return payload
        try:
            raw = self._decompressor.decompress(payload.data, max_output_size=PAYLOAD_BYTES_LIMIT)
        except zstandard.ZstdError as error:
            raise CorruptionError(f"record payload of {len(payload)} bytes: {error}") from error
        return np.frombuffer(raw, dtype=np.uint8)


def encode_series(new: NewSeries, symbols: SymbolTable) -> list[bytes]:
    """Refs, pair counts, pairs as places in a list of distinct strings, and the strings."""
    distinct, places = np.unique(new.ids, return_inverse=True)
    texts = [text.encode() for text in symbols.texts(distinct.tolist())]
    lengths = np.array([len(text) for text in texts], dtype=np.uint32)
    return [
        _SERIES_HEADER.pack(len(new.refs), len(new.ids), len(texts)),
        new.refs.astype(np.uint32).tobytes(),
        np.diff(new.offsets).astype(np.uint32).tobytes(),
        places.astype(np.uint32).tobytes(),
        lengths.tobytes(),
        *texts,
    ]


class _Reader:
    """Takes arrays off the front of a payload."""

    def __init__(self, data: U8Array, at: int = 0) -> None:
        self.data = data
        self.at = at

    def header(self, layout: struct.Struct) -> tuple[int, ...]:
        if self.at + layout.size > len(self.data):
            raise CorruptionError("record payload is too short for its header")
        values = layout.unpack_from(self.data.data, self.at)
        self.at += layout.size
        return values

    def array(self, kind: Any, count: int) -> npt.NDArray[Any]:
        size = np.dtype(kind).itemsize * count
        if self.at + size > len(self.data):
            raise CorruptionError(f"record payload of {len(self.data)} bytes is too short for its columns")
        # A copy, because columns in a payload are not aligned and not writable.
        values: npt.NDArray[Any] = self.data[self.at : self.at + size].copy().view(kind)
        self.at += size
        return values


def series_refs(data: U8Array) -> U32Array:
    """Refs of a series record, none where it is too short for them."""
    reader = _Reader(data)
    try:
        return reader.array(np.uint32, reader.header(_SERIES_HEADER)[0])
    except CorruptionError:
        return np.empty(0, dtype=np.uint32)


def decode_series(data: U8Array, symbols: SymbolTable) -> NewSeries:
    """Undo `encode_series`. Raises CorruptionError."""
    reader = _Reader(data)
    series_count, id_count, text_count = reader.header(_SERIES_HEADER)
    refs = reader.array(np.uint32, series_count)
    counts = reader.array(np.uint32, series_count)
    places = reader.array(np.uint32, id_count)
    lengths = reader.array(np.uint32, text_count)
    blob = reader.array(np.uint8, int(lengths.sum())).tobytes()
    if 2 * int(counts.sum()) != id_count or (id_count and int(places.max()) >= text_count):
        raise CorruptionError("series record with pairs that do not add up")
    texts, at = [], 0
    try:
        for length in lengths.tolist():
            texts.append(blob[at : at + length].decode())
            at += length
    except UnicodeDecodeError as error:
        raise CorruptionError("series record with invalid UTF-8") from error
    ids = symbols.intern_many(texts)
    return NewSeries(refs, offsets_of(counts.astype(np.int64)), ids[places] if id_count else ids)


_SIDES = (("pos_offsets", "pos_index", "pos_count"), ("neg_offsets", "neg_index", "neg_count"))


def encode_histograms(columns: HistogramColumns) -> list[bytes]:
    """Refs and the batch, column after column."""
    batch = columns.batch
    pos, neg, custom = (int(o[-1]) for o in (batch.pos_offsets, batch.neg_offsets, batch.custom_offsets))
    has_start = batch.start_t_ms is not None
    parts = [
        _HISTOGRAMS_HEADER.pack(len(batch), pos, neg, custom, has_start),
        columns.refs.astype(np.uint32).tobytes(),
    ]
    for name, kind in SCALARS.items():
        values = getattr(batch, name)
        if values is not None:
            parts.append(values.astype(kind, copy=False).tobytes())
    for offsets, index, counts in _SIDES:
        parts.append(getattr(batch, offsets).tobytes())
        parts.append(getattr(batch, index).tobytes())
        parts.append(getattr(batch, counts).tobytes())
    parts.append(batch.custom_offsets.tobytes())
    parts.append(batch.custom_values.tobytes())
    return parts


def decode_histograms(data: U8Array) -> HistogramColumns:
    """Undo `encode_histograms`. Raises CorruptionError."""
    reader = _Reader(data)
    count, pos, neg, custom, has_start = reader.header(_HISTOGRAMS_HEADER)
    refs = reader.array(np.uint32, count)
    fields: dict[str, Any] = {"start_t_ms": None}
    for name, kind in SCALARS.items():
        if name != "start_t_ms" or has_start:
            fields[name] = reader.array(kind, count)
    for (offsets, index, counts), total in zip(_SIDES, (pos, neg), strict=True):
        fields[offsets] = reader.array(np.int64, count + 1)
        fields[index] = reader.array(np.int32, total)
        fields[counts] = reader.array(np.float64, total)
    fields["custom_offsets"] = reader.array(np.int64, count + 1)
    fields["custom_values"] = reader.array(np.float64, custom)
    return HistogramColumns(refs, HistogramBatch(row_offsets=np.zeros(1, dtype=np.int64), **fields))


def encode_exemplars(exemplars: Sequence[Exemplar]) -> list[bytes]:
    """JSON rows: ref, label pairs, value bits, time."""
    rows = [(e.ref, e.labels.pairs, int(np.float64(e.value).view(np.uint64)), e.t_ms) for e in exemplars]
    return [orjson.dumps(rows)]


def decode_exemplars(data: U8Array) -> list[Exemplar]:
    """Undo `encode_exemplars`. Raises CorruptionError."""
    return [
        Exemplar(
            ref,
            Labels(tuple((name, value) for name, value in pairs)),
            float(np.uint64(bits).view(np.float64)),
            t_ms,
        )
        for ref, pairs, bits, t_ms in _json(data)
    ]


def encode_metadata(metadata: Sequence[Metadata]) -> list[bytes]:
    """JSON rows: family, type, help, unit."""
    return [orjson.dumps([(m.family, m.type, m.help, m.unit) for m in metadata])]


def decode_metadata(data: U8Array) -> list[Metadata]:
    """Undo `encode_metadata`. Raises CorruptionError."""
    return [Metadata(*row) for row in _json(data)]


def encode_tombstones(refs: U32Array, mint: int, maxt: int) -> list[bytes]:
    """JSON: refs, first and last time deleted."""
    return [orjson.dumps([refs.tolist(), mint, maxt])]


def decode_tombstones(data: U8Array) -> tuple[U32Array, int, int]:
    """Undo `encode_tombstones`. Raises CorruptionError."""
    refs, mint, maxt = _json(data)
    return np.array(refs, dtype=np.uint32), mint, maxt


def _json(data: U8Array) -> Any:
    try:
        return orjson.loads(data.tobytes())
    except orjson.JSONDecodeError as error:
        raise CorruptionError(f"record payload is not JSON: {error}") from error


def encode_truncated(oldest: int) -> list[bytes]:
    """JSON: samples before this time are in blocks."""
    return [orjson.dumps(oldest)]


def decode_truncated(data: U8Array) -> int:
    """Undo `encode_truncated`. Raises CorruptionError."""
    return int(_json(data))


def encode_starts(start_t_ms: I64Array) -> list[bytes]:
    """Start timestamps of the samples of the next record, as differences to the one before."""
    # Modulo 2^64, so that extreme times come back as they were.
    numbers = np.ascontiguousarray(start_t_ms).view(np.uint64)
    return [np.diff(numbers, prepend=np.uint64(0)).tobytes()]


def decode_starts(data: U8Array) -> I64Array:
    """Undo `encode_starts`. Raises CorruptionError."""
    if len(data) % 8:
        raise CorruptionError(f"record payload of {len(data)} bytes is no list of start timestamps")
    return np.cumsum(data.copy().view(np.uint64), dtype=np.uint64).view(np.int64)
