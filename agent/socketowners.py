"""Open TCP sockets of the host and its containers, and the process group that each belongs to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

from agent import sockdiag
from agent.processgroups import Group
from agent.processscan import ProcessScan
from agent.sockdiag import TcpSocket

NAMESPACES_LIMIT = 64
"""Network namespaces whose sockets are listed."""
DESCRIPTORS_LIMIT = 200_000
"""Descriptors that one search for the owners of sockets looks at."""
SEARCH_SECONDS = 30.0
"""Shortest time between two such searches."""

_NOBODY: tuple[Group | None, int] = (None, 0)


class OwnedSocket(NamedTuple):
    """A socket; `namespace` is empty for the host's own. `group` is None and `pid` 0 without a process."""

    namespace: str
    tcp: TcpSocket
    group: Group | None
    pid: int


class SocketOwners:
    """Lists sockets of the processes that `scan` found last. One thread at a time."""

    def __init__(self, scan: ProcessScan, proc: str = "/proc") -> None:
        self._scan = scan
        self._proc = proc
        self._diags: dict[str, socket.socket] = {}
        self._owners: dict[int, tuple[Group | None, int]] = {}
        self._searched_at = float("-inf")
        self.errors: dict[str, str] = {}

    def sockets(self, now_seconds: float) -> list[OwnedSocket]:
        """All sockets now. What could not be asked is in `errors`."""
        self.errors = {}
        found = list(self._all())
        self._find_owners({tcp.inode for _, tcp in found if tcp.inode}, now_seconds)
        return [
            OwnedSocket(namespace, tcp, *self._owners.get(tcp.inode, _NOBODY)) for namespace, tcp in found
        ]

    def close(self) -> None:
        """Give the namespaces free."""
        while self._diags:
            self._diags.popitem()[1].close()

    def _all(self) -> Iterator[tuple[str, TcpSocket]]:
        namespaces = self._namespaces()
        for gone in self._diags.keys() - namespaces.keys():
            # An open socket would keep a namespace alive whose processes have ended.
            self._diags.pop(gone).close()
        for namespace, path in namespaces.items():
            try:
                if namespace not in self._diags:
                    self._diags[namespace] = sockdiag.open_diag(path)
                yield from ((namespace, tcp) for tcp in sockdiag.tcp_sockets(self._diags[namespace]))
            except OSError as error:
                self.errors[f"sockets of {path or 'the host'}"] = str(error)
                if namespace in self._diags:
                    self._diags.pop(namespace).close()

    def _namespaces(self) -> dict[str, str]:
        """Path of each namespace by its name, which is empty for our own."""
        own = self._namespace("self")
        found = {"": ""}
        for process in self._scan.processes:
            if len(found) >= NAMESPACES_LIMIT:
                break
            name = self._namespace(str(process.pid)) if process.group.container_id else ""
            if name and name != own:
                found.setdefault(name, f"{self._proc}/{process.pid}/ns/net")
        return found

    def _namespace(self, pid: str) -> str:
        try:
            return os.readlink(f"{self._proc}/{pid}/ns/net")
        except OSError:
            return ""

    def _find_owners(self, inodes: set[int], now_seconds: float) -> None:
        """Look for the processes of sockets that are not known yet, not more often than it is worth."""
        self._owners = {inode: owner for inode, owner in self._owners.items() if inode in inodes}
        if now_seconds - self._searched_at < SEARCH_SECONDS or inodes <= self._owners.keys():
            return
        self._searched_at = now_seconds
        left = DESCRIPTORS_LIMIT
        for process in self._scan.processes:
            folder = f"{self._proc}/{process.pid}/fd"
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            left -= len(names)
            if left < 0:
                self.errors["socket owners"] = f"more than {DESCRIPTORS_LIMIT} descriptors"
                return
            for inode in inodes & _socket_inodes(folder, names):
                self._owners.setdefault(inode, (process.group, process.pid))


def _socket_inodes(folder: str, names: list[str]) -> set[int]:
    found = set()
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found
