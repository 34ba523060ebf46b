"""Prometheus endpoints of this host: found by their program or their pod's annotations, and scraped."""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import re
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

from agent.groupconfig import DiscoveryConfig
from agent.peers import workload
from agent.processgroups import GroupNames
from agent.processscan import ProcessScan
from agent.runtimes.info import ContainerInfo
from agent.runtimes.lookup import ContainerLookup
from agent.sockdiag import LISTEN
from agent.socketowners import SocketOwners
from ingest.clock import Clock, SystemClock
from ingest.config.durations import Duration
from ingest.config.scrape import ScrapeConfig
from ingest.metrics import ScrapeMetrics
from ingest.scrape.pool import PoolContext, ScrapePool
from ingest.scrape.target import ADDRESS, INSTANCE, JOB, METRICS_PATH, SCHEME, DiscoveredGroup, offset_seed
from security.fields.connections import address_text
from tsdb.columns import Appender

LOOK_SECONDS = 30.0
TARGETS_LIMIT = 200
EXPORTER = re.compile(r"(^|[-_])exporter$")
OWN_METRICS = re.compile(r"^(prometheus-)?node[-_]exporter$|^process[-_]exporter$|^cadvisor$")
"""Exporters of what the agent measures itself."""
PROGRAMS: Mapping[str, int] = {
    "alertmanager": 9093,
    "beam.smp": 15692,
    "caddy": 2019,
    "coredns": 9153,
    "etcd": 2379,
    "haproxy": 8404,
    "prometheus": 9090,
    "prometheus-alertmanager": 9093,
    "prometheus-pushgateway": 9091,
    "pushgateway": 9091,
    "victoria-metrics": 8428,
}
"""Programs that serve their own metrics at `/metrics`, and the port they do it on by default."""
POOL = "agent/discovered"
_ANNOTATION = "prometheus.io"

_log = logging.getLogger("vedette.agent")


def exporter_groups(owners: SocketOwners, host: str, now_seconds: float) -> Iterator[DiscoveredGroup]:
    """Targets of the exporters that listen in the host's network namespace, one a program and port."""
    for entry in owners.sockets(now_seconds):
        if entry.tcp.state != LISTEN or entry.namespace or entry.pid in (0, os.getpid()):
            continue
        name = _program(entry.pid)
        known = PROGRAMS.get(name) == entry.tcp.local_port
        if not known and (not EXPORTER.search(name) or OWN_METRICS.search(name)):
            continue
        raw = entry.tcp.local
        address = address_text(raw) if any(raw) else ("127.0.0.1" if len(raw) == 4 else "::1")
        target = {
            ADDRESS: _with_port(address, entry.tcp.local_port),
            METRICS_PATH: "/metrics",
            INSTANCE: f"{host}:{entry.tcp.local_port}",
        }
        yield DiscoveredGroup(f"exporter/{name}", (target,), {JOB: name})


