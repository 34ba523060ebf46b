"""Parameters of events as text (`evt.arg`, `evt.args`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TEXT_BYTES_LIMIT = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its raw form, and its resolved form where that says more."""

    name: str
    raw: str
    resolved: str = ""

    @property
    def text(self) -> str:
        """What a rule compares (`evt.arg.NAME`)."""
        return self.resolved or self.raw


def escape(text: str) -> str:
    """Text that cannot move a terminal's cursor, end a line or break UTF-8; cut at `TEXT_BYTES_LIMIT`."""

    def escaped(match: re.Match[str]) -> str:
        number = ord(match.group())
        return f"\\x{number - 0xDC00 if number >= 0xDC80 else number:02x}"

    return _CONTROL.sub(escaped, text[:TEXT_BYTES_LIMIT])


def arguments_line(parameters: Iterable[Parameter]) -> str:
    """All parameters on one line: ``name=raw(resolved)`` joined by blanks."""
    shown = []
    for item in parameters:
        resolved = f"({escape(item.resolved)})" if item.resolved else ""
        shown.append(f"{item.name}={escape(item.raw)}{resolved}")
    return " ".join(shown)


def printable(data: bytes) -> str:
    """Bytes as text: those that are not printable ASCII as dots."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def described(number: int, type_character: str, name: str) -> tuple[str, str]:
    """A descriptor as a parameter: its number, and type and name."""
    return str(number), f"<{type_character}>{name}"
