"""Values of flags: durations, sizes, addresses and numbers in the spelling Prometheus uses."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import click

_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_SIZE = re.compile(r"(\d+)(B|[KMGTPE]i?B)")
_SIZE_POWERS = {unit: power for power, unit in enumerate("BKMGTPE")}


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``1h30m``; a bare 0 is allowed. Raises ValueError."""
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise ValueError(f'not a valid duration string: "{text}"')
    units = ("y", "w", "d", "h", "m", "s", "ms")
    return sum(
        int(count) * _UNITS_MS[unit] for unit, count in zip(units, match.groups(), strict=True) if count
    )


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as ``512MB``; units are powers of 1024, as in Prometheus. Raises ValueError."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f'not a valid size: "{text}" (number and one of B, KB, MB, GB, TB, PB, EB)')
    return int(match.group(1)) << (10 * _SIZE_POWERS[match.group(2)[0]])


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
        try:
            self._parser(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


DURATION = _TextType("duration", parse_duration_ms)
SIZE = _TextType("size", parse_size_bytes)
ADDRESS = _TextType("address", parse_address)
