"""Threads of a capture, and the list of those that ran when it began.

A capture older than a member has none: numbers are then None, which is a missing value for rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from security.capture.blocks import PROCESSES, SIZED, Block
from security.capture.cursor import Cursor, texts_of
from security.fields.containerids import ContainerPath, container_of
from security.fields.flagnames import EXECUTION_BITS

UNKNOWN_NAME = "<NA>"
"""Name of a thread that the capture does not describe, as upstream shows it."""
_NO_UID = 0xFFFFFFFF
_WRITABLE, _UPPER, _MEMFD, _LOWER = (bit for _, bit in EXECUTION_BITS)


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread at one moment; a change makes a new one."""

    tid: int
    pid: int
    ptid: int
    comm: str = UNKNOWN_NAME
    exe: str = UNKNOWN_NAME
    exepath: str | None = None
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    cwd: str = ""
    root: str = ""
    cgroups: tuple[str, ...] = ()
    container: ContainerPath | None = None
    uid: int | None = None
    gid: int | None = None
    loginuid: int | None = None
    sid: int | None = None
    pgid: int | None = None
    vpgid: int | None = None
    vtid: int | None = None
    vpid: int | None = None
    tty: int | None = None
    fd_limit: int | None = None
    vm_size: int | None = None
    vm_rss: int | None = None
    vm_swap: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    cap_inheritable: int | None = None
    cap_permitted: int | None = None
    cap_effective: int | None = None
    exe_flags: int | None = None
    """`flagnames.EXECUTION_BITS`."""
    exe_inode: int | None = None
    exe_ctime_ns: int | None = None
    exe_mtime_ns: int | None = None
    start_ns: int | None = None
    """Of the clone that made it; None for those that ran before."""
    namespace_start_ns: int | None = None

    @property
    def is_main(self) -> bool:
        return self.tid == self.pid

    @property
    def command_line(self) -> str:
        """Name and arguments (`proc.cmdline`)."""
        return " ".join((self.comm, *self.arguments))


def container_in(cgroups: tuple[str, ...]) -> ContainerPath | None:
    """The container of a thread from its `subsystem=path` texts."""
    for text in cgroups:
        found = container_of(text.partition("=")[2])
        if found is not None:
            return found
    return None


def read_threads(block: Block) -> Iterator[Thread]:
    """The threads of a process list, of any of its nine versions."""
    cursor = Cursor(block.body, block.offset)
    version = PROCESSES[block.type]
    while cursor.left >= 4:
        yield _thread(cursor.sized("thread") if block.type in SIZED else cursor, version)


def _thread(cursor: Cursor, version: int) -> Thread:
    members: dict[str, Any] = {
        "tid": cursor.signed(8, "tid"),
        "pid": cursor.signed(8, "pid"),
        "ptid": cursor.signed(8, "ptid"),
    }
    if version >= 6:
        members["sid"] = cursor.signed(8, "sid")
    if version >= 8:
        members["vpgid"] = cursor.signed(8, "vpgid")
    members["comm"] = cursor.text("comm")
    members["exe"] = cursor.text("exe")
    if version >= 7:
        members["exepath"] = cursor.text("exepath") or None
    members["arguments"] = texts_of(cursor.counted("args"))
    members["cwd"] = cursor.text("cwd")
    members["fd_limit"] = cursor.signed(8, "fdlimit")
    cursor.take(4, "flags")
    for name in ("uid", "gid"):
        number = cursor.unsigned(4, name)
        members[name] = None if number == _NO_UID else number
    if version >= 2:
        for name in ("vm_size", "vm_rss", "vm_swap"):
            members[name] = cursor.unsigned(4, name)
        for name in ("major_faults", "minor_faults"):
            members[name] = cursor.unsigned(8, name)
    if version >= 3:
        members["environment"] = texts_of(cursor.counted("env"))
    if version >= 4:
        members["vtid"], members["vpid"] = cursor.signed(8, "vtid"), cursor.signed(8, "vpid")
        members["cgroups"] = cgroups = texts_of(cursor.counted("cgroups"))
        members["container"] = container_in(cgroups)
    if version >= 5:
        members["root"] = cursor.text("root")
    if version >= 9:
        members.update(_late_members(cursor))
    return Thread(**members)


_EARLY_LATE_BYTES = 29
"""What follows in captures of libs before 0.10: no start of the namespace and no terminal before the rest."""


def _late_members(cursor: Cursor) -> dict[str, Any]:
    """Members that were appended over time: the size of the entry says which are there."""
    members: dict[str, Any] = {}
    flags = 0

    def number(name: str, width: int, signed: bool = False) -> int | None:
        if cursor.left < width:
            return None
        return cursor.signed(width, name) if signed else cursor.unsigned(width, name)

    if cursor.left > _EARLY_LATE_BYTES:
        members["namespace_start_ns"] = number("pidns_init_start_ts", 8) or None
        members["tty"] = number("tty", 4)
    members["loginuid"] = number("loginuid", 4, signed=True)
    has_flags = cursor.left > 0
    flags |= _WRITABLE if number("exe_writable", 1) else 0
    for name in ("cap_inheritable", "cap_permitted", "cap_effective"):
        members[name] = number(name, 8)
    flags |= _UPPER if number("exe_upper_layer", 1) else 0
    for name in ("exe_inode", "exe_ctime_ns", "exe_mtime_ns"):
        members[name] = number(name, 8)
    flags |= _MEMFD if number("exe_from_memfd", 1) else 0
    flags |= _LOWER if number("exe_lower_layer", 1) else 0
    if has_flags:
        members["exe_flags"] = flags
    members["pgid"] = number("pgid", 8, signed=True)
    return members
