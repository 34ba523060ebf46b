"""Queries of thousands of levels: the answers of Prometheus, which has no limit, in bounded time and memory.

The values at 60 s of the 10,000-deep ones are those that Prometheus 3.14 gives for the same two series.
"""

from __future__ import annotations

import json
import threading
import time
import tracemalloc

import numpy as np
import pytest

from promql.ast import Expr
from promql.budget import new_cancel_flag
from promql.engine import Engine
from promql.engineerrors import QueryCancelled, TooManySamples
from promql.limits import LEVELS_AT_ONCE_MAX
from promql.options import EngineOptions
from promql.parser import parse
from promql.printer import FormatError, pretty, to_string
from promql.result import QueryResult
from promql.treejson import to_json
from promql.visit import depth
from tests.promql.sampledata import store
from tsdb.errors import NotAtOnceError
from web.envelope import encode

MINUTE_MS = 60_000
DATA = store(MINUTE_MS, {'m{i="1"}': list(range(11)), 'm{i="2"}': [float(10 * v) for v in range(11)]})
FEATURES = frozenset({"promql-experimental-functions"})
ENGINE = Engine(EngineOptions(threads=2, features=FEATURES))
D = 10_000
H = 2_000
"""For operations that take longer: enough for the stages, and for recursion to fail."""
SECONDS_MAX = 60.0
"""Far more than they take, 0.1 to 5 s, so that a busy machine does not fail the test; Prometheus takes 30 s
for some of them."""

DEEP: list[tuple[str, list[float]]] = [
    ("(" * D + "1" + ")" * D, [1]),
    ("-" * D + "m", [1, 10]),
    ("-(" * D + "m" + ")" * D, [1, 10]),
    ("1+(" * D + "1" + ")" * D, [D + 1]),
    ("1+(" * D + "time()" + ")" * D, [D + 60]),
    ("1" + "+1" * D, [D + 1]),
    ("m" + "+1" * D, [D + 1, D + 10]),
    ("m" + "+m" * H, [H + 1, 10 * (H + 1)]),
    ("m+(" * H + "m" + ")" * H, [H + 1, 10 * (H + 1)]),
    ("abs(" * D + "m" + ")" * D, [1, 10]),
    ("sum(" * D + "m" + ")" * D, [11]),
    ("topk(1+1," * H + "m" + ")" * H, [10, 1]),
    ("scalar(vector(" * H + "1" + "))" * H, [1]),
    ("label_replace(" * H + "m" + ", 'a', 'b', 'c', '')" * H, [1, 10]),
    (" or ".join(f'm{{i="{number % 2 + 1}"}}' for number in range(H)), [1, 10]),
    ("max_over_time(" * H + "m" + "[1m:30s])" * H, [1, 10]),
]
IDS = [query[:14] for query, _ in DEEP]


def values(result: QueryResult) -> list[float]:
    """Values of an instant query."""
    found = result.value
    return [found] if isinstance(found, float) else sorted(found.values[:, 0].tolist())


@pytest.mark.parametrize(("query", "expected"), DEEP, ids=IDS)
@pytest.mark.parametrize("stats", ["", "true"])
def test_deep_queries_are_answered(query: str, expected: list[float], stats: str) -> None:
    begin = time.perf_counter()
    result = ENGINE.instant(DATA.querier(), query, MINUTE_MS, stats=stats)
    assert values(result) == sorted(expected)
    assert time.perf_counter() - begin < SECONDS_MAX


@pytest.mark.parametrize(("query", "expected"), DEEP, ids=IDS)
def test_deep_trees_are_printed_and_read_back(query: str, expected: list[float]) -> None:
    text = to_string(parse(query))
    assert to_string(parse(text)) == text
    data = encode(to_json(parse(query)))
    assert data.count(b'"type":"') >= depth(parse(query))
    assert data.count(b"{") == data.count(b"}")


SHALLOW = 700
SAME = [
    "abs(" * SHALLOW + "m" + ")" * SHALLOW,
    "m" + "+m" * SHALLOW,
    "m*(" * SHALLOW + "m @ 60" + ")" * SHALLOW,
    "sum by (i) (" * SHALLOW + "m" + ")" * SHALLOW,
    "max_over_time(" * 350 + "m" + "[1m:30s])" * 350,
    "quantile(scalar(" * 350 + "m" + "), m)" * 350,
]


