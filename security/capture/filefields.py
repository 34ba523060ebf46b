"""Values of `fd.*` from the descriptor of an event."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from security.capture.descriptors import CLIENT, SERVER, Descriptor
from security.capture.host import Host
from security.fields.connections import TYPE_NAMES, Endpoint, service_name

Extract = Callable[[Descriptor, Host], Any]
_UPPER_LAYER, _LOWER_LAYER = 1 << 15, 1 << 16
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _directory(found: Descriptor, _: Host) -> str | None:
    if not found.name.startswith("/"):
        return None
    return found.name if found.character == "d" else posixpath.dirname(found.name)


def _filename(found: Descriptor, _: Host) -> str | None:
    return posixpath.basename(found.name) if found.name.startswith("/") else None


def _family(found: Descriptor, _: Host) -> str | None:
    if found.is_network:
        return "ip"
    return "unix" if found.character == "u" else None


def _client(found: Descriptor, _: Host) -> Endpoint | None:
    return found.client


def _server(found: Descriptor, _: Host) -> Endpoint | None:
    return found.server


def _local(found: Descriptor, host: Host) -> Endpoint | None:
    """The end on this host: by the role, or by the host's own addresses."""
    if found.role:
        return found.client if found.role == CLIENT else found.server
    if found.client is not None and found.client.address in host.addresses:
        return found.client
    if found.server is not None and found.server.address in host.addresses:
        return found.server
    return None


def _remote(found: Descriptor, host: Host) -> Endpoint | None:
    local = _local(found, host)
    if local is None:
        return None
    return found.server if local is found.client else found.client


End = Callable[[Descriptor, Host], Endpoint | None]


@lru_cache(maxsize=65_536)
def _parsed(text: str) -> Address:
    return ipaddress.ip_address(text)


def _address_of(end: End) -> Extract:
    def extract(found: Descriptor, host: Host) -> Address | None:
        place = end(found, host)
        return None if place is None else _parsed(place.address)

    return extract


def _port_of(end: End) -> Extract:
    def extract(found: Descriptor, host: Host) -> int | None:
        place = end(found, host)
        return None if place is None else place.port

    return extract


def _service_of(end: End) -> Extract:
    def extract(found: Descriptor, host: Host) -> str | None:
        place = end(found, host)
        return None if place is None else service_name(place.port, found.protocol or "tcp")

    return extract


def _both(of: Callable[[End], Extract]) -> Extract:
    """Both ends; the one there is of a listening socket."""

    def extract(found: Descriptor, host: Host) -> tuple[Any, ...] | None:
        values = tuple(of(end)(found, host) for end in (_client, _server))
        return tuple(value for value in values if value is not None) or None

    return extract


def _device(shift: Callable[[int], int]) -> Extract:
    return lambda found, _: None if found.device is None else shift(found.device)


def _layer(bit: int) -> Extract:
    return lambda found, _: bool(found.open_flags & bit)


_ENDS: dict[str, End] = {"c": _client, "s": _server, "l": _local, "r": _remote}

DESCRIPTOR_FIELDS: dict[str, Extract] = {
    # Of a call that made no descriptor there is a name and a character only.
    "fd.type": lambda found, _: TYPE_NAMES[found.character] if found.number >= 0 else None,
    "fd.typechar": lambda found, _: found.character,
    "fd.name": lambda found, _: found.name,
    "fd.nameraw": lambda found, _: found.raw_name or found.name,
    "fd.directory": _directory,
    "fd.filename": _filename,
    "fd.dev": lambda found, _: found.device,
    "fd.dev.major": _device(lambda device: device >> 8 & 0xFFF),
    "fd.dev.minor": _device(lambda device: device & 0xFF | device >> 12 & 0xFFF00),
    "fd.ino": lambda found, _: found.inode if found.number >= 0 else None,
    "fd.is_upper_layer": _layer(_UPPER_LAYER),
    "fd.is_lower_layer": _layer(_LOWER_LAYER),
    "fd.l4proto": lambda found, _: found.protocol if found.is_network else None,
    "fd.sockfamily": _family,
    "fd.is_server": lambda found, _: found.role == SERVER if found.is_network else None,
    "fd.connected": lambda found, _: found.connected if found.is_network else None,
    **{f"fd.{letter}ip": _address_of(end) for letter, end in _ENDS.items()},
    **{f"fd.{letter}net": _address_of(end) for letter, end in _ENDS.items()},
    **{f"fd.{letter}port": _port_of(end) for letter, end in _ENDS.items()},
    **{f"fd.{letter}proto": _service_of(end) for letter, end in _ENDS.items()},
    **dict.fromkeys(("fd.ip", "fd.net"), _both(_address_of)),
    "fd.port": _both(_port_of),
    "fd.proto": _both(_service_of),
}
"""By field: the value for a descriptor, None where it is missing."""
