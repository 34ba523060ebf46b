"""Prometheus's write-ahead log: records of segments and of the newest checkpoint.

Format: Prometheus's tsdb/docs/format/wal.md. Pages of 32 KiB hold fragments: type, u16 length, u32 CRC, data;
a record is one or several fragments, its compression is a flag of their type. The end of the last segment may
be torn (or just being written); damage elsewhere ends the reading and is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cramjam
import google_crc32c
import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem

WAL_DIRECTORY = "wal"
PAGE_BYTES = 32 * 1024
RECORD_BYTES_LIMIT = 1 << 30
_CHECKPOINT = "checkpoint."
_HEADER_BYTES = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SNAPPY, _ZSTD = 8, 16


def wal_files(fs: FileSystem, directory: Path) -> list[Path]:
    """Files of the newest checkpoint, then the segments after it; empty where there is no log."""
    wal = directory / WAL_DIRECTORY
    names = fs.list(wal)
    suffixes = [name.removeprefix(_CHECKPOINT) for name in names if name.startswith(_CHECKPOINT)]
    newest = max((int(suffix) for suffix in suffixes if suffix.isdigit()), default=-1)
    files = []
    for name in names:
        number = name.removeprefix(_CHECKPOINT)
        if number != name and number.isdigit() and int(number) == newest:
            files += [wal / name / part for part in fs.list(wal / name) if part.isdigit()]
    files += [wal / name for name in names if name.isdigit() and int(name) > newest]
    return [path for path in files if fs.size(path)]


def begins_like_a_segment(data: npt.NDArray[np.uint8]) -> bool:
    """Whether a file u8[N] begins with an intact fragment of a record."""
    page = data[:PAGE_BYTES].tobytes()
    if len(page) < _HEADER_BYTES or page[0] & 7 not in (_FULL, _FIRST):
        return False
    end = _HEADER_BYTES + int.from_bytes(page[1:3], "big")
    stored = int.from_bytes(page[3:_HEADER_BYTES], "big")
    return end <= len(page) and int(google_crc32c.value(page[_HEADER_BYTES:end])) == stored


def wal_records(fs: FileSystem, files: list[Path]) -> Iterator[bytes]:
    """Decompressed records in order. Raises CorruptionError at damage that is not a torn end."""
    for path in files:
        try:
            yield from _segment_records(path, fs.read_file(path))
        except CorruptionError:
            if path != files[-1]:
                raise


def _segment_records(path: Path, data: bytes) -> Iterator[bytes]:
    at, parts = 0, bytearray()
    while at < len(data):
        kind = data[at] & 7
        if kind == 0:
            # The rest of the page is padding.
            at += PAGE_BYTES - at % PAGE_BYTES
            continue
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        stored = int.from_bytes(data[at + 3 : at + 7], "big")
        body = data[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        opens = kind in (_FULL, _FIRST)
        if kind > _LAST or len(body) != length or opens == bool(parts):
            raise CorruptionError(f"{path}: fragment at byte {at} does not follow the format")
        if google_crc32c.value(body) != stored:
            raise CorruptionError(f"{path}: fragment at byte {at} does not match its checksum")
        parts += body
        if kind in (_FULL, _LAST):
            yield _decompressed(path, at, data[at], bytes(parts))
            parts.clear()
        elif len(parts) > RECORD_BYTES_LIMIT:
            raise CorruptionError(f"{path}: a record is longer than {RECORD_BYTES_LIMIT} bytes")
        at += _HEADER_BYTES + length


def _decompressed(path: Path, at: int, flags: int, packed: bytes) -> bytes:
    try:
        if flags & _SNAPPY:
            return bytes(cramjam.snappy.decompress_raw(packed))
        if flags & _ZSTD:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=RECORD_BYTES_LIMIT)
    except (cramjam.DecompressionError, zstandard.ZstdError) as error:
        raise CorruptionError(f"{path}: record at byte {at} cannot be decompressed: {error}") from None
    return packed
