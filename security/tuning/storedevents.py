"""Events that a rule raised earlier, as far as they were stored: the fields of its output.

They come from the event log, or from files of JSON lines: Falco's own form, or that of records on the wire.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from security.columns import (
    AnyColumn,
    Column,
    ColumnKey,
    EventBatch,
    ListColumn,
    NumberColumn,
    list_column,
    text_column,
)
from security.fields.table import NUMBER_TYPES, FieldError, FieldInfo, field_table
from security.record import EventRecord

LINE_BYTES_LIMIT = 1 << 20
_INT64_LIMIT = 1 << 63
_OF_BATCH = ("evt.source", "evt.rawtime", "evt.rawtime.s", "evt.rawtime.ns")
"""Fields that every stored event has, whatever its output."""
Mask = NDArray[np.bool_]


class StoredEventError(ValueError):
    """A line is no event; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One raised event. A field with None was missing then; one that is not there is unknown."""

    rule: str
    source: str
    time_ns: int
    fields: Mapping[str, Any]


def from_record(record: EventRecord) -> StoredEvent:
    """A record of the event log."""
    output = record.output
    return StoredEvent(output.rule, output.source, output.time_ns, output.fields)


def from_json(document: Any) -> StoredEvent:
    """An event in Falco's JSON form or as a record on the wire. Raises StoredEventError."""
    if not isinstance(document, dict):
        raise StoredEventError("not a JSON object")
    rule, source = document.get("rule"), document.get("source", "syscall")
    fields = document.get("output_fields", document.get("fields", {}))
    if not isinstance(rule, str) or not isinstance(source, str) or not isinstance(fields, dict):
        raise StoredEventError("no rule, source or fields of an event")
    return StoredEvent(rule, source, _time_ns(document), fields)


def _time_ns(document: dict[str, Any]) -> int:
    stored, text = document.get("time_ns"), document.get("time")
    if isinstance(stored, int) and 0 <= stored < _INT64_LIMIT:
        return stored
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        raise StoredEventError(f"time {text!r} is not a date and time") from None
    digits = str(text).partition(".")[2].rstrip("Z").partition("+")[0].partition("-")[0]
    return int(moment.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0") if digits.isdigit() else 0)


def read_lines(lines: Iterable[bytes]) -> Iterator[StoredEvent]:
    """Events of JSON lines; empty lines are skipped. Raises StoredEventError with the number of the line."""
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_BYTES_LIMIT:
            raise StoredEventError(f"line {number} of {len(line)} bytes is over {LINE_BYTES_LIMIT}")
        if not line.strip():
            continue
        try:
            yield from_json(orjson.loads(line))
        except (orjson.JSONDecodeError, StoredEventError) as error:
            raise StoredEventError(f"line {number}: {error}") from None


class StoredBatch:
    """Stored events of one source as columns, with what is known of each."""

    def __init__(self, events: Sequence[StoredEvent], source: str) -> None:
        self.events = events
        self._count = len(events)
        self._table = field_table(source)
        self._values: dict[ColumnKey, list[Any]] = {}
        self._known: dict[ColumnKey, Mask] = {}
        for row, event in enumerate(events):
            self._take(row, event)
        types = self._column(("evt.type", None))
        self.batch = EventBatch(
            source,
            np.fromiter((event.time_ns for event in events), np.int64, self._count),
            self._column,
            types if isinstance(types, Column) else None,
        )

    def _take(self, row: int, event: StoredEvent) -> None:
        for name, value in event.fields.items():
            base, bracket, argument = name.partition("[")
            try:
                reference = self._table.find(base, argument.removesuffix("]") if bracket else None)
                converted = None if value is None else _converted(reference.info, value)
            except (FieldError, ValueError):
                continue
            # Ancestors were stored as one text: which of them it held is not known any more.
            if reference.any_of or "E" in reference.info.flags:
                continue
            if reference.key not in self._known:
                self._known[reference.key] = np.zeros(self._count, np.bool_)
                self._values[reference.key] = [None] * self._count
            self._known[reference.key][row] = True
            self._values[reference.key][row] = converted

    def known(self, key: ColumnKey) -> Mask:
        """Which events have the field stored, missing values included."""
        if key[0] in _OF_BATCH:
            return np.ones(self._count, np.bool_)
        return self._known.get(key, np.zeros(self._count, np.bool_))

    def _column(self, key: ColumnKey) -> AnyColumn | None:
        values = self._values.get(key)
        if values is None:
            return None
        info = self._table.fields[key[0]]
        if info.is_list and not (key[1] is not None and "i" in info.flags):
            return _lists(values)
        if info.type == "BOOL" or info.type in NUMBER_TYPES:
            present = np.fromiter((value is not None for value in values), np.bool_, self._count)
            dtype = np.bool_ if info.type == "BOOL" else np.int64
            return NumberColumn(np.fromiter((value or 0 for value in values), dtype, self._count), present)
        return text_column(values)


def _lists(values: list[Any]) -> ListColumn:
    return list_column([value if value is None or isinstance(value, list) else [value] for value in values])


def _converted(info: FieldInfo, value: Any) -> Any:
    """A value of JSON as rules compare it. Raises ValueError for one that is none of the type."""
    if info.is_list:
        return value
    if info.type in ("IPADDR", "IPNET"):
        return ipaddress.ip_address(str(value))
    if info.type == "BOOL":
        return value in (True, "true")
    if info.type in NUMBER_TYPES:
        number = int(value)
        if not -_INT64_LIMIT <= number < _INT64_LIMIT:
            raise ValueError("over 64 bits")
        return number
    if info.type not in ("CHARBUF", "FSPATH") or isinstance(value, (list, dict)):
        raise ValueError("not a text")
    return str(value)
