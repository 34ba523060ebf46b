"""The host agent as one service: its parts, started together, each of which may fail alone.

`vedette serve` and `vedette agent` use the same service; they differ in where samples go (`appender`) and
where security events go (`pipeline`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry

from agent.budget import (
    Budget,
    BudgetKeeper,
    Governor,
    GovernorMetrics,
    Usage,
    process_usage,
    threads_usage,
)
from agent.config import AgentConfig
from agent.groupmetrics import GroupMetrics
from agent.memory import release_after_load
from agent.ownedobjects import OwnedObjects
from agent.runtimes.lookup import ContainerLookup, default_lookup
from ingest.config.address import parse_address
from security.pipeline import Pipeline
from tsdb.columns import Appender

if TYPE_CHECKING:
    from agent.endpoints import EndpointScraper, PoolDirectory
    from agent.hostcollector import HostCollector
    from agent.watcher import Watcher

_log = logging.getLogger("vedette.agent")


class PartError(Exception):
    """A part cannot run here; the text is one clear line."""


class Part(Protocol):
    """Something that runs from `start` to `stop`; both on the event loop."""

    async def start(self) -> None:
        """Begin. Raises PartError or OSError when this host does not allow it."""
        ...

    async def stop(self) -> None:
        """End, hand over what is there, leave nothing behind. Only after a start that succeeded."""
        ...


@dataclass(slots=True)
class Governed:
    """Parts that can do less."""

    collector: HostCollector | None = None
    watcher: Watcher | None = None
    endpoints: EndpointScraper | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """What parts are made of. `registry` is emptied when the parts are made anew; `pipeline` None means that
    no rules run here."""

    appender: Appender
    registry: CollectorRegistry
    config: AgentConfig
    pipeline: Pipeline | None
    own_metrics: CollectorRegistry | None
    """The registry whose metrics are shipped too; None where somebody scrapes them."""
    containers: ContainerLookup
    """What the runtimes say of containers; it never waits."""
    groups: GroupMetrics
    directory: PoolDirectory | None = None
    """Where pools of scraped endpoints are shown."""
    parts: list[Part] = field(default_factory=list)
    """The parts that run so far."""
    governed: Governed = field(default_factory=Governed)

    @property
    def instance(self) -> str:
        """Label `instance` of the agent's series."""
        return self.config.instance or os.uname().nodename


def _container_lookup(wiring: Wiring) -> Part | None:
    return wiring.containers


def _host_metrics(wiring: Wiring) -> Part | None:
    from agent.containermetrics import ContainerSource
    from agent.hostcollector import HostCollector, Source
    from agent.hostmetrics.registry import HostSource
    from agent.ownmetrics import OwnMetricsSource

    sources: list[Source] = [
        HostSource(),
        ContainerSource(names_of=wiring.containers.names_of),
        *wiring.groups.sources,
    ]
    if wiring.own_metrics is not None:
        sources.append(OwnMetricsSource(wiring.own_metrics))
    wiring.governed.collector = HostCollector(
        wiring.appender,
        wiring.registry,
        wiring.config.interval.seconds,
        sources=sources,
        instance=wiring.instance,
    )
    return wiring.governed.collector


def _statsd(wiring: Wiring) -> Part | None:
    from ingest.statsd.listener import StatsdListener, StatsdOptions

    config = wiring.config.statsd
    if not config.udp and not config.unix:
        return None
    host, port = parse_address(config.udp) if config.udp else ("", None)
    options = StatsdOptions(
        udp_host=host,
        udp_port=port,
        unix_path=config.unix,
        flush_interval_seconds=config.flush_interval.seconds,
        observer=config.observer,
    )
    labels = {"instance": wiring.instance, "job": "statsd"}
    return StatsdListener(wiring.appender, wiring.registry, options, labels=labels)


def _checks(wiring: Wiring) -> Part | None:
    from agent.checks.runner import CheckRunner, programs_in

    config = wiring.config.checks
    programs = [*config.configured(), *programs_in(Path(config.directory))]
    if not programs:
        return None
    return CheckRunner(wiring.appender, wiring.registry, programs, instance=wiring.instance)


def _discovery(wiring: Wiring) -> Part | None:
    from agent.endpoints import EndpointScraper

    config = wiring.config.discovery
    if not config.exporters and not config.annotations:
        return None
    wiring.governed.endpoints = EndpointScraper(
        wiring.appender,
        wiring.registry,
        config,
        wiring.containers,
        instance=wiring.instance,
        directory=wiring.directory,
    )
    return wiring.governed.endpoints


