"""Events with their labels, as they travel from rules to series, event log, outputs and between hosts.

The wire form is one line of JSON: docs/formats/event.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from security.output import EventOutput, printable
from security.rules.items import PRIORITIES, parse_priority

WIRE_VERSION = 1
RECORD_BYTES_LIMIT = 1 << 20
"""One record on the wire; system calls give some 2 KiB, audit events up to 256 KiB."""
LABEL_CHARS_LIMIT = 128
LABELS_COUNT_LIMIT = 32
FIELDS_COUNT_LIMIT = 1024
TAGS_COUNT_LIMIT = 256
NAME_CHARS_LIMIT = 1024
TEXT_CHARS_LIMIT = 32 << 10
"""One text of an event: its message, a field; longer ones are cut and end in an ellipsis."""
FIELDS_CHARS_LIMIT = 64 << 10
"""Texts of all fields; a character is at most six bytes on the wire."""
LIST_COUNT_LIMIT = 256


class InvalidRecordError(ValueError):
    """A record from outside is refused; the text says why."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event that a rule matched.

    `labels` is the bounded label set of its series, sorted by name, without empty values and without
    `__name__`. `hostname` is the host it happened on.
    """

    output: EventOutput
    labels: tuple[tuple[str, str], ...]
    hostname: str

    @property
    def time_ms(self) -> int:
        """The event's time in milliseconds."""
        return self.output.time_ns // 1_000_000

    def label(self, name: str) -> str:
        """The value of a label, the empty string where it is absent."""
        return next((value for label, value in self.labels if label == name), "")

    def to_wire(self) -> bytes:
        """One line of JSON without its line break."""
        output = self.output
        return orjson.dumps(
            {
                "v": WIRE_VERSION,
                "rule": output.rule,
                "source": output.source,
                "priority": PRIORITIES[output.priority],
                "tags": output.tags,
                "time_ns": output.time_ns,
                "message": printable(output.message),
                "fields": {name: printable(value) for name, value in output.fields.items()},
                "labels": dict(self.labels),
                "hostname": self.hostname,
            }
        )

    @classmethod
    def from_wire(cls, line: bytes) -> EventRecord:
        """The record of a line. Raises InvalidRecordError for anything `to_wire` does not write."""
        if len(line) > RECORD_BYTES_LIMIT:
            raise InvalidRecordError(f"record of {len(line)} bytes is larger than {RECORD_BYTES_LIMIT}")
        try:
            wire = _Wire.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidRecordError(f"invalid record: {place}: {first['msg']}") from None
        priority = parse_priority(wire.priority)
        if priority is None:
            raise InvalidRecordError(f"invalid record: priority: {wire.priority!r} is none of {PRIORITIES}")
        output = EventOutput(
            rule=wire.rule,
            source=wire.source,
            priority=priority,
            tags=tuple(sorted(wire.tags)),
            time_ns=wire.time_ns,
            message=wire.message,
            fields=wire.fields,
        )
        labels = tuple(sorted((name, value) for name, value in wire.labels.items() if value))
        return cls(output, labels, wire.hostname)


def clean_output(output: EventOutput) -> EventOutput:
    """The output with texts that are valid UTF-8 and within the limits of a record, and numbers that JSON
    holds."""
    fields = {
        name[:NAME_CHARS_LIMIT]: _cut(printable(value))
        for name, value in itertools.islice(output.fields.items(), FIELDS_COUNT_LIMIT)
    }
    return replace(
        output,
        rule=output.rule[:NAME_CHARS_LIMIT],
        tags=tuple(tag[:NAME_CHARS_LIMIT] for tag in output.tags[:TAGS_COUNT_LIMIT]),
        message=_cut(printable(output.message)),
        fields=fields if _size(fields) <= FIELDS_CHARS_LIMIT else _shortened(fields),
    )


def _cut(value: Any, limit: int = TEXT_CHARS_LIMIT) -> Any:
    if isinstance(value, str):
        return value if len(value) <= limit else value[: limit - 1] + "…"
    if isinstance(value, list):
        return [_cut(part, limit) for part in value[:LIST_COUNT_LIMIT]]
    return value


def _size(value: Any) -> int:
    """Characters of the texts within a value, and one for everything else."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + _size(part) for name, part in value.items())
    return 1 + sum(_size(part) for part in value) if isinstance(value, list) else 1


def _shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that together are over FIELDS_CHARS_LIMIT, in order while they fit."""
    kept: dict[str, Any] = {}
    room = FIELDS_CHARS_LIMIT
    for name, value in fields.items():
        room -= _size(name) + _size(value)
        kept[name] = value if room >= 0 else "…"
    return kept


_Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_LIMIT)]
_LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=LABEL_CHARS_LIMIT)]
_LabelValue = Annotated[str, Field(max_length=NAME_CHARS_LIMIT)]


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, strict=True, extra="forbid")

    v: Literal[1]
    rule: _Name
    source: _Name
    priority: str
    tags: Annotated[list[_Name], Field(max_length=TAGS_COUNT_LIMIT)]
    time_ns: Annotated[int, Field(ge=0, lt=1 << 63)]
    message: str
    fields: Annotated[dict[_Name, JsonValue], Field(max_length=FIELDS_COUNT_LIMIT)]
    labels: Annotated[dict[_LabelName, _LabelValue], Field(max_length=LABELS_COUNT_LIMIT)]
    hostname: Annotated[str, Field(max_length=NAME_CHARS_LIMIT)]


def cut_label(value: Any) -> str:
    """A value as that of a label: text of at most LABEL_CHARS_LIMIT characters."""
    return str(printable(value))[:LABEL_CHARS_LIMIT]
