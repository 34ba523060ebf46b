"""The delimited protobuf exposition, the only one that carries native histograms (surface 6.3).

Messages are read one by one. Their float samples are written as lines of the text format, which then go
the way of every text body: the series cache recognises them, and nothing else needs to know of protobuf.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field, replace

from ingest.remotewrite.nativehistogram import (
    SCHEMA_MAX,
    InvalidHistogramError,
    NativeHistogram,
    Span,
    validate,
)
from ingest.remotewrite.wire import (
    MalformedMessageError,
    as_bytes,
    as_double,
    as_varint,
    packed_doubles,
    packed_varints,
    read_fields,
    read_varint,
    signed,
    zigzag,
)
from ingest.scrape.histogramlimit import limit_schema
from ingest.scrape.text import ExpositionError, format_float
from tsdb.columns import Metadata
from tsdb.histogram import ResetHint
from tsdb.labels import Labels

COUNTER, GAUGE, SUMMARY, UNTYPED, HISTOGRAM, GAUGE_HISTOGRAM = range(6)
_TYPES = ("counter", "gauge", "summary", "unknown", "histogram", "gaugehistogram")
SCHEMA_RESERVED_MAX = 52
FAMILY_COUNT_LIMIT = 1_000_000
"""Metric families of one body."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

Pairs = list[tuple[str, str]]


@dataclass(slots=True)
class ProtoExemplar:
    """An exemplar without its series."""

    labels: Labels
    value: float
    t_ms: int | None


@dataclass(slots=True)
class ProtobufBody:
    """A body as text lines plus what lines cannot say, by the number of the sample."""

    lines: list[str] = field(default_factory=list)
    families: dict[str, Metadata] = field(default_factory=dict)
    histograms: dict[int, NativeHistogram] = field(default_factory=dict)
    exemplars: dict[int, list[ProtoExemplar]] = field(default_factory=dict)

    def text(self) -> bytes:
        """All samples in the text format; that of a native histogram is a placeholder."""
        return "".join(self.lines).encode()


@dataclass(frozen=True, slots=True)
class HistogramChoice:
    """What of a histogram is kept: `native` where there is one, `classic` beside it, and its size limits."""

    native: bool = False
    classic: bool = False
    bucket_limit: int = 0
    min_bucket_factor: float = 0.0


def read_protobuf(data: bytes, choice: HistogramChoice) -> ProtobufBody:
    """All families of a body. Raises ExpositionError; its line is the number of the family."""
    found, view, at, number = ProtobufBody(), memoryview(data), 0, 0
    while at < len(data):
        number += 1
        if number > FAMILY_COUNT_LIMIT:
            raise ExpositionError(number, f"more than {FAMILY_COUNT_LIMIT} metric families")
        try:
            size, start = read_varint(view, at, 0)
            if size > len(data) - start:
                raise ExpositionError(number, "message is longer than the body", len(found.lines))
            _family(view[start : start + size], start, choice, found)
        except (MalformedMessageError, UnicodeDecodeError) as error:
            raise ExpositionError(number, f"protobuf: {error}", len(found.lines)) from None
        except InvalidHistogramError as error:
            raise ExpositionError(number, str(error), len(found.lines)) from error
        at = start + size
    return found


def _text(value: int | memoryview, at: int) -> str:
    return bytes(as_bytes(value, at)).decode()


def _family(data: memoryview, base: int, choice: HistogramChoice, out: ProtobufBody) -> None:
    name = help_text = unit = ""
    kind = COUNTER
    metrics: list[tuple[memoryview, int]] = []
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            name = _text(value, at)
        elif number == 2:
            help_text = _text(value, at)
        elif number == 3:
            kind = as_varint(wire, value, at)
        elif number == 4:
            metrics.append((as_bytes(value, at), at))
        elif number == 5:
            unit = _text(value, at)
    if kind >= len(_TYPES):
        raise ExpositionError(0, f'unknown metric type for metric "{name}": {kind}')
    out.families[name] = Metadata(name, _TYPES[kind], help_text, unit)
    for metric, at in metrics:
        _metric(metric, at, name, kind, choice, out)


