"""Slow twin of the columns of system calls: one event at a time, in plain Python.

The table takes a batch of one record, so that there is no question what a process was at the moment of it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from agent.containers import UserNames
from agent.descriptors import Descriptor
from agent.events import Events
from agent.probe.layout import ACTIONS, CALL_LIMIT, RESULT
from agent.processes import Process, ProcessTable
from security.fields.connections import is_server
from security.fields.flagnames import capability_names

_NAMES = UserNames()
_OPENS = ("open", "openat", "openat2", "creat")


class Event:
    """One event and its process."""

    def __init__(self, events: Events, table: ProcessTable) -> None:
        self.header = events.batch.header[0]
        self.type = events.type(0)
        self.is_call = int(events.codes[0]) < CALL_LIMIT
        self.result = int(self.header["result"])
        self.process = table.of_record(self.header)
        now_ns = int(self.header["time_ns"])
        self.events = replace(events, user_name=lambda uid, row: _NAMES.user(uid, self.process, now_ns))
        parent = table.get(int(self.header["ppid"]), int(self.header["parent_start_ns"]))
        self.line = [] if parent is None else [parent, *table.ancestors(parent)]

    @property
    def descriptor(self) -> Descriptor | None:
        if ACTIONS.get(self.type) and ACTIONS[self.type].fd == RESULT and self.result < 0:
            return None
        return self.events.descriptor(0)

    @property
    def name(self) -> str | None:
        path = self.events.path(0, 1) if self.type in _OPENS else None
        if path is not None:
            return path
        found = self.events.descriptor(0) if self.type in _OPENS else self.descriptor
        return None if found is None else found.name

    @property
    def character(self) -> str | None:
        found = self.descriptor
        if found is None:
            return "f" if self.type in _OPENS else None
        return found.type_character

    def ends(self) -> tuple[Any, Any]:
        """Local and remote end of an IP socket, None where there is none."""
        found = self.descriptor
        if found is None or found.local is None or found.remote is None:
            return None, None
        remote = found.remote if found.remote.port else None
        return (found.local if found.local.port or remote else None), remote

    def sides(self) -> tuple[Any, Any]:
        """Client and server end."""
        local, remote = self.ends()
        if remote is None:
            return None, local
        server = is_server(self.type, local.port, remote.port)
        return (remote, local) if server else (local, remote)

    def argument(self, name: str) -> str | None:
        found = self.events.parameter(0, name)
        return None if found is None else found.text

    def open_access(self, bits: tuple[int, ...]) -> bool:
        if self.type not in ("open", "openat", "openat2"):
            return False
        if self.type == "openat2":
            flags = int.from_bytes((self.events.batch.field(0, 15) or bytes(8))[:8], "little")
        else:
            flags = int(self.header["args"][2 if self.type == "openat" else 1])
        return flags & os.O_ACCMODE in bits


def _address(end: Any) -> Any:
    return None if end is None else ipaddress.ip_address(end.address)


def _port(end: Any) -> int | None:
    return None if end is None else int(end.port)


def _both(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return tuple(value for value in values if value is not None) or None


def _directory(event: Event) -> str | None:
    if event.character not in ("f", "d") or event.name is None:
        return None
    if event.character == "d":
        return event.name
    return posixpath.dirname(event.name) if "/" in event.name else "/"


def _complete(process: Process | None, value: Callable[[Process], Any]) -> Any:
    return value(process) if process is not None and process.complete else None


def _argument(name: str) -> Callable[[Event], str | None]:
    return lambda event: event.argument(name)


def _nth(event: Event, place: int) -> Process | None:
    return event.line[place] if place < len(event.line) else None


FIELDS: dict[tuple[str, str | None], Callable[[Event], Any]] = {
    ("evt.type", None): lambda e: e.type,
    ("evt.res", None): lambda e: (
        None if not e.is_call else errno.errorcode[-e.result] if e.result < 0 else "SUCCESS"
    ),
    ("evt.rawres", None): lambda e: e.result if e.is_call else None,
    ("evt.is_open_read", None): lambda e: e.open_access((os.O_RDONLY, os.O_RDWR)),
    ("evt.is_open_write", None): lambda e: e.open_access((os.O_WRONLY, os.O_RDWR)),
    ("evt.args", None): lambda e: e.events.arguments(0),
    **{
        ("evt.arg", name): _argument(name)
        for name in (
            *("flags", "mode", "name", "path", "oldpath", "newpath", "filename", "domain", "fd"),
            *("target", "linkpath", "res", "tuple", "addr", "size", "dirfd", "exe", "request"),
        )
    },
    ("fd.name", None): lambda e: e.name,
    ("fd.typechar", None): lambda e: e.character,
    ("fd.directory", None): _directory,
    ("fd.filename", None): lambda e: (
        None if e.character != "f" or e.name is None else posixpath.basename(e.name)
    ),
    ("fd.l4proto", None): lambda e: None if e.descriptor is None else e.descriptor.protocol or "<NA>",
    ("fd.ino", None): lambda e: None if e.descriptor is None else e.descriptor.inode,
    ("fd.cip", None): lambda e: _address(e.sides()[0]),
    ("fd.sip", None): lambda e: _address(e.sides()[1]),
    ("fd.snet", None): lambda e: _address(e.sides()[1]),
    ("fd.lip", None): lambda e: _address(e.ends()[0]),
    ("fd.rip", None): lambda e: _address(e.ends()[1]),
    ("fd.cport", None): lambda e: _port(e.sides()[0]),
    ("fd.sport", None): lambda e: _port(e.sides()[1]),
    ("fd.lport", None): lambda e: _port(e.ends()[0]),
    ("fd.rport", None): lambda e: _port(e.ends()[1]),
    ("fd.ip", None): lambda e: _both(tuple(map(_address, e.ends()))),
    ("fd.net", None): lambda e: _both(tuple(map(_address, e.ends()))),
    ("fd.port", None): lambda e: _both(tuple(map(_port, e.ends()))),
    ("proc.name", None): lambda e: e.process.comm,
    ("proc.pid", None): lambda e: int(e.header["pid"]),
    ("proc.exe", None): lambda e: _complete(e.process, lambda p: p.exe),
    ("proc.exepath", None): lambda e: _complete(e.process, lambda p: p.exe_path),
    ("proc.cmdline", None): lambda e: _complete(e.process, lambda p: p.command_line),
    ("proc.args", None): lambda e: _complete(e.process, lambda p: " ".join(p.argument_list[1:])),
    ("proc.cwd", None): lambda e: e.process.cwd.rstrip("/") + "/" if e.process.cwd else None,
    ("proc.tty", None): lambda e: e.process.tty,
    ("proc.is_exe_from_memfd", None): lambda e: bool(e.process.exe_flags & 4),
    ("thread.cap_effective", None): lambda e: capability_names(e.process.capabilities[2]),
    ("proc.pname", None): lambda e: None if not e.line else e.line[0].comm,
    ("proc.pcmdline", None): lambda e: _complete(_nth(e, 0), lambda p: p.command_line),
    ("proc.aname", "2"): lambda e: None if _nth(e, 1) is None else e.line[1].comm,
    ("proc.aname", "3"): lambda e: None if _nth(e, 2) is None else e.line[2].comm,
    ("proc.aname", None): lambda e: tuple(p.comm for p in e.line) or None,
    ("user.uid", None): lambda e: int(e.header["uid"]),
    ("container.id", None): lambda e: e.process.container.shown_id if e.process.container else "host",
}


def rows(batches: list[Events], table: ProcessTable) -> Iterator[dict[tuple[str, str | None], Any]]:
    """All fields of all events, in order; the table is changed."""
    for events in batches:
        for row in range(len(events)):
            one = Events(events.batch.select(np.array([row])), events.machine, events.boot_unix_ns)
            table.apply(one)
            event = Event(one, table)
            yield {key: make(event) for key, make in FIELDS.items()}
