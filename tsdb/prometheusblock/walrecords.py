"""Records of Prometheus's write-ahead log: series, samples, histograms, deletes.

Format: Prometheus's tsdb/docs/format/wal.md. Exemplars and metadata are passed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA
from tsdb.kernels import promwal
from tsdb.labels import Labels
from tsdb.select import STALE_BITS

I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

SERIES, SAMPLES, TOMBSTONES, EXEMPLARS, MMAP_MARKERS, METADATA = 1, 2, 3, 4, 5, 6
HISTOGRAMS, FLOAT_HISTOGRAMS = (7, 9), (8, 10)
PASSED_OVER = (EXEMPLARS, MMAP_MARKERS, METADATA)

_FLOAT = struct.Struct(">d")
_MASK = (1 << 64) - 1
_BUCKETS_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class WalHistogram:
    """A histogram of a series ref; sides are (bucket index, absolute count), floats as they are."""

    ref: int
    t_ms: int
    schema: int
    hint: int
    zero_threshold: float
    zero_count: float
    count: float
    sum_bits: int
    positive: list[tuple[int, float]]
    negative: list[tuple[int, float]]
    custom: list[float]
    is_float: bool


class _Reader:
    """Fields of a record, one after the other. IndexError or struct.error at its end."""

    def __init__(self, record: bytes) -> None:
        self.data, self.at = record, 1

    @property
    def left(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK
            shift += 7
            if shift > 63:
                raise IndexError("a number of more than ten bytes")

    def varint(self) -> int:
        raw = self.uvarint()
        return raw >> 1 ^ -(raw & 1)

    def word(self) -> int:
        if self.at + 8 > len(self.data):
            raise IndexError("a word")
        self.at += 8
        return int.from_bytes(self.data[self.at - 8 : self.at], "big")

    def number(self) -> float:
        self.at += 8
        return float(_FLOAT.unpack_from(self.data, self.at - 8)[0])

    def text(self) -> str:
        size = self.uvarint()
        if self.at + size > len(self.data):
            raise IndexError("a string")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def counted(self) -> range:
        count = self.uvarint()
        if count > _BUCKETS_LIMIT or count > len(self.data) - self.at:
            raise IndexError(f"{count} items")
        return range(count)


def read_series(record: bytes) -> list[tuple[int, Labels]]:
    """Refs and label sets. Raises CorruptionError."""
    reader, found = _Reader(record), []
    try:
        while reader.left:
            ref = reader.word()
            pairs = [(reader.text(), reader.text()) for _ in reader.counted()]
            found.append((ref, Labels(tuple(sorted(pair for pair in pairs if pair[1])))))
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptionError(f"a record of series is damaged: {error}") from None
    return found


def read_samples(record: bytes) -> tuple[I64Array, I64Array, U64Array]:
    """Refs, timestamps and value bits. Raises CorruptionError."""
    body = np.frombuffer(record, dtype=np.uint8)[1:]
    room = len(body) // promwal.SAMPLE_BYTES_MIN
    refs, t_ms = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    bits = np.empty(room, dtype=np.uint64)
    count = int(promwal.decode_samples(body, refs, t_ms, bits))
    if count < 0:
        raise CorruptionError("a record of samples is damaged")
    return refs[:count], t_ms[:count], bits[:count]


def read_tombstones(record: bytes) -> list[tuple[int, int, int]]:
    """Ref, first and last deleted timestamp. Raises CorruptionError."""
    reader, found = _Reader(record), []
    try:
        while reader.left:
            found.append((reader.word(), reader.varint(), reader.varint()))
    except IndexError as error:
        raise CorruptionError(f"a record of deletes is damaged: {error}") from None
    return found


def read_histograms(record: bytes) -> list[WalHistogram]:
    """Integer or float histograms. Raises CorruptionError."""
    reader, found = _Reader(record), []
    is_float = record[0] in FLOAT_HISTOGRAMS
    try:
        if reader.left:
            base_ref, base_t = reader.word(), _signed(reader.word())
        while reader.left:
            ref = base_ref + reader.varint() & _MASK
            found.append(_histogram(reader, ref, base_t + reader.varint(), is_float))
    except (IndexError, struct.error) as error:
        raise CorruptionError(f"a record of histograms is damaged: {error}") from None
    return found


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _histogram(reader: _Reader, ref: int, t_ms: int, is_float: bool) -> WalHistogram:
    hint, schema, threshold = reader.byte(), reader.varint(), reader.number()
    zero, count = (reader.number() if is_float else float(reader.uvarint()) for _ in range(2))
    sum_bits = reader.word()
    indices = [_indices(reader) for _ in range(2)]
    positive, negative = (_counts(reader, index, is_float) for index in indices)
    custom = [reader.number() for _ in reader.counted()] if schema == CUSTOM_BUCKETS_SCHEMA else []
    if sum_bits == STALE_BITS:
        return WalHistogram(ref, t_ms, 0, 0, 0.0, 0.0, 0.0, sum_bits, [], [], [], is_float)
    if schema != CUSTOM_BUCKETS_SCHEMA and not -4 <= schema <= 8:
        raise IndexError(f"schema {schema}")
    return WalHistogram(
        ref, t_ms, schema, hint, threshold, zero, count, sum_bits, positive, negative, custom, is_float
    )


def _indices(reader: _Reader) -> list[int]:
    """Bucket indices of the spans of a side."""
    found: list[int] = []
    at = 0
    for _ in reader.counted():
        at += reader.varint()
        length = reader.uvarint()
        if len(found) + length > _BUCKETS_LIMIT or abs(at) + length >= 1 << 31:
            raise IndexError(f"a span of {length} buckets at {at}")
        found.extend(range(at, at + length))
        at += length
    return found


def _counts(reader: _Reader, indices: list[int], is_float: bool) -> list[tuple[int, float]]:
    """Buckets of a side with absolute counts."""
    items = reader.counted()
    if len(items) != len(indices):
        raise IndexError(f"{len(items)} buckets in spans of {len(indices)}")
    found, running = [], 0
    for index in indices:
        if is_float:
            found.append((index, reader.number()))
        else:
            running += reader.varint()
            found.append((index, float(running)))
    return found
