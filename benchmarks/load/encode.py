"""A small encoder of remote-write messages: readable and slow, for tests and for building templates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.remotewrite.protobuf import double_field, length_delimited, packed, varint, varint_field, zigzag

Pairs = Sequence[tuple[bytes, bytes]]
Sample = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One TimeSeries: labels as bytes (so that bad ones can be made), samples (t_ms, value), and messages
    that are already encoded."""

    labels: Pairs
    samples: Sequence[Sample] = ()
    exemplars: Sequence[bytes] = ()
    histograms: Sequence[bytes] = ()
    metadata: bytes = b""


def sample(t_ms: int, value: float, start_t_ms: int = 0) -> bytes:
    """A Sample message of either version."""
    start = varint_field(3, start_t_ms) if start_t_ms else b""
    return double_field(1, value) + varint_field(2, t_ms) + start


def label(name: bytes, value: bytes) -> bytes:
    """A Label message of version 1."""
    return length_delimited(1, name) + length_delimited(2, value)


def labels_v1(pairs: Pairs) -> bytes:
    """The label region of a TimeSeries or Exemplar of version 1."""
    return b"".join(length_delimited(1, label(name, value)) for name, value in pairs)


def exemplar_v1(pairs: Pairs, t_ms: int, value: float) -> bytes:
    """An Exemplar message of version 1."""
    return labels_v1(pairs) + double_field(2, value) + varint_field(3, t_ms)


def metadata_v1(kind: int, family: str, text: str, unit: str = "") -> bytes:
    """A MetricMetadata message."""
    strings = ((2, family), (4, text), (5, unit))
    return varint_field(1, kind) + b"".join(length_delimited(n, s.encode()) for n, s in strings if s)


def time_series_v1(series: Series) -> bytes:
    """A TimeSeries message of version 1."""
    return b"".join(
        (
            labels_v1(series.labels),
            *(length_delimited(2, sample(t_ms, value)) for t_ms, value in series.samples),
            *(length_delimited(3, each) for each in series.exemplars),
            *(length_delimited(4, each) for each in series.histograms),
        )
    )


def write_request_v1(rows: Iterable[Series], metadata: Iterable[bytes] = ()) -> bytes:
    """A prometheus.WriteRequest."""
    return b"".join(
        (
            *(length_delimited(1, time_series_v1(row)) for row in rows),
            *(length_delimited(3, each) for each in metadata),
        )
    )


class Symbols:
    """Symbol table of a version 2 request; reference 0 is the empty string."""

    def __init__(self) -> None:
        self._refs: dict[bytes, int] = {b"": 0}

    def ref(self, text: bytes) -> int:
        """Reference of a string, added when new."""
        return self._refs.setdefault(text, len(self._refs))

    def refs(self, pairs: Pairs) -> list[int]:
        """References of labels, alternating name and value."""
        return [self.ref(text) for pair in pairs for text in pair]

    def encode(self) -> bytes:
        """The symbols fields."""
        return b"".join(length_delimited(4, text) for text in self._refs)


def metadata_v2(kind: int, help_ref: int, unit_ref: int) -> bytes:
    """A Metadata message of version 2."""
    return varint_field(1, kind) + varint_field(3, help_ref) + varint_field(4, unit_ref)


def time_series_v2(series: Series, refs: Sequence[int]) -> bytes:
    """A TimeSeries message of version 2 with the given label references."""
    return b"".join(
        (
            packed(1, refs),
            *(length_delimited(2, sample(t_ms, value)) for t_ms, value in series.samples),
            *(length_delimited(3, each) for each in series.histograms),
            *(length_delimited(4, each) for each in series.exemplars),
            length_delimited(5, series.metadata) if series.metadata else b"",
        )
    )


def write_request_v2(rows: Iterable[Series], symbols: Symbols | None = None) -> bytes:
    """An io.prometheus.write.v2.Request."""
    table = symbols if symbols is not None else Symbols()
    encoded = [length_delimited(5, time_series_v2(row, table.refs(row.labels))) for row in rows]
    return table.encode() + b"".join(encoded)


def histogram(
    t_ms: int,
    deltas: Sequence[int],
    schema: int = 0,
    zero_count: int = 0,
    total: float = 1.0,
    spans: Sequence[tuple[int, int]] | None = None,
    count: int | None = None,
) -> bytes:
    """An integer Histogram message with positive buckets given as deltas, one span by default."""
    running, observed = 0, zero_count
    for delta in deltas:
        running += delta
        observed += running
    parts = [varint_field(1, observed if count is None else count), double_field(3, total)]
    parts.append(varint(4 << 3) + zigzag(schema))
    parts.append(varint_field(6, zero_count))
    for offset, length in spans if spans is not None else [(0, len(deltas))]:
        parts.append(length_delimited(11, varint(1 << 3) + zigzag(offset) + varint_field(2, length)))
    parts.append(length_delimited(12, b"".join(map(zigzag, deltas))))
    parts.append(varint_field(15, t_ms))
    return b"".join(parts)
