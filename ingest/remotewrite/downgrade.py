"""Remote-write 2.0 requests of ours as 1.0 requests, for a server that does not take 2.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingest.remotewrite.protobuf import bits_field, length_delimited, varint_field
from ingest.remotewrite.wire import as_bytes, as_varint, packed_varints, read_fields

_V1_FIELD = {2: 2, 3: 4}
"""Field numbers of samples and histograms in version 2 and version 1. The messages are the same, but for
start times, which readers of version 1 pass over."""


def to_version_1(message: bytes) -> bytes:
    """A version 2 message of `encode_requests` as a prometheus.WriteRequest. Raises MalformedMessageError."""
    symbols: list[bytes] = []
    parts: list[bytes] = []
    metadata: list[bytes] = []
    for number, _, content, at in read_fields(memoryview(message)):
        if number == 4:
            symbols.append(bytes(as_bytes(content, at)))
        elif number == 5:
            parts.append(length_delimited(1, _series_v1(as_bytes(content, at), symbols, metadata)))
    return b"".join((*parts, *metadata))


def _series_v1(series: memoryview, symbols: Sequence[bytes], metadata: list[bytes]) -> bytes:
    parts: list[bytes] = []
    name = b""
    for number, wire, content, at in read_fields(series):
        if number == 1:
            refs = packed_varints(wire, content, at)
            parts += _labels_v1(refs, symbols)
            pairs = zip(refs[::2], refs[1::2], strict=True)
            name = next((symbols[value] for key, value in pairs if symbols[key] == b"__name__"), b"")
        elif number in _V1_FIELD:
            parts.append(length_delimited(_V1_FIELD[number], as_bytes(content, at)))
        elif number == 4:
            parts.append(length_delimited(3, _exemplar_v1(as_bytes(content, at), symbols)))
        elif number == 5:
            metadata.append(length_delimited(3, _metadata_v1(as_bytes(content, at), symbols, name)))
    return b"".join(parts)


def _labels_v1(refs: Sequence[int], symbols: Sequence[bytes]) -> list[bytes]:
    return [
        length_delimited(1, length_delimited(1, symbols[name]) + length_delimited(2, symbols[value]))
        for name, value in zip(refs[::2], refs[1::2], strict=True)
    ]


def _exemplar_v1(exemplar: memoryview, symbols: Sequence[bytes]) -> bytes:
    parts: list[bytes] = []
    for number, wire, content, at in read_fields(exemplar):
        if number == 1:
            parts += _labels_v1(packed_varints(wire, content, at), symbols)
        elif number == 2:
            parts.append(bits_field(2, int(content)) if isinstance(content, int) else b"")
        elif number == 3:
            parts.append(varint_field(3, as_varint(wire, content, at)))
    return b"".join(parts)


def _metadata_v1(entry: memoryview, symbols: Sequence[bytes], name: bytes) -> bytes:
    found: Mapping[int, int] = {
        number: as_varint(wire, content, at) for number, wire, content, at in read_fields(entry)
    }
    texts = ((2, name), (4, symbols[found.get(3, 0)]), (5, symbols[found.get(4, 0)]))
    return varint_field(1, found.get(1, 0)) + b"".join(length_delimited(n, text) for n, text in texts if text)