def _metric(
    data: memoryview, base: int, name: str, kind: int, choice: HistogramChoice, out: ProtobufBody
) -> None:
    labels: Pairs = []
    payload: tuple[int, memoryview, int] | None = None
    t_ms: int | None = None
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            labels.append(_label(as_bytes(value, at), at))
        elif number in (2, 3, 4, 5, 7):
            payload = number, as_bytes(value, at), at
        elif number == 6:
            t_ms = signed(as_varint(wire, value, at)) or None
    if payload is None:
        return
    writer = _Writer(name, labels, t_ms, out)
    _, content, at = payload
    if kind in (HISTOGRAM, GAUGE_HISTOGRAM):
        _histogram(content, at, kind, choice, writer)
    elif kind == SUMMARY:
        _summary(content, at, writer)
    else:
        _simple(content, at, writer)


def _label(data: memoryview, base: int) -> tuple[str, str]:
    name = value_text = ""
    for number, _, value, at in read_fields(data, base):
        if number == 1:
            name = _text(value, at)
        elif number == 2:
            value_text = _text(value, at)
    return name, value_text


@dataclass(slots=True)
class _Writer:
    name: str
    labels: Pairs
    t_ms: int | None
    out: ProtobufBody

    def line(self, suffix: str, value: float, extra: tuple[str, str] | None = None) -> int:
        """Add a sample; returns its number."""
        pairs = [*self.labels, extra] if extra else self.labels
        quoted = [f'"{(self.name + suffix).translate(_ESCAPES)}"']
        quoted += [f'"{n.translate(_ESCAPES)}"="{v.translate(_ESCAPES)}"' for n, v in pairs]
        time = f" {self.t_ms}" if self.t_ms is not None else ""
        shown = repr(value) if value == value else "NaN"
        shown = {"inf": "+Inf", "-inf": "-Inf"}.get(shown, shown)
        self.out.lines.append(f"{{{','.join(quoted)}}} {shown}{time}\n")
        return len(self.out.lines) - 1

    def exemplar(self, number: int, exemplar: ProtoExemplar | None) -> None:
        if exemplar is not None:
            self.out.exemplars.setdefault(number, []).append(exemplar)


def _simple(data: memoryview, base: int, writer: _Writer) -> None:
    """Counter, gauge and untyped: field 1 is the value, field 2 of a counter an exemplar."""
    value, exemplar = 0.0, None
    for number, wire, content, at in read_fields(data, base):
        if number == 1:
            value = as_double(wire, content, at)
        elif number == 2:
            exemplar = _exemplar(as_bytes(content, at), at)
    writer.exemplar(writer.line("", value), exemplar)


def _summary(data: memoryview, base: int, writer: _Writer) -> None:
    count, total, quantiles = 0, 0.0, list[tuple[float, float]]()
    for number, wire, content, at in read_fields(data, base):
        if number == 1:
            count = as_varint(wire, content, at)
        elif number == 2:
            total = as_double(wire, content, at)
        elif number == 3:
            pair = [0.0, 0.0]
            for inner, inner_wire, bits, place in read_fields(as_bytes(content, at), at):
                if inner in (1, 2):
                    pair[inner - 1] = as_double(inner_wire, bits, place)
            quantiles.append((pair[0], pair[1]))
    writer.line("_count", float(count))
    writer.line("_sum", total)
    for quantile, measured in quantiles:
        writer.line("", measured, ("quantile", format_float(quantile)))


@dataclass(slots=True)
class _Histogram:
    native: NativeHistogram = field(default_factory=NativeHistogram)
    is_native: bool = False
    sum: float = 0.0
    buckets: list[tuple[float, float, ProtoExemplar | None]] = field(default_factory=list)
    exemplars: list[ProtoExemplar] = field(default_factory=list)


