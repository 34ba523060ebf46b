"""Fields of protobuf messages as bytes, for what we send."""

from __future__ import annotations

import struct
from collections.abc import Iterable

_DOUBLE = struct.Struct("<d")


def varint(number: int) -> bytes:
    """Varint of a signed or unsigned 64-bit number."""
    if 0 <= number < 0x80:
        return bytes((number,))
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """Varint of a sint."""
    return varint((number << 1) ^ (number >> 63))


def length_delimited(field: int, payload: bytes | memoryview) -> bytes:
    """A bytes, string, message or packed field."""
    return b"".join((varint(field << 3 | 2), varint(len(payload)), payload))


def varint_field(field: int, number: int) -> bytes:
    """An int32, int64, uint, bool or enum field."""
    return varint(field << 3) + varint(number)


def double_field(field: int, value: float) -> bytes:
    """A double field."""
    return varint(field << 3 | 1) + _DOUBLE.pack(value)


def bits_field(field: int, bits: int) -> bytes:
    """A double field given by its bits, so that no NaN changes on the way."""
    return varint(field << 3 | 1) + bits.to_bytes(8, "little")


def packed(field: int, numbers: Iterable[int]) -> bytes:
    """A packed repeated varint field."""
    return length_delimited(field, b"".join(map(varint, numbers)))
