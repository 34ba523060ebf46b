"""The engine's own metrics, under Prometheus's names.

Every query moves eleven numbers, so they are plain ones under one lock, made into metrics when somebody asks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_QUEUE = "queue_time"
_SLICES = ("prepare_time", "inner_eval", "result_sort", _QUEUE)


@dataclass(slots=True)
class Timings:
    """Seconds of the parts of one query."""

    prepare_s: float = 0.0
    eval_s: float = 0.0
    sort_s: float = 0.0


class EngineMetrics(Collector):
    """Created once an engine in the registry that is passed in. Any thread may call."""

    def __init__(self, registry: CollectorRegistry, concurrent_max: int) -> None:
        self._concurrent_max = concurrent_max
        self._lock = threading.Lock()
        self._running = 0
        self._samples = 0
        self._failed_reads = 0
        self._counts = dict.fromkeys(_SLICES, 0)
        self._sums = dict.fromkeys(_SLICES, 0.0)
        registry.register(self)

    @property
    def running(self) -> int:
        """Queries that have started and not finished."""
        return self._running

    def started(self) -> None:
        """A query begins."""
        with self._lock:
            self._running += 1

    def finished(self, samples_read: int, timings: Timings | None) -> None:
        """A query has ended; None where it is begun anew by another thread, which then is counted."""
        with self._lock:
            self._running -= 1
            self._samples += samples_read
            if timings is None:
                return
            for name, seconds in zip(
                _SLICES, (timings.prepare_s, timings.eval_s, timings.sort_s), strict=False
            ):
                self._counts[name] += 1
                self._sums[name] += seconds

    def queued(self, seconds: float) -> None:
        """A query has waited so long for its turn."""
        with self._lock:
            self._counts[_QUEUE] += 1
            self._sums[_QUEUE] += seconds

    def read_failed(self) -> None:
        """The store could not give a query its samples."""
        with self._lock:
            self._failed_reads += 1

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for them."""
        with self._lock:
            running, samples, failed_reads = self._running, self._samples, self._failed_reads
            counts, sums = dict(self._counts), dict(self._sums)
        yield GaugeMetricFamily(
            "prometheus_engine_queries",
            "The current number of queries being executed or waiting.",
            value=running,
        )
        yield GaugeMetricFamily(
            "prometheus_engine_queries_concurrent_max",
            "The max number of concurrent queries.",
            value=self._concurrent_max,
        )
        yield CounterMetricFamily(
            "prometheus_engine_query_samples",
            "The total number of samples loaded by all queries.",
            value=samples,
        )
        yield CounterMetricFamily(
            "vedette_engine_failed_reads",
            "Queries that failed because the store could not read samples, damaged ones for instance.",
            value=failed_reads,
        )
        durations = SummaryMetricFamily(
            "prometheus_engine_query_duration_seconds", "Query timings", labels=["slice"]
        )
        for name in _SLICES:
            durations.add_metric([name], counts[name], sums[name])
        yield durations
