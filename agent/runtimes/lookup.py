"""Containers by id, asked for without waiting and filled in by a thread."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.containermetrics import ContainerNames
from agent.hostmetrics.paths import root_of_host
from agent.runtimes.info import ContainerInfo

CONTAINERS_LIMIT = 4096
"""Containers whose records are kept; the one unused for longest goes first."""
WAITING_LIMIT = 1024
"""Look-ups that wait for the thread; more are asked for again later."""
FRESH_SECONDS = 60.0
"""Age from which on a record that is asked for is looked up again: names and addresses change."""
STOP_SECONDS = 10.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits after a look-up that found nothing, the last one from then on: the runtime may be late."""

SOCKETS = (
    ("docker", "/run/docker.sock"),
    ("podman", "/run/podman/podman.sock"),
)
"""Engines that answer over HTTP, asked in this order, then the next."""
CRI_SOCKETS = (
    ("containerd", "/run/containerd/containerd.sock"),
    ("cri-o", "/run/crio/crio.sock"),
    ("containerd", "/run/k3s/containerd/containerd.sock"),
    ("containerd", "/run/k0s/containerd.sock"),
    ("containerd", "/var/snap/microk8s/common/run/containerd.sock"),
)
"""Runtimes that answer by gRPC; the files on disk come last."""

_log = logging.getLogger("vedette.agent")


class RuntimeSource(Protocol):
    """One place that knows containers. Called by the look-up thread only; may wait, within limits."""

    @property
    def name(self) -> str:
        """Value of the label `source` of the failure counter."""
        ...

    def find(self, container_id: str) -> ContainerInfo | None:
        """The container of that whole id, None when it is not known here.

        Raises OSError or ValueError when the source could not be asked.
        """
        ...


@dataclass(slots=True)
class _Entry:
    info: ContainerInfo | None = None
    due: float = 0.0
    attempts: int = 0
    waiting: bool = False


class ContainerLookup:
    """Records of containers. `info` and `names_of` may be called by any thread and never wait.

    The first call for an id gives None and asks a thread, which goes through the sources in order.
    """

    def __init__(
        self,
        sources: Sequence[RuntimeSource],
        registry: CollectorRegistry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = tuple(sources)
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._addresses: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING_LIMIT)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported: dict[str, str] = {}
        self._lookups = Counter(
            "vedette_agent_container_lookups",
            "Look-ups of a container at the runtimes, by result.",
            ("result",),
            registry=registry,
        )
        self._failures = Counter(
            "vedette_agent_container_lookup_failures",
            "Runtimes that could not be asked about a container.",
            ("source",),
            registry=registry,
        )
        known = Gauge(
            "vedette_agent_containers_known", "Containers that a runtime has described.", registry=registry
        )
        known.set_function(self._known_count)

    async def start(self) -> None:
        """Start the thread that asks the runtimes."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="container-lookup", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """End the thread; what is known stays."""
        if self._thread is not None:
            self._stopping.set()
            self._put(None)
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)
            self._thread = None

    @property
    def waiting_count(self) -> int:
        """Look-ups that wait for the thread."""
        return self._waiting.qsize()

    def info(self, container_id: str) -> ContainerInfo | None:
        """The record of a container by its whole id, None as long as no runtime has told it."""
        now = self._monotonic()
        with self._lock:
            entry = self._entries.get(container_id)
            if entry is None:
                entry = self._entries[container_id] = _Entry()
                if len(self._entries) > CONTAINERS_LIMIT:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(container_id)
            if not entry.waiting and now >= entry.due:
                entry.waiting = self._put(container_id)
            return entry.info

    def by_address(self, address: str) -> ContainerInfo | None:
        """The container or pod that was last seen with an IP address, None for any other address."""
        with self._lock:
            entry = self._entries.get(self._addresses.get(address, ""))
            info = entry.info if entry is not None else None
        return info if info is not None and address in (info.ip, info.pod_ip) else None

    def names_of(self, container_id: str) -> ContainerNames | None:
        """Names for the labels of container metrics, None as long as they are not known."""
        info = self.info(container_id)
        if info is None:
            return None
        return ContainerNames(info.name, info.image, info.pod_namespace, info.pod_name, info.container_name)

    def resolve(self, container_id: str) -> ContainerInfo | None:
        """Ask the sources now and keep the answer. Waits; the thread's work, or a test's."""
        found = self._ask(container_id)
        self._lookups.labels("found" if found else "unknown").inc()
        now = self._monotonic()
        with self._lock:
            entry = self._entries.get(container_id)
            if entry is None:
                return found
            entry.waiting = False
            if found is not None:
                entry.info, entry.attempts, entry.due = found, 0, now + FRESH_SECONDS
                self._remember_addresses(found)
            else:
                # A container that has ended is unknown to its runtime; what was known of it still holds.
                entry.due = now + RETRY_SECONDS[min(entry.attempts, len(RETRY_SECONDS) - 1)]
                entry.attempts += 1
            return entry.info

    def _remember_addresses(self, info: ContainerInfo) -> None:
        if info.host_network:
            return
        for address in filter(None, {info.ip, info.pod_ip}):
            self._addresses[address] = info.id
            self._addresses.move_to_end(address)
            if len(self._addresses) > CONTAINERS_LIMIT:
                self._addresses.popitem(last=False)

    def _ask(self, container_id: str) -> ContainerInfo | None:
        for source in self._sources:
            try:
                found = source.find(container_id)
            except (OSError, ValueError) as error:
                self._failures.labels(source.name).inc()
                self._say(source.name, f"{type(error).__name__}: {error}")
                continue
            if found is not None:
                return found
        return None

    def _run(self) -> None:
        while (container_id := self._waiting.get()) is not None and not self._stopping.is_set():
            try:
                self.resolve(container_id)
            except Exception:
                # Whatever one container's files hold, the others are looked up.
                self._failures.labels("lookup").inc()
                _log.exception("a container could not be looked up", extra={"container": container_id})

    def _put(self, container_id: str | None) -> bool:
        try:
            self._waiting.put_nowait(container_id)
        except queue.Full:
            return False
        return True

    def _known_count(self) -> float:
        with self._lock:
            return float(sum(entry.info is not None for entry in self._entries.values()))

    def _say(self, source: str, text: str) -> None:
        """Each failure is logged once, and again when its text changes."""
        if self._reported.get(source) != text:
            self._reported[source] = text
            _log.warning("container runtime not readable", extra={"source": source, "error": text})


class CriOnDemand:
    """A CRI socket whose client (HTTP/2, 4 MB) is loaded when the socket is there for the first time."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path
        self._source: RuntimeSource | None = None

    def find(self, container_id: str) -> ContainerInfo | None:
        """As `CriSocket.find`."""
        if self._source is None:
            if not os.path.exists(self._path):
                return None
            from agent.runtimes.cri import CriSocket

            self._source = CriSocket(self.name, self._path)
        return self._source.find(container_id)


def default_lookup(registry: CollectorRegistry | None = None) -> ContainerLookup:
    """A look-up over the runtimes of this machine."""
    from agent.runtimes.bundles import OciBundles
    from agent.runtimes.engineapi import EngineApi

    engines = [EngineApi(name, path) for name, path in SOCKETS]
    runtimes = [CriOnDemand(name, path) for name, path in CRI_SOCKETS]
    return ContainerLookup((*engines, *runtimes, OciBundles(Path(root_of_host() or "/"))), registry)
