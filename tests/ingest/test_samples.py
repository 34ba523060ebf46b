"""One target's scrapes into a store: values, staleness, limits, labels. Surface 6.2 and appendix E."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ingest.config.relabeling import RelabelConfig
from ingest.kernels.exposition import OPENMETRICS, TEXT
from ingest.metrics import ScrapeMetrics
from ingest.relabel import Relabeler
from ingest.scrape.samples import Body, Outcome, SampleOptions, ScrapeError, TargetSamples
from ingest.validate import LabelLimits
from tests.ingest.fakestore import FakeStore
from tsdb.labels import Labels

TARGET = Labels.from_dict({"job": "j", "instance": "i:1"})
SUFFIX = 'instance="i:1", job="j"'


class Bench:
    """A target with its store and metrics."""

    def __init__(self, **options: Any) -> None:
        self.store = FakeStore()
        self.registry = CollectorRegistry()
        self.samples = TargetSamples(
            self.store, TARGET, SampleOptions(**options), ScrapeMetrics(self.registry), seed=7
        )

    def scrape(self, text: str | None, t_ms: int, mode: int = TEXT) -> Outcome:
        body = None if text is None else Body(text.encode(), mode)
        failure = ScrapeError("connection refused") if text is None else None
        return self.samples.store(body, failure, t_ms, lambda: 0.25, now_ms=t_ms)

    def values(self, name: str, inner: str = "") -> list[float | str]:
        labels = ", ".join(sorted(filter(None, [inner, *SUFFIX.split(", ")])))
        return self.store.values(f"{name}{{{labels}}}")

    def counter(self, name: str) -> float:
        return self.registry.get_sample_value(f"prometheus_target_scrapes_{name}_total") or 0.0


def test_a_scrape_stores_samples_and_report_series() -> None:
    bench = Bench()
    outcome = bench.scrape('a 1\nb{x="y"} 2.5\n', 1000)
    assert (outcome.error, outcome.scraped, outcome.post_relabel, outcome.added) == ("", 2, 2, 2)
    assert bench.values("a") == [1.0]
    assert bench.values("b", 'x="y"') == [2.5]
    assert bench.values("up") == [1.0]
    assert bench.values("scrape_duration_seconds") == [0.25]
    assert bench.values("scrape_samples_scraped") == [2.0]
    assert bench.values("scrape_samples_post_metric_relabeling") == [2.0]
    assert bench.values("scrape_series_added") == [2.0]
    assert bench.store.appends == 1


def test_a_steady_scrape_asks_the_store_for_no_refs() -> None:
    bench = Bench()
    bench.scrape("a 1\nb 2\n", 1000)
    before = bench.store.refs_calls
    bench.scrape("b 3\na 4\n", 2000)
    assert bench.store.refs_calls == before
    assert bench.values("a") == [1.0, 4.0]
    assert bench.values("scrape_series_added") == [2.0, 0.0]


def test_a_vanished_series_gets_a_stale_marker_once() -> None:
    bench = Bench()
    for t, text in enumerate(("a 1\nb 1\n", "a 2\n", "a 3\n", "a 4\nb 4\n"), start=1):
        bench.scrape(text, t * 1000)
    assert bench.store.all()[f"b{{{SUFFIX}}}"] == [(1000, 1.0), (2000, "stale"), (4000, 4.0)]
    assert bench.values("scrape_series_added") == [2.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("text", [None, "a 2\nb x\n", "a 2\n{ 1\n"])
def test_a_failed_scrape_marks_everything_stale_and_stores_nothing(text: str | None) -> None:
    bench = Bench()
    bench.scrape("a 1\nb 1\n", 1000)
    outcome = bench.scrape(text, 2000)
    assert outcome.error
    assert bench.values("a") == [1.0, "stale"]
    assert bench.values("b") == [1.0, "stale"]
    assert bench.values("up") == [1.0, 0.0]
    bench.scrape(text, 3000)
    assert bench.values("a") == [1.0, "stale"]
    bench.scrape("a 4\nb 4\n", 4000)
    assert bench.values("a") == [1.0, "stale", 4.0]
    # Only a successful scrape decides what is new.
    assert bench.values("scrape_series_added") == [2.0, 0.0, 0.0, 0.0]


def test_counts_of_a_parse_failure_are_those_before_it() -> None:
    bench = Bench()
    assert bench.scrape("a 1\nb 2\nc x\n", 1000).error == 'line 3: invalid value while parsing: "x"'
    assert bench.values("scrape_samples_scraped") == [2.0]


def test_own_timestamps_are_honored_and_exempt_from_staleness() -> None:
    bench = Bench()
    bench.scrape("a 1 500\n", 1000)
    bench.scrape("b 1\n", 2000)
    assert bench.store.all()[f"a{{{SUFFIX}}}"] == [(500, 1.0)]


def test_own_timestamps_can_be_tracked_for_staleness() -> None:
    bench = Bench(track_timestamps_staleness=True)
    bench.scrape("a 1 500\n", 1000)
    bench.scrape("b 1\n", 2000)
    assert bench.store.all()[f"a{{{SUFFIX}}}"] == [(500, 1.0), (2000, "stale")]


def test_own_timestamps_are_ignored_without_honor_timestamps() -> None:
    bench = Bench(honor_timestamps=False)
    bench.scrape("a 1 500\n", 1000)
    bench.scrape("b 1\n", 2000)
    assert bench.store.all()[f"a{{{SUFFIX}}}"] == [(1000, 1.0), (2000, "stale")]


def test_a_repeated_series_keeps_the_first_and_is_counted() -> None:
    bench = Bench()
    outcome = bench.scrape("a 1\na 2\na 3 4000\n", 1000)
    assert outcome.error == ""
    assert (outcome.scraped, outcome.post_relabel) == (3, 3)
    assert bench.values("a") == [1.0, 3.0]
    assert bench.counter("sample_duplicate_timestamp") == 1


def test_out_of_order_and_future_samples_are_only_counted() -> None:
    bench = Bench()
    bench.scrape("a 1 500\n", 1000)
    outcome = bench.scrape("a 2 400\nb 1 9000000\nc 1\n", 2000)
    assert outcome.error == ""
    assert bench.values("c") == [1.0]
    assert bench.counter("sample_out_of_order") == 1
    assert bench.counter("sample_out_of_bounds") == 1


CLASHES = [
    ('a{job="x"} 1', False, 'a{exported_job="x", instance="i:1", job="j"}'),
    (
        'a{job="x",exported_job="y"} 1',
        False,
        'a{exported_exported_job="x", exported_job="y", instance="i:1", job="j"}',
    ),
    ('a{job=""} 1', False, f"a{{{SUFFIX}}}"),
    ('a{job="x"} 1', True, 'a{instance="i:1", job="x"}'),
    ('a{job=""} 1', True, f"a{{{SUFFIX}}}"),
]


@pytest.mark.parametrize(("line", "honor", "expected"), CLASHES)
def test_label_clashes(line: str, honor: bool, expected: str) -> None:
    bench = Bench(honor_labels=honor)
    bench.scrape(line + "\n", 1000)
    assert bench.store.values(expected) == [1.0]
    assert bench.values("up") == [1.0]


def test_le_and_quantile_are_normalised_by_the_type_before_them() -> None:
    bench = Bench()
    bench.scrape(
        "# TYPE h histogram\n"
        'h_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_bucket{le="1000000"} 2\n'
        "# TYPE s summary\n"
        's{quantile="0.50"} 1\n'
        "# TYPE g gauge\n"
        'g{le="1",quantile="1"} 1\n',
        1000,
    )
    names = {str(labels) for labels in bench.store.rows}
    assert 'h_bucket{instance="i:1", job="j", le="1.0"}' in names
    assert 'h_bucket{instance="i:1", job="j", le="1e+06"}' in names
    assert 'h_bucket{instance="i:1", job="j", le="+Inf"}' in names
    assert f's{{{SUFFIX}, quantile="0.5"}}' in names
    assert 'g{instance="i:1", job="j", le="1", quantile="1"}' in names


def test_metric_relabelling_drops_and_renames() -> None:
    rules = [
        RelabelConfig.model_validate({"source_labels": ["__name__"], "regex": "go_.*", "action": "drop"}),
        RelabelConfig.model_validate({"source_labels": ["x"], "target_label": "z"}),
    ]
    bench = Bench(relabeler=Relabeler(rules))
    for t in (1000, 2000):
        outcome = bench.scrape('go_a 1\nb{x="y"} 2\n', t)
        assert (outcome.scraped, outcome.post_relabel) == (2, 1)
    assert bench.values("b", 'x="y", z="y"') == [2.0, 2.0]
    assert bench.values("go_a") == []
    assert bench.values("scrape_samples_post_metric_relabeling") == [1.0, 1.0]


def test_a_dropped_metric_name_fails_the_scrape() -> None:
    rules = [RelabelConfig.model_validate({"action": "labeldrop", "regex": "__name__"})]
    outcome = Bench(relabeler=Relabeler(rules)).scrape("a 1\n", 1000)
    assert outcome.error == "missing metric name (__name__ label)"


def test_the_sample_limit_fails_the_scrape_and_keeps_the_counts() -> None:
    bench = Bench(sample_limit=2)
    bench.scrape("a 1\nb 1\n", 1000)
    assert bench.scrape("a 2\nb 2\nc 2\n", 2000).error == "sample limit exceeded"
    assert bench.values("a") == [1.0, "stale"]
    assert bench.values("scrape_samples_scraped") == [2.0, 3.0]
    assert bench.values("scrape_samples_post_metric_relabeling") == [2.0, 3.0]
    assert bench.counter("exceeded_sample_limit") == 1


LIMITS = [
    (LabelLimits(label_count=3), 'a{x="1"} 1', "label_limit exceeded"),
    (LabelLimits(name_bytes=8), 'a{long_name="1"} 1', "label_name_length_limit exceeded"),
    (LabelLimits(value_bytes=3), 'a{x="12345"} 1', "label_value_length_limit exceeded"),
]


@pytest.mark.parametrize(("limits", "line", "error"), LIMITS)
def test_label_limits_fail_the_scrape(limits: LabelLimits, line: str, error: str) -> None:
    bench = Bench(label_limits=limits)
    assert bench.scrape(line + "\n", 1000).error.startswith(error)
    count = bench.registry.get_sample_value("prometheus_target_scrape_pool_exceeded_label_limits_total")
    assert count == 1


def test_a_forgotten_series_is_looked_up_again() -> None:
    bench = Bench()
    bench.scrape('# TYPE h histogram\na 1\nh_bucket{le="1"} 1\n', 1000)
    bench.store.forget()
    assert bench.scrape('# TYPE h histogram\na 2\nh_bucket{le="1"} 2\n', 2000).error == ""
    assert bench.values("a") == [1.0, 2.0]
    assert bench.values("up") == [1.0, 1.0]
    assert bench.store.values('h_bucket{instance="i:1", job="j", le="1.0"}') == [1.0, 2.0]


def test_the_end_of_a_target_marks_its_series_and_report_series() -> None:
    bench = Bench()
    bench.scrape("a 1\n", 1000)
    bench.samples.end(2000)
    assert bench.values("a") == [1.0, "stale"]
    assert bench.values("up") == [1.0, "stale"]
    assert bench.values("scrape_series_added") == [1.0, "stale"]


def test_a_successor_continues_staleness() -> None:
    bench = Bench()
    bench.scrape("a 1\nb 1\n", 1000)
    successor = TargetSamples(bench.store, TARGET, SampleOptions(), ScrapeMetrics(CollectorRegistry()))
    successor.adopt(bench.samples)
    successor.store(Body(b"a 2\n", TEXT), None, 2000, lambda: 0.1)
    assert bench.values("a") == [1.0, 2.0]
    assert bench.values("b") == [1.0, "stale"]


def test_metadata_is_kept_and_changes_are_stored() -> None:
    bench = Bench()
    text = "# HELP a old\\nline\n# TYPE a counter\na 1\n"
    bench.scrape(text, 1000)
    bench.scrape(text, 2000)
    assert [(m.family, m.type, m.help) for m in bench.store.metadata] == [("a", "counter", "old\nline")]
    bench.scrape("# HELP a new\n# TYPE a counter\na 1\n", 3000)
    assert bench.samples.metadata["a"].help == "new"
    assert len(bench.store.metadata) == 2


def test_exemplars_are_stored_when_asked_for() -> None:
    bench = Bench(exemplars=True)
    text = '# TYPE a counter\na_total 1 # {trace_id="x}"} 0.5 1.5\nb 1 # {t="y"} 2\n# EOF\n'
    assert bench.scrape(text, 2000, OPENMETRICS).error == ""
    assert [(e.labels.to_dict(), e.value, e.t_ms) for e in bench.store.exemplars] == [
        ({"trace_id": "x}"}, 0.5, 1500),
        ({"t": "y"}, 2.0, 2000),
    ]


def test_extra_metrics_report_limits_and_size() -> None:
    bench = Bench(extra_metrics=True, sample_limit=9, timeout_seconds=3.0)
    bench.scrape("a 1\n", 1000)
    bench.samples.store(None, ScrapeError("too large", body_bytes=-1), 2000, lambda: 0.1)
    bench.scrape(None, 3000)
    assert bench.values("scrape_timeout_seconds") == [3.0, 3.0, 3.0]
    assert bench.values("scrape_sample_limit") == [9.0, 9.0, 9.0]
    assert bench.values("scrape_body_size_bytes") == [4.0, -1.0, 0.0]


def test_a_cache_under_churn_stays_small() -> None:
    bench = Bench()
    for t in range(1, 60):
        lines = "".join(f'a{{id="{t}-{i}"}} 1\n' for i in range(100))
        assert bench.scrape(lines, t * 1000).error == ""
    assert bench.samples._cache.count < 2000
    assert bench.values("a", 'id="1-1"') == [1.0, "stale"]
    assert bench.values("a", 'id="59-1"') == [1.0]
