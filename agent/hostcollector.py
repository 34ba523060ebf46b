"""The service that gathers host and container metrics at an interval and stores them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

from ingest.clock import Clock, SystemClock
from ingest.gathered import Gathered, GatheredWriter, Written
from tsdb.columns import Appender
from tsdb.errors import StorageError

INTERVAL_SECONDS = 15.0
INTERVAL_SECONDS_MIN = 1.0

_log = logging.getLogger("vedette.agent")


class Source(Protocol):
    """Something that is read at every interval; always in the collector's one thread."""

    @property
    def name(self) -> str:
        """Value of the label `source` of the cost metrics, and the job of its series."""
        ...

    @property
    def errors(self) -> dict[str, str]:
        """Last failure by part, empty when all went well."""
        ...

    def collect(self, out: Gathered) -> None:
        """Add all series of this moment."""
        ...


class HostCollectorMetrics:
    """What collecting costs. Any thread."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.duration = Summary(
            "vedette_agent_collection_duration_seconds",
            "Seconds that gathering and storing a source took.",
            ("source",),
            registry=registry,
        )
        self.cpu = Counter(
            "vedette_agent_collection_cpu_seconds_total",
            "Processor seconds used for gathering and storing a source.",
            ("source",),
            registry=registry,
        )
        self.samples = Counter(
            "vedette_agent_collection_samples_total", "Samples stored.", ("source",), registry=registry
        )
        self.refused = Counter(
            "vedette_agent_collection_refused_samples_total",
            "Samples that a limit or the store refused.",
            ("source",),
            registry=registry,
        )
        self.failures = Counter(
            "vedette_agent_collection_failures_total",
            "Collections of which nothing was stored.",
            ("source",),
            registry=registry,
        )
        self.missed = Counter(
            "vedette_agent_collection_missed_intervals_total",
            "Intervals without a collection because the one before took too long.",
            registry=registry,
        )
        self.series = Gauge(
            "vedette_agent_collection_series",
            "Series in the last collection of a source.",
            ("source",),
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class _Bound:
    source: Source
    writer: GatheredWriter


class HostCollector:
    """Gathers every source in one thread of its own each `interval_seconds`. Start and stop on the loop.

    Each source's series get the labels `job` (its name) and `instance`. A slow collection delays the next
    one; intervals are never gathered twice. When it stops, all series get stale markers.
    """

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry | None,
        interval_seconds: float = INTERVAL_SECONDS,
        *,
        sources: Sequence[Source] | None = None,
        instance: str = "",
        clock: Clock | None = None,
    ) -> None:
        """`sources` defaults to the host's metrics and its containers' (`default_sources`)."""
        if interval_seconds < INTERVAL_SECONDS_MIN:
            raise ValueError(f"interval of {interval_seconds} s is below {INTERVAL_SECONDS_MIN} s")
        self._clock = clock or SystemClock()
        self._interval = interval_seconds
        self._factor = 1
        self._metrics = HostCollectorMetrics(registry)
        labels = {"instance": instance or os.uname().nodename}
        self._bound = [
            _Bound(source, GatheredWriter(appender, {**labels, "job": source.name}))
            for source in (default_sources() if sources is None else sources)
        ]
        self._reported: dict[tuple[str, str], str] = {}
        self._last_ms = 0
        self._pool: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    def slow_down(self, factor: int) -> None:
        """Collect at so many times the interval; 1 is the usual pace. From the next collection on."""
        self._factor = factor

    async def start(self) -> None:
        """Begin with a collection at once."""
        if self._task is None:
            self._pool = ThreadPoolExecutor(1, "host-metrics")
            self._task = asyncio.create_task(self._run(), name="host-metrics")

    async def stop(self) -> None:
        """Wait for a running collection, then mark all series as stale."""
        if self._task is None or self._pool is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        now_ms = max(self._clock.now_ms(), self._last_ms + 1)
        await asyncio.get_running_loop().run_in_executor(self._pool, self._end, now_ms)
        self._pool.shutdown()
        self._pool = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = self._clock.monotonic()
            await loop.run_in_executor(self._pool, self.collect_once, self._clock.now_ms())
            elapsed = self._clock.monotonic() - began
            interval = self._interval * self._factor
            missed = int(elapsed // interval)
            self._metrics.missed.inc(missed)
            await self._clock.sleep((missed + 1) * interval - elapsed)

    def collect_once(self, t_ms: int) -> dict[str, Written | None]:
        """One collection of every source at `t_ms`; None for a source of which nothing was stored.

        In the collector's thread, or a test's.
        """
        self._last_ms = t_ms
        return {bound.source.name: self._collect(bound, t_ms) for bound in self._bound}

    def _collect(self, bound: _Bound, t_ms: int) -> Written | None:
        name = bound.source.name
        wall, cpu = time.perf_counter(), time.thread_time()
        gathered = Gathered()
        try:
            bound.source.collect(gathered)
            written = bound.writer.write(gathered, t_ms)
        except (StorageError, OSError, ValueError, IndexError, OverflowError) as error:
            self._metrics.failures.labels(name).inc()
            self._say(name, "", f"{type(error).__name__}: {error}")
            return None
        finally:
            self._metrics.duration.labels(name).observe(time.perf_counter() - wall)
            self._metrics.cpu.labels(name).inc(time.thread_time() - cpu)
        self._metrics.samples.labels(name).inc(written.stored_count)
        self._metrics.refused.labels(name).inc(written.refused_count)
        self._metrics.series.labels(name).set(len(gathered.values))
        for part, text in bound.source.errors.items():
            self._say(name, part, text)
        return written

    def _say(self, source: str, part: str, text: str) -> None:
        """Each failure is logged once, and again when its text changes."""
        if self._reported.get((source, part)) != text:
            self._reported[source, part] = text
            _log.warning("host metrics incomplete", extra={"source": source, "part": part, "error": text})

    def _end(self, t_ms: int) -> None:
        for bound in self._bound:
            with contextlib.suppress(StorageError):
                bound.writer.end(t_ms)


def default_sources() -> list[Source]:
    """Host metrics under node_exporter's names, container metrics under cAdvisor's."""
    from agent.containermetrics import ContainerSource
    from agent.hostmetrics.registry import HostSource

    return [HostSource(), ContainerSource()]
