"""What a file descriptor was at the moment of the event: type, name, addresses.

The kernel program looks descriptors up itself, so there is no table to keep: `Descriptor` is read from one
record. Type characters and names are those security rules compare (fd.typechar, fd.name).
"""

from __future__ import annotations

import ipaddress
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Any

from agent.probe.layout import ADDRESS, DESCRIPTOR_STRUCT, FD, FD_PATH, SOCKET, TUPLE_STRUCT
from agent.probe.ringbuffer import Batch, names_to_path

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
_ANONYMOUS = {
    "[eventfd]": "e",
    "[signalfd]": "s",
    "[eventpoll]": "l",
    "inotify": "i",
    "[timerfd]": "t",
    "[userfaultfd]": "r",
    "[io_uring]": "m",
    "[pidfd]": "P",
}
_FAMILY_CHARACTERS = {socket.AF_INET: "4", socket.AF_INET6: "6", socket.AF_UNIX: "u", socket.AF_NETLINK: "n"}
EPHEMERAL_PORT = 32_768
"""Ports from here on are handed out to clients by default."""
_ACCEPTS = frozenset({"accept", "accept4"})
_OWN_ADDRESS = _ACCEPTS | {"bind"}
"""Calls whose address is not that of the other end."""
_RECEIVES = frozenset({"recvfrom", "recvmsg"})
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address in text form and port; both empty for a socket that is not bound or connected."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor as the kernel saw it."""

    type_character: str
    name: str
    inode: int
    device: int
    """In user space's encoding, as `os.stat` gives it."""
    layer: int
    """1 in the upper layer of an overlay, 2 in a lower one, 0 elsewhere."""
    local: Endpoint | None = None
    remote: Endpoint | None = None
    protocol: str = ""
    queue: tuple[int, int] = (0, 0)
    """Connections that wait to be accepted, and their limit."""

    @property
    def type(self) -> str:
        return TYPE_NAMES[self.type_character]


def descriptor(batch: Batch, row: int, call: str = "") -> Descriptor | None:
    """The descriptor of a record, None when it has none. The call tells which end is the client."""
    data = batch.field(row, FD)
    if data is None or len(data) != DESCRIPTOR_STRUCT.itemsize:
        return None
    info = dict(zip(DESCRIPTOR_STRUCT.names or (), struct.unpack("<Q8I", data), strict=True))
    names = batch.field(row, FD_PATH) or b""
    path = names_to_path(names)
    device = _user_device(info["device"])
    sock = batch.field(row, SOCKET)
    if sock is not None and len(sock) == TUPLE_STRUCT.itemsize:
        return _socket(sock, batch.field(row, ADDRESS), info["inode"], device, call)
    if info["pseudo"]:
        path = path.removeprefix("/")
    character = _character(path, info)
    return Descriptor(character, path, info["inode"], device, info["upper"])


def _user_device(device: int) -> int:
    """The kernel keeps 20 bits of minor below 12 of major; programs see them interleaved."""
    major, minor = device >> 20, device & 0xFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _character(path: str, info: dict[str, Any]) -> str:
    kind = stat.S_IFMT(info["mode"])
    if info["pseudo"]:
        if path.startswith("memfd:"):
            return "M"
        if path.startswith("bpf"):
            return "b"
        if path in _ANONYMOUS:
            return _ANONYMOUS[path]
    if kind == stat.S_IFDIR:
        return "d"
    if kind == stat.S_IFIFO:
        return "p"
    return "f" if kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK) else "o"


def _socket(data: bytes, address: bytes | None, inode: int, device: int, call: str) -> Descriptor:
    family, kind, protocol, _, local_port, remote_port, queue, limit, _ = struct.unpack("<6H3I", data[:24])
    character = _FAMILY_CHARACTERS.get(family, "o")
    text = "raw" if kind == socket.SOCK_RAW else _PROTOCOLS.get(protocol, "")
    if character not in ("4", "6"):
        path = unix_path(address) if family == socket.AF_UNIX else ""
        return Descriptor(character, path, inode, device, 0, protocol=text, queue=(queue, limit))
    width = 4 if character == "4" else 16
    local = Endpoint(address_text(data[24 : 24 + width]), local_port)
    remote = Endpoint(address_text(data[40 : 40 + width]), remote_port)
    named = endpoint(address)
    if not remote.port and named is not None and call not in _OWN_ADDRESS:
        # A failed connect, or a datagram socket that is not connected: only the call knows the other end.
        remote = named
    if not remote.port:
        name = str(local) if local.port else ""
    else:
        server = is_server(call, local.port, remote.port)
        name = f"{remote}->{local}" if server else f"{local}->{remote}"
    return Descriptor(character, name, inode, device, 0, local, remote, text, (queue, limit))


def is_server(call: str, local_port: int, remote_port: int) -> bool:
    """Whether this end is the server: by the call, or a guess by ports, or by the direction of the data."""
    if call in _ACCEPTS or call == "connect":
        return call in _ACCEPTS
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
