"""A running process as `/proc` shows it this moment: memory, threads, descriptors, processor time.

The table of processes keeps what events tell; these numbers change without one, so they are read when a rule
asks for them. A process that has ended, or whose pid another one has by now, has none.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from agent.descriptors import named_character
from agent.procfiles import TICK_NS
from security.fields.connections import TYPE_NAMES, Endpoint, address_text, is_server

FILE_BYTES_LIMIT = 65_536
SOCKETS_BYTES_LIMIT = 4 << 20
"""Of each list of sockets; those behind it have a type `None`."""
THREADS_LIMIT = 8192
"""Threads whose processor time is remembered."""
SECOND_NS = 1_000_000_000
OLDEST_NS = 3 * SECOND_NS
_ANONYMOUS, _MEMFD, _DELETED = "anon_inode:", "/memfd:", " (deleted)"
_STAT_FIELDS = 20
_MINOR, _MAJOR, _USER, _SYSTEM, _THREADS, _START = 7, 9, 11, 12, 17, 19
"""Places in `/proc/PID/stat` behind the name."""
_LISTS = (
    *(("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6), ("udp", socket.AF_INET), ("udp6", socket.AF_INET6)),
    *(("unix", socket.AF_UNIX), ("raw", socket.AF_INET), ("raw6", socket.AF_INET6)),
    ("netlink", socket.AF_NETLINK),
)
_INODE_AT: dict[int, int] = {socket.AF_INET: 9, socket.AF_INET6: 9, socket.AF_UNIX: 6, socket.AF_NETLINK: 9}
_CHARACTERS: dict[int, str] = {
    socket.AF_INET: "4",
    socket.AF_INET6: "6",
    socket.AF_UNIX: "u",
    socket.AF_NETLINK: "n",
}


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Processor time and page faults of one thread since its start."""

    user_ns: int
    system_ns: int
    minor_faults: int
    major_faults: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """What a descriptor leads to; names of files are paths as the process's root has them."""

    type: str | None
    name: str


class ProcessNow:
    """One process; every file is read once, when it is first asked for."""

    def __init__(self, pid: int, start_ns: int, proc: Path = Path("/proc")) -> None:
        """`start_ns` is CLOCK_BOOTTIME, compared in hundredths of a second as `/proc` gives it."""
        self._folder = proc / str(pid)
        self._start_ticks = start_ns // TICK_NS

    @cached_property
    def _stat(self) -> tuple[int, ...] | None:
        numbers = _numbers(self._folder / "stat")
        return numbers if numbers is not None and numbers[_START] == self._start_ticks else None

    @cached_property
    def _status(self) -> dict[str, str]:
        if self._stat is None:
            return {}
        lines = _text(self._folder / "status", FILE_BYTES_LIMIT).splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def memory_kib(self, name: str) -> int | None:
        """`VmSize`, `VmRSS` or `VmSwap` in KiB, None for kernel threads: they have none."""
        words = self._status.get(name, "").split()
        return int(words[0]) if words and words[0].isdigit() else None

    @property
    def threads(self) -> int | None:
        """Number of threads."""
        return None if self._stat is None else self._stat[_THREADS]

    @cached_property
    def open_count(self) -> int | None:
        """Number of open descriptors."""
        if self._stat is None:
            return None
        try:
            return len(os.listdir(self._folder / "fd"))
        except OSError:
            return None

    @cached_property
    def descriptors_limit(self) -> int | None:
        """Soft limit of descriptors, -1 for none."""
        if self._stat is None:
            return None
        for line in _text(self._folder / "limits", FILE_BYTES_LIMIT).splitlines():
            if line.startswith("Max open files"):
                word = line.removeprefix("Max open files").split()[0]
                return int(word) if word.isdigit() else -1
        return None

    def thread(self, tid: int) -> ThreadTimes | None:
        """Times of one of its threads."""
        if self._stat is None:
            return None
        numbers = _numbers(self._folder / "task" / str(tid) / "stat")
        if numbers is None:
            return None
        times = (numbers[_USER] * TICK_NS, numbers[_SYSTEM] * TICK_NS)
        return ThreadTimes(*times, numbers[_MINOR], numbers[_MAJOR])

    def open_file(self, number: int) -> OpenFile | None:
        """What a descriptor leads to now, None when it is closed or may not be read."""
        if self._stat is None:
            return None
        path = self._folder / "fd" / str(number)
        try:
            link = os.fsencode(os.readlink(path)).decode("utf-8", "surrogateescape")
            if link.startswith("socket:["):
                return self._socket(link.removeprefix("socket:[").removesuffix("]"))
            mode = os.stat(path).st_mode
        except OSError:
            return None
        pseudo = link.startswith((_ANONYMOUS, _MEMFD))
        shown = link.removeprefix(_ANONYMOUS)
        if pseudo:
            shown = shown.removeprefix("/").removesuffix(_DELETED)
        return OpenFile(TYPE_NAMES[named_character(shown, mode, pseudo)], shown)

    def _socket(self, inode: str) -> OpenFile:
        for name, family in _LISTS:
            text = _text(self._folder / "net" / name, SOCKETS_BYTES_LIMIT)
            if inode not in text:
                continue
            for line in text.splitlines()[1:]:
                words = line.split()
                at = _INODE_AT[family]
                if len(words) > at and words[at] == inode:
                    return _described(family, words)
        return OpenFile(None, f"socket:[{inode}]")


