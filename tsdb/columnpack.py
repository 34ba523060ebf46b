"""Several small columns of integers in one compressed piece: byte planes and zstd, as in pages.

Bytes: number of columns u32; then a column its length u32 and item size u32; then the planes of all. The
whole is one zstd frame. The caller keeps the checksum.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import zstandard

from tsdb.errors import CorruptionError
from tsdb.page import byte_planes, compressor, decompressor

U8Array = npt.NDArray[np.uint8]
Column = npt.NDArray[np.generic]

COLUMNS_BYTES_LIMIT = 1 << 31
"""Largest decompressed piece a reader accepts."""


def pack_columns(columns: Sequence[npt.NDArray[np.integer] | U8Array]) -> bytes:
    """One piece of several columns of any integer types."""
    header = [struct.pack("<I", len(columns))]
    header.extend(struct.pack("<II", len(column), column.dtype.itemsize) for column in columns)
    planes = np.concatenate([byte_planes(column) for column in columns]) if columns else b""
    return compressor().compress(b"".join([*header, bytes(planes)]))


def unpack_columns(
    stored: bytes | memoryview | U8Array, dtypes: Sequence[npt.DTypeLike], where: str
) -> list[Column]:
    """The columns of a piece. Raises CorruptionError naming `where`."""
    try:
        data = bytes(stored)
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= COLUMNS_BYTES_LIMIT:
            raise CorruptionError(f"{where}: {size} bytes are over the limit of {COLUMNS_BYTES_LIMIT}")
        raw = decompressor().decompress(data)
        (count,) = struct.unpack_from("<I", raw)
        if count != len(dtypes):
            raise CorruptionError(f"{where}: {count} columns where {len(dtypes)} are expected")
        shapes = [struct.unpack_from("<II", raw, 4 + 8 * k) for k in range(count)]
    except (zstandard.ZstdError, struct.error) as error:
        raise CorruptionError(f"{where}: columns do not decompress: {error}") from None
    planes = np.frombuffer(raw, dtype=np.uint8, offset=4 + 8 * count)
    if sum(length * size for length, size in shapes) != len(planes):
        raise CorruptionError(f"{where}: columns do not add up to {len(planes)} bytes")
    columns, at = list[Column](), 0
    for dtype, (length, size) in zip(dtypes, shapes, strict=True):
        wanted = np.dtype(dtype)
        if wanted.itemsize != size:
            raise CorruptionError(f"{where}: items of {size} bytes where {wanted.itemsize} are expected")
        part = planes[at : at + length * size].reshape(size, length).T
        columns.append(np.ascontiguousarray(part).reshape(-1).view(wanted))
        at += length * size
    return columns