def _with_port(address: str, port: int | str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _program(pid: int) -> str:
    try:
        return posixpath.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"))
    except OSError:
        return ""


def annotated_group(info: ContainerInfo) -> DiscoveredGroup | None:
    """The target that a container's pod annotations or labels ask for, None when they do not."""
    asked = {**info.labels, **info.pod_annotations}
    if asked.get(f"{_ANNOTATION}/scrape") != "true" or not (info.pod_ip or info.ip or info.host_network):
        return None
    port = asked.get(f"{_ANNOTATION}/port", "80")
    scheme = asked.get(f"{_ANNOTATION}/scheme", "http")
    if (
        not port.isascii()
        or not port.isdigit()
        or not 0 < int(port) < 65536
        or scheme not in ("http", "https")
    ):
        return None
    path = asked.get(f"{_ANNOTATION}/path", "/metrics")
    address = "127.0.0.1" if info.host_network else info.pod_ip or info.ip
    target = {ADDRESS: _with_port(address, port), METRICS_PATH: path, SCHEME: scheme}
    labels = {JOB: workload(info), "namespace": info.pod_namespace, "pod": info.pod_name}
    named = {name: value for name, value in labels.items() if value}
    return DiscoveredGroup(f"annotations/{info.pod_sandbox_id or info.id}", (target,), named)


class PoolDirectory(Protocol):
    """Where the pools of this process are shown, as `ingest.scrape.service.ScrapeManager` does."""

    def show(self, pool: ScrapePool) -> None:
        """Show a pool."""
        ...

    def hide(self, pool: ScrapePool) -> None:
        """Show it no more."""
        ...


class EndpointScraper:
    """Looks for endpoints at an interval and scrapes them. Event loop only; looking happens in a thread."""

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry | None,
        config: DiscoveryConfig,
        containers: ContainerLookup,
        *,
        instance: str,
        directory: PoolDirectory | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Exporters of the host have `instance` and their port as their label `instance`."""
        self._directory = directory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changing = asyncio.Lock()
        self._config = config
        self._host = instance
        self._containers = containers
        self._clock = clock or SystemClock()
        self._scan = ProcessScan(GroupNames())
        self._owners = SocketOwners(self._scan)
        self._executor = ThreadPoolExecutor(1, "endpoints")
        self._seed = offset_seed(socket.gethostname(), {})
        context = PoolContext(
            appender=appender,
            # The names of scraping are taken by the server's own.
            metrics=ScrapeMetrics(CollectorRegistry()),
            clock=self._clock,
            executor=self._executor,
            user_agent="Vedette-agent",
            exemplars=False,
            cache_seed=0,
        )
        self._pool = ScrapePool(self._job(1), context, self._seed)
        self._found = Gauge(
            "vedette_agent_endpoints", "Endpoints found on this host and scraped.", registry=registry
        )
        self._task: asyncio.Task[None] | None = None

    def _job(self, slower: int) -> ScrapeConfig:
        interval = str(self._config.interval)
        return ScrapeConfig.model_validate(
            {
                "job_name": POOL,
                "scrape_interval": str(Duration(self._config.interval * slower)),
                "scrape_timeout": interval,
                "sample_limit": self._config.sample_limit,
                "body_size_limit": "32MB",
                "fallback_scrape_protocol": "PrometheusText0.0.4",
            }
        )

    def slow_down(self, factor: int) -> None:
        """Scrape at `factor` times the configured interval from now on. Any thread."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._reload(factor), self._loop)

    async def _reload(self, factor: int) -> None:
        async with self._changing:
            if self._task is not None:
                await self._pool.reload(self._job(factor), self._seed)

    async def start(self) -> None:
        """Begin to look."""
        self._loop = asyncio.get_running_loop()
        if self._directory is not None:
            self._directory.show(self._pool)
        self._task = asyncio.create_task(self._run(), name="endpoints")

    async def stop(self) -> None:
        """Stop scraping. No stale markers, as when a server stops: it will be scraped again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._loop = None
        if self._directory is not None:
            self._directory.hide(self._pool)
        async with self._changing:
            await self._pool.stop(stale_markers=False)
        await asyncio.to_thread(self._executor.shutdown)
        self._owners.close()

    @property
    def is_scraping(self) -> bool:
        """Whether any endpoint is scraped now."""
        return bool(self._pool.loops)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except (OSError, ValueError) as error:
                _log.warning("looking for endpoints failed", extra={"reason": str(error)})
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once and follow what was found."""
        groups = await asyncio.get_running_loop().run_in_executor(self._executor, self.find)
        async with self._changing:
            await self._pool.sync(groups)
        self._found.set(len(self._pool.loops))

    def find(self) -> list[DiscoveredGroup]:
        """All endpoints now, at most `TARGETS_LIMIT`. Waits for `/proc`."""
        processes = self._scan.run()
        found: dict[tuple[str, ...], DiscoveredGroup] = {}
        groups: list[DiscoveredGroup] = []
        if self._config.exporters:
            groups += exporter_groups(self._owners, self._host, self._clock.monotonic())
        if self._config.annotations:
            ids = sorted({process.group.container_id for process in processes} - {""})
            infos = [info for container_id in ids if (info := self._containers.info(container_id))]
            groups += [group for info in infos if (group := annotated_group(info))]
        for group in groups:
            found.setdefault(tuple(sorted(group.targets[0].values())), group)
        if len(found) > TARGETS_LIMIT:
            _log.warning("endpoints left out", extra={"limit": TARGETS_LIMIT, "found": len(found)})
        return list(found.values())[:TARGETS_LIMIT]
