"""All targets of one job: built from what discovery found, started, kept and ended (surface 6.1, 6.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from ingest.clock import Clock
from ingest.config.scrape import ScrapeConfig
from ingest.metrics import ScrapeMetrics
from ingest.relabel import Relabeler
from ingest.scrape.client import ScrapeClient
from ingest.scrape.failurelog import FailureLog
from ingest.scrape.loop import ScrapeLoop
from ingest.scrape.protobuf import HistogramChoice
from ingest.scrape.samples import SampleOptions, TargetSamples
from ingest.scrape.target import DiscoveredGroup, Target, build_targets
from ingest.validate import LabelLimits
from tsdb.columns import Appender
from tsdb.errors import StorageError
from tsdb.labels import Labels

log = logging.getLogger("vedette.ingest.scrape")

Identity = tuple[Labels, str]


@dataclass(frozen=True, slots=True)
class PoolContext:
    """What all pools of a server share."""

    appender: Appender
    metrics: ScrapeMetrics
    clock: Clock
    executor: Executor
    user_agent: str
    exemplars: bool
    cache_seed: int


class ScrapePool:
    """The loops of one job. Event loop thread only."""

    def __init__(
        self,
        job: ScrapeConfig,
        context: PoolContext,
        offset_seed: int,
        is_active: Callable[[Identity], bool] = lambda identity: False,
    ) -> None:
        """`is_active` tells whether a target is scraped by any pool now; such a target gets no end-of-run
        markers from here."""
        self.job = job
        self.offset_seed = offset_seed
        self.loops: dict[Identity, ScrapeLoop] = {}
        self.dropped: list[Labels] = []
        self.dropped_count = 0
        self._context = context
        self._is_active = is_active
        self._groups: Sequence[DiscoveredGroup] = ()
        self._endings: set[asyncio.Task[None]] = set()
        self._configure(job)
        context.metrics.pools.inc()

    def _configure(self, job: ScrapeConfig) -> None:
        self.job = job
        self._client = ScrapeClient(job, self._context.user_agent)
        self._failure_log = FailureLog(job.scrape_failure_log_file) if job.scrape_failure_log_file else None
        self._relabeler = Relabeler(job.relabel_configs, job.metric_name_validation_scheme)
        self._options = SampleOptions(
            honor_labels=job.honor_labels,
            honor_timestamps=job.honor_timestamps,
            track_timestamps_staleness=job.track_timestamps_staleness,
            relabeler=Relabeler(job.metric_relabel_configs, job.metric_name_validation_scheme),
            label_limits=LabelLimits(
                job.label_limit, job.label_name_length_limit, job.label_value_length_limit
            ),
            sample_limit=job.sample_limit,
            scheme=job.metric_name_validation_scheme,
            exemplars=self._context.exemplars,
            extra_metrics=bool(job.extra_scrape_metrics),
        )
        self._context.metrics.pool_target_limit.labels(job.job_name).set(job.target_limit)

    async def sync(self, groups: Sequence[DiscoveredGroup]) -> None:
        """Start what is new, end what is gone, keep the rest."""
        began = self._context.clock.monotonic()
        self._groups = groups
        wanted = self._build(groups)
        gone = [identity for identity in self.loops if identity not in wanted]
        ended = [self.loops.pop(identity) for identity in gone]
        for identity, target in wanted.items():
            if identity not in self.loops:
                loop = self.loops[identity] = self._loop(target)
                loop.start()
            else:
                self.loops[identity].target = target
        self._apply_target_limit()
        for loop in ended:
            await self._end(loop)
        metrics, name = self._context.metrics, self.job.job_name
        metrics.syncs.labels(name).inc()
        metrics.pool_targets.labels(name).set(len(self.loops))
        metrics.sync_length.observe((name,), self._context.clock.monotonic() - began)

    async def reload(self, job: ScrapeConfig, offset_seed: int) -> None:
        """Go on under a new configuration; targets that stay keep the state of their series."""
        self._context.metrics.reloads.inc()
        old_client, old_loops = self._client, self.loops
        self._configure(job)
        self.offset_seed = offset_seed
        await asyncio.gather(*(loop.stop() for loop in old_loops.values()))
        self.loops = {}
        for identity, target in self._build(self._groups).items():
            loop = self.loops[identity] = self._loop(target)
            old = old_loops.pop(identity, None)
            if old is not None:
                loop.samples.adopt(old.samples)
                loop.health, loop.last_error = old.health, old.last_error
                loop.last_scrape_ms, loop.last_duration = old.last_scrape_ms, old.last_duration
            loop.start()
        self._apply_target_limit()
        for loop in old_loops.values():
            await self._end(loop)
        await old_client.close()

    async def stop(self, stale_markers: bool) -> None:
        """Stop all loops; `stale_markers` where the job is gone rather than the server."""
        loops, self.loops = list(self.loops.values()), {}
        await asyncio.gather(*(loop.stop() for loop in loops))
        if stale_markers:
            for loop in loops:
                await self._end(loop)
        else:
            for task in self._endings:
                task.cancel()
            await asyncio.gather(*self._endings, return_exceptions=True)
        await self._client.close()

    def _build(self, groups: Sequence[DiscoveredGroup]) -> dict[Identity, Target]:
        wanted: dict[Identity, Target] = {}
        self.dropped, self.dropped_count = [], 0
        failures = self._context.metrics.sync_failed.labels(self.job.job_name)
        keep_limit = self.job.keep_dropped_targets
        for built in build_targets(groups, self.job, self._relabeler):
            if built.error:
                failures.inc()
                log.error("Target refused", extra={"job": self.job.job_name, "err": built.error})
            elif built.target is not None:
                wanted.setdefault(built.target.identity, built.target)
            else:
                self.dropped_count += 1
                if not keep_limit or len(self.dropped) < keep_limit:
                    self.dropped.append(built.discovered)
        return wanted

    def _loop(self, target: Target) -> ScrapeLoop:
        context = self._context
        histograms = HistogramChoice(
            native=target.native_histograms,
            classic=target.always_classic_histograms,
            bucket_limit=self.job.native_histogram_bucket_limit,
            min_bucket_factor=self.job.native_histogram_min_bucket_factor,
        )
        options = replace(self._options, timeout_seconds=target.timeout_ms / 1000, histograms=histograms)
        samples = TargetSamples(context.appender, target.labels, options, context.metrics, context.cache_seed)
        return ScrapeLoop(
            target,
            samples,
            self._client,
            context.clock,
            context.executor,
            context.metrics,
            self.offset_seed,
            self._failed,
        )

    def _failed(self, t_ms: int, url: str, error: str) -> None:
        log.debug("Scrape failed", extra={"scrape_pool": self.job.job_name, "target": url, "err": error})
        if self._failure_log is not None:
            self._failure_log.write(t_ms, self.job.job_name, url, error)

    def _apply_target_limit(self) -> None:
        limit, count = self.job.target_limit, len(self.loops)
        exceeded = bool(limit) and count > limit
        if exceeded:
            self._context.metrics.exceeded_target_limit.inc()
        error = f"target_limit exceeded (number of targets: {count}, limit: {limit})" if exceeded else ""
        for loop in self.loops.values():
            loop.forced_error = error

    async def _end(self, loop: ScrapeLoop) -> None:
        await loop.stop()
        if loop.last_scrape_ms:
            task = asyncio.get_running_loop().create_task(self._end_of_run(loop))
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    async def _end_of_run(self, loop: ScrapeLoop) -> None:
        try:
            await loop.end_of_run(loop.last_scrape_ms, self._is_active)
        except StorageError as error:
            log.error(
                "stale markers could not be stored", extra={"target": loop.target.url, "err": str(error)}
            )

    @property
    def endings(self) -> set[asyncio.Task[None]]:
        """Waits for end-of-run markers that are still running."""
        return self._endings
