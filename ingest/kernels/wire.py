"""Protobuf wire format for kernels: varints, keys and skipping, each read checked against the end.

Every function takes the bytes, a position and the end of the enclosing message, and returns the next
position, or one of the negative codes below when the bytes are not a valid message. Semantics are those of
the generated Go decoder in Prometheus: a varint may have ten bytes and its surplus bits are dropped, a
length beyond the signed range is a negative length, field numbers start at one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import inline

U8Array = npt.NDArray[np.uint8]

TRUNCATED = -1
VARINT_TOO_LONG = -2
WRONG_WIRE_TYPE = -3
NEGATIVE_LENGTH = -4
ILLEGAL_FIELD = -5
GROUP = -6
UNKNOWN_WIRE_TYPE = -7

WIRE_VARINT = 0
WIRE_FIXED64 = 1
WIRE_BYTES = 2
WIRE_GROUP_START = 3
WIRE_GROUP_END = 4
WIRE_FIXED32 = 5

VARINT_BYTES_MAX = 10

_LOW7 = np.uint64(0x7F)
_PLAIN_BYTES_MASK = 0x87
"""Of a key byte: the wire type, and that no other byte follows."""
_SEVEN = np.uint64(7)
_SIGN = np.uint64(1 << 63)


@inline
def read_varint(buf: U8Array, pos: int, end: int) -> tuple[np.uint64, int]:
    """(value u64, next position or error code)."""
    value = np.uint64(0)
    shift = np.uint64(0)
    for _ in range(VARINT_BYTES_MAX):
        if pos >= end:
            return value, TRUNCATED
        byte = np.uint64(buf[pos])
        pos += 1
        value |= (byte & _LOW7) << shift
        if byte <= _LOW7:
            return value, pos
        shift += _SEVEN
    return value, VARINT_TOO_LONG


@inline
def read_length(buf: U8Array, pos: int, end: int) -> tuple[int, int]:
    """(position after the payload, position of the payload or error code) of a length-delimited field."""
    length, start = read_varint(buf, pos, end)
    if start < 0:
        return 0, start
    if length >= _SIGN:
        return 0, NEGATIVE_LENGTH
    if length > np.uint64(end - start):
        return 0, TRUNCATED
    return start + np.int64(length), start  # type: ignore[return-value]


@inline
def read_key(buf: U8Array, pos: int, end: int) -> tuple[int, int, int]:
    """(field number, wire type, next position or error code)."""
    key, after = read_varint(buf, pos, end)
    if after < 0:
        return 0, 0, after
    field = np.int64(np.int32(np.uint32(key >> np.uint64(3))))
    wire = np.int64(key & np.uint64(7))
    if field <= 0:
        return 0, 0, ILLEGAL_FIELD
    return field, wire, after  # type: ignore[return-value]


@inline
def skip_value(buf: U8Array, pos: int, end: int, wire: int) -> int:
    """Next position after the value of an unknown field, or an error code. Groups are refused."""
    if wire == WIRE_VARINT:
        _, after = read_varint(buf, pos, end)
        return after
    if wire == WIRE_BYTES:
        stop, start = read_length(buf, pos, end)
        return start if start < 0 else stop
    if wire == WIRE_FIXED64:
        return pos + 8 if end - pos >= 8 else TRUNCATED
    if wire == WIRE_FIXED32:
        return pos + 4 if end - pos >= 4 else TRUNCATED
    if wire in (WIRE_GROUP_START, WIRE_GROUP_END):
        return GROUP
    return UNKNOWN_WIRE_TYPE


@inline
def read_field(buf: U8Array, pos: int, end: int) -> tuple[int, int, int, int]:
    """(field number, wire type, start of the value, its end or an error code).

    Of a length-delimited value the start is that of its payload. Keys and lengths of one byte, which nearly
    all are, take no loop; the remote-write decode spends much of its time here.
    """
    key: Word = np.int64(buf[pos])
    if key & _PLAIN_BYTES_MASK == WIRE_BYTES and key > WIRE_BYTES and end - pos >= 2:
        stop: Word = pos + 2 + np.int64(buf[pos + 1])
        if buf[pos + 1] <= _LOW7 and stop <= end:
            return key >> 3, WIRE_BYTES, pos + 2, stop
    field, wire, after = read_key(buf, pos, end)
    if after < 0:
        return 0, 0, after, after
    if wire == WIRE_BYTES:
        stop, start = read_length(buf, after, end)
        return field, wire, start, start if start < 0 else stop
    return field, wire, after, skip_value(buf, after, end, wire)
