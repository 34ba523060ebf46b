"""Segments and records of the queue on disk: docs/formats/queue.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsdb.errors import UnknownVersionError

MAGIC, VERSION = b"VDQU", 1
SEGMENT_HEADER = struct.Struct("<4sB3xI")
RECORD_HEADER = struct.Struct("<IIQqI")
"""Length of the payload, CRC-32C of all behind itself, sequence, Unix time in ms, number of items."""
_CRC_AT = 4
_CHECKED_FROM = 8

U8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """Where a record is in its segment."""

    offset: int
    sequence: int
    item_count: int
    end: int


def segment_header(number: int) -> bytes:
    """The 16 bytes at the start of a segment."""
    head = SEGMENT_HEADER.pack(MAGIC, VERSION, number)
    return head + int(google_crc32c.value(head)).to_bytes(4, "little")


def record_bytes(sequence: int, created_ms: int, item_count: int, payload: bytes) -> list[bytes]:
    """Header and payload of one record."""
    header = RECORD_HEADER.pack(len(payload), 0, sequence, created_ms, item_count)
    checksum: int = google_crc32c.extend(google_crc32c.value(header[_CHECKED_FROM:]), payload)
    return [header[:_CRC_AT] + checksum.to_bytes(4, "little") + header[_CHECKED_FROM:], payload]


def checksum_is_right(data: U8Array, offset: int, end: int) -> bool:
    """Whether the record in `data[offset:end]` is what was written."""
    stored = int.from_bytes(data[offset + _CRC_AT : offset + _CHECKED_FROM].tobytes(), "little")
    return bool(google_crc32c.value(data[offset + _CHECKED_FROM : end]) == stored)


def read_places(data: U8Array, number: int) -> Iterator[RecordPlace]:
    """The records of a segment, up to the first damage: the end of the last one is the end of what is good.

    Raises UnknownVersionError for a segment of a newer program.
    """
    header = segment_header(number)
    if len(data) < len(header) or data[:4].tobytes() != MAGIC:
        return
    if data[4] != VERSION:
        raise UnknownVersionError(f"queue segment {number} has format version {data[4]}, known is {VERSION}")
    if data[: len(header)].tobytes() != header:
        return
    offset, before = len(header), 0
    while offset + RECORD_HEADER.size <= len(data):
        length, _, sequence, _, item_count = RECORD_HEADER.unpack_from(data.data, offset)
        end = offset + RECORD_HEADER.size + length
        if end > len(data) or not checksum_is_right(data, offset, end):
            return
        if before and sequence != before + 1:
            return
        yield RecordPlace(offset, sequence, item_count, end)
        before, offset = sequence, end
