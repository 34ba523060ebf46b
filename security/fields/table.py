"""The table of fields: names, types, arguments, list-ness, and the event sources that have them.

Each module of this package gives rows of text, one a field: `name TYPE flags | what it is`. Flags:
`L` list, `a` an argument is allowed, `A` required, `i` it is an index, `k` it is a key, `D` a key may follow
a dot instead of standing in brackets, `F` only in conditions, `P` only in outputs, `T` takes no transformer
and no field on the other side, `Y` any of several values may satisfy a test (ancestors), `E` both ends of a
connection count (security-surface.md 2.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

NUMBER_TYPES = frozenset(("UINT64", "INT64", "UINT32", "INT32", "PORT", "PID", "FD", "RELTIME", "ABSTIME"))
TEXT_TYPES = frozenset(("CHARBUF", "FSPATH"))
PLUGIN_SOURCES = ("k8s_audit", "aws_cloudtrail", "gcp_auditlog", "github", "okta")
SOURCES = ("syscall", *PLUGIN_SOURCES)


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of the catalogue."""

    name: str
    type: str
    flags: str
    description: str
    family: str
    sources: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        """Whether its value is a list for `in`, `intersects` and the modifiers."""
        return "L" in self.flags

    @property
    def argument_allowed(self) -> bool:
        """Whether it takes an argument."""
        return "a" in self.flags or "A" in self.flags

    @property
    def argument_required(self) -> bool:
        """Whether it means nothing without an argument."""
        return "A" in self.flags

    @property
    def accepts_transformers(self) -> bool:
        """Whether transformers and field-to-field comparison work on it."""
        return "T" not in self.flags


class FieldError(ValueError):
    """A field is unknown or wrongly used, in Falco's words."""


@dataclass(frozen=True, slots=True)
class FieldReference:
    """A field of the catalogue with its argument; the key of a column."""

    info: FieldInfo
    argument: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        """Name of the catalogue and argument: what sources give columns for."""
        return (self.info.name, self.argument)

    @property
    def is_list(self) -> bool:
        """Whether the value is a list: an index picks one element and gives a scalar."""
        return self.info.is_list and not (self.argument is not None and "i" in self.info.flags)

    @property
    def any_of(self) -> bool:
        """Whether one of several values is enough (ancestors without an index)."""
        return "Y" in self.info.flags and self.argument is None


_ROW = re.compile(r"(\S+) +([A-Z0-9]+) *([A-Za-z]*) *\| *(.*)")


def rows(family: str, sources: tuple[str, ...], text: str) -> list[FieldInfo]:
    """The fields of a text of rows."""
    found = []
    for line in text.strip().splitlines():
        match = _ROW.fullmatch(line.strip())
        assert match, line
        name, kind, flags, description = match.groups()
        found.append(FieldInfo(name, kind, flags, description, family, sources))
    return found


class FieldTable:
    """The fields of one event source. Immutable; any thread may use it."""

    def __init__(self, source: str, fields: Iterable[FieldInfo]) -> None:
        self.source = source
        self.fields = {info.name: info for info in fields}
        self._dotted = [info for info in self.fields.values() if "D" in info.flags]

    def find(self, name: str, argument: str | None = None) -> FieldReference:
        """The field of a name and argument. Raises FieldError for an unknown field or a wrong argument."""
        info = self.fields.get(name)
        if info is None and argument is None:
            for candidate in self._dotted:
                if name.startswith(candidate.name + "."):
                    return FieldReference(candidate, name[len(candidate.name) + 1 :])
        shown = name if argument is None else f"{name}[{argument}]"
        if info is None:
            raise FieldError(f"filter_check called with nonexistent field {shown}")
        if argument is None:
            if info.argument_required:
                raise FieldError(f"filter error: field '{name}' requires an argument")
            return FieldReference(info, None)
        if not info.argument_allowed:
            raise FieldError(f"filter error: field '{name}' does not accept an argument: '{shown}'")
        if "i" in info.flags and "k" not in info.flags and not (argument.isascii() and argument.isdigit()):
            raise FieldError(f"filter error: field '{name}' needs a number as its argument: '{shown}'")
        if argument.isdigit() and "i" in info.flags and len(argument) > 18:
            raise FieldError(f"filter error: the index of field '{name}' is too large: '{shown}'")
        return FieldReference(info, argument)

    def defines(self, name: str, argument: str | None = None) -> bool:
        """Whether a condition may name this field."""
        try:
            self.find(name, argument)
        except FieldError:
            return False
        return True


@lru_cache(maxsize=1)
def all_fields() -> tuple[FieldInfo, ...]:
    """Every field of every source, in the order of the catalogue."""
    from security.fields import audit, cloudtrail, container, event, file, network, plugins, process, user

    modules = (event, process, user, file, network, container, audit, cloudtrail, plugins)
    return tuple(info for module in modules for info in module.fields())


@lru_cache(maxsize=32)
def field_table(source: str) -> FieldTable:
    """The table of one event source; a source nobody knows has no fields."""
    return FieldTable(source, (info for info in all_fields() if source in info.sources))
