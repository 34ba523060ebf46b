"""Own metrics of the remote-write receiver."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ReceiverMetrics:
    """Counters of a receiver. Prometheus's names where it has one. Any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.invalid_labels = Counter(
            "prometheus_api_remote_write_invalid_labels_samples_total",
            "The total number of received remote write samples and histogram samples which were rejected due"
            " to invalid labels.",
            registry=registry,
        )
        self.without_metadata = Counter(
            "prometheus_api_remote_write_without_metadata_appended_samples_total",
            "The total number of received remote write samples (and histogram samples) which were ingested"
            " without corresponding metadata.",
            registry=registry,
        )
        self.requests = Counter(
            "vedette_remote_write_requests_total",
            "Remote write requests, by message and status code.",
            ("message", "code"),
            registry=registry,
        )
        self.written = Counter(
            "vedette_remote_write_written_total",
            "Samples, histograms and exemplars accepted from remote write.",
            ("kind",),
            registry=registry,
        )
        self.written_floats = self.written.labels("float")
        self.rejected = Counter(
            "vedette_remote_write_rejected_samples_total",
            "Samples and histograms of remote write that were refused, by reason.",
            ("reason",),
            registry=registry,
        )
        self.refused_exemplars = Counter(
            "vedette_remote_write_rejected_exemplars_total",
            "Exemplars of remote write that were refused, by reason.",
            ("reason",),
            registry=registry,
        )
        self.received_bytes = Counter(
            "vedette_remote_write_received_bytes_total",
            "Bytes of remote write bodies as received (compressed).",
            registry=registry,
        )
        self.decoded_bytes = Counter(
            "vedette_remote_write_decoded_bytes_total",
            "Bytes of remote write messages after decompression.",
            registry=registry,
        )
        self.missed = Counter(
            "vedette_remote_write_series_lookups_missed_total",
            "Series of remote write requests whose labels had not been seen in that spelling before.",
            registry=registry,
        )
        self.waiting = Gauge(
            "vedette_remote_write_waiting_requests",
            "Remote write requests that are being decoded or wait for it.",
            registry=registry,
        )
