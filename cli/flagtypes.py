"""Values of flags: durations, sizes, addresses and numbers in the spelling Prometheus uses."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from ingest.config.address import parse_address
from ingest.config.durations import ByteSize, Duration
from tsdb.regex import InvalidRegexError, compile_regex

_SEGMENT_BYTES_MIN, _SEGMENT_BYTES_MAX = 10 << 20, 256 << 20
"""What Prometheus takes."""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``1h30m``; a bare 0 is allowed. Raises ValueError."""
    return int(Duration.parse(text))


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as ``512MB``; units are powers of 1024, as in Prometheus. Raises ValueError."""
    return 0 if text == "0" else int(ByteSize.parse(text))


def _positive_duration(text: str) -> int:
    found = parse_duration_ms(text)
    if not found:
        raise ValueError("must be greater than 0")
    return found


def _segment_bytes(text: str) -> int:
    found = parse_size_bytes(text)
    if not _SEGMENT_BYTES_MIN <= found <= _SEGMENT_BYTES_MAX:
        raise ValueError("must be between 10MB and 256MB")
    return found


def _pattern(text: str) -> str:
    try:
        compile_regex(text)
    except InvalidRegexError as error:
        raise ValueError(str(error)) from None
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.path and not parts.path.startswith("/"):
        raise ValueError(f"not a URL: {text!r}")
    return text


class _TextType(click.ParamType[str]):
    """A flag type that is one of the parsers above."""

    def __init__(self, name: str, parser: Any) -> None:
        self.name = name
        self._parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text; the flag keeps its text, so that /status/flags shows what was written."""
        if value == "" and param is not None and param.default == "":
            return ""
        try:
            self._parser(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


DURATION = _TextType("duration", parse_duration_ms)
POSITIVE_DURATION = _TextType("duration", _positive_duration)
SEGMENT_SIZE = _TextType("size", _segment_bytes)
PATTERN = _TextType("regular expression", _pattern)
URL = _TextType("URL", _url)
SIZE = _TextType("size", parse_size_bytes)
ADDRESS = _TextType("address", parse_address)
