"""Limits of a query: samples, memory, time, depth, steps; cancelling it; a store that fails."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from promql import limits
from promql.budget import QueryBudget, new_cancel_flag
from promql.engine import Engine
from promql.engineerrors import (
    ExecutionError,
    MemoryLimitError,
    QueryCancelled,
    QueryTimeout,
    StorageReadError,
    TooManySamples,
)
from promql.memory import MemoryQuerier, MemorySelection
from promql.operators import scan
from promql.operators.operator import PIECE_WORK_MAX, refined
from promql.options import EngineOptions
from promql.parser import parse
from promql.printer import pretty, to_string
from promql.treejson import to_json
from tests.promql.sampledata import store
from tsdb.errors import StorageError
from tsdb.labels import Matcher
from tsdb.select import SelectHints

ENGINE = Engine(EngineOptions(threads=1))
MINUTE_MS = 60_000
NO_HINTS = SelectHints()
DATA = store(MINUTE_MS, {'m{i="1"}': list(range(11)), 'm{i="2"}': [float(10 * v) for v in range(11)]})


def test_too_many_samples_is_an_error_with_prometheus_text() -> None:
    engine = Engine(EngineOptions(samples_max=10, threads=1))
    with pytest.raises(TooManySamples) as caught:
        engine.range(DATA.querier(), "m", 0, 600_000, 60_000)
    assert str(caught.value) == (
        "query processing would load too many samples into memory in query execution"
    )
    # The input of an aggregation counts, though it is not held.
    with pytest.raises(TooManySamples):
        engine.range(DATA.querier(), "sum(m)", 0, 300_000, 60_000)
    assert engine.range(DATA.querier(), "sum(m)", 0, 240_000, 60_000).value.values.shape == (1, 5)


def test_memory_budget_is_an_error_that_names_the_limit() -> None:
    engine = Engine(EngineOptions(bytes_max=100, threads=1))
    with pytest.raises(MemoryLimitError, match="more than the limit of 100 bytes"):
        engine.range(DATA.querier(), "m", 0, 600_000, 60_000)


def test_memory_of_a_finished_step_is_given_back() -> None:
    budget = QueryBudget(10, 100, 1.0)
    budget.hold_bytes(100)
    budget.release_bytes(60)
    budget.hold_bytes(50)
    assert budget.bytes_peak == 100
    with pytest.raises(MemoryLimitError):
        budget.hold_bytes(50)


def peak_bytes(query: str, series: int) -> int:
    """The most that a range query over so many series and 300 steps has allocated at once."""
    data = store(MINUTE_MS, {f'm{{i="{i}"}}': [float(v + i) for v in range(300)] for i in range(series)})
    querier, engine = data.querier(), Engine(EngineOptions(threads=1))
    engine.range(querier, query, 0, 299 * MINUTE_MS, MINUTE_MS)
    tracemalloc.start()
    try:
        engine.range(querier, query, 0, 299 * MINUTE_MS, MINUTE_MS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("query", ["sum(m)", "max by (job) (rate(m[5m]))", "topk(1, m)", "count(m)"])
def test_an_aggregation_holds_its_result_and_one_piece(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PIECE_WORK_MAX", 1 << 13)
    few, many = peak_bytes(query, 60), peak_bytes(query, 360)
    cells = (360 - 60) * 300 * 8
    assert many - few < cells / 3


def test_long_rows_make_small_pieces() -> None:
    assert refined([(0, 10)], 1) == [(0, 10)]
    assert refined([(0, 3), (3, 5)], PIECE_WORK_MAX) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert refined([], 5) == []


def test_timeout_is_raised_between_pieces() -> None:
    ticks = iter(range(0, 100_000, 50))
    engine = Engine(EngineOptions(timeout_s=10.0, threads=1), clock=lambda: float(next(ticks)))
    with pytest.raises(QueryTimeout, match="query timed out in expression evaluation"):
        engine.instant(DATA.querier(), "m", 0)


def test_cancel_flag_stops_a_query() -> None:
    flag = new_cancel_flag()
    flag[0] = 1
    with pytest.raises(QueryCancelled, match="query was canceled in expression evaluation"):
        ENGINE.instant(DATA.querier(), "m", 0, cancel=flag)


class FailingQuerier(MemoryQuerier):
    """A store that cannot be read."""

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS
    ) -> MemorySelection:
        raise StorageError("disk on fire")


def test_failure_of_the_store_is_not_the_users_error(caplog: pytest.LogCaptureFixture) -> None:
    """The operator learns of it from the log and a counter."""
    registry = CollectorRegistry()
    engine = Engine(EngineOptions(threads=1), registry)
    with pytest.raises(StorageReadError, match="disk on fire"):
        engine.instant(FailingQuerier(DATA), "m", 0)
    assert registry.get_sample_value("vedette_engine_failed_reads_total") == 1
    assert [(r.query, r.err) for r in caplog.records] == [("m", "disk on fire")]  # type: ignore[attr-defined]


DEEP = limits.LEVELS_AT_ONCE_MAX - 1
"""As deep as is evaluated in one go."""


@pytest.mark.parametrize("stats", ["", "true"])
@pytest.mark.parametrize(
    "query",
    [
        " or ".join(f'm{{i="{number % 2 + 1}"}}' for number in range(DEEP)),
        "m" + "+m" * (DEEP - 1),
        "m" + "+1" * (DEEP - 1),
        "abs(" * DEEP + "m" + ")" * DEEP,
        "sum(" * DEEP + "m" + ")" * DEEP,
        "(" * DEEP + "m" + ")" * DEEP,
        "-" * DEEP + "m",
        "max_over_time(" * (DEEP // 2) + "m" + "[1m:30s])" * (DEEP // 2),
        "label_replace(" * DEEP + "m" + ", 'a', 'b', 'c', '')" * DEEP,
    ],
    ids=lambda query: query[:14],
)
def test_what_is_evaluated_in_one_go_fits_the_stack(query: str, stats: str) -> None:
    engine = Engine(EngineOptions(threads=2))
    assert len(engine.instant(DATA.querier(), query, 60_000, stats=stats).value.values) in (1, 2)
    assert parse(to_string(parse(query)))
    assert pretty(parse(query))
    assert to_json(parse(query))


def test_subquery_with_too_many_steps_is_refused_before_it_runs() -> None:
    engine = Engine(EngineOptions(subquery_steps_max=1000, threads=1))
    with pytest.raises(ExecutionError, match="more than the limit of 1000"):
        engine.instant(DATA.querier(), "count_over_time(m[10y:1s])", 0)
