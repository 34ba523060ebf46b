"""Names of users and groups, from the host or from the container a process runs in.

A container has its own passwd: user 1000 is someone else there. The file is read through the root folder of a
process of the container, so it is as untrusted as the container: bounded in size and in entries, and a
symbolic link in it is never followed out of the container's root.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from agent.hostmetrics.paths import root_of_host
from agent.processes import Process

FILE_BYTES_LIMIT = 1 << 20
NAMES_LIMIT = 10_000
CONTAINERS_LIMIT = 1024
"""Containers whose names are kept; the one unused for longest goes first."""
REFRESH_NS = 60 * 1_000_000_000
HOST = ""


@dataclass(slots=True)
class _Names:
    users: dict[int, list[str]]
    groups: dict[int, list[str]]
    read_ns: int


def parse(data: bytes) -> dict[int, list[str]]:
    """Fields by number of a passwd or group file; damaged lines are left out, the first entry wins."""
    found: dict[int, list[str]] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] and fields[2].isascii() and fields[2].isdigit():
            found.setdefault(int(fields[2]), fields)
    return found


def _part(fields: list[str] | None, place: int) -> str:
    return fields[place] if fields is not None and place < len(fields) else ""


def read_inside(root: Path, name: str) -> bytes:
    """A regular file below `root`, at most `FILE_BYTES_LIMIT`; empty when it is none, too long or a link.

    Every part of `name` is opened without following links, relative to the part before.
    """
    descriptors: list[int] = []
    try:
        descriptors.append(os.open(root, os.O_PATH | os.O_DIRECTORY))
        *folders, last = name.split("/")
        for folder in folders:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
            descriptors.append(os.open(folder, flags, dir_fd=descriptors[-1]))
        # Without O_NONBLOCK a named pipe put there would hold the agent.
        descriptors.append(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptors[-1]))
        if not stat.S_ISREG(os.fstat(descriptors[-1]).st_mode):
            return b""
        with open(descriptors.pop(), "rb", buffering=0) as file:
            data = file.read(FILE_BYTES_LIMIT + 1) or b""
        return data if len(data) <= FILE_BYTES_LIMIT else b""
    except OSError:
        return b""
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def list_inside(root: Path, folder: str) -> list[str]:
    """Sorted names in a folder directly below `root`, at most `NAMES_LIMIT`; links are not followed."""
    try:
        descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        try:
            with os.scandir(inside) as entries:
                return sorted(entry.name for entry in itertools.islice(entries, NAMES_LIMIT))
        finally:
            os.close(inside)
    except OSError:
        return []


class UserNames:
    """Names by user and group number, per container. One thread uses it."""

    def __init__(self, proc: Path = Path("/proc"), root: Path | None = None) -> None:
        """`root` is where the host's files are, found out by default."""
        self._proc = proc
        self._root = root or Path(root_of_host() or "/")
        self._known: OrderedDict[str, _Names] = OrderedDict()

    def user(self, uid: int, process: Process | None, now_ns: int) -> str:
        """Name of a user as `process` sees it, empty when there is none."""
        return _part(self._names(process, now_ns).users.get(uid), 0)

    def home(self, uid: int, process: Process | None, now_ns: int) -> str:
        """Home directory of a user as `process` sees it, empty when there is none."""
        return _part(self._names(process, now_ns).users.get(uid), 5)

    def shell(self, uid: int, process: Process | None, now_ns: int) -> str:
        """Login shell of a user as `process` sees it, empty when there is none."""
        return _part(self._names(process, now_ns).users.get(uid), 6)

    def group(self, gid: int, process: Process | None, now_ns: int) -> str:
        """Name of a group as `process` sees it, empty when there is none."""
        return _part(self._names(process, now_ns).groups.get(gid), 0)

    def _names(self, process: Process | None, now_ns: int) -> _Names:
        inside = process is not None and process.container is not None
        key = process.container.id if process is not None and process.container is not None else HOST
        names = self._known.get(key)
        if names is None or now_ns - names.read_ns > REFRESH_NS:
            root = self._proc / str(process.pid) / "root" if inside and process else self._root
            users, groups = (parse(read_inside(root, name)) for name in ("etc/passwd", "etc/group"))
            if names is None or users:
                names = _Names(users, groups, now_ns)
            else:
                # The process has ended meanwhile; what was known of its container still holds.
                names.read_ns = now_ns
            self._known[key] = names
            if len(self._known) > CONTAINERS_LIMIT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return names
