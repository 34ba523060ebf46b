"""Own metrics of sending remote write, under Prometheus's names; native histograms count as samples."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = "prometheus_remote_storage_"
_LABELS = ("remote_name", "url")
_OWN_PREFIX = "vedette_remote_storage_"


class ForwardMetrics:
    """Counters of one destination. Any thread."""

    def __init__(self, registry: CollectorRegistry | None, remote_name: str, url: str) -> None:
        def counter(name: str, text: str, *more: str) -> Counter:
            made = Counter(_PREFIX + name, text, (*_LABELS, *more), registry=registry)
            return made if more else made.labels(remote_name, url)

        self._registry = registry
        self._destination = (remote_name, url)
        self.sent = counter("samples_total", "Total number of samples sent to remote storage.")
        self.failed = counter(
            "samples_failed_total", "Total number of samples that remote storage refused for good."
        )
        self.retried = counter("samples_retried_total", "Total number of samples sent again after a failure.")
        self._dropped = counter(
            "samples_dropped_total", "Samples given up before they were sent, by reason.", "reason"
        )
        self.bytes = counter("bytes_total", "Bytes of requests with samples, compressed.")
        self.duration = Histogram(
            _PREFIX + "sent_batch_duration_seconds",
            "Seconds that a request to remote storage took.",
            _LABELS,
            registry=registry,
        ).labels(remote_name, url)
        self.highest_in = self._gauge(
            "highest_timestamp_in_seconds", "Newest time of a sample that was handed to the queue."
        )
        self.highest_sent = self._gauge(
            "queue_highest_sent_timestamp_seconds", "Newest time of a sample that remote storage has taken."
        )
        self.version = self._gauge(
            "protocol_version",
            "Version of remote write that is spoken now: 1 or 2.",
            prefix="vedette_remote_storage_",
        )

    def _gauge(self, name: str, text: str, prefix: str = _PREFIX) -> Gauge:
        return Gauge(prefix + name, text, _LABELS, registry=self._registry).labels(*self._destination)

    def dropped(self, reason: str, sample_count: int) -> None:
        """Count samples given up: the reason names the limit."""
        self._dropped.labels(*self._destination, reason).inc(sample_count)

    def watch_queue(self, pending: Callable[[], float], size: Callable[[], float], size_limit: int) -> None:
        """Gauges that ask the queue when they are shown."""
        self._gauge("samples_pending", "Samples in the queue on disk.").set_function(pending)
        self._gauge("queue_bytes", "Bytes of the queue on disk.", _OWN_PREFIX).set_function(size)
        self._gauge("queue_bytes_limit", "Most bytes of the queue on disk.", _OWN_PREFIX).set(size_limit)
