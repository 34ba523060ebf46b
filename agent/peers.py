"""Names of the two ends of a connection: what makes it an edge between services and not between addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from agent.hostmetrics.paths import read_optional
from agent.processgroups import Group
from agent.runtimes.info import ContainerInfo
from agent.runtimes.lookup import ContainerLookup
from security.fields.connections import address_text
from security.fields.containerids import ContainerPath

INTERNET = "internet"
"""Stands for all clients with public addresses."""
LOCAL = "localhost"
"""An own address where no process is known to listen on the port."""
REFRESH_SECONDS = 60.0
_POD_SUFFIX = re.compile(r"(-[a-f0-9]{6,10})?-[a-z0-9]{5}$|-\d{1,4}$")
"""What deployments, daemon sets and stateful sets append to a pod's name."""
_LOCAL_V4 = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n[ |]+/32 host LOCAL")


class PeerNames:
    """Names processes and addresses. One thread at a time, except `listens`."""

    def __init__(
        self,
        containers: ContainerLookup,
        monotonic: Callable[[], float],
        proc: str = "/proc",
    ) -> None:
        self._containers = containers
        self._monotonic = monotonic
        self._proc = proc
        self._own: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self.listeners: dict[int, str] = {}
        """Name of who listens on a port of the host."""

    def of_group(self, group: Group) -> str:
        """A process by its pod's workload, else its container, else its group."""
        if not group.container_id:
            return group.name
        info = self._containers.info(group.container_id)
        return workload(info) if info else ContainerPath(group.container_id, "").shown_id

    def is_own(self, raw: bytes) -> bool:
        """Whether an address is the host's, or that of a container here."""
        text = address_text(raw)
        if self._monotonic() - self._read_at >= REFRESH_SECONDS:
            self._read_at = self._monotonic()
            self._own = own_addresses(self._proc)
        return text in self._own or text.startswith("127.") or self._containers.by_address(text) is not None

    def server(self, raw: bytes, port: int) -> str:
        """Who is asked at an address and port."""
        text = address_text(raw)
        info = self._containers.by_address(text)
        if info is not None:
            return workload(info)
        return self.listeners.get(port, LOCAL) if self.is_own(raw) else text

    def client(self, raw: bytes) -> str:
        """Who asks from an address that is not the host's; public ones are one client."""
        text = address_text(raw)
        return INTERNET if ipaddress.ip_address(text).is_global else text


def workload(info: ContainerInfo) -> str:
    """`namespace/name` of a pod without what its controller appends, or the container's name."""
    if info.pod_name:
        return f"{info.pod_namespace}/{_POD_SUFFIX.sub('', info.pod_name)}"
    return info.name or ContainerPath(info.id, "").shown_id


def own_addresses(proc: str = "/proc") -> frozenset[str]:
    """The addresses of the host's interfaces."""
    found = set(_LOCAL_V4.findall(read_optional(f"{proc}/net/fib_trie") or ""))
    for line in (read_optional(f"{proc}/net/if_inet6") or "").splitlines():
        found.add(str(ipaddress.IPv6Address(int(line[:32], 16))))
    return frozenset(found)
