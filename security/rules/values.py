"""Values on the right of an operator, parsed by the type of the field (security-surface.md 2.3)."""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from security.rules.eventtypes import event_names

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Value = str | int | float | bool | bytes | Address | Network

_RANGES = {
    "UINT64": (0, (1 << 64) - 1),
    "INT64": (-(1 << 63), (1 << 63) - 1),
    "UINT32": (0, (1 << 32) - 1),
    "INT32": (-(1 << 31), (1 << 31) - 1),
    "PORT": (0, 65535),
    "PID": (-(1 << 63), (1 << 63) - 1),
    "FD": (-(1 << 63), (1 << 63) - 1),
    "RELTIME": (0, (1 << 64) - 1),
    "ABSTIME": (0, (1 << 64) - 1),
    "DOUBLE": (-(1 << 63), (1 << 63) - 1),
}
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)")
_NUMBER_CHARS_LIMIT = 32


class InvalidValueError(Exception):
    """A value does not fit the type of its field, in Falco's words."""


def parse_value(kind: str, text: str, field: str, operator: str) -> Value:
    """The value of a text for a field of type `kind`. Raises InvalidValueError."""
    if operator in ("bcontains", "bstartswith"):
        try:
            return bytes.fromhex(text)
        except ValueError:
            message = "filter error: bcontains and bstartswith operator support hex strings only"
            raise InvalidValueError(message) from None
    if kind in _RANGES:
        return _number(kind, text)
    if kind == "BOOL":
        if text not in ("true", "false"):
            raise InvalidValueError(f"filter error: unrecognized boolean value {text}")
        return text == "true"
    if kind == "BYTEBUF":
        return text.encode("utf-8", "surrogateescape")
    if kind == "IPADDR":
        return parse_address(text)
    if kind == "IPNET":
        return _network(text)
    if field == "evt.type" and operator in ("=", "==", "!=", "in") and text not in event_names():
        raise InvalidValueError(f"unknown event type {text}")
    return text


def _number(kind: str, text: str) -> int:
    low, high = _RANGES[kind]
    if _NUMBER.fullmatch(text) and len(text) <= _NUMBER_CHARS_LIMIT:
        digits = text.lstrip("+-")
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        number = -number if text.startswith("-") else number
        if low <= number <= high:
            return number
    elif kind == "PORT" and text.isascii() and text.isprintable():
        port = service_port(text)
        if port is not None:
            return port
    raise InvalidValueError(f"{text} is not a valid number")


@lru_cache(maxsize=1024)
def service_port(name: str) -> int | None:
    """The port of a service name on this host, or None."""
    try:
        return socket.getservbyname(name)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def service_name(port: int) -> str | None:
    """The service name of a port on this host, or None."""
    try:
        return socket.getservbyport(port)
    except (OSError, OverflowError):
        return None


def parse_address(text: str) -> Address:
    """An address; a mapped IPv4 address becomes an IPv4 one. Raises InvalidValueError."""
    try:
        if "." in text and ":" not in text:
            return IPv4Address(text)
        address = IPv6Address(text)
    except ValueError:
        family = "IPv4" if "." in text else "IPv6"
        raise InvalidValueError(f"unrecognized {family} address {text}") from None
    return address.ipv4_mapped or address


def _network(text: str) -> Network:
    try:
        if ":" in text:
            return IPv6Network(text, strict=False)
        if "/" not in text:
            raise InvalidValueError(f"unrecognized IP network {text}")
        return IPv4Network(text, strict=False)
    except ValueError:
        raise InvalidValueError(f"unrecognized IP network {text}") from None
