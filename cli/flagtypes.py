"""Values of flags: durations, sizes, addresses and numbers in the spelling Prometheus uses."""

from __future__ import annotations

from typing import Any

import click

from ingest.config.address import parse_address
from ingest.config.durations import ByteSize, Duration


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``1h30m``; a bare 0 is allowed. Raises ValueError."""
    return int(Duration.parse(text))


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as ``512MB``; units are powers of 1024, as in Prometheus. Raises ValueError."""
    return 0 if text == "0" else int(ByteSize.parse(text))


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
SIZE = _TextType("size", parse_size_bytes)
ADDRESS = _TextType("address", parse_address)
