"""Slow twin of ingest/kernels/{remotewrite,remotewrite2}.py: protobuf read field by field into lists."""

from __future__ import annotations

from dataclasses import dataclass, field

TRUNCATED, VARINT_TOO_LONG, WRONG_WIRE_TYPE, NEGATIVE_LENGTH = -1, -2, -3, -4
ILLEGAL_FIELD, GROUP, UNKNOWN_WIRE_TYPE = -5, -6, -7


class Malformed(Exception):
    """Error code of a message that is not valid protobuf."""


@dataclass
class Row:
    """One TimeSeries: spans of its label messages (version 1) or its label references (version 2)."""

    span: tuple[int, int]
    label_spans: list[tuple[int, int]] = field(default_factory=list)
    """From the tag to the end of each label."""
    label_refs: list[int] = field(default_factory=list)
    samples: list[tuple[int, int, int]] = field(default_factory=list)
    """(t_ms, value bits, start time)."""


@dataclass
class Request:
    rows: list[Row] = field(default_factory=list)
    spans: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(kind, row or -1, start, end)."""
    symbols: list[bytes] = field(default_factory=list)


def varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if pos >= end:
            raise Malformed(TRUNCATED)
        value |= (data[pos] & 127) << (7 * count)
        pos += 1
        if data[pos - 1] < 128:
            return value % 2**64, pos
    raise Malformed(VARINT_TOO_LONG)


def fields(data: bytes, pos: int, end: int, known: dict[int, tuple[int, ...]]):
    """(position of the tag, field, wire type, start, end or value) of each; `known`: allowed wire types."""
    while pos < end:
        tag_at = pos
        key, pos = varint(data, pos, end)
        number, wire = (key >> 3) % 2**32, key & 7
        if not 0 < number < 2**31:
            raise Malformed(ILLEGAL_FIELD)
        if number in known and wire not in known[number]:
            raise Malformed(WRONG_WIRE_TYPE)
        if wire == 0:
            value, after = varint(data, pos, end)
        elif wire in (1, 5):
            after = pos + (8 if wire == 1 else 4)
            value = int.from_bytes(data[pos:after], "little")
        elif wire == 2:
            length, pos = varint(data, pos, end)
            if length >= 2**63:
                raise Malformed(NEGATIVE_LENGTH)
            value = after = pos + length
        else:
            raise Malformed(GROUP if wire in (3, 4) else UNKNOWN_WIRE_TYPE)
        if after > end:
            raise Malformed(TRUNCATED)
        yield tag_at, number, wire, pos, value
        pos = after


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def read_sample(data: bytes, pos: int, end: int, version: int) -> tuple[int, int, int]:
    known = {1: (1,), 2: (0,)} | ({3: (0,)} if version == 2 else {})
    found = {number: value for _, number, _, _, value in fields(data, pos, end, known) if number in known}
    return signed(found.get(2, 0)), found.get(1, 0), signed(found.get(3, 0))


def decode_v1(data: bytes) -> Request:
    request = Request()
    for _, number, _, start, end in fields(data, 0, len(data), {1: (2,), 3: (2,)}):
        if number == 3:
            request.spans.append(("metadata", -1, start, end))
        if number != 1:
            continue
        row = Row((start, end))
        for tag_at, inner, _, begin, stop in fields(data, start, end, dict.fromkeys((1, 2, 3, 4), (2,))):
            if inner == 1:
                row.label_spans.append((tag_at, stop))
            elif inner == 2:
                row.samples.append(read_sample(data, begin, stop, 1))
            elif inner in (3, 4):
                kind = "exemplar" if inner == 3 else "histogram"
                request.spans.append((kind, len(request.rows), begin, stop))
        request.rows.append(row)
    return request


def decode_v2(data: bytes) -> Request:
    request = Request()
    top = {4: (2,), 5: (2,)}
    for _, number, _, start, end in fields(data, 0, len(data), top):
        if number == 4:
            request.symbols.append(data[start:end])
    for _, number, _, start, end in fields(data, 0, len(data), top):
        if number != 5:
            continue
        row = Row((start, end))
        known = {1: (0, 2)} | dict.fromkeys((2, 3, 4, 5), (2,))
        for _, inner, wire, begin, stop in fields(data, start, end, known):
            if inner == 1 and wire == 0:
                row.label_refs.append(stop % 2**32)
            elif inner == 1:
                pos = begin
                while pos < stop:
                    ref, pos = varint(data, pos, stop)
                    row.label_refs.append(ref % 2**32)
            elif inner == 2:
                row.samples.append(read_sample(data, begin, stop, 2))
            elif inner in (3, 4, 5):
                kind = {3: "histogram", 4: "exemplar", 5: "metadata"}[inner]
                request.spans.append((kind, len(request.rows), begin, stop))
        request.rows.append(row)
    return request
