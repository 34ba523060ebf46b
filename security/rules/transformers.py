"""Transformers of values: each takes the values of its arguments and gives a value or None for "missing"
(security-surface.md 2.5). A value is a text, bytes, a number, or a tuple of these for a list."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

Transformer = Callable[..., Any]


def _ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else to_bytes(text).lower().decode("utf-8", "surrogateescape")


def _ascii_upper(text: str) -> str:
    return text.upper() if text.isascii() else to_bytes(text).upper().decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes of a text of an event; bytes that are not UTF-8 come back as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _each(function: Callable[[Any], Any]) -> Transformer:
    def apply(value: Any) -> Any:
        if isinstance(value, tuple):
            parts = tuple(function(part) for part in value)
            return None if any(part is None for part in parts) else parts
        return function(value)

    return apply


def _b64(value: str | bytes) -> str | bytes | None:
    data = value if isinstance(value, bytes) else to_bytes(value)
    try:
        decoded = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if isinstance(value, bytes) else decoded.decode("utf-8", "surrogateescape")


def _basename(text: str) -> str:
    return text.rpartition("/")[2]


def _length(value: Any) -> int:
    return len(to_bytes(value)) if isinstance(value, str) else len(value)


def _concat(*values: str) -> str:
    return "".join(values)


def _join(separator: str, values: tuple[str, ...]) -> str:
    return separator.join(values)


def parse_options(arguments: tuple[str, ...], spec: str) -> list[tuple[str, str | None]]:
    """Options of an argument list by a getopt specification: `a:` takes a value, `a::` may take one."""
    found: list[tuple[str, str | None]] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            at = spec.find(letter) if letter != ":" else -1
            if at < 0:
                continue
            if spec[at + 1 : at + 3] == "::":
                found.append((letter, letters or None))
                break
            if spec[at + 1 : at + 2] == ":":
                if not letters and position < len(arguments):
                    letters = arguments[position]
                    position += 1
                found.append((letter, letters))
                break
            found.append((letter, None))
    return found


def transformer(name: str, argument: str | None) -> Transformer:
    """The function of a transformer; `argument` is the option whose value `getopt` gives."""
    if name == "getopt":

        def getopt(arguments: tuple[str, ...], spec: str) -> Any:
            options = parse_options(arguments, spec)
            if argument is None:
                return tuple(letter for letter, _ in options)
            for letter, value in options:
                if letter == argument:
                    return value or ""
            return None

        return getopt
    functions: dict[str, Transformer] = {
        "tolower": _each(_ascii_lower),
        "toupper": _each(_ascii_upper),
        "b64": _each(_b64),
        "basename": _each(_basename),
        "len": _length,
        "concat": _concat,
        "join": _join,
        "val": lambda value: value,
    }
    return functions[name]