class _Watch:
    """The watcher as a part: loading the probe takes seconds, so it happens in a thread."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    async def start(self) -> None:
        """Load the probe. Raises PartError."""
        from agent.probe.program import ProbeError

        try:
            await asyncio.to_thread(self._watcher.start)
        except ProbeError as error:
            raise PartError(str(error)) from None

    async def stop(self) -> None:
        """Take the probe out of the kernel."""
        await asyncio.to_thread(self._watcher.stop)


def _watch(wiring: Wiring) -> Part | None:
    if wiring.pipeline is None and not wiring.groups.consumers:
        return None
    from agent.watcher import Watcher

    groups = wiring.groups
    watcher = Watcher(
        wiring.pipeline,
        wiring.registry,
        consumers=groups.consumers,
        calls=groups.calls,
        cost_consumers=groups.cost_consumers,
        measured=groups.measured,
        container_info=wiring.containers.info,
    )
    wiring.governed.watcher = watcher
    return _Watch(watcher)


_OWN_THREADS = (
    *("watcher", "host-metrics", "statsd-flush", "container-lookup", "security-events"),
    *("check", "endpoints", "agent-budget"),
)
"""Threads of the agent inside the server's process."""


def _budget(wiring: Wiring) -> Part | None:
    from agent.savings import savings

    limits = wiring.config.budget
    budget = Budget(limits.cpu_percent, int(limits.memory))
    governed = wiring.governed
    steps = savings(governed.collector, governed.watcher, governed.endpoints)
    governor = Governor(budget, steps, GovernorMetrics(wiring.registry, budget, steps))
    if wiring.own_metrics is not None:
        return BudgetKeeper(governor, process_usage)
    # The parts hold these, and they are the server's.
    foreign = (wiring.appender, wiring.pipeline, wiring.directory)
    objects = OwnedObjects(lambda: wiring.parts, [each for each in foreign if each is not None])

    def usage() -> Usage:
        return Usage(threads_usage(_OWN_THREADS).cpu_seconds, objects.recent_bytes())

    return BudgetKeeper(governor, usage)


PARTS: tuple[tuple[str, Callable[[Wiring], Part | None]], ...] = (
    ("container runtimes", _container_lookup),
    ("host, container and process metrics", _host_metrics),
    ("StatsD listener", _statsd),
    ("checks", _checks),
    ("discovered endpoints", _discovery),
    ("processes, files and connections", _watch),
    ("budget", _budget),
)
"""Every part by the name it has in the log, in the order of starting; None is a part that is turned off."""


class AgentService:
    """Runs the parts. All methods on the event loop; one that is called while another runs waits for it."""

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry,
        config: AgentConfig,
        pipeline: Pipeline | None = None,
        *,
        standalone: bool = False,
        directory: PoolDirectory | None = None,
    ) -> None:
        """`standalone`: the process is the agent's alone, and what is in `registry` is shipped too.
        `directory` shows the endpoints that are scraped."""
        self._directory = directory
        self._appender = appender
        self._standalone = standalone
        self._pipeline = pipeline
        self._registry = registry
        self._config = config
        self._own: CollectorRegistry | None = None
        self._running: list[tuple[str, Part]] = []
        self._turn = asyncio.Lock()

    @property
    def budget_level(self) -> int:
        """Steps of saving that are engaged."""
        return sum(part.governor.level for _, part in self._running if isinstance(part, BudgetKeeper))

    @property
    def running(self) -> list[str]:
        """Names of the parts that run."""
        return [name for name, _ in self._running]

    async def start(self) -> None:
        """Start every part; one that cannot run here says why in one line, and the others go on."""
        async with self._turn:
            await self._start()

    async def _start(self) -> None:
        # A registry of its own, so that parts can be made anew without repeated metrics.
        self._own = own = CollectorRegistry()
        self._registry.register(own)
        config, containers = self._config, default_lookup(own)
        shipped = self._registry if self._standalone else None
        groups = GroupMetrics(config.processes, config.connections, containers)
        wiring = Wiring(
            self._appender, own, config, self._pipeline, shipped, containers, groups, self._directory
        )
        for name, make in PARTS:
            try:
                part = make(wiring)
                if part is None:
                    continue
                await part.start()
            except (PartError, OSError, ValueError) as error:
                _log.warning(
                    "a part of the host agent does not run", extra={"part": name, "reason": str(error)}
                )
            except Exception:
                _log.exception("a part of the host agent failed to start", extra={"part": name})
            else:
                self._running.append((name, part))
                wiring.parts.append(part)
        if self._standalone:
            released = await asyncio.to_thread(release_after_load)
            _log.debug("memory of the compiler given back", extra={"bytes": released})
        _log.info("Host agent runs", extra={"parts": ", ".join(self.running) or "none"})

    async def stop(self) -> None:
        """Stop what runs, last started first; a failure is logged and stops nothing else."""
        async with self._turn:
            await self._stop()

    async def _stop(self) -> None:
        while self._running:
            name, part = self._running.pop()
            try:
                await part.stop()
            except Exception:
                _log.exception("a part of the host agent did not stop well", extra={"part": name})
        if self._own is not None:
            self._registry.unregister(self._own)
            self._own = None

    async def apply(self, config: AgentConfig) -> None:
        """Run with another configuration: what runs is stopped and made anew when it differs."""
        async with self._turn:
            if config == self._config:
                return
            was_started = self._own is not None
            await self._stop()
            self._config = config
            if was_started:
                await self._start()
