"""What a capture says about its host: machine, own addresses, users and groups."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from security.capture.blocks import SIZED, Block
from security.capture.cursor import Cursor, text_of

HOSTNAME_BYTES = 128
ENTRIES_LIMIT = 65_536
"""Interfaces, users and groups, of each."""
_ARCHITECTURES = {1: "i386", 2: "x86_64", 3: "aarch64"}
_IPV4, _IPV6, _IPV4_PLAIN, _IPV6_PLAIN = 1, 2, 3, 4
"""Interfaces with the speed of their link, and without."""
_USER = 0


@dataclass(frozen=True, slots=True)
class User:
    """One line of the user database."""

    name: str
    home: str = ""
    shell: str = ""


@dataclass(slots=True)
class Host:
    """The host of a capture. `users` and `groups` have the container's id before the number, empty for the
    host itself."""

    hostname: str = ""
    boot_ns: int = 0
    machine: str = "x86_64"
    """Captures before 2022 do not say; they are taken for x86_64."""
    addresses: set[str] = field(default_factory=set)
    users: dict[tuple[str, int], User] = field(default_factory=dict)
    groups: dict[tuple[str, int], str] = field(default_factory=dict)

    def user(self, container: str, uid: int) -> User | None:
        """The user of a number; a container whose users are not known has root at least."""
        found = self.users.get((container, uid))
        return User("root", "/root") if found is None and container and uid == 0 else found

    def group(self, container: str, gid: int) -> str | None:
        """The name of a group."""
        found = self.groups.get((container, gid))
        return "root" if found is None and container and gid == 0 else found


def read_machine(block: Block, host: Host) -> None:
    """Take over a machine block."""
    cursor = Cursor(block.body, block.offset)
    cursor.take(20, "processors, memory and highest pid")
    host.hostname = text_of(cursor.take(HOSTNAME_BYTES, "host name"))
    host.boot_ns = cursor.unsigned(8, "time of boot")
    architecture = cursor.unsigned(8, "flags") >> 56
    host.machine = _ARCHITECTURES.get(architecture, host.machine)


def read_interfaces(block: Block, host: Host) -> None:
    """Take over a block of interfaces: only their addresses matter."""
    cursor = Cursor(block.body, block.offset)
    count = 0
    while cursor.left >= 4:
        count = _counted(count, cursor, "interfaces")
        entry = cursor
        if block.type in SIZED:
            # This size does not count itself, unlike those of the other lists.
            entry = cursor.entry(cursor.unsigned(4, "interface size"), "interface")
        kind = entry.unsigned(2, "interface type")
        name_bytes = entry.unsigned(2, "interface name")
        if kind not in (_IPV4, _IPV6, _IPV4_PLAIN, _IPV6_PLAIN):
            raise entry.error(f"interface of unknown type {kind}")
        width = 4 if kind in (_IPV4, _IPV4_PLAIN) else 16
        host.addresses.add(str(ipaddress.ip_address(entry.take(width, "interface address"))))
        entry.take(2 * width, "netmask and broadcast address")
        if kind in (_IPV4, _IPV6):
            entry.take(8, "interface speed")
        entry.take(name_bytes, "interface name")


def read_users(block: Block, host: Host) -> None:
    """Take over a block of users and groups."""
    cursor = Cursor(block.body, block.offset)
    count = 0
    while cursor.left >= 4:
        count = _counted(count, cursor, "users and groups")
        entry = cursor.sized("user") if block.type in SIZED else cursor
        kind = entry.unsigned(1, "user type")
        number = entry.unsigned(4, "user id")
        if kind == _USER:
            entry.take(4, "group id")
            name, home, shell = entry.text("user name"), entry.text("home directory"), entry.text("shell")
            host.users["", number] = User(name, home, shell)
        else:
            host.groups["", number] = entry.text("group name")


def _counted(count: int, cursor: Cursor, what: str) -> int:
    if count >= ENTRIES_LIMIT:
        raise cursor.error(f"more than {ENTRIES_LIMIT} {what}")
    return count + 1
