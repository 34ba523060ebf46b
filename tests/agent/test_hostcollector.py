"""The way of what collectors gather into a store: stale markers, limits, failures."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent.hostcollector import HostCollector
from ingest.gathered import Gathered, GatheredWriter, counter, gauge
from tests.ingest.fakestore import FakeStore
from tsdb.database import open_database
from tsdb.errors import DiskFullError
from tsdb.labels import Matcher, MatchType


def test_a_collection_can_be_read_back_from_a_store(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    try:
        collector = HostCollector(database.appender(), None, instance="h")
        now_ms = database.now_ms()
        written = [collector.collect_once(now_ms + step * 1000)["node"] for step in range(2)]
        matchers = [
            Matcher(MatchType.EQUAL, "__name__", "node_memory_MemTotal_bytes"),
            Matcher(MatchType.EQUAL, "job", "node"),
            Matcher(MatchType.EQUAL, "instance", "h"),
        ]
        selection = database.querier().select(matchers, now_ms, now_ms + 1000)
        found = selection.read(0, len(selection.refs)).values.tolist()
    finally:
        database.close()
    assert all(w is not None and w.refused_count == 0 and w.stored_count > 100 for w in written)
    total = float(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert found == [total, total]


def test_a_device_that_disappears_gets_one_stale_marker() -> None:
    store = FakeStore()
    writer = GatheredWriter(store, {"job": "node"})
    family = counter("c_total", "", "device")
    for t_ms, devices in ((1000, ("a", "b")), (2000, ("a",)), (3000, ("a",)), (4000, ("a", "b"))):
        out = Gathered()
        for device in devices:
            out.add(family, t_ms, device)
        writer.write(out, t_ms)
    assert store.values('c_total{device="b", job="node"}') == [1000.0, "stale", 4000.0]
    assert store.values('c_total{device="a", job="node"}') == [1000.0, 2000.0, 3000.0, 4000.0]
    assert [m.family for m in store.metadata] == ["c_total"]


def test_a_stale_marker_that_could_not_be_written_comes_with_the_next_write() -> None:
    class Broken(FakeStore):
        full = False

        def append(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            if self.full:
                raise DiskFullError("disk is full")
            return super().append(*args, **kwargs)  # type: ignore[arg-type]

    store = Broken()
    writer = GatheredWriter(store)
    for t_ms, devices in ((1000, "abc"), (2000, "a"), (3000, "ab")):
        store.full = t_ms == 2000
        out = Gathered()
        for device in devices:
            out.add(gauge("g", "", "device"), t_ms, device)
        if store.full:
            with pytest.raises(DiskFullError):
                writer.write(out, t_ms)
        else:
            writer.write(out, t_ms)
    assert store.values('g{device="b"}') == [1000.0, 3000.0]
    assert store.values('g{device="c"}') == [1000.0, "stale"]


def test_steady_collections_look_up_no_series() -> None:
    store = FakeStore()
    writer = GatheredWriter(store)
    for t_ms in range(1000, 6000, 1000):
        out = Gathered()
        out.add(gauge("g", ""), t_ms)
        writer.write(out, t_ms)
    assert store.refs_calls == 1


def test_refs_that_the_store_has_collected_are_looked_up_again() -> None:
    store = FakeStore()
    writer = GatheredWriter(store)
    for t_ms in (1000, 2000):
        out = Gathered()
        out.add(gauge("g", ""), t_ms)
        written = writer.write(out, t_ms)
        store.forget()
    assert (written.stored_count, written.refused_count) == (1, 0)
    assert store.values("g") == [1000.0, 2000.0]


def test_series_above_the_limit_are_counted_as_refused() -> None:
    store = FakeStore()
    out = Gathered(series_limit=2)
    for device in "abc":
        out.add(gauge("g", "", "device"), 1.0, device)
    written = GatheredWriter(store).write(out, 1000)
    assert (written.stored_count, written.refused_count) == (2, 1)


class _Failing:
    name = "failing"

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def collect(self, out: Gathered) -> None:
        raise OSError("no such machine")


class _One:
    name = "one"

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self.collected = threading.Event()

    def collect(self, out: Gathered) -> None:
        out.add(gauge("one", ""), 1.0)
        self.collected.set()


def test_a_failing_source_is_counted_and_the_others_go_on() -> None:
    registry, store = CollectorRegistry(), FakeStore()
    collector = HostCollector(store, registry, sources=[_Failing(), _One()], instance="h")
    written = collector.collect_once(1000)
    assert written["failing"] is None
    assert store.values('one{instance="h", job="one"}') == [1.0]
    failures = registry.get_sample_value("vedette_agent_collection_failures_total", {"source": "failing"})
    assert failures == 1.0


def test_a_full_disk_is_counted_and_collection_goes_on() -> None:
    class Full(FakeStore):
        def append(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            raise DiskFullError("disk is full")

    registry = CollectorRegistry()
    collector = HostCollector(Full(), registry, sources=[_One()])
    assert collector.collect_once(1000) == {"one": None}
    assert registry.get_sample_value("vedette_agent_collection_failures_total", {"source": "one"}) == 1.0


async def test_the_service_collects_at_once_and_ends_with_stale_markers() -> None:
    store, source = FakeStore(), _One()
    collector = HostCollector(store, CollectorRegistry(), sources=[source], instance="h")
    await collector.start()
    await asyncio.to_thread(source.collected.wait, 10)
    await collector.stop()
    assert store.values('one{instance="h", job="one"}')[-1] == "stale"
