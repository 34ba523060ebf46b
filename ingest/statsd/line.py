"""What a StatsD sample says besides its value: kind, sampling rate, labels.

Names and labels follow statsd_exporter's defaults: characters that Prometheus does not allow become `_`,
and tags may be in the style of DogStatsD, InfluxDB, Librato or SignalFx, but in one style a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ingest.statsd.limits import FIELDS_PER_LINE_LIMIT, VALUE_BYTES_LIMIT, StatsdLimits

COUNTER, GAUGE, OBSERVER, SET = "counter", "gauge", "observer", "set"

KINDS: dict[bytes, tuple[str, float]] = {
    b"c": (COUNTER, 1.0),
    b"g": (GAUGE, 1.0),
    b"ms": (OBSERVER, 0.001),
    b"h": (OBSERVER, 1.0),
    b"d": (OBSERVER, 1.0),
    b"s": (SET, 1.0),
}
"""Kind by type letter, and what turns its values into base units."""

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_SIGNALFX = re.compile(rb"(?P<before>[^\[\]]*)\[(?P<tags>[^\]]*)\](?P<after>.*)", re.DOTALL)
_IGNORED_FIELDS = (b"c:", b"e:", b"T", b"card:")
"""Container, external data, time and cardinality of DogStatsD 1.2 and later."""
_INFINITY = float("inf")


class SampleError(ValueError):
    """A sample that is refused; `reason` is a label of the error counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Meaning:
    """`name` and labels as they are stored; `factor` for values, `weight` is what one sample stands for.

    `bad_tag_count` tags were dropped.
    """

    name: str
    kind: str
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]
    factor: float = 1.0
    weight: float = 1.0
    bad_tag_count: int = 0


def read_number(text: bytes) -> float:
    """A finite decimal number. Raises SampleError."""
    if len(text) <= VALUE_BYTES_LIMIT and _NUMBER.fullmatch(text):
        value = float(text)
        if -_INFINITY < value < _INFINITY:
            return value
    raise SampleError("malformed_value")


def metric_name(text: str) -> str:
    """A valid metric name."""
    name = _NOT_IN_NAMES.sub("_", text)
    return f"_{name}" if name[:1].isdigit() else name


def label_name(text: str) -> str:
    """A valid label name."""
    name = _NOT_IN_LABELS.sub("_", text)
    return f"_{name}" if name[:1].isdigit() else name


def read_meaning(name: bytes, tail: bytes, limits: StatsdLimits) -> Meaning:
    """What comes before the value and after it (type, rate, tags). Raises SampleError."""
    fields = tail.split(b"|")
    if len(fields) > FIELDS_PER_LINE_LIMIT:
        raise SampleError("malformed_component")
    if fields[0] not in KINDS:
        raise SampleError("invalid_type")
    kind, factor = KINDS[fields[0]]
    weight, tag_text = 1.0, None
    for field in fields[1:]:
        if field.startswith(b"@"):
            weight = _weight(field[1:], kind)
        elif field.startswith(b"#"):
            tag_text = field[1:]
        elif not field.startswith(_IGNORED_FIELDS):
            raise SampleError("malformed_component")
    bare, tags, separator = _split_name(name)
    if tag_text is not None:
        if tags:
            raise SampleError("mixed_tagging_styles")
        tags, separator = tag_text.split(b","), b":"
    if not bare or len(bare) > limits.name_bytes:
        raise SampleError("malformed_line" if not bare else "name_too_long")
    labels, bad_count = _read_tags(tags, separator, limits, kind)
    ordered = sorted(labels.items())
    return Meaning(
        metric_name(_text(bare)),
        kind,
        tuple(label for label, _ in ordered),
        tuple(value for _, value in ordered),
        factor,
        weight,
        bad_count,
    )


def _weight(text: bytes, kind: str) -> float:
    """How many samples of a counter or an observer one stands for."""
    if kind not in (COUNTER, OBSERVER):
        raise SampleError("illegal_sample_factor")
    try:
        rate = read_number(text)
    except SampleError:
        raise SampleError("invalid_sample_factor") from None
    if not 1e-9 < rate <= 1.0:
        raise SampleError("invalid_sample_factor")
    return 1.0 / rate if kind == COUNTER else float(int(1.0 / rate))


def _split_name(name: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Name, tags within it, and what separates a tag's name from its value."""
    if b"[" in name and (match := _SIGNALFX.fullmatch(name)):
        return match["before"] + match["after"], match["tags"].split(b","), b"="
    for mark in (b",", b"#"):
        bare, found, tags = name.partition(mark)
        if found:
            return bare, tags.split(b","), b"="
    return name, [], b"="


def _read_tags(
    tags: list[bytes], separator: bytes, limits: StatsdLimits, kind: str
) -> tuple[dict[str, str], int]:
    """Labels of the tags, the last of equal ones, and how many tags could not be taken."""
    if len(tags) > limits.tags_per_line_count:
        raise SampleError("too_many_tags")
    labels: dict[str, str] = {}
    bad_count = 0
    for tag in tags:
        if not tag:
            continue
        key, found, value = tag.partition(separator)
        if not found or not key:
            bad_count += 1
            continue
        if len(key) > limits.tag_name_bytes or len(value) > limits.tag_value_bytes:
            raise SampleError("tag_too_long")
        label = label_name(_text(key))
        if label == "__name__" or (kind == OBSERVER and label in ("le", "quantile")):
            bad_count += 1
            continue
        labels[label] = _text(value)
    return {label: value for label, value in labels.items() if value}, bad_count


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SampleError("malformed_line") from None
