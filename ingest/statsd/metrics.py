"""Own metrics of the StatsD listener; statsd_exporter's names where it has one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from ingest.statsd.aggregate import Aggregator


class StatsdMetrics:
    """Counts are taken over from the aggregator at each flush, so that a line costs nothing here."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.lines = Counter("statsd_exporter_lines_total", "Lines received.", registry=registry)
        self.udp = Counter("statsd_exporter_udp_packets_total", "UDP datagrams received.", registry=registry)
        self.unix = Counter(
            "statsd_exporter_unixgram_packets_total", "Unix datagrams received.", registry=registry
        )
        self.errors = Counter(
            "statsd_exporter_sample_errors_total", "Samples refused.", ("reason",), registry=registry
        )
        self.tag_errors = Counter("statsd_exporter_tag_errors_total", "Tags dropped.", registry=registry)
        self.conflicts = Counter(
            "statsd_exporter_events_conflict_total",
            "Samples refused because their metric has another type.",
            ("type",),
            registry=registry,
        )
        self.unsupported = Counter(
            "vedette_statsd_unsupported_lines_total",
            "DogStatsD lines that are no samples.",
            ("kind",),
            registry=registry,
        )
        self.dropped = Counter(
            "vedette_statsd_dropped_datagrams_total",
            "Datagrams that the kernel dropped because the receive buffer was full.",
            registry=registry,
        )
        self.too_long = Counter(
            "vedette_statsd_too_long_datagrams_total", "Datagrams above the limit.", registry=registry
        )
        self.flush_failures = Counter(
            "vedette_statsd_flush_failures_total", "Flushes that could not be stored.", registry=registry
        )
        self.refused = Counter(
            "vedette_statsd_refused_samples_total", "Samples that the store refused.", registry=registry
        )
        self.series = Gauge("vedette_statsd_series", "Label sets kept.", registry=registry)
        self._errors_seen: dict[str, int] = {}
        self._conflicts_seen: dict[str, int] = {}
        self._unsupported_seen: dict[str, int] = {}
        self._lines_seen = self._bad_tags_seen = 0

    def take(self, aggregator: Aggregator) -> None:
        """Add what the aggregator has counted since the last call. On its thread."""
        self.lines.inc(aggregator.line_count - self._lines_seen)
        self._lines_seen = aggregator.line_count
        self.tag_errors.inc(aggregator.bad_tag_count - self._bad_tags_seen)
        self._bad_tags_seen = aggregator.bad_tag_count
        self.series.set(aggregator.series_count)
        for counter, counts, seen in (
            (self.errors, aggregator.errors, self._errors_seen),
            (self.conflicts, aggregator.conflicts, self._conflicts_seen),
            (self.unsupported, aggregator.unsupported, self._unsupported_seen),
        ):
            for label, count in counts.items():
                counter.labels(label).inc(count - seen.get(label, 0))
                seen[label] = count
