"""Runs the discovery of all jobs and hands on what they find, at most every few seconds (surface 6.1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.clock import Clock
from ingest.config.scrape import PERFORMED_DISCOVERY, DiscoveryConfigs
from ingest.discovery.dns import DNSDiscovery
from ingest.discovery.file import FileDiscovery
from ingest.discovery.group import Discovery
from ingest.discovery.http import HTTPDiscovery
from ingest.discovery.static import StaticDiscovery
from ingest.metrics import DiscoveryMetrics
from ingest.scrape.target import DiscoveredGroup

UPDATE_SECONDS = 5.0
"""Shortest time between two updates of the targets; a quieter discovery is handed on at once."""

log = logging.getLogger("vedette.ingest.discovery")

Groups = Mapping[str, Sequence[DiscoveredGroup]]
OnUpdate = Callable[[Groups], Awaitable[None]]


@dataclass(slots=True)
class _Running:
    config: Any
    discovery: Discovery
    task: asyncio.Task[None] | None = None
    groups: Sequence[DiscoveredGroup] = ()


@dataclass(slots=True)
class _Job:
    running: list[_Running] = field(default_factory=list)


class DiscoveryRegistry:
    """Discovery of named jobs. Event loop thread only."""

    def __init__(
        self, clock: Clock, metrics: DiscoveryMetrics, on_update: OnUpdate, user_agent: str, seed: int = 0
    ) -> None:
        self._clock, self._metrics, self._on_update = clock, metrics, on_update
        self._user_agent = user_agent
        self._rng = random.Random(seed)
        self._jobs: dict[str, _Job] = {}
        self._changed = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def apply(self, configs: Mapping[str, DiscoveryConfigs]) -> None:
        """Start, keep and stop mechanisms; unchanged ones go on with what they know."""
        for name in self._jobs.keys() - configs.keys():
            await self._stop(self._jobs.pop(name).running)
        for name, config in configs.items():
            old = self._jobs.get(name, _Job())
            self._jobs[name] = new = _Job()
            reusable = list(old.running)
            for mechanism, item in _configured(config):
                kept = next((r for r in reusable if r.config == (mechanism, item)), None)
                if kept is not None:
                    reusable.remove(kept)
                    new.running.append(kept)
                else:
                    new.running.append(_Running((mechanism, item), self._create(mechanism, item, name)))
            await self._stop(reusable)
        for job in self._jobs.values():
            for running in job.running:
                if running.task is None:
                    running.task = asyncio.get_running_loop().create_task(self._run(running))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        self._changed.set()

    def groups(self) -> dict[str, list[DiscoveredGroup]]:
        """What every job has found so far."""
        return {
            name: [group for running in job.running for group in running.groups]
            for name, job in self._jobs.items()
        }

    def _create(self, mechanism: str, item: Any, job: str) -> Discovery:
        if mechanism == "static_configs":
            return StaticDiscovery(item)
        if mechanism == "file_sd_configs":
            return FileDiscovery(item, self._clock, self._metrics, job)
        if mechanism == "http_sd_configs":
            return HTTPDiscovery(item, self._clock, self._metrics, job, self._user_agent)
        return DNSDiscovery(item, self._clock, self._metrics, job, self._rng)

    async def _run(self, running: _Running) -> None:
        def publish(groups: Sequence[DiscoveredGroup]) -> None:
            running.groups = groups
            self._metrics.received.labels(self._metrics.name).inc()
            self._changed.set()

        try:
            await running.discovery.run(publish)
        except Exception:
            log.exception("Discovery stopped", extra={"mechanism": running.discovery.mechanism})

    async def _send(self) -> None:
        while True:
            await self._changed.wait()
            # Mechanisms that answer at once, static ones above all, are gathered into one update.
            await asyncio.sleep(0)
            self._changed.clear()
            found = self.groups()
            self._metrics.updates.labels(self._metrics.name).inc()
            self._metrics.discovered({name: _count(groups) for name, groups in found.items()})
            for name in found:
                self._metrics.last_update.labels(self._metrics.name, name).set(self._clock.now_ms() / 1000)
            try:
                await self._on_update(found)
            except Exception:
                log.exception("Discovered targets could not be applied")
            await self._clock.sleep(UPDATE_SECONDS)
            if self._changed.is_set():
                self._metrics.delayed.labels(self._metrics.name).inc()

    async def _stop(self, running: Sequence[_Running]) -> None:
        tasks = [item.task for item in running if item.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop everything."""
        for job in self._jobs.values():
            await self._stop(job.running)
        self._jobs.clear()
        if self._sender is not None:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
            self._sender = None


def _configured(config: DiscoveryConfigs) -> list[tuple[str, Any]]:
    """The mechanisms of a job: all static groups are one, every other item is its own."""
    found: list[tuple[str, Any]] = []
    for name in PERFORMED_DISCOVERY:
        items = getattr(config, name)
        if name == "static_configs":
            if items:
                found.append((name, items))
        else:
            found += [(name, item) for item in items]
    return found


def _count(groups: Sequence[DiscoveredGroup]) -> int:
    return sum(len(group.targets) for group in groups)
