"""Events that are JSON objects: what all such sources have in common.

A source is a small plug-in: a class with `name`, `plugin`, `events(body)` that gives decoded events, and
`extract(document, field, argument)` that gives one field of one event as text, number, tuple, or None for
missing. Bodies and events over their limits and texts that are not what the source expects raise
InvalidEventError and are counted; the events before them are kept.
"""

from __future__ import annotations

import datetime
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from security.columns import AnyColumn, ColumnKey, EventBatch, NumberColumn, list_column, text_column
from security.fields.table import NUMBER_TYPES, field_table

BODY_BYTES_LIMIT = 64 << 20
POINTER_PARTS_LIMIT = 128


class InvalidEventError(ValueError):
    """A body or event is refused; the text says why."""


@dataclass(frozen=True, slots=True)
class JsonEvent:
    """One decoded event and its time."""

    document: dict[str, Any]
    time_ns: int


class JsonSource(Protocol):
    """The interface of a source of JSON events."""

    name: str
    plugin: str
    refused: Counter[str]

    def events(self, body: bytes, now_ns: int) -> Iterator[JsonEvent]:
        """Events of a body in order; `now_ns` is the time of events that have none of their own."""

    def extract(self, document: dict[str, Any], name: str, argument: str | None) -> Any:
        """One field of an event, None when missing."""


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")


def parse_time(text: Any) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time, or None."""
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return None
    seconds = int(moment.timestamp())
    nanoseconds = seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    return nanoseconds if 0 <= nanoseconds < 1 << 63 else None


def decode(body: bytes, what: str) -> Any:
    """The JSON value of a body. Raises InvalidEventError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidEventError(f"{what} is not JSON: {error}") from None


def decompress(body: bytes, limit: int) -> bytes:
    """A body that may be compressed with gzip. Raises InvalidEventError over `limit` bytes."""
    if body[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
                body = stream.read(limit + 1)
        except (OSError, EOFError, ValueError) as error:
            raise InvalidEventError(f"body is not gzip: {error}") from None
    if len(body) > limit:
        raise InvalidEventError(f"body of {len(body)} bytes is larger than {limit}")
    return body


def pointer(document: Any, path: str) -> tuple[bool, Any]:
    """RFC 6901: whether the pointer leads somewhere, and to what."""
    if path in ("", "/"):
        return True, document
    parts = path.lstrip("/").split("/")
    if len(parts) > POINTER_PARTS_LIMIT:
        return False, None
    value = document
    for part in parts:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:10]) < len(value):
            value = value[int(key[:10])]
        else:
            return False, None
    return True, value


def as_text(value: Any) -> str:
    """A JSON value as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def text_at(document: Any, *path: str) -> str | None:
    """The text of a value below an object, None when missing or null."""
    value = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else as_text(value)


def json_field(document: dict[str, Any], name: str, argument: str | None, time_ns: int) -> Any:
    """The fields that every source of JSON has: json.* and jevt.*."""
    suffix = name.partition(".")[2]
    if suffix == "value":
        found, value = pointer(document, argument or "")
        return as_text(value) if found else None
    if suffix == "obj":
        return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    if suffix == "rawtime":
        return str(time_ns)
    from security.output import format_time

    return format_time(time_ns, suffix.endswith("iso8601"))


@dataclass(slots=True)
class JsonBatches:
    """Makes batches of the events of a source. One thread."""

    source: JsonSource
    hostname: str = ""
    events_count: int = 0

    def read(self, body: bytes, now_ns: int) -> list[JsonEvent]:
        """The events of a body. Raises InvalidEventError when there is none and something was refused."""
        events: list[JsonEvent] = []
        try:
            events.extend(self.source.events(body, now_ns))
        except InvalidEventError:
            self.source.refused["body"] += 1
            if not events:
                raise
        return events

    def batch(self, events: Sequence[JsonEvent]) -> EventBatch:
        """A batch of decoded events."""
        table = field_table(self.source.name)
        first = self.events_count + 1
        self.events_count += len(events)

        def load(key: ColumnKey) -> AnyColumn | None:
            name, argument = key
            if name.startswith(("json.", "jevt.")):
                values = [json_field(e.document, name, argument, e.time_ns) for e in events]
            else:
                values = [self.source.extract(e.document, name, argument) for e in events]
            if all(value is None for value in values):
                return None
            reference = table.find(name, argument)
            if reference.is_list:
                return list_column(values)
            if reference.info.type in NUMBER_TYPES:
                present = np.array([value is not None for value in values], np.bool_)
                return NumberColumn(np.array([value or 0 for value in values], np.uint64), present)
            return text_column(values)

        times = np.array([event.time_ns for event in events], np.int64)
        return EventBatch(
            source=self.source.name,
            times_ns=times,
            load=load,
            first_number=first,
            hostname=self.hostname,
            plugin=self.source.plugin,
        )
