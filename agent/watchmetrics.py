"""What the watch path says of itself: events and losses by call, ring, process table, missing members."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.observer import Observer, counts

SAY_INTERVAL_SECONDS = 60.0
"""A stage that fails again and again is logged this often."""


class WatchMetrics(Collector):
    """Metrics of one watcher. Any thread; totals go on when the probe is loaded again."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._lock = threading.Lock()
        self._observer: Observer | None = None
        self._sent: Tally[str] = Tally()
        self._lost: Tally[tuple[str, str]] = Tally()
        self._fill_ratio = 0.0
        self._said: dict[str, float] = {}
        self._failures = Counter(
            "vedette_agent_watch_failures",
            "Batches of events that a stage of the watch path failed on, and failures of the probe.",
            ("stage",),
            registry=registry,
        )
        self.sampled_out = Counter(
            "vedette_agent_sampled_out_events",
            "Events that no rule judged, because the agent keeps within its budget.",
            registry=registry,
        )
        if registry is not None:
            registry.register(self)

    def attach(self, observer: Observer) -> None:
        """Read the counters of this observer from now on."""
        with self._lock:
            self._observer = observer

    def detach(self) -> None:
        """Keep the totals of an observer that is about to be closed."""
        with self._lock:
            sent, lost = self._totals()
            self._sent, self._lost, self._observer = sent, lost, None

    def stepped(self, observer: Observer) -> None:
        """Remember how full the ring was at most since the last reading."""
        self._fill_ratio = max(self._fill_ratio, observer.fill_ratio)

    def failed(self, stage: str) -> bool:
        """Count a failure of a stage; True when it is time to say so in the log."""
        self._failures.labels(stage).inc()
        now = time.monotonic()
        due = now - self._said.get(stage, -SAY_INTERVAL_SECONDS) >= SAY_INTERVAL_SECONDS
        if due:
            self._said[stage] = now
        return due

    def _totals(self) -> tuple[Tally[str], Tally[tuple[str, str]]]:
        sent, lost = self._sent.copy(), self._lost.copy()
        if self._observer is not None:
            counters = self._observer.counters()
            machine = platform.machine()
            for item in counts(counters.sent, machine):
                sent[item.kind] += item.value
            for item in counts(counters.lost, machine):
                lost[str(item.cpu), item.kind] += item.value
        return sent, lost

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry must not collect at registration."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families as they are now."""
        with self._lock:
            sent, lost = self._totals()
            observer, fill = self._observer, self._fill_ratio
            self._fill_ratio = 0.0
        events = CounterMetricFamily(
            "vedette_agent_events", "Records that the kernel program sent.", labels=("call",)
        )
        for kind, value in sent.items():
            events.add_metric((kind,), value)
        yield events
        losses = CounterMetricFamily(
            "vedette_agent_events_lost",
            "Records that did not fit into the ring, or could not be made.",
            labels=("cpu", "call"),
        )
        for (cpu, kind), value in lost.items():
            losses.add_metric((cpu, kind), value)
        yield losses
        yield GaugeMetricFamily(
            "vedette_agent_watching", "Whether the probe is loaded.", value=float(observer is not None)
        )
        yield GaugeMetricFamily(
            "vedette_agent_ring_fill_ratio_max",
            "Fullest state of the ring since the last reading.",
            value=fill,
        )
        if observer is None:
            return
        yield GaugeMetricFamily(
            "vedette_agent_processes", "Processes in the table.", value=len(observer.table)
        )
        yield CounterMetricFamily(
            "vedette_agent_processes_left_out",
            "Processes that did not fit into the table.",
            value=observer.table.left_out_count,
        )
        missing = GaugeMetricFamily(
            "vedette_agent_kernel_members_missing",
            "Struct members and tracepoints that this kernel lacks; the fields they feed stay empty.",
            labels=("member",),
        )
        for member in observer.probe.missing:
            missing.add_metric((member,), 1.0)
        yield missing
