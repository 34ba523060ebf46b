"""Own metrics of security: under Falco's names where it has them (security-surface.md 1.7), else ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from security.services import SecurityServices

_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


class SecurityMetrics(Collector):
    """Reads the counters of the parts when metrics are asked for."""

    def __init__(self, services: SecurityServices) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._rules()
        yield from self._pipeline()
        yield from self._series_and_log()
        yield from self._outputs()
        yield from self._sources()

    def _rules(self) -> Iterator[Metric]:
        pipeline = self._services.pipeline
        rules = pipeline.rules
        matches = Metric(
            "falcosecurity_falco_rules_matches", "Events by the rule that found them.", "counter"
        )
        for rule in rules.engine.rules.rules if rules.engine is not None else ():
            labels = {"rule_name": rule.name, "priority": str(rule.priority), "source": rule.source}
            labels |= {f"tag_{_NO_LABEL.sub('_', tag)}": "true" for tag in sorted(rule.tags)}
            count = pipeline.matched[rule.name]
            matches.add_sample("falcosecurity_falco_rules_matches_total", labels, float(count))
        yield matches
        files = InfoMetricFamily("falcosecurity_falco_sha256_rules_files", "Files of the running rules.")
        for path, digest in rules.files.items():
            files.add_metric([], {"file_name": path, "sha256": digest})
        yield files
        yield _gauge(
            "falcosecurity_falco_reload_timestamp_nanoseconds", "Last good load of rules.", rules.loaded_at_ns
        )
        yield _counter("vedette_security_rule_reloads", "Loads of rules.", rules.reloads_count)
        yield _counter(
            "vedette_security_rule_reload_failures",
            "Loads of rules that failed; the rules before stay in force.",
            rules.reload_failures_count,
        )
        yield _gauge(
            "vedette_security_rules_last_reload_successful",
            "Whether the last load of rules succeeded.",
            float(not rules.problems),
        )

    def _pipeline(self) -> Iterator[Metric]:
        pipeline, feed = self._services.pipeline, self._services.feed
        yield _by_label(
            "vedette_security_judged_events", "Events judged by rules.", "source", pipeline.events_count
        )
        yield _counter(
            "falcosecurity_falco_outputs_queue_num_drops",
            "Events dropped because the queue was full.",
            pipeline.dropped_count,
        )
        yield _gauge(
            "vedette_security_queue_records", "Events that wait in the queue.", pipeline.queued_count
        )
        yield _by_label(
            "vedette_security_sink_failures", "Writes that failed.", "sink", pipeline.sink_failures_count
        )
        yield _gauge("vedette_security_feed_clients", "Clients that follow events.", feed.subscribers_count)
        yield _counter(
            "vedette_security_feed_dropped", "Events dropped for slow clients.", feed.dropped_count
        )

    def _series_and_log(self) -> Iterator[Metric]:
        series, log = self._services.series, self._services.log
        yield _gauge(
            "vedette_security_series", "Label sets with events in the last hour.", series.series_count
        )
        yield _counter(
            "vedette_security_series_overflow_events",
            "Events counted without their own labels, because there are too many label sets.",
            series.overflow_count,
        )
        yield _counter(
            "vedette_security_series_moved_events",
            "Events counted later than they happened, because a newer one of their series came first.",
            series.moved_count,
        )
        yield _by_label(
            "vedette_security_series_refused_events",
            "Events that are in the event log and not in the series.",
            "reason",
            series.refused_count,
        )
        happened = {name: count for name, count in list(log.counts.items()) if name != "wal_bytes"}
        yield _by_label("vedette_security_eventlog", "What happened in the event log.", "event", happened)
        yield _counter(
            "vedette_security_eventlog_wal_bytes", "Bytes written to its log.", log.counts["wal_bytes"]
        )
        yield _gauge("vedette_security_eventlog_bytes", "Bytes of the parts.", log.size_bytes)
        yield _gauge("vedette_security_eventlog_records", "Events stored.", log.records_count)
        yield _gauge("vedette_security_eventlog_parts", "Parts.", log.parts_count)

    def _outputs(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "vedette_security_output_events",
            "Events of an output: delivered, dropped, refused, spooled; failures are deliveries.",
            labels=["output", "outcome"],
        )
        waiting = GaugeMetricFamily(
            "vedette_security_output_queue_records", "Events that wait for an output.", labels=["output"]
        )
        full = GaugeMetricFamily(
            "vedette_security_output_queue_ratio",
            "How full the queue of an output is: 1 means that events are dropped.",
            labels=["output"],
        )
        spooled = GaugeMetricFamily(
            "vedette_security_output_spool_bytes", "Bytes that wait on disk.", labels=["output"]
        )
        for output in self._services.outputs.outputs:
            for outcome, count in list(output.counts.items()):
                events.add_metric([output.name, outcome], count)
            waiting.add_metric([output.name], output.queued_count)
            full.add_metric([output.name], output.queued_count / output.queue_limit)
            spooled.add_metric([output.name], output.spooled_bytes)
        yield from (events, waiting, full, spooled)

    def _sources(self) -> Iterator[Metric]:
        bodies = CounterMetricFamily(
            "vedette_security_source_bodies",
            "Bodies and pieces of files by outcome.",
            labels=["source", "outcome"],
        )
        refused = CounterMetricFamily(
            "vedette_security_source_refused", "What of them was refused.", labels=["source", "reason"]
        )
        for name, receiver in self._services.receivers.items():
            for outcome, count in list(receiver.bodies.items()):
                bodies.add_metric([name, outcome], count)
            for reason, count in list(receiver.source.refused.items()):
                refused.add_metric([name, reason], count)
        yield from (bodies, refused)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by_label(name: str, text: str, label: str, counts: Mapping[str, int] | Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in list(counts.items()):
        family.add_metric([value], count)
    return family
