"""Protobuf wire format for the slow paths: small messages, one Python object a field."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ingest.kernels import wire as codes

_TEXTS = {
    codes.TRUNCATED: "unexpected EOF",
    codes.VARINT_TOO_LONG: "proto: integer overflow",
    codes.WRONG_WIRE_TYPE: "proto: wrong wireType",
    codes.NEGATIVE_LENGTH: "proto: negative length found during unmarshaling",
    codes.ILLEGAL_FIELD: "proto: illegal tag (field number not positive)",
    codes.GROUP: "proto: groups are not supported",
    codes.UNKNOWN_WIRE_TYPE: "proto: illegal wireType",
}

Value = int | memoryview


class MalformedMessageError(ValueError):
    """Bytes that are not the expected protobuf message. `offset` counts from the start of the request."""

    def __init__(self, code: int, offset: int) -> None:
        super().__init__(f"{_TEXTS[code]} at byte {offset} of the message")
        self.code = code
        self.offset = offset


def read_varint(data: memoryview, pos: int, base: int) -> tuple[int, int]:
    """(value of 64 bits, next position). `base` is the offset of `data` in the request, for errors."""
    value = 0
    for index in range(codes.VARINT_BYTES_MAX):
        if pos + index >= len(data):
            raise MalformedMessageError(codes.TRUNCATED, base + pos)
        byte = data[pos + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos + index + 1
    raise MalformedMessageError(codes.VARINT_TOO_LONG, base + pos)


def read_fields(data: memoryview, base: int = 0) -> Iterator[tuple[int, int, Value, int]]:
    """(field number, wire type, value, offset of the value) of each field.

    A value is an int (varints and fixed widths, as unsigned bits) or a view of the bytes. Raises
    MalformedMessageError.
    """
    pos = 0
    while pos < len(data):
        start = pos
        key, pos = read_varint(data, pos, base)
        field, wire = (key >> 3) & 0xFFFF_FFFF, key & 7
        if not 0 < field < 1 << 31:
            raise MalformedMessageError(codes.ILLEGAL_FIELD, base + start)
        value: Value
        if wire == codes.WIRE_VARINT:
            at = base + pos
            value, pos = read_varint(data, pos, base)
        elif wire in (codes.WIRE_FIXED64, codes.WIRE_FIXED32, codes.WIRE_BYTES):
            length = 8 if wire == codes.WIRE_FIXED64 else 4
            if wire == codes.WIRE_BYTES:
                length, pos = read_varint(data, pos, base)
            if length >= 1 << 63:
                raise MalformedMessageError(codes.NEGATIVE_LENGTH, base + start)
            if length > len(data) - pos:
                raise MalformedMessageError(codes.TRUNCATED, base + start)
            at = base + pos
            view = data[pos : pos + length]
            value = view if wire == codes.WIRE_BYTES else int.from_bytes(view, "little")
            pos += length
        else:
            group = wire in (codes.WIRE_GROUP_START, codes.WIRE_GROUP_END)
            raise MalformedMessageError(codes.GROUP if group else codes.UNKNOWN_WIRE_TYPE, base + start)
        yield field, wire, value, at


def as_bytes(value: Value, at: int) -> memoryview:
    """The payload of a length-delimited field, or MalformedMessageError."""
    if isinstance(value, int):
        raise MalformedMessageError(codes.WRONG_WIRE_TYPE, at)
    return value


def as_varint(wire: int, value: Value, at: int) -> int:
    """The bits of a varint field, or MalformedMessageError."""
    if wire != codes.WIRE_VARINT or not isinstance(value, int):
        raise MalformedMessageError(codes.WRONG_WIRE_TYPE, at)
    return value


def as_double(wire: int, value: Value, at: int) -> float:
    """The number in a fixed64 field, or MalformedMessageError."""
    if wire != codes.WIRE_FIXED64 or not isinstance(value, int):
        raise MalformedMessageError(codes.WRONG_WIRE_TYPE, at)
    return float(struct.unpack("<d", value.to_bytes(8, "little"))[0])


def signed(bits: int, width: int = 64) -> int:
    """Two's complement reading of `width` bits."""
    bits &= (1 << width) - 1
    return bits - (1 << width) if bits >> (width - 1) else bits


def zigzag(bits: int) -> int:
    """Value of a sint32 or sint64."""
    return (bits >> 1) ^ -(bits & 1)


def packed_varints(wire: int, value: Value, at: int) -> list[int]:
    """Bits of a repeated varint field's entry, packed or single."""
    if isinstance(value, int):
        return [as_varint(wire, value, at)]
    found, pos = [], 0
    while pos < len(value):
        number, pos = read_varint(value, pos, at)
        found.append(number)
    return found


def packed_doubles(wire: int, value: Value, at: int) -> list[float]:
    """Numbers of a repeated double field's entry, packed or single."""
    if isinstance(value, int):
        return [as_double(wire, value, at)]
    if len(value) % 8:
        raise MalformedMessageError(codes.TRUNCATED, at)
    return list(struct.unpack(f"<{len(value) // 8}d", value))
