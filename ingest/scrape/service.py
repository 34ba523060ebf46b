"""Scraping as a whole: pools that follow the configuration and discovery, and what the API shows of them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from prometheus_client import CollectorRegistry

from ingest.clock import Clock, SystemClock
from ingest.config.document import LoadedConfig, config_to_yaml
from ingest.config.durations import Duration
from ingest.config.scrape import ScrapeConfig
from ingest.discovery.registry import DiscoveryRegistry, Groups
from ingest.metrics import DiscoveryMetrics, ScrapeMetrics
from ingest.relabel import Relabeler
from ingest.scrape.loop import ScrapeLoop
from ingest.scrape.pool import Identity, PoolContext, ScrapePool
from ingest.scrape.target import job_defaults, offset_seed
from tsdb.columns import Appender, Metadata
from tsdb.labels import Matcher

SCRAPE_THREADS = min(4, os.cpu_count() or 1)
"""Threads that parse and append; more only contend for the store."""
_NEVER = "0001-01-01T00:00:00Z"
_LOCALHOST = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """What flags and build say about scraping.

    `external_url` and `listen_port` make links to local targets usable elsewhere; `exemplars` is the feature
    exemplar-storage.
    """

    user_agent: str = "Vedette"
    hostname: str = "localhost"
    external_url: str = ""
    listen_port: int = 0
    exemplars: bool = False
    seed: int = 0


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
        self._metrics.metadata.source = self._known_metadata
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
        self._guests: dict[str, ScrapePool] = {}
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

    def show(self, pool: ScrapePool) -> None:
        """Show a pool that somebody else runs among ours, under its job's name unless we have that one."""
        self._guests[pool.job.job_name] = pool

    def hide(self, pool: ScrapePool) -> None:
        """Show it no more."""
        self._guests.pop(pool.job.job_name, None)

    def _shown(self) -> dict[str, ScrapePool]:
        return {**self._guests, **self._pools}

    def _loops(self) -> Iterable[tuple[str, ScrapeLoop]]:
        for name, pool in sorted(self._shown().items()):
            for loop in sorted(pool.loops.values(), key=lambda loop: loop.target.identity):
                yield name, loop

    def targets(self, state: str = "any", pool: str = "") -> dict[str, Any]:
        """Data of /api/v1/targets; `state` is any, active or dropped, anything else counts as any."""
        state = state.lower()
        shown: dict[str, Any] = {"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": None}
        if state != "dropped":
            shown["activeTargets"] = [
                self._active(name, loop) for name, loop in self._loops() if not pool or name == pool
            ]
        if state != "active":
            pools = self._shown()
            chosen = [name for name in sorted(pools) if not pool or name == pool]
            shown["droppedTargetCounts"] = {name: pools[name].dropped_count for name in chosen}
            shown["droppedTargets"] = [
                {"discoveredLabels": labels.to_dict(), "scrapePool": name}
                for name in chosen
                for labels in pools[name].dropped
            ]
        return shown

    def _active(self, pool: str, loop: ScrapeLoop) -> dict[str, Any]:
        target = loop.target
        return {
            "discoveredLabels": target.discovered.to_dict(),
            "labels": target.labels.to_dict(),
            "scrapePool": pool,
            "scrapeUrl": target.url,
            "globalUrl": global_url(target.url, self._settings.external_url, self._settings.listen_port),
            "lastError": loop.last_error,
            "lastScrape": _rfc3339(loop.last_scrape_ms),
            "lastScrapeDuration": loop.last_duration,
            "health": loop.health,
            "scrapeInterval": str(Duration(target.interval_ms)),
            "scrapeTimeout": str(Duration(target.timeout_ms)),
        }

    def pools(self) -> list[str]:
        """Names for /api/v1/scrape_pools."""
        return sorted(self._shown())

    def pool_yaml(self, pool: str) -> str:
        """Data of /api/v1/scrape_pools/config. Raises KeyError for an unknown pool."""
        return config_to_yaml(self._shown()[pool].job)

    def relabel_steps(self, pool: str, labels_json: str) -> list[dict[str, Any]]:
        """Data of /api/v1/targets/relabel_steps. Raises KeyError for the pool, ValueError for the labels."""
        job = self._shown()[pool].job
        given = json.loads(labels_json)
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise ValueError("labels must be a JSON object of strings")
        labels = {**{name: value for name, value in job_defaults(job).items() if value}, **given}
        relabeler = Relabeler(job.relabel_configs, job.metric_name_validation_scheme)
        return [
            {"rule": step.rule.model_dump(mode="json"), "output": step.output, "keep": step.keep}
            for step in relabeler.steps(labels)
        ]

    def metadata(
        self, metric: str = "", limit: int = -1, limit_per_metric: int = -1
    ) -> dict[str, list[dict[str, str]]]:
        """Data of /api/v1/metadata: every distinct entry of a family over all targets."""
        found: dict[str, dict[Metadata, None]] = {}
        for _, loop in self._loops():
            families = loop.samples.metadata
            chosen = families if not metric else {metric: families[metric]} if metric in families else {}
            for name, entry in chosen.items():
                if name not in found and limit >= 0 and len(found) >= limit:
                    continue
                entries = found.setdefault(name, {})
                if limit_per_metric <= 0 or len(entries) < limit_per_metric:
                    entries[entry] = None
        return {name: [_metadata_fields(entry) for entry in entries] for name, entries in found.items()}

    def targets_metadata(
        self, match_target: Sequence[Matcher] = (), metric: str = "", limit: int = -1
    ) -> list[dict[str, Any]]:
        """Data of /api/v1/targets/metadata."""
        found: list[dict[str, Any]] = []
        for _, loop in self._loops():
            labels = loop.target.labels
            if not all(matcher.matches(labels.get(matcher.name)) for matcher in match_target):
                continue
            for name, entry in loop.samples.metadata.items():
                if metric and name != metric:
                    continue
                if 0 <= limit <= len(found):
                    return found
                item: dict[str, Any] = {"target": labels.to_dict()}
                if not metric:
                    item["metric"] = name
                found.append({**item, **_metadata_fields(entry)})
        return found

    def _known_metadata(self) -> dict[str, list[Metadata]]:
        return {
            name: [entry for loop in list(pool.loops.values()) for entry in loop.samples.metadata.values()]
            for name, pool in list(self._pools.items())
        }


def _scrapes_differently(old: ScrapeConfig, new: ScrapeConfig) -> bool:
    """Whether a change concerns the loops; a change of discovery alone does not."""
    ignored = dict.fromkeys(name for name, _ in (*old.discovery_key(), *new.discovery_key()))
    cleared: Mapping[str, Any] = {name: [] for name in ignored}
    return old.model_copy(update=cleared) != new.model_copy(update=cleared)


def _metadata_fields(entry: Metadata) -> dict[str, str]:
    return {"type": entry.type, "unit": entry.unit, "help": entry.help}


def _rfc3339(t_ms: int) -> str:
    if t_ms == 0:
        return _NEVER
    return datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def global_url(url: str, external_url: str, listen_port: int) -> str:
    """A target's URL as others can reach it: local addresses are replaced by the server's own host."""
    parts, outside = urlsplit(url), urlsplit(external_url)
    if parts.hostname not in _LOCALHOST or not outside.hostname:
        return url
    if parts.port == listen_port:
        # The server itself, which is known under its external URL.
        return urlunsplit(parts._replace(scheme=outside.scheme, netloc=outside.netloc))
    host = f"[{outside.hostname}]" if ":" in outside.hostname else outside.hostname
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host))
