"""Scraping as a whole: pools that follow the configuration and discovery, and what can be seen of them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from ingest.clock import Clock, SystemClock
from ingest.config.document import LoadedConfig, config_to_yaml
from ingest.config.scrape import ScrapeConfig
from ingest.discovery.registry import DiscoveryRegistry, Groups
from ingest.metrics import DiscoveryMetrics, ScrapeMetrics
from ingest.relabel import Relabeler
from ingest.scrape.loop import ScrapeLoop
from ingest.scrape.pool import Identity, PoolContext, ScrapePool
from ingest.scrape.target import job_defaults, offset_seed
from tsdb.columns import Appender, Metadata
from tsdb.labels import Labels

SCRAPE_THREADS = min(4, os.cpu_count() or 1)
"""Threads that parse and append; more only contend for the store."""


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """What flags and build say about scraping; `exemplars` is the feature exemplar-storage."""

    user_agent: str = "Vedette"
    hostname: str = "localhost"
    exemplars: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One scraped endpoint. `last_scrape_ms` 0 means never; `metadata` is that of its last exposition."""

    discovered_labels: Labels
    labels: Labels
    pool: str
    url: str
    last_error: str
    last_scrape_ms: int
    last_duration_s: float
    health: str
    interval_ms: int
    timeout_ms: int
    metadata: tuple[Metadata, ...]


@dataclass(frozen=True, slots=True)
class DroppedStatus:
    """An endpoint that relabelling removed."""

    discovered_labels: Labels
    pool: str


class ScrapeManager:
    """All scrape pools. Event loop thread only; the samples go to the appender from threads."""

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry,
        clock: Clock | None = None,
        settings: ScrapeSettings | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._settings = settings or ScrapeSettings()
        self._metrics = ScrapeMetrics(registry)
        self._discovery_metrics = DiscoveryMetrics(registry)
        self._executor = ThreadPoolExecutor(SCRAPE_THREADS, thread_name_prefix="scrape")
        self._context = PoolContext(
            appender=appender,
            metrics=self._metrics,
            clock=self._clock,
            executor=self._executor,
            user_agent=self._settings.user_agent,
            exemplars=self._settings.exemplars,
            cache_seed=self._settings.seed,
        )
        self._pools: dict[str, ScrapePool] = {}
        self._retired: list[ScrapePool] = []
        self._discovery: DiscoveryRegistry | None = None
        self._offset_seed = 0
        self._changing = asyncio.Lock()

    async def apply(self, config: LoadedConfig) -> None:
        """Follow a new configuration: unchanged jobs keep running, changed ones keep their series' state."""
        async with self._changing:
            seed = offset_seed(self._settings.hostname, config.globals.external_labels)
            jobs = {job.job_name: job for job in config.jobs}
            for name in self._pools.keys() - jobs.keys():
                pool = self._pools.pop(name)
                await pool.stop(stale_markers=True)
                self._retired.append(pool)
            self._retired = [pool for pool in self._retired if pool.endings]
            for name, job in jobs.items():
                running = self._pools.get(name)
                if running is None:
                    self._pools[name] = ScrapePool(job, self._context, seed, self._is_active)
                elif _scrapes_differently(running.job, job) or seed != self._offset_seed:
                    await running.reload(job, seed)
                else:
                    running.job = job
            self._offset_seed = seed
        if self._discovery is None:
            self._discovery = DiscoveryRegistry(
                self._clock,
                self._discovery_metrics,
                self._sync,
                self._settings.user_agent,
                self._settings.seed,
            )
        await self._discovery.apply(jobs)

    async def _sync(self, groups: Groups) -> None:
        async with self._changing:
            for name, pool in self._pools.items():
                if name in groups:
                    await pool.sync(groups[name])
        self._count_metadata()

    def _is_active(self, identity: Identity) -> bool:
        return any(identity in pool.loops for pool in self._pools.values())

    async def close(self) -> None:
        """Stop scraping for good: no stale markers, because the server will come back (surface 6.2)."""
        if self._discovery is not None:
            await self._discovery.close()
        async with self._changing:
            for pool in (*self._pools.values(), *self._retired):
                await pool.stop(stale_markers=False)
            self._pools.clear()
            self._retired.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)

    def _loops(self) -> Iterable[tuple[str, ScrapeLoop]]:
        for name in sorted(self._pools):
            for loop in sorted(self._pools[name].loops.values(), key=lambda loop: loop.target.identity):
                yield name, loop

    def active_targets(self) -> list[TargetStatus]:
        """All targets being scraped, by pool and identity."""
        return [
            TargetStatus(
                discovered_labels=loop.target.discovered,
                labels=loop.target.labels,
                pool=name,
                url=loop.target.url,
                last_error=loop.last_error,
                last_scrape_ms=loop.last_scrape_ms,
                last_duration_s=loop.last_duration,
                health=loop.health,
                interval_ms=loop.target.interval_ms,
                timeout_ms=loop.target.timeout_ms,
                metadata=tuple(loop.samples.metadata.values()),
            )
            for name, loop in self._loops()
        ]

    def dropped_targets(self) -> list[DroppedStatus]:
        """Targets that relabelling removed, as far as `keep_dropped_targets` keeps them."""
        return [
            DroppedStatus(labels, name)
            for name in sorted(self._pools)
            for labels in self._pools[name].dropped
        ]

    def dropped_counts(self) -> dict[str, int]:
        """How many targets relabelling removed a pool, also those not kept."""
        return {pool: self._pools[pool].dropped_count for pool in sorted(self._pools)}

    def pools(self) -> list[str]:
        """Names for /api/v1/scrape_pools."""
        return sorted(self._pools)

    def pool_yaml(self, pool: str) -> str | None:
        """The configuration of one pool with secrets masked; None for an unknown pool."""
        return config_to_yaml(self._pools[pool].job) if pool in self._pools else None

    def relabel_steps(self, pool: str, labels_json: str) -> list[dict[str, Any]]:
        """Data of /api/v1/targets/relabel_steps. Raises KeyError for the pool, ValueError for the labels."""
        job = self._pools[pool].job
        given = json.loads(labels_json)
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise ValueError("labels must be a JSON object of strings")
        labels = {**{name: value for name, value in job_defaults(job).items() if value}, **given}
        relabeler = Relabeler(job.relabel_configs, job.metric_name_validation_scheme)
        return [
            {"rule": step.rule.model_dump(mode="json"), "output": step.output, "keep": step.keep}
            for step in relabeler.steps(labels)
        ]

    def _count_metadata(self) -> None:
        for name, pool in self._pools.items():
            entries = [entry for loop in pool.loops.values() for entry in loop.samples.metadata.values()]
            size = sum(len(e.family) + len(e.help) + len(e.unit) for e in entries)
            self._metrics.metadata_entries.labels(name).set(len(entries))
            self._metrics.metadata_bytes.labels(name).set(size)


def _scrapes_differently(old: ScrapeConfig, new: ScrapeConfig) -> bool:
    """Whether a change concerns the loops; a change of discovery alone does not."""
    ignored = dict.fromkeys(name for name, _ in (*old.discovery_key(), *new.discovery_key()))
    cleared: Mapping[str, Any] = {name: [] for name in ignored}
    return old.model_copy(update=cleared) != new.model_copy(update=cleared)
