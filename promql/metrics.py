"""The engine's own metrics, under Prometheus's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary


class EngineMetrics:
    """Created once an engine in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry, concurrent_max: int) -> None:
        self.queries = Gauge(
            "prometheus_engine_queries",
            "The current number of queries being executed or waiting.",
            registry=registry,
        )
        self.concurrent_max = Gauge(
            "prometheus_engine_queries_concurrent_max",
            "The max number of concurrent queries.",
            registry=registry,
        )
        self.concurrent_max.set(concurrent_max)
        self.samples = Counter(
            "prometheus_engine_query_samples_total",
            "The total number of samples loaded by all queries.",
            registry=registry,
        )
        duration = Summary(
            "prometheus_engine_query_duration_seconds",
            "Query timings",
            ["slice"],
            registry=registry,
        )
        self.prepare_s = duration.labels("prepare_time")
        self.inner_eval_s = duration.labels("inner_eval")
        self.queue_s = duration.labels("queue_time")
        self.sort_s = duration.labels("result_sort")