class ThreadUse:
    """Processor use of threads between two looks at them that are one to three seconds apart. One thread."""

    def __init__(self, limit: int = THREADS_LIMIT) -> None:
        self._limit = limit
        self._looks: OrderedDict[Hashable, tuple[tuple[int, ThreadTimes] | None, tuple[int, ThreadTimes]]] = (
            OrderedDict()
        )

    def of(self, key: Hashable, now_ns: int, times: ThreadTimes) -> tuple[float, float] | None:
        """Percent of a core in user and in kernel mode; None at the first look and after a long pause."""
        base, last = self._looks.pop(key, (None, (now_ns, times)))
        if now_ns - last[0] >= SECOND_NS:
            base, last = last, (now_ns, times)
        self._looks[key] = base, last
        if len(self._looks) > self._limit:
            self._looks.popitem(last=False)
        if base is None or not SECOND_NS <= now_ns - base[0] <= OLDEST_NS:
            return None
        spent = (times.user_ns - base[1].user_ns, times.system_ns - base[1].system_ns)
        return 100 * spent[0] / (now_ns - base[0]), 100 * spent[1] / (now_ns - base[0])


def _described(family: int, words: list[str]) -> OpenFile:
    character = _CHARACTERS[family]
    if family == socket.AF_UNIX:
        return OpenFile(TYPE_NAMES[character], words[7] if len(words) > 7 else "")
    if family == socket.AF_NETLINK:
        return OpenFile(TYPE_NAMES[character], "")
    local, remote = _endpoint(words[1]), _endpoint(words[2])
    if character == "6" and "." in local.address + remote.address:
        character = "4"
    if not remote.port:
        return OpenFile(TYPE_NAMES[character], str(local) if local.port else "")
    ends = (remote, local) if is_server("", local.port, remote.port) else (local, remote)
    return OpenFile(TYPE_NAMES[character], f"{ends[0]}->{ends[1]}")


def _endpoint(text: str) -> Endpoint:
    """`0100007F:1F90`: words of the address in the machine's order, the port in hexadecimal."""
    address, _, port = text.partition(":")
    raw = bytes.fromhex(address)
    words = (raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return Endpoint(address_text(b"".join(words)), int(port, 16))


def _numbers(path: Path) -> tuple[int, ...] | None:
    fields = _text(path, FILE_BYTES_LIMIT).rpartition(")")[2].split()
    if len(fields) < _STAT_FIELDS:
        return None
    return (0, *(int(word) for word in fields[1:_STAT_FIELDS]))


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
