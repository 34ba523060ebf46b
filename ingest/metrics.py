"""Own metrics of scraping and discovery, under Prometheus's names (surface 10.2, 10.3)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.core import Metric as StoredMetric
from prometheus_client.registry import Collector

from tsdb.columns import Metadata

OBSERVATIONS_MAX = 500
"""Newest observations that the quantiles of one summary are computed from."""
QUANTILES = (0.01, 0.05, 0.5, 0.9, 0.99)


class QuantileSummary(Collector):
    """A summary with quantiles, which the client library's own summary leaves out. Any thread."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry | None = None
    ) -> None:
        self._name, self._help, self._labels = name, help_text, tuple(labels)
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, ...], deque[float]] = {}
        self._totals: dict[tuple[str, ...], list[float]] = {}
        if registry is not None:
            registry.register(self)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Add one observation."""
        with self._lock:
            self._recent.setdefault(labels, deque(maxlen=OBSERVATIONS_MAX)).append(value)
            total = self._totals.setdefault(labels, [0.0, 0.0])
            total[0] += 1
            total[1] += value

    def describe(self) -> Iterable[StoredMetric]:
        """The name, so that the registry does not collect at registration."""
        return [SummaryMetricFamily(self._name, self._help, labels=self._labels)]

    def collect(self) -> Iterable[StoredMetric]:
        """One family with quantiles, sum and count per label set."""
        family = SummaryMetricFamily(self._name, self._help, labels=self._labels)
        with self._lock:
            items = [(k, sorted(v), self._totals[k][0], self._totals[k][1]) for k, v in self._recent.items()]
        for labels, ordered, count, total in items:
            named = dict(zip(self._labels, labels, strict=True))
            for quantile in QUANTILES:
                value = ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
                family.add_sample(self._name, {**named, "quantile": str(quantile)}, value)
            family.add_metric(labels, count_value=int(count), sum_value=total)
        yield family


_SCRAPE_COUNTERS = {
    "sample_out_of_order": "Scraped samples refused because they were older than the series' newest.",
    "sample_duplicate_timestamp": "Scraped samples refused because their timestamp had a value.",
    "sample_out_of_bounds": "Scraped samples refused because their timestamp was too old or too new.",
    "exceeded_sample_limit": "Scrapes refused as a whole because of sample_limit.",
    "exceeded_body_size_limit": "Scrapes refused as a whole because of body_size_limit.",
    "exceeded_native_histogram_bucket_limit": "Scrapes that exceeded native_histogram_bucket_limit.",
    "cache_flush_forced": "Times that a target's cache of series was cut because most of it was unused.",
    "exemplar_out_of_order": "Scraped exemplars refused because they were older than the series' newest.",
}


class MetadataCollector(Collector):
    """Size of the metadata that targets expose, counted when it is asked for. Any thread."""

    def __init__(self) -> None:
        self.source: Callable[[], Mapping[str, Sequence[Metadata]]] = dict
        """Gives the metadata of all targets by pool; set by whoever owns the pools."""

    def describe(self) -> Iterable[StoredMetric]:
        """The names, so that the registry does not collect at registration."""
        return self._families()

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        prefix = "prometheus_target_metadata_cache"
        return (
            GaugeMetricFamily(
                f"{prefix}_entries",
                "Metric families with metadata over all targets of the pool.",
                labels=("scrape_job",),
            ),
            GaugeMetricFamily(
                f"{prefix}_bytes",
                "Bytes of names, help texts and units of those families.",
                labels=("scrape_job",),
            ),
        )

    def collect(self) -> Iterable[StoredMetric]:
        """Entries and bytes of every pool."""
        entries, size = self._families()
        for pool, found in self.source().items():
            entries.add_metric((pool,), len(found))
            size.add_metric((pool,), sum(len(m.family) + len(m.help) + len(m.unit) for m in found))
        return entries, size


class ScrapeMetrics:
    """Counters of scraping. Any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.metadata = MetadataCollector()
        self._scrapes = {
            name: Counter(f"prometheus_target_scrapes_{name}_total", text, registry=registry)
            for name, text in _SCRAPE_COUNTERS.items()
        }
        self.pools = Counter(
            "prometheus_target_scrape_pools_total", "Attempts to create a scrape pool.", registry=registry
        )
        self.pools_failed = Counter(
            "prometheus_target_scrape_pools_failed_total",
            "Failed attempts to create a scrape pool.",
            registry=registry,
        )
        self.reloads = Counter(
            "prometheus_target_scrape_pool_reloads_total",
            "Attempts to reload a scrape pool.",
            registry=registry,
        )
        self.reloads_failed = Counter(
            "prometheus_target_scrape_pool_reloads_failed_total",
            "Failed attempts to reload a scrape pool.",
            registry=registry,
        )
        self.exceeded_target_limit = Counter(
            "prometheus_target_scrape_pool_exceeded_target_limit_total",
            "Syncs and reloads in which a pool had more targets than target_limit.",
            registry=registry,
        )
        self.exceeded_label_limits = Counter(
            "prometheus_target_scrape_pool_exceeded_label_limits_total",
            "Times that a series or target exceeded a label limit of its pool.",
            registry=registry,
        )
        self._add_target_metrics(registry)
        registry.register(self.metadata)

    def _add_target_metrics(self, registry: CollectorRegistry) -> None:
        self.syncs = Counter(
            "prometheus_target_scrape_pool_sync_total",
            "Syncs of a pool with what discovery found.",
            ("scrape_job",),
            registry=registry,
        )
        self.pool_targets = Gauge(
            "prometheus_target_scrape_pool_targets",
            "Targets of the pool.",
            ("scrape_job",),
            registry=registry,
        )
        self.pool_target_limit = Gauge(
            "prometheus_target_scrape_pool_target_limit",
            "The pool's target_limit, 0 without one.",
            ("scrape_job",),
            registry=registry,
        )
        self.sync_failed = Counter(
            "prometheus_target_sync_failed_total",
            "Targets that could not be built from what discovery found.",
            ("scrape_job",),
            registry=registry,
        )
        self.sync_length = QuantileSummary(
            "prometheus_target_sync_length_seconds",
            "Seconds that a sync of the pool took.",
            ("scrape_job",),
            registry,
        )
        self.interval_length = QuantileSummary(
            "prometheus_target_interval_length_seconds",
            "Seconds from one scrape of a target to its next.",
            ("interval",),
            registry,
        )

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of the `prometheus_target_scrapes_<name>_total` counters."""
        if amount:
            self._scrapes[name].inc(amount)


class DiscoveryMetrics:
    """Counters of service discovery; `name` is `scrape` or `notify`. Any thread."""

    def __init__(self, registry: CollectorRegistry, name: str = "scrape") -> None:
        self.name = name
        self.targets = Gauge(
            "prometheus_sd_discovered_targets",
            "Targets that discovery has found for the job, before relabelling.",
            ("name", "config"),
            registry=registry,
        )
        self.failed_configs = Gauge(
            "prometheus_sd_failed_configs",
            "Discovery configurations that could not be set up.",
            ("name",),
            registry=registry,
        )
        self.received = Counter(
            "prometheus_sd_received_updates_total",
            "Updates that came from discovery mechanisms.",
            ("name",),
            registry=registry,
        )
        self.updates = Counter(
            "prometheus_sd_updates_total",
            "Updates handed on to the pools.",
            ("name",),
            registry=registry,
        )
        self.delayed = Counter(
            "prometheus_sd_updates_delayed_total",
            "Updates that had to wait because pools are updated at most every few seconds.",
            ("name",),
            registry=registry,
        )
        self.refresh_failures = Counter(
            "prometheus_sd_refresh_failures_total",
            "Failed refreshes of a discovery mechanism.",
            ("mechanism", "config"),
            registry=registry,
        )
        self.refresh_duration = QuantileSummary(
            "prometheus_sd_refresh_duration_seconds",
            "Seconds that a refresh of a discovery mechanism took.",
            ("mechanism", "config"),
            registry,
        )
        self.last_update = Gauge(
            "prometheus_sd_last_update_timestamp_seconds",
            "Unix time of the last update that came from discovery.",
            ("name", "config"),
            registry=registry,
        )
        self.kubernetes_failures = Counter(
            "prometheus_sd_kubernetes_failures_total",
            "Failed requests to a Kubernetes API.",
            registry=registry,
        )
        self.failed_configs.labels(name).set(0)
        self.received.labels(name)
        self.updates.labels(name)
        self.delayed.labels(name)

    def discovered(self, counts: Mapping[str, int]) -> None:
        """Set the number of targets a job; forget jobs that are gone."""
        for _, config in list(self.targets._metrics):
            if config not in counts:
                self.targets.remove(self.name, config)
        for config, count in counts.items():
            self.targets.labels(self.name, config).set(count)
