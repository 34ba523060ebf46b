"""Queries that the event loop answers itself: which, with what, and that they never see less than others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from tests.web.conftest import NOW_S, FakeResult, Site, SiteFactory
from tsdb.errors import NotAtOnceError
from tsdb.labels import Labels
from web import shortqueries
from web.shortqueries import (
    GROWING_MAX,
    GROWTH_FLOOR,
    KNOWN_MAX,
    SHORT_S,
    TEXT_MAX,
    WORK_MAX,
    QueryKey,
    ShortQueries,
)

KEY = QueryKey("up", -1)


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a query takes here, it is short."""
    monkeypatch.setattr(shortqueries, "SHORT_S", 60.0)


def test_what_took_long_or_had_much_work_is_not_short() -> None:
    short = ShortQueries()
    assert short.limit(KEY) == 0
    short.learn(KEY, 0.001, 10)
    assert short.limit(KEY) == 10 + GROWTH_FLOOR
    assert short.limit(QueryKey("up", 60)) == 0
    short.learn(KEY, SHORT_S * 1.01, 10)
    assert short.limit(KEY) == 0
    short.learn(KEY, 0.001, WORK_MAX + 1)
    assert short.limit(KEY) == 0
    short.learn(KEY, 0.001, WORK_MAX - 1)
    assert short.limit(KEY) == WORK_MAX
    for work, limit in ((16_000, 32_000), (20_000, GROWING_MAX), (80_000, 90_000)):
        short.learn(KEY, 0.001, work)
        assert short.limit(KEY) == limit
    short.forget(KEY)
    assert short.limit(KEY) == 0


def test_what_is_remembered_is_bounded() -> None:
    short = ShortQueries()
    short.learn(QueryKey("x" * (TEXT_MAX + 1), -1), 0.001, 1)
    for number in range(KNOWN_MAX + 1):
        short.learn(QueryKey(str(number), -1), 0.001, 1)
    assert short.limit(QueryKey("0", -1)) == 0
    assert short.limit(QueryKey(str(KNOWN_MAX), -1)) > 0
    assert short.limit(QueryKey("x" * (TEXT_MAX + 1), -1)) == 0


def test_time_of_the_processor_counts_and_a_fifth_of_the_time_on_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"thread_time": 10.0, "perf_counter": 50.0}
    for name in times:
        monkeypatch.setattr(time, name, lambda name=name: times[name])
    watch = shortqueries.Stopwatch()
    times.update(thread_time=10.002, perf_counter=50.004)
    assert watch.seconds() == pytest.approx(0.002)
    times.update(perf_counter=50.1)
    assert watch.seconds() == pytest.approx(0.02)


async def test_a_short_query_is_answered_by_the_loop_the_second_time(site: Site, slow_machine: None) -> None:
    threads: list[int] = []

    def answer(text: str, cancel: Any) -> FakeResult:
        threads.append(threading.get_ident())
        return FakeResult(1.0, work=7)

    site.engine.answer, site.engine.answers_at_once = answer, True
    bodies = [await site.get("/api/v1/query", params={"query": "up"}) for _ in range(2)]
    assert bodies[0] == bodies[1]
    assert bodies[0][0] == 200
    assert threads[0] != threading.get_ident() == threads[1]
    assert site.engine.at_once == [7 + GROWTH_FLOOR]


async def test_a_refused_query_is_answered_by_the_pool(site: Site, slow_machine: None) -> None:
    threads: list[int] = []

    def answer(text: str, cancel: Any) -> FakeResult:
        threads.append(threading.get_ident())
        return FakeResult(1.0, work=7)

    site.engine.answer = answer
    for _ in range(2):
        assert (await site.get("/api/v1/query", params={"query": "up"}))[0] == 200
    assert site.engine.at_once == [7 + GROWTH_FLOOR]
    assert threading.get_ident() not in threads


async def test_a_query_that_took_long_goes_to_the_pool_again(site: Site) -> None:
    def answer(text: str, cancel: Any) -> FakeResult:
        time.sleep(2 * SHORT_S / shortqueries.WAITING_WEIGHT)
        return FakeResult(1.0, work=7)

    site.engine.answer = answer
    for _ in range(2):
        assert (await site.get("/api/v1/query", params={"query": "up"}))[0] == 200
    assert not site.engine.at_once


async def test_an_error_of_the_loop_s_query_is_the_usual_answer(site: Site, slow_machine: None) -> None:
    site.engine.answers_at_once = True
    assert (await site.get("/api/v1/query", params={"query": "up"}))[0] == 200

    def fail(text: str, cancel: Any) -> FakeResult:
        raise RuntimeError("broken")

    site.engine.answer = fail
    answers = [await site.get("/api/v1/query", params={"query": "up"}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 500
    assert len(site.engine.at_once) == 1


async def test_loop_and_pool_say_the_same_of_samples_that_come_and_go(
    make_site: SiteFactory, slow_machine: None
) -> None:
    engine = Engine(EngineOptions(threads=1), CollectorRegistry())
    try:
        site: Site = await make_site(engine=engine)
        queries = ("up", "count(up)", "sum by (job) (up)", "max_over_time(up[1m])")

        async def ask() -> list[Any]:
            return [await site.get("/api/v1/query", params={"query": text}) for text in queries]

        await ask()
        site.database.store.add_float(
            Labels.from_dict({"__name__": "up", "job": "late"}), int(NOW_S * 1000) - 1, 5.0
        )
        again = await ask()
        assert again[1][1]["data"]["result"][0]["value"][1] == "4"
        pool = await asyncio.gather(
            *(site.get("/api/v1/query", params={"query": f" {text}"}) for text in queries)
        )
        assert again == list(pool)
        asked = site.services.registry.get_sample_value("vedette_short_queries_total")
        assert asked == len(queries)
    finally:
        engine.close()


async def test_labels_are_read_by_the_loop_the_second_time(
    site: Site, slow_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    querier = type(site.database.querier())

    def noting(method: str) -> None:
        original = getattr(querier, method)

        def read(self: Any, *args: Any) -> Any:
            threads.append(threading.get_ident())
            return original(self, *args)

        monkeypatch.setattr(querier, method, read)

    for method in ("series", "label_names", "label_values"):
        noting(method)
    monkeypatch.setattr(querier, "labels_at_once", lambda *_: contextlib.nullcontext(), raising=False)
    for path in ("series?match[]=up", "labels", "label/job/values"):
        threads.clear()
        answers = [await site.get(f"/api/v1/{path}") for _ in range(2)]
        assert answers[0] == answers[1]
        assert answers[0][0] == 200
        assert threads[0] != threading.get_ident() == threads[1]

    def refuse(*_: Any) -> Any:
        raise NotAtOnceError("somebody writes")

    monkeypatch.setattr(querier, "labels_at_once", refuse)
    threads.clear()
    assert (await site.get("/api/v1/labels"))[0] == 200
    assert threading.get_ident() not in threads
