"""Own metrics of sending remote write, under Prometheus's names; native histograms count as samples."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

_PREFIX = "prometheus_remote_storage_"
_LABELS = ("remote_name", "url")
_OWN_PREFIX = "vedette_remote_storage_"


class ForwardFamilies:
    """The metrics of all destinations of a process. Any thread."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        def counter(name: str, text: str, *more: str, prefix: str = _PREFIX) -> Counter:
            return Counter(prefix + name, text, (*_LABELS, *more), registry=registry)

        def gauge(name: str, text: str, prefix: str = _PREFIX) -> Gauge:
            return Gauge(prefix + name, text, _LABELS, registry=registry)

        self.taken = Counter(_PREFIX + "samples_in_total", "Samples in to remote storage.", registry=registry)
        self.sent = counter("samples_total", "Total number of samples sent to remote storage.")
        self.failed = counter(
            "samples_failed_total", "Total number of samples that remote storage refused for good."
        )
        self.retried = counter("samples_retried_total", "Total number of samples sent again after a failure.")
        self.dropped = counter(
            "samples_dropped_total", "Samples given up before they were sent, by reason.", "reason"
        )
        self.enqueue_retries = counter("enqueue_retries_total", "Samples that had to wait for the queue.")
        self.exemplars = counter("exemplars_in_total", "Exemplars put into the queue.")
        self.metadata = counter("metadata_in_total", "Metadata entries put into the queue.")
        self.bytes = counter("bytes_total", "Bytes of requests with samples, compressed.")
        self.duration = Histogram(
            _PREFIX + "sent_batch_duration_seconds",
            "Seconds that a request to remote storage took.",
            _LABELS,
            registry=registry,
        )
        self.highest_in = gauge(
            "highest_timestamp_in_seconds", "Newest time of a sample that was handed to the queue."
        )
        self.highest_queued = gauge(
            "queue_highest_timestamp_seconds", "Newest time of a sample that was put into the queue."
        )
        self.highest_sent = gauge(
            "queue_highest_sent_timestamp_seconds", "Newest time of a sample that remote storage has taken."
        )
        self.pending = gauge("samples_pending", "Samples in the queue on disk.")
        self.shards = tuple(
            gauge(name, "Lanes in which requests are sent, always one.")
            for name in ("shards", "shards_desired", "shards_min", "shards_max")
        )
        self.shard_capacity = gauge("shard_capacity", "Most samples that wait for the queue on disk.")
        self.max_samples = gauge("max_samples_per_send", "Most samples of one request.")
        self.version = gauge(
            "protocol_version", "Version of remote write that is spoken now: 1 or 2.", _OWN_PREFIX
        )
        self.queue_bytes = gauge("queue_bytes", "Bytes of the queue on disk.", _OWN_PREFIX)
        self.queue_bytes_limit = gauge("queue_bytes_limit", "Most bytes of the queue on disk.", _OWN_PREFIX)

    def destination(self, remote_name: str, url: str) -> ForwardMetrics:
        """The metrics of one destination."""
        return ForwardMetrics(self, remote_name, url)


class ForwardMetrics:
    """Metrics of one destination. Any thread."""

    def __init__(self, families: ForwardFamilies, remote_name: str, url: str) -> None:
        self._families = families
        self._destination = (remote_name, url)
        self._made: list[tuple[MetricWrapperBase, tuple[str, ...]]] = []
        self._newest_ms = 0
        self.taken = families.taken
        self.sent = self._counter(families.sent)
        self.failed = self._counter(families.failed)
        self.retried = self._counter(families.retried)
        self.exemplars = self._counter(families.exemplars)
        self.metadata = self._counter(families.metadata)
        self.bytes = self._counter(families.bytes)
        self.duration = families.duration.labels(*self._destination)
        self._made.append((families.duration, self._destination))
        self._highest_in = self._gauge(families.highest_in)
        self._highest_queued = self._gauge(families.highest_queued)
        self.highest_sent = self._gauge(families.highest_sent)
        self.version = self._gauge(families.version)
        self._counter(families.enqueue_retries)
        for family in families.shards:
            self._gauge(family).set(1)

    def _counter(self, family: Counter) -> Counter:
        self._made.append((family, self._destination))
        return family.labels(*self._destination)

    def _gauge(self, family: Gauge) -> Gauge:
        self._made.append((family, self._destination))
        return family.labels(*self._destination)

    def queued(self, newest_ms: int) -> None:
        """A request is in the queue on disk; `newest_ms` is its newest sample's time."""
        self._newest_ms = max(self._newest_ms, newest_ms)
        self._highest_in.set(self._newest_ms / 1000)
        self._highest_queued.set(self._newest_ms / 1000)

    def dropped(self, reason: str, sample_count: int) -> None:
        """Count samples given up: the reason names the limit."""
        values = (*self._destination, reason)
        if (self._families.dropped, values) not in self._made:
            self._made.append((self._families.dropped, values))
        self._families.dropped.labels(*values).inc(sample_count)

    def limits(self, capacity: int, samples_per_request: int) -> None:
        """Tell what the configuration allows."""
        self._gauge(self._families.shard_capacity).set(capacity)
        self._gauge(self._families.max_samples).set(samples_per_request)

    def watch_queue(self, pending: Callable[[], float], size: Callable[[], float], size_limit: int) -> None:
        """Gauges that ask the queue when they are shown."""
        self._gauge(self._families.pending).set_function(pending)
        self._gauge(self._families.queue_bytes).set_function(size)
        self._gauge(self._families.queue_bytes_limit).set(size_limit)

    def forget(self) -> None:
        """The destination is gone: its series end."""
        for family, values in self._made:
            family.remove(*values)
        self._made.clear()
