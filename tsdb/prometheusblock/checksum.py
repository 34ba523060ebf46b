"""CRC-32C as Prometheus stores it, and big-endian numbers, over mapped files."""

from __future__ import annotations

from functools import cache

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError
from tsdb.kernels.promchunks import (
    ERROR_CHECKSUM,
    ERROR_DATA,
    ERROR_ENCODING,
    ERROR_FACTOR,
    ERROR_TRUNCATED,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78
_REASONS = {
    ERROR_TRUNCATED: "reaches beyond the end of the file",
    ERROR_CHECKSUM: "does not match its checksum",
    ERROR_ENCODING: "has an encoding that this program does not know",
    ERROR_DATA: "does not follow its format",
}


@cache
def crc_table() -> U32Array:
    """u32[8 * 256] for `kernels.promchunks.crc32c`: the table of a byte, then of a byte and k zero bytes."""
    table = np.zeros((8, 256), dtype=np.uint64)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table[0, byte] = crc
    for k in range(1, 8):
        table[k] = table[0][table[k - 1] & np.uint64(0xFF)] ^ (table[k - 1] >> np.uint64(8))
    return table.astype(np.uint32).reshape(-1)


def number(data: U8Array, at: int, size: int) -> int:
    """A big-endian number of `size` bytes, which must be there."""
    return int.from_bytes(data[at : at + size].tobytes(), "big")


def section(data: U8Array, at: int, what: str) -> U8Array:
    """Body of a section `u32 length, body, u32 CRC`. Raises CorruptionError naming `what`."""
    if not 0 <= at <= len(data) - 8:
        raise CorruptionError(f"{what} lies beyond the end of the file ({at} of {len(data)} bytes)")
    length = number(data, at, 4)
    end = at + 4 + length
    if end + 4 > len(data):
        raise CorruptionError(f"{what} reaches beyond the end of the file ({end + 4} of {len(data)} bytes)")
    body = data[at + 4 : end]
    verify(body, number(data, end, 4), what)
    return body


def verify(body: U8Array, stored: int, what: str) -> None:
    """Raise CorruptionError unless the bytes have the stored checksum."""
    computed = int(google_crc32c.value(body.tobytes()))
    if computed != stored:
        raise CorruptionError(f"{what}: checksum is {computed:08x}, stored is {stored:08x}")


def kernel_error(code: int) -> tuple[int, str]:
    """Which item a kernel stopped at, and what is wrong with it."""
    return -code // ERROR_FACTOR, _REASONS[-code % ERROR_FACTOR]
