"""Ends of connections and types of descriptors, as the fields `fd.*` show them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import lru_cache

TYPE_NAMES = {
    "f": "file",
    "d": "directory",
    "4": "ipv4",
    "6": "ipv6",
    "u": "unix",
    "p": "pipe",
    "e": "event",
    "s": "signalfd",
    "l": "eventpoll",
    "i": "inotify",
    "t": "timerfd",
    "n": "netlink",
    "b": "bpf",
    "r": "userfaultfd",
    "m": "io_uring",
    "P": "pidfd",
    "M": "memfd",
    "o": "other",
}
EPHEMERAL_PORT = 32_768
"""Ports from here on are handed out to clients by default."""
ACCEPTS = frozenset({"accept", "accept4"})
_RECEIVES = frozenset({"recvfrom", "recvmsg"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address in text form and port; both empty for a socket that is not bound or connected."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def is_server(call: str, local_port: int, remote_port: int) -> bool:
    """Whether this end is the server: by the call, or a guess by ports, or by the direction of the data."""
    if call in ACCEPTS or call == "connect":
        return call in ACCEPTS
    if (local_port < EPHEMERAL_PORT) != (remote_port < EPHEMERAL_PORT):
        return local_port < EPHEMERAL_PORT
    return call in _RECEIVES


def address_text(raw: bytes) -> str:
    """Four or sixteen bytes as text; an IPv4 address mapped into IPv6 becomes IPv4."""
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def endpoint(raw: bytes | None) -> Endpoint | None:
    """Address and port of a struct sockaddr, None for other families and cut ones."""
    if raw is None or len(raw) < 8:
        return None
    family = int.from_bytes(raw[:2], "little")
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return Endpoint(address_text(raw[4:8]), port)
    if family == socket.AF_INET6 and len(raw) >= 24:
        return Endpoint(address_text(raw[8:24]), port)
    return None


def unix_path(raw: bytes | None) -> str:
    """Path of a struct sockaddr_un; an abstract name starts with `@`."""
    if raw is None or len(raw) < 3 or int.from_bytes(raw[:2], "little") != socket.AF_UNIX:
        return ""
    if raw[2] == 0:
        return "@" + raw[3:].decode("utf-8", "replace")
    return raw[2:].split(b"\0", 1)[0].decode("utf-8", "replace")


@lru_cache(maxsize=65_536)
def service_name(port: int, protocol: str) -> str:
    """The service of a port on this host, the port itself where it has none."""
    try:
        return socket.getservbyport(port, protocol if protocol in ("tcp", "udp") else "tcp")
    except OSError:
        return str(port)
