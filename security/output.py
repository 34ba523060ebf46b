"""Outputs of events: Falco's text templates and its JSON object (security-surface.md 1.7)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from security.fields.table import FieldError, FieldReference, FieldTable
from security.rules.ast import TRANSFORMERS, Call, Exists
from security.rules.condition import ConditionError, parse_condition
from security.rules.items import PRIORITIES
from security.rules.program import CompiledOperand, CompileError, Program
from security.rules.transformers import to_bytes

VALUE_BYTES_LIMIT = 1024
WIDTH_LIMIT = 4096
MISSING = "<NA>"
TIME_FIELDS = frozenset(
    ("evt.time", "evt.time.s", "evt.time.iso8601", "evt.datetime", "evt.datetime.s", "evt.rawtime")
)

Getter = Callable[[CompiledOperand], Any]
"""Gives the value of an operand for one event: text, number, truth, bytes, tuple, or None for missing."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+")
_ARGUMENT = re.compile(r"\[(\"[^\"]*\"|'[^']*'|[^\]\[]*)\]")
_CALL = re.compile(rf"({'|'.join(TRANSFORMERS)})\(")
_CALL_CHARS_LIMIT = 4096


class TemplateError(ValueError):
    """An output is wrong, in Falco's words."""


@dataclass(frozen=True, slots=True)
class Token:
    """A field in a template. `name` is its text without `%` and width."""

    operand: CompiledOperand
    name: str
    width: int


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed output. `all_or_nothing` is the meaning of a template without a leading `*`."""

    parts: tuple[str | Token, ...]

    @property
    def tokens(self) -> list[Token]:
        """The fields in order."""
        return [part for part in self.parts if isinstance(part, Token)]

    def render(self, get: Getter) -> str:
        """The text for one event; missing values are `<NA>`."""
        return "".join(part if isinstance(part, str) else render_token(part, get) for part in self.parts)

    def values(self, get: Getter) -> dict[str, Any]:
        """Fields by name with JSON types; fields with transformers are left out."""
        return {token.name: to_json(token, get) for token in self.tokens if token.operand.field is not None}


def render_token(token: Token, get: Getter) -> str:
    """The text of one field, padded or cut to its width."""
    value = get(token.operand)
    text = MISSING if value is None else to_text(value)
    return text[: token.width].ljust(token.width) if token.width else text


def to_text(value: Any) -> str:
    """A value as it stands in an output."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, tuple):
        return _cut(f"({','.join(to_text(part) for part in value)})")
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) < VALUE_BYTES_LIMIT else text[: VALUE_BYTES_LIMIT - 1]


def to_json(token: Token, get: Getter) -> Any:
    """A value for JSON: numbers stay numbers, moments are nanoseconds, a missing value is null."""
    value = get(token.operand)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [part if isinstance(part, (bool, int, float, str)) else to_text(part) for part in value]
    return to_text(value)


def parse_template(program: Program, text: str) -> Template:
    """The template of an output. Raises TemplateError for an unknown field and for a `%` at the end."""
    parts: list[str | Token] = []
    if text.startswith("*"):
        text = text[1:]
    at = 0
    while True:
        percent = text.find("%", at)
        if percent < 0:
            parts.append(text[at:])
            break
        parts.append(text[at:percent])
        token, at = _parse_token(program, text, percent + 1)
        parts.append(token)
    return Template(tuple(part for part in parts if part != ""))


def _parse_token(program: Program, text: str, at: int) -> tuple[Token, int]:
    if at >= len(text):
        raise TemplateError("invalid formatting syntax: formatter cannot end with a %")
    digits = at
    while digits < len(text) and text[digits] in "0123456789":
        digits += 1
    width = int(text[at:digits][:6]) if digits > at else 0
    if width > WIDTH_LIMIT:
        raise TemplateError(f"invalid formatting width {width}: more than {WIDTH_LIMIT}")
    call = _CALL.match(text, digits)
    if call:
        return _parse_call(program, text, digits, call.end(), width)
    name = _NAME.match(text, digits)
    found = _longest_field(program.table, name.group(), text, digits) if name else None
    if found is None:
        raise TemplateError(f"invalid formatting token {text[digits:]}")
    reference, end = found
    operand = CompiledOperand(
        reference.key, reference.info.type, reference.is_list, reference.any_of, field=reference
    )
    return Token(operand, text[digits:end], width), end


