"""Text exposition formats: scanning a body to columns, and the slow reading of one series text.

Text 0.0.4 and 1.0.0 differ in what a target may send, not in how it is read; OpenMetrics is stricter in
blanks and has UNIT, EOF and exemplars (surface 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from ingest.kernels import exposition as kernels
from tsdb.columns import Metadata
from tsdb.labels import METRIC_NAME

I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
U8Array = npt.NDArray[np.uint8]
F64Array = npt.NDArray[np.float64]

BODY_BYTES_LIMIT = (1 << 31) - 1
"""Positions in a body are 32-bit."""

_FLOAT = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INF = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_INTEGER = re.compile(rb"[0-9]+")
_CANONICAL_NAN = np.uint64(0x7FF8000000000001)
_TIME_MS_LIMIT = 1 << 62
_EXPONENT_FROM = 6
"""Go prints the shortest form with an exponent from 1e+06 on."""

_REASONS = {
    kernels.ERROR_LINE_START: "expected a metric name, a label set or a comment",
    kernels.ERROR_LABELS: "label set is not closed",
    kernels.ERROR_VALUE: "expected value after metric",
    kernels.ERROR_AFTER_VALUE: "expected timestamp or new record",
    kernels.ERROR_METADATA_NAME: "expected metric name in metadata",
    kernels.ERROR_METADATA: "expected text after metric name in metadata",
    kernels.ERROR_NO_EOF: "data does not end with # EOF",
    kernels.ERROR_AFTER_EOF: "unexpected data after # EOF",
    kernels.ERROR_EXEMPLAR: "exemplar label set is not closed",
}

TEXT_TYPES = frozenset({b"counter", b"gauge", b"histogram", b"summary", b"untyped"})
OPENMETRICS_TYPES = frozenset(
    {
        *(b"counter", b"gauge", b"histogram", b"gaugehistogram", b"summary"),
        *(b"info", b"stateset", b"unknown"),
    }
)


class ExpositionError(ValueError):
    """A body that is not what its content type says.

    `line` is 1-based; `sample_count` is how many samples were read before the fault.
    """

    def __init__(self, line: int, reason: str, sample_count: int = 0) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.sample_count = sample_count


@dataclass(frozen=True, slots=True)
class MetadataLine:
    """One HELP, TYPE or UNIT line; `position` is its place in the body."""

    kind: int
    name: str
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """N samples of a body.

    `starts`, `ends` i32[N] span the series text, `hashes` u64[N]; `values` f64[N]; `timed` u8[N] is not 0
    where `t_ms` i64[N] holds an own timestamp; `exemplars` i32[N, 2] spans of exemplars, (0, 0) for none.
    `metadata_hash` changes when any metadata line does.
    """

    body: bytes
    bytes_array: U8Array
    mode: int
    count: int
    starts: I32Array
    ends: I32Array
    hashes: U64Array
    values: F64Array
    timed: U8Array
    t_ms: I64Array
    exemplars: I32Array
    metadata_kinds: U8Array
    metadata_spans: I32Array
    metadata_hash: int

    def series_text(self, index: int) -> bytes:
        """The series text of a sample."""
        return self.body[self.starts[index] : self.ends[index]]

    def line_of(self, position: int) -> int:
        """1-based line of a byte position."""
        return self.body.count(b"\n", 0, position) + 1


def scan_body(body: bytes, mode: int, seed: int = 0) -> Scanned:
    """Scan a whole body. Raises ExpositionError with line and reason."""
    if len(body) > BODY_BYTES_LIMIT:
        raise ExpositionError(1, f"body of {len(body)} bytes exceeds {BODY_BYTES_LIMIT} bytes")
    array = np.frombuffer(bytearray(body), dtype=np.uint8)
    lines = body.count(b"\n") + 1
    comments = body.count(b"#") + 1
    starts, ends = np.empty(lines, np.int32), np.empty(lines, np.int32)
    hashes, values = np.empty(lines, np.uint64), np.empty(lines, np.float64)
    value_spans, t_spans = np.empty((lines, 2), np.int32), np.empty((lines, 2), np.int32)
    exemplars, t_ms = np.empty((lines, 2), np.int32), np.empty(lines, np.int64)
    slow = np.empty(lines, np.uint8)
    kinds, spans = np.empty(min(lines, comments), np.uint8), np.empty((min(lines, comments), 4), np.int32)
    state = np.zeros(5, np.int64)
    count = kernels.scan(
        array, mode, np.uint64(seed), starts, ends, hashes, values, value_spans, t_ms, t_spans, exemplars,
        slow, kinds, spans, state,
    )  # fmt: skip
    if count < 0:
        position = int(state[kernels.STATE_POSITION])
        samples = int(state[kernels.STATE_COUNT])
        raise ExpositionError(body.count(b"\n", 0, position) + 1, _REASONS[count], samples)
    scanned = Scanned(
        body, array, mode, count, starts[:count], ends[:count], hashes[:count], values[:count],
        slow[:count] & np.uint8(kernels.HAS_TIME), t_ms[:count], exemplars[:count],
        kinds[: state[kernels.STATE_METADATA]], spans[: state[kernels.STATE_METADATA]],
        int(state[kernels.STATE_METADATA_HASH]),
    )  # fmt: skip
    if state[kernels.STATE_SLOW]:
        _read_slow_numbers(scanned, slow[:count], value_spans, t_spans)
    nan = np.isnan(scanned.values)
    if nan.any():
        scanned.values.view(np.uint64)[nan] = _CANONICAL_NAN
    return scanned


def _read_slow_numbers(scanned: Scanned, slow: U8Array, value_spans: I32Array, t_spans: I32Array) -> None:
    body = scanned.body
    for i in np.flatnonzero(slow & kernels.SLOW_VALUE):
        start, end = value_spans[i]
        try:
            scanned.values[i] = parse_float(body[start:end])
        except ValueError as error:
            raise ExpositionError(scanned.line_of(start), str(error), int(i)) from None
    for i in np.flatnonzero(slow & kernels.SLOW_TIME):
        start, end = t_spans[i]
        try:
            scanned.t_ms[i] = parse_time(body[start:end], scanned.mode)
        except ValueError as error:
            raise ExpositionError(scanned.line_of(start), str(error), int(i)) from None


def parse_float(text: bytes) -> float:
    """A sample value, correctly rounded; hexadecimal and underscores are refused as in Prometheus."""
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (np.inf, -np.inf):
            raise ValueError(f"value out of range while parsing: {_shown(text)}")
        return value
    if text.lower() == b"nan" or _INF.fullmatch(text):
        return float(text)
    raise ValueError(f"invalid value while parsing: {_shown(text)}")


def parse_time(text: bytes, mode: int) -> int:
    """A sample's own timestamp in ms: integer ms in the text format, seconds in OpenMetrics."""
    if mode == kernels.TEXT:
        if not _INTEGER.fullmatch(text) or abs(int(text)) > _TIME_MS_LIMIT:
            raise ValueError(f"invalid timestamp {_shown(text)}")
        return int(text)
    seconds = parse_float(text)
    if not abs(seconds) < _TIME_MS_LIMIT / 1000:
        raise ValueError(f"invalid timestamp {_shown(text)}")
    return int(seconds * 1000)


