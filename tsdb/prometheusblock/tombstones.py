"""The tombstones file of a Prometheus block: intervals of series that were deleted, not yet rewritten.

Format: Prometheus's tsdb/docs/format/tombstones.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.prometheusblock.checksum import number, verify

TOMBSTONES_FILE = "tombstones"
MAGIC = 0x0130BA30
VERSION = 1
_HEADER_BYTES = 5
_VARINT_BITS = 70


def read_tombstones(fs: FileSystem, directory: Path) -> dict[int, list[tuple[int, int]]]:
    """Deleted [mint, maxt] (inclusive, ms) by series ref; empty where there is no file.

    Raises CorruptionError, UnknownVersionError.
    """
    path = directory / TOMBSTONES_FILE
    if not fs.exists(path):
        return {}
    data = np.frombuffer(fs.read_file(path), dtype=np.uint8)
    if len(data) < _HEADER_BYTES + 4:
        raise CorruptionError(f"{path}: {len(data)} bytes are too few for tombstones")
    if number(data, 0, 4) != MAGIC:
        raise CorruptionError(f"{path}: not a tombstones file (magic {number(data, 0, 4):08x})")
    if data[4] != VERSION:
        raise UnknownVersionError(f"{path}: format version {int(data[4])}, this program reads {VERSION}")
    body = data[_HEADER_BYTES:-4]
    verify(body, number(data, len(data) - 4, 4), str(path))
    found: dict[int, list[tuple[int, int]]] = {}
    raw, at = body.tobytes(), 0
    while at < len(raw):
        ref, at = _uvarint(raw, at, path)
        mint, at = _uvarint(raw, at, path)
        maxt, at = _uvarint(raw, at, path)
        found.setdefault(ref, []).append((_signed(mint), _signed(maxt)))
    return found


def _uvarint(data: bytes, at: int, path: Path) -> tuple[int, int]:
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise CorruptionError(f"{path}: a tombstone ends in a number")


def _signed(raw: int) -> int:
    return raw >> 1 ^ -(raw & 1)