def _longest_field(table: FieldTable, name: str, text: str, at: int) -> tuple[FieldReference, int] | None:
    for size in range(len(name), 0, -1):
        candidate = name[:size]
        argument = _ARGUMENT.match(text, at + size)
        if argument:
            inner = argument.group(1)
            if inner[:1] in ('"', "'"):
                inner = inner[1:-1]
            try:
                return table.find(candidate, inner), argument.end()
            except FieldError:
                pass
        try:
            return table.find(candidate), at + size
        except FieldError:
            continue
    return None


def _parse_call(program: Program, text: str, start: int, at: int, width: int) -> tuple[Token, int]:
    depth, quote = 1, ""
    stop = min(len(text), at + _CALL_CHARS_LIMIT)
    while at < stop and depth:
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        depth += (not quote and char == "(") - (not quote and char == ")")
        at += 1
    argument = _ARGUMENT.match(text, at)
    source = text[start : argument.end() if argument else at]
    try:
        tree = parse_condition(f"{source} exists")
        if not isinstance(tree, Exists) or not isinstance(tree.left, Call):
            raise TemplateError(f"invalid formatting token {text[start:]}")
        return Token(program.operand(tree.left), source, width), start + len(source)
    except (ConditionError, CompileError):
        raise TemplateError(f"invalid formatting token {text[start:]}") from None


def format_time(time_ns: int, iso: bool = False) -> str:
    """The time of a text line: local time of day, or date and time with offset when `iso`."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = time.localtime(seconds)
    if iso:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{nanoseconds:09d}{time.strftime('%z', moment)}"
    return f"{time.strftime('%H:%M:%S', moment)}.{nanoseconds:09d}"


def format_utc(time_ns: int) -> str:
    """The `time` of a JSON object: UTC with nanoseconds and `Z`."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def safe_line(text: str) -> str:
    """A text that a terminal cannot misread: control characters escaped, invalid bytes replaced."""

    def replace(match: re.Match[str]) -> str:
        char = match.group()
        if char >= "\ud800":
            return "\ufffd"
        return _SHORT.get(char, f"\\u{ord(char):04x}")

    return _CONTROL.sub(replace, text)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Falco's switches of the output."""

    hostname: str = ""
    time_format_iso_8601: bool = False
    json_include_output_property: bool = True
    json_include_message_property: bool = False
    json_include_output_fields_property: bool = True
    json_include_tags_property: bool = True


@dataclass(frozen=True, slots=True)
class EventOutput:
    """One event that a rule matched, ready for the outputs."""

    rule: str
    source: str
    priority: int
    tags: tuple[str, ...]
    time_ns: int
    message: str
    fields: Mapping[str, Any]

    def line(self, options: OutputOptions) -> str:
        """The text line: time, priority, message."""
        prefix = f"{format_time(self.time_ns, options.time_format_iso_8601)}: {PRIORITIES[self.priority]}"
        return safe_line(f"{prefix} {self.message}")

    def as_json(self, options: OutputOptions) -> dict[str, Any]:
        """Falco's JSON object."""
        event: dict[str, Any] = {
            "hostname": options.hostname,
            "priority": PRIORITIES[self.priority],
            "rule": self.rule,
            "source": self.source,
            "time": format_utc(self.time_ns),
        }
        message = printable(self.message)
        if options.json_include_output_property:
            prefix = format_time(self.time_ns, options.time_format_iso_8601)
            event["output"] = f"{prefix}: {PRIORITIES[self.priority]} {message}"
        if options.json_include_message_property:
            event["message"] = message
        if options.json_include_tags_property:
            event["tags"] = sorted(self.tags)
        if options.json_include_output_fields_property:
            name = "evt.time.iso8601" if options.time_format_iso_8601 else "evt.time"
            event["output_fields"] = {
                **{key: printable(value) for key, value in self.fields.items()},
                name: self.time_ns,
            }
        return event

    def json_line(self, options: OutputOptions) -> str:
        """The JSON object as text with sorted keys."""
        return orjson.dumps(self.as_json(options), option=orjson.OPT_SORT_KEYS).decode()


def printable(value: Any) -> Any:
    """A JSON value without what JSON cannot hold: lone surrogates are replaced, integers beyond 64 bits
    become texts."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return to_bytes(value).decode("utf-8", "replace")
    if isinstance(value, list):
        return [printable(part) for part in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value