@pytest.mark.parametrize("query", SAME, ids=[query[:14] for query in SAME])
def test_stages_change_neither_result_nor_statistics(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at every fortieth level, or at every three-hundredth."""

    def run() -> tuple[np.ndarray, object, str]:
        result = ENGINE.range(DATA.querier(), query + " ", 0, 10 * MINUTE_MS, MINUTE_MS, stats="all")
        plan = ENGINE.explain(DATA.querier(), query + " ", 0, 10 * MINUTE_MS, MINUTE_MS)
        return result.value.values, result.stats["samples"], "\n".join(plan.lines())

    import promql.prepared as prepared

    assert depth(parse(query)) > LEVELS_AT_ONCE_MAX
    prepared._prepare_cached.cache_clear()
    once = run()
    monkeypatch.setattr(prepared, "LEVELS_AT_ONCE_MAX", 40)
    prepared._prepare_cached.cache_clear()
    again = run()
    prepared._prepare_cached.cache_clear()
    np.testing.assert_array_equal(once[0], again[0])
    assert once[1:] == again[1:]


def test_a_deep_query_is_explained_with_figures() -> None:
    plan = ENGINE.explain(DATA.querier(), "abs(" * D + "m" + ")" * D, 0, 0, 0, analyze=True)
    lines = list(plan.lines())
    assert len(lines) == D + 1
    assert all("time=" in line for line in lines)


def test_rows_of_a_stage_are_given_back() -> None:
    """A query of many stages holds no more than a few."""
    data = store(MINUTE_MS, {f'm{{i="{i}"}}': [float(v) for v in range(300)] for i in range(50)})
    engine = Engine(EngineOptions(threads=1))

    def peak(levels: int) -> int:
        query = "-(" * levels + "m" + ")" * levels
        tracemalloc.start()
        try:
            engine.range(data.querier(), query, 0, 299 * MINUTE_MS, MINUTE_MS)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(400)
    stages_more = (8_000 - 400) // LEVELS_AT_ONCE_MAX
    result = 50 * 300 * 8
    nodes = (8_000 - 400) * 2_500  # text, tree and operators of a level
    assert peak(8_000) - peak(400) < nodes + stages_more * result / 3


def test_samples_held_at_a_time_are_limited_at_any_depth() -> None:
    engine = Engine(EngineOptions(samples_max=3_000, threads=1))
    query = "1+(" * 2_000 + "time()" + ")" * 2_000
    assert (
        engine.instant(DATA.querier(), query, MINUTE_MS, stats="true").stats["samples"]["peakSamples"]
        == 2_004
    )
    with pytest.raises(TooManySamples):
        engine.range(DATA.querier(), query, 0, MINUTE_MS, MINUTE_MS)


def test_a_deep_query_can_be_cancelled() -> None:
    flag = new_cancel_flag()
    timer = threading.Timer(0.5, lambda: flag.__setitem__(0, 1))
    timer.start()
    query = "max_over_time(" * 9_000 + "m" + "[10m:10s])" * 9_000
    with pytest.raises(QueryCancelled):
        ENGINE.instant(DATA.querier(), query, MINUTE_MS, cancel=flag)
    timer.join()


def test_a_deep_query_is_nothing_for_a_thread_that_must_not_wait() -> None:
    with pytest.raises(NotAtOnceError):
        ENGINE.instant(DATA.querier(), "abs(" * 500 + "m" + ")" * 500, MINUTE_MS, at_once=1_000_000)


def test_a_megabyte_of_text() -> None:
    many = 'm{i=~"' + "|".join(str(number) for number in range(150_000)) + '"}'
    assert values(ENGINE.instant(DATA.querier(), many, MINUTE_MS)) == [1, 10]
    spaces = "1" + " " * (10 * 1024 * 1024 - 30)
    assert values(ENGINE.instant(DATA.querier(), spaces, MINUTE_MS)) == [1]
    literals = "+".join(["1"] * 30_000)
    assert values(ENGINE.instant(DATA.querier(), literals, MINUTE_MS)) == [30_000]


def test_durations_may_be_deep() -> None:
    sums, nested = "m[5m" + "+1" * D + "]", "m[" + "(1+" * D + "1" + ")" * D + "]"
    for query in (sums, nested):
        tree = parse(query)
        assert parse(to_string(tree)) is not None
        assert encode(to_json(tree)).count(b"durationExpr") == D
        assert len(ENGINE.instant(DATA.querier(), query, MINUTE_MS).value.labels) == 2


def flat(node: Expr) -> str:
    """The pretty form with its layout taken out."""
    return "".join(pretty(node).split())


@pytest.mark.parametrize("query", SAME[:4], ids=[query[:14] for query in SAME[:4]])
def test_the_pretty_form_of_a_deep_tree_reads_back(query: str) -> None:
    assert flat(parse(query)) == "".join(to_string(parse(query)).split())


def test_a_pretty_form_of_hundreds_of_megabytes_is_refused() -> None:
    assert len(pretty(parse("(" * 3_000 + "1" + ")" * 3_000))) == 17_428_705  # as Prometheus's
    with pytest.raises(FormatError, match="longer than the limit"):
        pretty(parse("(" * D + "1" + ")" * D))


def test_json_of_any_depth_is_what_the_library_writes() -> None:
    value: object = [1, "<&>\u2028", {}, [], None, 1.5, {"a<": ["x", {"b": True}]}]
    for _ in range(200):
        value = {"k": [value, {"n": 0}]}
    assert json.loads(encode(value)) == value
