"""What a file descriptor was at the moment of the event: type, name, addresses.

The kernel program looks descriptors up itself, so there is no table to keep: `Descriptor` is read from one
record. Type characters and names are those security rules compare (fd.typechar, fd.name).
"""

from __future__ import annotations

import socket
import stat
import struct
from dataclasses import dataclass

from agent.probe.layout import ADDRESS, DESCRIPTOR_STRUCT, FD, FD_PATH, FILE_CREATED, SOCKET, TUPLE_STRUCT
from agent.probe.ringbuffer import Batch, names_to_path
from security.fields.connections import (
    ACCEPTS,
    TYPE_NAMES,
    Endpoint,
    address_text,
    endpoint,
    is_server,
    unix_path,
)

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
_OWN_ADDRESS = ACCEPTS | {"bind"}
"""Calls whose address is not that of the other end."""
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


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
    created: bool = False
    """Whether the open of this descriptor made the file."""

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
    character = named_character(path, info["mode"], bool(info["pseudo"]))
    created = bool(info["open_mode"] & FILE_CREATED)
    return Descriptor(character, path, info["inode"], device, info["upper"], created=created)


def _is_mapped(local: str, remote: str) -> bool:
    """Whether an IPv6 socket carries IPv4: addresses that are mapped are already written as IPv4."""
    ends = [address for address in (local, remote) if address != "::"]
    return bool(ends) and all("." in address for address in ends)


def _user_device(device: int) -> int:
    """The kernel keeps 20 bits of minor below 12 of major; programs see them interleaved."""
    major, minor = device >> 20, device & 0xFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def named_character(path: str, mode: int, pseudo: bool) -> str:
    """The type of a descriptor that is no socket; `pseudo` says that its path is only a name."""
    if pseudo:
        if path.startswith("memfd:"):
            return "M"
        if path.startswith("bpf"):
            return "b"
        if path in _ANONYMOUS:
            return _ANONYMOUS[path]
    return kind_character(mode)


def kind_character(mode: int) -> str:
    """The type of an inode that has a path, by its mode."""
    kind = stat.S_IFMT(mode)
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
    if character == "6" and _is_mapped(local.address, remote.address):
        character = "4"
    if not remote.port:
        name = str(local) if local.port else ""
    else:
        server = is_server(call, local.port, remote.port)
        name = f"{remote}->{local}" if server else f"{local}->{remote}"
    return Descriptor(character, name, inode, device, 0, local, remote, text, (queue, limit))
