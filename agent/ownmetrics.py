"""The agent's own metrics as samples: a stand-alone agent ships them, where a server would scrape itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ingest.gathered import Family, Gathered

JOB = "vedette-agent"


class OwnMetricsSource:
    """A `Source` of the host collector over a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.errors: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The job of the series."""
        return JOB

    def collect(self, out: Gathered) -> None:
        """Add every sample of the registry but creation times."""
        for metric in self._registry.collect():
            kind = "unknown" if metric.type == "untyped" else metric.type
            for sample in metric.samples:
                if sample.name.endswith("_created") and kind in ("counter", "histogram", "summary"):
                    continue
                # A counter's family goes by the name of its series, as in the text format.
                name = sample.name if kind == "counter" else metric.name
                labels = dict(sample.labels)
                family = Family(name, kind, metric.documentation)
                out.add_series(family, sample.value, (sample.name, tuple(labels), tuple(labels.values())))
