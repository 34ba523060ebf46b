"""Values of flags: durations, sizes, addresses and numbers in the spelling Prometheus uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from ingest.config.durations import ByteSize, Duration


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``1h30m``; a bare 0 is allowed. Raises ValueError."""
    return int(Duration.parse(text))


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as ``512MB``; units are powers of 1024, as in Prometheus. Raises ValueError."""
    return 0 if text == "0" else int(ByteSize.parse(text))


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Host and port of ``0.0.0.0:9090``, ``:9090`` or ``[::1]:9090``. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'not a valid listen address: "{text}" (want host:port)')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'not a valid listen address: "{text}" (an IPv6 address needs brackets)')
    return Address(host or "0.0.0.0", int(port))


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