def _histogram(data: memoryview, base: int, kind: int, choice: HistogramChoice, writer: _Writer) -> None:
    found = _read_histogram(data, base)
    native = found.is_native and choice.native
    if native:
        histogram = found.native
        if kind == GAUGE_HISTOGRAM:
            histogram.reset_hint = ResetHint.GAUGE
        # Reserved schemas above the highest stored one are legal here, because they are reduced at once.
        reserved = SCHEMA_MAX < histogram.schema <= SCHEMA_RESERVED_MAX
        validate(replace(histogram, schema=SCHEMA_MAX) if reserved else histogram)
        histogram = limit_schema(histogram, choice.bucket_limit, choice.min_bucket_factor)
        number = writer.line("", 0.0)
        writer.out.histograms[number] = histogram
        for exemplar in found.exemplars or [e for _, _, e in found.buckets if e is not None]:
            # Without an own time an exemplar of a native histogram cannot be told from an older one.
            if exemplar.t_ms is not None:
                writer.exemplar(number, exemplar)
    if native and not (choice.classic and found.buckets):
        return
    writer.line("_count", float(found.native.count))
    writer.line("_sum", found.sum)
    bounds = list(found.buckets)
    if not bounds or bounds[-1][0] != float("inf"):
        bounds.append((float("inf"), float(found.native.count), None))
    for bound, count, exemplar_or_none in bounds:
        number = writer.line("_bucket", count, ("le", format_float(bound)))
        writer.exemplar(number, exemplar_or_none)


def _read_histogram(data: memoryview, base: int) -> _Histogram:
    found = _Histogram()
    native = found.native
    deltas: dict[int, list[int]] = {10: [], 13: []}
    counts: dict[int, list[float]] = {11: [], 14: []}
    for number, wire, value, at in read_fields(data, base):
        if number in (1, 4):
            native.is_float = native.is_float or number == 4
            native.count = as_varint(wire, value, at) if number == 1 else as_double(wire, value, at)
        elif number == 2:
            found.sum = as_double(wire, value, at)
            native.sum_bits = struct.unpack("<Q", struct.pack("<d", found.sum))[0]
        elif number == 3:
            found.buckets.append(_bucket(as_bytes(value, at), at))
        elif number == 5:
            native.schema = signed(zigzag(as_varint(wire, value, at)), 32)
        elif number == 6:
            native.zero_threshold = as_double(wire, value, at)
        elif number in (7, 8):
            native.zero_count = as_varint(wire, value, at) if number == 7 else as_double(wire, value, at)
        elif number in (9, 12):
            spans = native.negative_spans if number == 9 else native.positive_spans
            spans.append(_span(as_bytes(value, at), at))
        elif number in deltas:
            deltas[number] += map(zigzag, packed_varints(wire, value, at))
        elif number in counts:
            counts[number] += packed_doubles(wire, value, at)
        elif number == 16:
            found.exemplars.append(_exemplar(as_bytes(value, at), at))
    found.is_native = bool(
        native.positive_spans or native.negative_spans or native.zero_threshold > 0 or native.zero_count > 0
    )
    if native.is_float:
        native.negative_counts, native.positive_counts = counts[11], counts[14]
    else:
        native.negative_counts = list(itertools.accumulate(deltas[10]))
        native.positive_counts = list(itertools.accumulate(deltas[13]))
    return found


def _span(data: memoryview, base: int) -> Span:
    offset = length = 0
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            offset = signed(zigzag(as_varint(wire, value, at)), 32)
        elif number == 2:
            length = as_varint(wire, value, at) & 0xFFFF_FFFF
    return offset, length


def _bucket(data: memoryview, base: int) -> tuple[float, float, ProtoExemplar | None]:
    bound, count, exemplar = 0.0, 0.0, None
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            count = float(as_varint(wire, value, at))
        elif number == 2:
            bound = as_double(wire, value, at)
        elif number == 3:
            exemplar = _exemplar(as_bytes(value, at), at)
        elif number == 4:
            count = as_double(wire, value, at) or count
    return bound, count, exemplar


def _exemplar(data: memoryview, base: int) -> ProtoExemplar:
    labels: Pairs = []
    found, t_ms = 0.0, None
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            labels.append(_label(as_bytes(value, at), at))
        elif number == 2:
            found = as_double(wire, value, at)
        elif number == 3:
            t_ms = _timestamp(as_bytes(value, at), at)
    return ProtoExemplar(Labels.from_dict(dict(labels)), found, t_ms)


def _timestamp(data: memoryview, base: int) -> int:
    seconds = nanos = 0
    for number, wire, value, at in read_fields(data, base):
        if number == 1:
            seconds = signed(as_varint(wire, value, at))
        elif number == 2:
            nanos = signed(as_varint(wire, value, at), 32)
    return seconds * 1000 + nanos // 1_000_000