def _shown(text: bytes) -> str:
    return '"' + text[:80].decode(errors="replace") + '"'


_BLANK = b" \t"
_LABEL_NAME = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*")
_QUOTED = re.compile(rb'"((?:\\.|[^\\"])*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\([\\"n])')


def unescape(text: str) -> str:
    """`\\n`, `\\"` and `\\\\` resolved; other backslashes stay."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: "\n" if match.group(1) == "n" else match.group(1), text)


def unescape_help(text: str) -> str:
    """HELP text of the text format: only `\\n` and `\\\\` are escapes."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([\\n])", lambda match: "\n" if match.group(1) == "n" else match.group(1), text)


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"invalid UTF-8 {what}") from None


def parse_labels(text: bytes, mode: int) -> list[tuple[str, str]]:
    """Labels of a series text in written order, the metric's name among them as `__name__`.

    A quoted string without a value is the name. Raises ValueError.
    """
    brace = text.find(b"{")
    head = text if brace < 0 else text[:brace]
    name = head.rstrip(_BLANK)
    pairs = [(METRIC_NAME, name.decode())] if name else []
    if brace < 0:
        return pairs
    at, end = brace + 1, len(text) - 1
    while True:
        at = _skip(text, at, mode)
        if at >= end:
            return pairs
        label, quoted, at = _label_name(text, at, end)
        at = _skip(text, at, mode)
        if quoted and (at >= end or text[at : at + 1] == b","):
            if pairs and pairs[0][0] == METRIC_NAME:
                raise ValueError("metric name already set")
            pairs.insert(0, (METRIC_NAME, label))
        else:
            if text[at : at + 1] != b"=":
                raise ValueError(f"expected equal after label name {label!r}")
            at = _skip(text, at + 1, mode)
            value = _QUOTED.match(text, at, end)
            if value is None:
                raise ValueError(f"expected label value of {label!r}")
            pairs.append((label, unescape(_decoded(value.group(1), "label value"))))
            at = _skip(text, value.end(), mode)
        if at < end and text[at : at + 1] == b",":
            at += 1
        elif at < end and mode == kernels.OPENMETRICS:
            raise ValueError("expected comma or brace close")


