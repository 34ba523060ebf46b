"""File descriptors of a capture, and the lists of those that were open when it began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from security.capture.blocks import SIZED, Block
from security.capture.cursor import Cursor
from security.fields.connections import Endpoint, address_text

_FILE, _FIFO, _FILE_WITH_FLAGS, _UNIX = 1, 7, 16, 8
_IPV4, _IPV6, _IPV4_SERVER, _IPV6_SERVER = 3, 4, 5, 6
_CHARACTERS = {
    _FILE: "f",
    2: "d",
    _IPV4: "4",
    _IPV6: "6",
    _IPV4_SERVER: "4",
    _IPV6_SERVER: "6",
    _FIFO: "p",
    _UNIX: "u",
    9: "e",
    10: "o",
    11: "s",
    12: "l",
    13: "i",
    14: "t",
    15: "n",
    _FILE_WITH_FLAGS: "f",
    17: "b",
    18: "r",
    19: "m",
    20: "M",
    21: "P",
}
_PROTOCOLS = {2: "tcp", 3: "udp", 4: "icmp", 5: "raw"}
CLIENT, SERVER = "client", "server"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor was at one moment; a change makes a new one.

    `client` and `server` are the ends of a connection; a socket that listens or is bound has only `server`.
    """

    character: str
    name: str = ""
    inode: int | None = None
    device: int | None = None
    open_flags: int = 0
    """`flagnames.OPEN_BITS`."""
    protocol: str | None = None
    client: Endpoint | None = None
    server: Endpoint | None = None
    role: str = ""
    """`CLIENT`, `SERVER` or empty: which of the two this end is."""
    connected: bool = False
    number: int = -1
    """The descriptor itself, -1 of a call that failed to make one."""
    raw_name: str | None = None

    @property
    def is_network(self) -> bool:
        return self.character in ("4", "6")


def connection_name(client: Endpoint | None, server: Endpoint | None) -> str:
    """Both ends as `fd.name` shows them, or the one there is."""
    if client is None or server is None:
        return str(server or client or "")
    return f"{client}->{server}"


def read_descriptors(block: Block) -> tuple[int, Iterator[tuple[int, Descriptor]]]:
    """The thread a list belongs to, and its descriptors by number."""
    cursor = Cursor(block.body, block.offset)
    tid = cursor.signed(8, "tid")
    return tid, _entries(cursor, block.type in SIZED)


def _entries(cursor: Cursor, sized: bool) -> Iterator[tuple[int, Descriptor]]:
    while cursor.left >= 4:
        yield _descriptor(cursor.sized("descriptor") if sized else cursor, sized)


def _descriptor(cursor: Cursor, sized: bool) -> tuple[int, Descriptor]:
    number = cursor.signed(8, "descriptor")
    inode = cursor.unsigned(8, "inode")
    kind = cursor.unsigned(1, "descriptor type")
    character = _CHARACTERS.get(kind)
    if character is None:
        if not sized:
            raise cursor.error(f"descriptor of unknown type {kind}")
        return number, Descriptor("o", f"unknown-type:[{kind}]", inode, number=number)
    if kind in (_IPV4, _IPV6):
        return number, _connection(cursor, character, inode, number)
    if kind in (_IPV4_SERVER, _IPV6_SERVER):
        server = Endpoint(_address(cursor, character), cursor.unsigned(2, "port"))
        protocol = _PROTOCOLS.get(cursor.unsigned(1, "protocol"))
        found = Descriptor(character, str(server), inode, protocol=protocol, server=server, role=SERVER)
    elif kind == _UNIX:
        cursor.take(16, "unix socket")
        found = Descriptor(character, cursor.text("path"), inode)
    elif kind == _FILE_WITH_FLAGS:
        flags = cursor.unsigned(4, "open flags")
        name = cursor.text("path")
        device = cursor.unsigned(4, "device") if sized and cursor.left >= 4 else None
        found = Descriptor(character, name, inode, device, flags)
    else:
        found = Descriptor(character, cursor.text("path"), inode)
    return number, replace(found, number=number)


def _connection(cursor: Cursor, character: str, inode: int, number: int) -> Descriptor:
    first, second = _address(cursor, character), _address(cursor, character)
    client = Endpoint(first, cursor.unsigned(2, "port"))
    server = Endpoint(second, cursor.unsigned(2, "port"))
    return Descriptor(
        character,
        connection_name(client, server),
        inode,
        protocol=_PROTOCOLS.get(cursor.unsigned(1, "protocol")),
        client=client,
        server=server,
        connected=True,
        number=number,
    )


def _address(cursor: Cursor, character: str) -> str:
    return address_text(cursor.take(4 if character == "4" else 16, "address"))
