"""Security events as counters in a real store, asked through PromQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from security.eventseries import IDLE_MS, INTERVAL_MS, METRIC, EventSeries
from security.record import EventRecord
from tests.security.records import T0_NS, record
from tsdb.columns import SampleColumns, WriteBatch
from tsdb.database import Database, open_database
from tsdb.labels import Labels
from tsdb.limits import StorageOptions

T0 = T0_NS // 1_000_000
OPTIONS = StorageOptions(background=False, out_of_order_window_ms=3_600_000)


class Store:
    """A store, its counters, and a clock."""

    def __init__(self, path: Path, **options: int) -> None:
        self.now_ms = T0 + 1000
        self.path, self.options = path, options
        self.engine = Engine(EngineOptions(threads=1), CollectorRegistry())
        self.open()

    def open(self) -> None:
        self.database: Database = open_database(self.path, OPTIONS, clock=lambda: self.now_ms / 1000)
        self.series = EventSeries(self.database.appender(), lambda: self.now_ms, **self.options)
        self.series.resume(self.database.querier())

    def reopen(self) -> None:
        self.database.close()
        self.open()

    def write(self, *records: EventRecord) -> None:
        stored = self.series.write(records)
        if stored is not None:
            stored.result(5)

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_ms += 1000
            self.series.tick()

    def ask(self, query: str, at_ms: int | None = None) -> dict[Labels, float]:
        querier = self.database.querier()
        matrix = self.engine.instant(querier, query, self.now_ms if at_ms is None else at_ms).value
        values = np.asarray(matrix.values)[:, 0].tolist()
        return dict(zip(matrix.labels.rows(), values, strict=True))

    def samples(self) -> dict[str, list[tuple[int, float]]]:
        selection = self.database.querier().select((), 0, self.now_ms + 60_000)
        batch = selection.read(0, len(selection.labels))
        bounds = batch.offsets.tolist()
        return {
            labels.get("rule"): list(
                zip(batch.t_ms[lo:hi].tolist(), batch.values[lo:hi].tolist(), strict=True)
            )
            for labels, lo, hi in zip(selection.labels.rows(), bounds, bounds[1:], strict=False)
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data")
    yield made
    made.database.close()


def at(milliseconds: int, rule: str = "r", **rest: str) -> EventRecord:
    return record(rule, time_ns=T0_NS + milliseconds * 1_000_000 + 999, **rest)  # type: ignore[arg-type]


def only(answer: dict[Labels, float]) -> float:
    [value] = answer.values()
    return value


def test_the_first_event_is_seen_at_once_and_increase_gives_one(store: Store) -> None:
    store.write(at(500))
    assert only(store.ask(METRIC)) == 1
    assert only(store.ask(METRIC, T0 + 500)) == 1
    assert only(store.ask(METRIC, T0 + 499)) == 0
    assert only(store.ask(f"increase({METRIC}[5m])")) == pytest.approx(1, rel=0.01)
    store.pass_s(60)
    for window in ("2m", "5m"):
        assert only(store.ask(f"increase({METRIC}[{window}])")) == pytest.approx(1, rel=0.1)
    store.pass_s(300)
    assert only(store.ask(f"increase({METRIC}[5m])")) == 0
    assert only(store.ask(METRIC)) == 1


def test_events_of_one_millisecond_and_later_ones_add_up(store: Store) -> None:
    store.write(at(100), at(100), at(101), at(50, "other"), at(300), at(20))
    assert store.ask(METRIC) == {
        Labels.from_dict({"__name__": METRIC, **dict(at(0).labels)}): 5,
        Labels.from_dict({"__name__": METRIC, **dict(at(0, "other").labels)}): 1,
    }
    steps = [sample for sample in store.samples()["r"] if sample[1] > 0]
    assert steps == [(T0 + 20, 1), (T0 + 99, 1), (T0 + 100, 3), (T0 + 101, 4), (T0 + 299, 4), (T0 + 300, 5)]


def test_a_late_event_counts_just_after_the_newest_sample_and_never_lowers_a_counter(store: Store) -> None:
    store.write(at(900))
    store.write(at(900), at(400))
    values = [value for _, value in store.samples()["r"]]
    assert values == sorted(values)
    assert store.samples()["r"][-2:] == [(T0 + 901, 2), (T0 + 902, 3)]
    assert store.series.moved_count == 2


def test_late_sources_keep_their_own_times(store: Store) -> None:
    store.write(at(0, source="k8s_audit"))
    store.pass_s(40)
    store.write(at(10_000, source="k8s_audit"))
    assert store.samples()["r"][-1] == (T0 + 10_000, 2)
    assert store.series.moved_count == 0


def test_a_counter_goes_on_after_a_restart(store: Store) -> None:
    store.write(at(0), at(1))
    store.pass_s(30)
    store.reopen()
    store.pass_s(20)
    store.write(at(50_000))
    assert only(store.ask(METRIC)) == 3
    assert only(store.ask(f"resets({METRIC}[5m])")) == 0
    assert store.series.moved_count == 0


def test_an_idle_counter_ends_with_a_stale_marker_and_begins_again_at_zero(store: Store) -> None:
    store.write(at(0))
    store.now_ms += IDLE_MS - 1000
    store.series.tick()
    assert only(store.ask(METRIC)) == 1
    store.now_ms += 1000
    store.series.tick()
    assert store.ask(METRIC) == {}
    assert store.series.series_count == 0
    store.reopen()
    assert store.series.series_count == 0
    store.now_ms += 600_000
    store.write(at(IDLE_MS + 600_000))
    assert only(store.ask(METRIC)) == 1
    assert only(store.ask(f"increase({METRIC}[5m])")) == pytest.approx(1, rel=0.01)


def test_more_label_sets_than_the_limit_are_counted_without_their_own_labels(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", series_limit=3)
    store.write(*(at(n, proc_name=f"p{n}") for n in range(10)))
    store.write(at(20, proc_name="p1"))
    assert store.series.overflow_count == 7
    assert only(store.ask(f'sum({METRIC}{{overflow="true",rule="r"}})')) == 7
    assert only(store.ask(f"sum({METRIC})")) == 11
    assert store.series.series_count == 4
    store.database.close()


def test_events_older_than_the_store_takes_are_counted_as_such(store: Store) -> None:
    store.write(at(-7_200_000), at(0))
    assert only(store.ask(METRIC)) == 1
    assert store.series.refused_count == {"too_old": 1}


def test_events_from_the_future_are_refused_by_the_store_and_leave_the_counter(store: Store) -> None:
    store.write(at(0))
    store.write(at(3_600_000))
    store.write(at(3_600_000, "new"))
    assert store.series.refused_count == {"out_of_bounds": 2}
    store.write(at(10))
    assert only(store.ask(METRIC)) == 2
    assert store.series.series_count == 1


def test_a_label_set_that_the_store_refuses_is_counted_and_the_others_are_stored(store: Store) -> None:
    bad = EventRecord(record().output, (("rule", "x\ud800"),), "h")
    store.write(bad, at(5))
    assert store.series.refused_count == {"labels": 1}
    assert only(store.ask(METRIC)) == 1


def test_repeats_are_at_most_an_interval_apart(store: Store) -> None:
    store.write(at(0))
    store.pass_s(100)
    store.write(at(100_000))
    times = [t for t, _ in store.samples()["r"]]
    assert max(b - a for a, b in itertools.pairwise(times)) <= INTERVAL_MS


def test_the_query_of_the_issue_joins_events_with_performance(store: Store) -> None:
    """Critical events of pods that use more than one core."""
    appender = store.database.appender()
    usage = [("hot", 2.0), ("cold", 0.1)]
    rows = [Labels.from_dict({"__name__": "container_cpu_usage_seconds_total", "pod": p}) for p, _ in usage]
    refs = appender.refs(rows)
    for step in range(21):
        t_ms = np.full(2, T0 + step * 15_000, np.int64)
        values = np.array([cores * step * 15 for _, cores in usage])
        appender.append(WriteBatch(samples=SampleColumns(refs, t_ms, values)), now_ms=T0 + 600_000)
    store.now_ms += 300_000
    for pod in ("hot", "cold"):
        for priority in ("Critical", "Notice"):
            store.write(at(280_000, priority=priority, k8s_pod_name=pod, pod=pod))
    query = (
        'sum by (pod) (rate(vedette_security_events_total{priority="Critical"}[5m]))'
        " and on (pod) rate(container_cpu_usage_seconds_total[5m]) > 1"
    )
    assert store.ask(query) == {Labels.from_dict({"pod": "hot"}): pytest.approx(1 / 300, rel=0.05)}


def test_grafanas_annotation_query_gives_one_point_an_event(store: Store) -> None:
    start = T0 - T0 % 60_000
    for minute in (2, 5):
        store.now_ms = start + minute * 60_000 + 30_000
        store.series.tick()
        store.write(record("r", time_ns=(start + minute * 60_000 + 20_000) * 1_000_000))
    store.now_ms = start + 600_000
    store.series.tick()
    querier = store.database.querier()
    matrix = store.engine.range(querier, f"increase({METRIC}[1m]) > 0", start, start + 600_000, 60_000).value
    assert np.flatnonzero(matrix.present()[0]).tolist() == [3, 6]