def _skip(text: bytes, at: int, mode: int) -> int:
    if mode == kernels.TEXT:
        while at < len(text) and text[at] in _BLANK:
            at += 1
    return at


def _label_name(text: bytes, at: int, end: int) -> tuple[str, bool, int]:
    match = _LABEL_NAME.match(text, at, end)
    if match is not None:
        return match.group().decode(), False, match.end()
    match = _QUOTED.match(text, at, end)
    if match is None:
        raise ValueError("expected label name")
    return unescape(_decoded(match.group(1), "label name")), True, match.end()


def metadata_lines(scanned: Scanned) -> list[MetadataLine]:
    """The metadata of a body. Raises ExpositionError for an unknown type or invalid text."""
    found = []
    for kind, (start, end, text_start, text_end) in zip(
        scanned.metadata_kinds.tolist(), scanned.metadata_spans.tolist(), strict=True
    ):
        try:
            name = _decoded(scanned.body[start:end], "metric name")
            if name.startswith('"'):
                name = unescape(name[1:-1])
            text = _metadata_text(kind, scanned.body[text_start:text_end], scanned.mode)
            if kind == kernels.UNIT and text and not name.endswith(f"_{text}"):
                raise ValueError(f'unit "{text}" not a suffix of metric "{name}"')
        except ValueError as error:
            raise ExpositionError(scanned.line_of(start), str(error)) from None
        found.append(MetadataLine(kind, name, text, start))
    return found


def _metadata_text(kind: int, raw: bytes, mode: int) -> str:
    if kind == kernels.TYPE:
        if raw not in (TEXT_TYPES if mode == kernels.TEXT else OPENMETRICS_TYPES):
            raise ValueError(f"invalid metric type {_shown(raw)}")
        return "unknown" if raw == b"untyped" else raw.decode()
    if kind == kernels.HELP:
        text = _decoded(raw, "help text")
        return unescape_help(text) if mode == kernels.TEXT else unescape(text)
    return _decoded(raw, "unit")


def metric_types(lines: list[MetadataLine]) -> tuple[I64Array, list[str]]:
    """Positions of the TYPE lines and their types: the type of a sample is that of the last one before it."""
    typed = [line for line in lines if line.kind == kernels.TYPE]
    return np.array([line.position for line in typed], dtype=np.int64), [line.text for line in typed]


def normalized(pairs: list[tuple[str, str]], metric_type: str) -> list[tuple[str, str]]:
    """`le` of histograms and `quantile` of summaries as canonical floats (`1` becomes `1.0`)."""
    label = {"histogram": "le", "summary": "quantile"}.get(metric_type)
    if label is None:
        return pairs
    return [(n, _canonical(v)) if n == label else (n, v) for n, v in pairs]


def _canonical(text: str) -> str:
    try:
        return format_float(parse_float(text.encode()))
    except ValueError:
        return text


def format_float(value: float) -> str:
    """OpenMetrics's canonical form: shortest digits, `.0` for whole numbers, exponents from 1e+06 on."""
    if value != value:
        return "NaN"
    if value in (np.inf, -np.inf):
        return "+Inf" if value > 0 else "-Inf"
    negative, digits, scale = Decimal(repr(value)).normalize().as_tuple()
    sign, text = "-" * negative, "".join(map(str, digits))
    exponent = len(text) + int(scale) - 1
    if value != 0 and (exponent < -4 or exponent >= _EXPONENT_FROM):
        tail = f".{text[1:]}" if len(text) > 1 else ""
        return f"{sign}{text[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{text}"
    text = text.ljust(exponent + 1, "0")
    return f"{sign}{text[: exponent + 1]}.{text[exponent + 1 :] or '0'}"


def metadata_of(lines: Sequence[MetadataLine]) -> dict[str, Metadata]:
    """Type, help and unit a family; the last line of a kind wins."""
    found: dict[str, dict[int, str]] = {}
    for line in lines:
        found.setdefault(line.name, {})[line.kind] = line.text
    return {
        name: Metadata(
            name,
            parts.get(kernels.TYPE, "unknown"),
            parts.get(kernels.HELP, ""),
            parts.get(kernels.UNIT, ""),
        )
        for name, parts in found.items()
    }
