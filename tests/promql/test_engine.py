"""The engine as a whole: times, step invariance, sharing, annotations, stats, plans."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from promql.ast import BinaryExpr, NumberLiteral, ValueType
from promql.engine import Engine
from promql.engineerrors import (
    ExecutionError,
    PreparationError,
    QueryTimeout,
)
from promql.functions import FUNCTIONS
from promql.histogramvalue import Histogram
from promql.kernels import subquery as subquery_kernels
from promql.memory import MemoryQuerier, MemorySelection, MemoryStore
from promql.optimize import fold_constants, is_step_invariant, shared_expressions
from promql.options import EngineOptions
from promql.parser import ParserOptions, parse, parse_metric
from promql.plan import function_builders
from promql.result import RangeVectors
from tests.promql.sampledata import cells, same_cells, store
from tsdb.labels import Matcher
from tsdb.select import SelectHints

ENGINE = Engine(EngineOptions(threads=1))
MINUTE_MS = 60_000
NO_HINTS = SelectHints()
DATA = store(MINUTE_MS, {'m{i="1"}': list(range(11)), 'm{i="2"}': [float(10 * v) for v in range(11)]})
REQUESTS = store(MINUTE_MS, {'requests_total{i="1"}': [60.0 * v for v in range(11)]})


def values(query: str, at_ms: int, engine: Engine = ENGINE) -> list[float]:
    """Values of an instant query in label order."""
    return engine.instant(DATA.querier(), query, at_ms).value.values[:, 0].tolist()


INSTANT = {
    "m": [5.0, 50.0],
    "m offset 2m": [3.0, 30.0],
    "m offset -2m": [7.0, 70.0],
    "m @ 60": [1.0, 10.0],
    "m @ 60 offset -1m": [2.0, 20.0],
    "m @ start()": [5.0, 50.0],
    "sum_over_time(m[3m])": [12.0, 120.0],
    "count_over_time(m[3m])": [3.0, 3.0],
    "sum_over_time(m[3m] offset 1m)": [9.0, 90.0],
    "max_over_time(m[3m:1m])": [5.0, 50.0],
    "sum_over_time(m[3m:30s])": [21.0, 210.0],
    "sum_over_time(m[3m:1m] @ 120)": [3.0, 30.0],
    "timestamp(m offset 1m)": [240.0, 240.0],
    "timestamp(m + 0)": [300.0, 300.0],
    "abs(-m)": [5.0, 50.0],
    "clamp_max(m, 7)": [5.0, 7.0],
    "clamp_min(m / 0, scalar(m))": [math.inf, math.inf],
    "clamp_max(-m / 0, scalar(m))": [-math.inf, -math.inf],
    "1 / clamp_max(m * 0, -0)": [-math.inf, -math.inf],
    "round(m / 3)": [2.0, 17.0],
    "day_of_week(m * 86400)": [2.0, 5.0],
    "vector(1) + scalar(sum(m))": [56.0],
}


# start() is the query's own start, so a range query differs from its instant queries by design.
ALIKE_IN_RANGES = [
    *(query for query in INSTANT if "start()" not in query),
    *("topk(1, m)", "predict_linear(m[5m] @ 300, 60)", "hour()"),
]


@pytest.mark.parametrize("query", list(INSTANT))
def test_instant_query(query: str) -> None:
    assert values(query, 5 * MINUTE_MS) == INSTANT[query]


@pytest.mark.parametrize("query", ALIKE_IN_RANGES)
def test_range_query_is_its_instant_queries_side_by_side(query: str) -> None:
    whole = ENGINE.range(DATA.querier(), query, 0, 9 * MINUTE_MS, 90_000).value
    rows = dict(zip(whole.labels.rows(), whole.values, strict=True))
    for k, at_ms in enumerate(range(0, 9 * MINUTE_MS + 1, 90_000)):
        one = ENGINE.instant(DATA.querier(), query, at_ms).value
        found = {labels: row[0] for labels, row in zip(one.labels.rows(), one.values, strict=True)}
        here = {labels: row[k : k + 1] for labels, row in rows.items()}
        for labels, cell in here.items():
            expected = cells([[found.get(labels)]], 1)
            assert cell.view(np.uint64) == expected.view(np.uint64), (query, at_ms, labels)
        assert set(found) <= set(here)


EXTREMES = [
    ("1", "2", 1.0, 2.0),
    ("NaN", "3", math.nan, math.nan),
    ("Inf", "NaN", math.nan, math.inf),
    ("NaN", "-Inf", -math.inf, math.nan),
    ("-Inf", "Inf", -math.inf, math.inf),
    ("0", "-0", -0.0, 0.0),
    ("-0", "0", -0.0, 0.0),
]


@pytest.mark.parametrize(("a", "b", "least", "greatest"), EXTREMES)
def test_the_lesser_and_the_greater_scalar_are_those_of_go(a, b, least, greatest) -> None:
    engine = Engine(EngineOptions(threads=1, features=frozenset({"promql-experimental-functions"})))
    for name, want in (("min_of", least), ("max_of", greatest)):
        got = engine.instant(DATA.querier(), f"{name}({a}, {b})", 0).value
        assert isinstance(got, float)
        assert str(got) == str(want), name


def test_windows_are_open_on_the_left() -> None:
    assert values("count_over_time(m[1m])", MINUTE_MS) == [1.0, 1.0]
    engine = Engine(EngineOptions(lookback_ms=MINUTE_MS, threads=1))
    late = store(MINUTE_MS, {"m": [1.0]})
    assert len(engine.instant(late.querier(), "m", MINUTE_MS - 1).value.values) == 1
    assert len(engine.instant(late.querier(), "m", MINUTE_MS).value.values) == 0


def test_lookback_can_be_given_with_the_query() -> None:
    data = store(MINUTE_MS, {"m": [1.0]})
    assert len(ENGINE.instant(data.querier(), "m", 2 * MINUTE_MS).value.values) == 1
    assert len(ENGINE.instant(data.querier(), "m", 2 * MINUTE_MS, lookback_ms=MINUTE_MS).value.values) == 0


def test_range_selector_at_the_top_gives_raw_samples() -> None:
    result = ENGINE.instant(DATA.querier(), "m[2m] offset 1m", 5 * MINUTE_MS)
    assert result.type is ValueType.MATRIX
    assert isinstance(result.value, RangeVectors)
    assert result.value.samples.t_ms.tolist() == [180_000, 240_000] * 2
    assert result.value.samples.values.tolist() == [3.0, 4.0, 30.0, 40.0]


def test_subquery_at_the_top_gives_samples_on_its_own_grid() -> None:
    value = ENGINE.instant(DATA.querier(), "sum(m)[2m:30s]", 5 * MINUTE_MS + 7).value
    assert value.samples.t_ms.tolist() == [210_000, 240_000, 270_000, 300_000]


def test_scalars_and_strings() -> None:
    assert ENGINE.instant(DATA.querier(), "1 + 2 * 3", 0).value == 7.0
    assert ENGINE.instant(DATA.querier(), "time()", 1500).value == 1.5
    assert ENGINE.instant(DATA.querier(), "'text'", 0).value == "text"
    ranged = ENGINE.range(DATA.querier(), "time()", 0, 2000, 1000).value
    same_cells(ranged.values, [[0.0, 1.0, 2.0]])


CALENDAR = {
    "year(vector(-1))": 1969.0,
    "month(vector(1e13))": 5.0,
    "year(vector(-9e18))": -285198644592.0,
    "day_of_year(vector(1709164800))": 60.0,
    "days_in_month(vector(1709164800))": 29.0,
    "hour(vector(NaN))": 15.0,
    "year(vector(-Inf))": 292277026596.0,
    "minute(vector(1e300))": 30.0,
}


@pytest.mark.parametrize("query", list(CALENDAR))
def test_calendar_fields_of_any_number(query: str) -> None:
    assert values(query, 0) == [CALENDAR[query]]


EDGES = {
    "asin(vector(1))": math.pi / 2,
    "asin(vector(-1))": -math.pi / 2,
    "acos(vector(1))": 0.0,
    "acos(vector(-1))": math.pi,
    "acosh(vector(1))": 0.0,
    "atanh(vector(1))": math.inf,
    "atanh(vector(-1))": -math.inf,
    "asin(vector(1.0000000000000002))": math.nan,
    "acos(vector(-1.0000000000000002))": math.nan,
    "acosh(vector(0.9999999999999999))": math.nan,
    "atanh(vector(1.0000000000000002))": math.nan,
}


@pytest.mark.parametrize("query", list(EDGES))
def test_inverse_functions_at_the_edge_of_their_domain(query: str) -> None:
    assert values(query, 0) == pytest.approx([EDGES[query]], rel=1e-15, nan_ok=True)


class CountingQuerier(MemoryQuerier):
    """Counts selects and remembers their hints."""

    def __init__(self) -> None:
        super().__init__(DATA)
        self.seen: list[tuple[int, int, SelectHints]] = []

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS
    ) -> MemorySelection:
        self.seen.append((mint, maxt, hints))
        return super().select(matchers, mint, maxt, hints)


def test_equal_sub_expressions_are_evaluated_once() -> None:
    querier = CountingQuerier()
    result = ENGINE.range(querier, "sum(m) / count(m) + sum(m)", 0, MINUTE_MS, MINUTE_MS).value
    assert len(querier.seen) <= 2
    same_cells(result.values, [[0.0, 5.5 + 11.0]])


def test_selects_are_told_times_function_and_grouping() -> None:
    querier = CountingQuerier()
    ENGINE.range(querier, "sum by (i) (rate(m[5m] offset 1m))", 600_000, 720_000, 60_000)
    mint, maxt, hints = querier.seen[0]
    assert (mint, maxt) == (600_000 - 60_000 - 300_000 + 1, 720_000 - 60_000)
    assert (hints.function, hints.range_ms, hints.step_ms) == ("rate", 300_000, 60_000)
    querier.seen.clear()
    ENGINE.range(querier, "sum by (i) (m)", 600_000, 720_000, 60_000)
    expected = SelectHints(step_ms=60_000, function="sum", grouping=("i",), by=True, border_ms=60_000)
    assert querier.seen[0][2] == expected


INVARIANT = {
    "m @ 1": True,
    "m": False,
    "sum(rate(m[5m] @ end()))": True,
    "m @ 1 + m": False,
    "time()": False,
    "m @ 1 + 2": True,
    "predict_linear(m[5m] @ 1, 3)": False,
    "timestamp(m @ 1)": True,
    "timestamp(abs(m @ 1))": False,
    "topk(scalar(m), m @ 1)": False,
    "max_over_time(m[5m:1m] @ 1)": True,
    "max_over_time((m @ 1)[5m:1m])": False,
}


@pytest.mark.parametrize("query", list(INVARIANT))
def test_step_invariance_is_recognised(query: str) -> None:
    assert is_step_invariant(parse(query, ParserOptions.everything())) is INVARIANT[query]


def test_step_invariant_part_reads_one_window_only() -> None:
    querier = CountingQuerier()
    result = ENGINE.range(querier, "sum_over_time(m[1m] @ 300)", 0, 600_000, 60_000).value
    assert [(mint, maxt) for mint, maxt, _ in querier.seen] == [(240_001, 300_000)]
    same_cells(result.values, [[5.0] * 11, [50.0] * 11])


def test_every_function_of_the_language_has_an_operator() -> None:
    assert set(function_builders()) == set(FUNCTIONS)


def test_constants_are_folded() -> None:
    folded = fold_constants(parse("m * (2 + 3 * 4) ^ 2"))
    assert isinstance(folded, BinaryExpr)
    assert isinstance(folded.rhs, NumberLiteral)
    assert folded.rhs.value == 196.0


def test_common_sub_expressions_are_found_whatever_their_place() -> None:
    expr = parse("sum(rate(m[5m])) / sum(rate(m[5m])) * n")
    assert [type(node).__name__ for node in shared_expressions(expr)] == ["AggregateExpr"]
    expr = parse("sum(m) + m + max_over_time(m[5m])")
    assert [type(node).__name__ for node in shared_expressions(expr)] == ["VectorSelector"]


@pytest.mark.parametrize("query", ["m[5m]", "'text'"])
def test_range_query_of_another_type_is_refused(query: str) -> None:
    with pytest.raises(PreparationError, match=r"invalid expression type .* for range query, must be Scalar"):
        ENGINE.range(DATA.querier(), query, 0, 1000, 1000)


def test_annotation_names_its_place_and_appears_once() -> None:
    result = ENGINE.range(DATA.querier(), "rate(m[5m]) +\n rate(m[5m])", 0, 600_000, 60_000)
    assert result.infos == (
        "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
        '"m" (1:6)',
    )
    assert ENGINE.range(REQUESTS.querier(), "rate(requests_total[5m])", 0, 600_000, 60_000).infos == ()


BUCKETS = store(
    MINUTE_MS, {f'c_bucket{{le="{le}"}}': [value] for le, value in (("1", 3.0), ("x", 2.0), ("+Inf", 1.0))}
)


@pytest.mark.parametrize("delayed", [False, True])
def test_annotations_of_buckets_name_the_metric_only_where_names_are_dropped_late(delayed: bool) -> None:
    features = frozenset({"promql-delayed-name-removal"} if delayed else ())
    engine = Engine(EngineOptions(threads=1, features=features))
    result = engine.instant(BUCKETS.querier(), "histogram_quantile(0.5, c_bucket)", 0)
    named = ' for metric name "c_bucket"' if delayed else ""
    text = f'PromQL warning: bucket label "le" is missing or has a malformed value of "x"{named} (1:25)'
    assert result.warnings == (text,)
    assert f"#histogram_quantile){named}, from" in result.infos[0]


def test_only_a_result_of_rate_makes_its_metric_suspect() -> None:
    data = MemoryStore()
    for t_ms in (60_000, 120_000):
        data.add_float(parse_metric("x"), t_ms, 1.0)
    data.add_histogram(parse_metric("x"), 180_000, Histogram(count=1.0, sum=1.0))
    mixed = ENGINE.instant(data.querier(), "rate(x[5m])", 180_000)
    assert mixed.infos == ()
    assert mixed.warnings == (
        'PromQL warning: encountered a mix of histograms and floats for metric name "x" (1:6)',
    )
    floats = ENGINE.instant(data.querier(), "rate(x[5m])", 120_000)
    assert (len(floats.infos), floats.warnings) == (1, ())


@pytest.mark.parametrize("enabled", [False, True])
def test_start_timestamps_are_known_only_with_their_feature(enabled: bool) -> None:
    features = {"promql-experimental-functions"} | ({"use-start-timestamps"} if enabled else set())
    engine = Engine(EngineOptions(threads=1, features=frozenset(features)))
    data = MemoryStore()
    data.add_float(parse_metric("m"), 60_000, 1.0, 30_000)
    found = engine.instant(data.querier(), "start_timestamp(m)", 60_000).value
    assert found.values.tolist() == ([[30.0]] if enabled else [])


def test_explain_takes_lookback_and_timeout() -> None:
    def read(lookback_ms: int) -> str:
        return ENGINE.explain(
            DATA.querier(), "m", 90_000, 90_000, 0, lookback_ms=lookback_ms, analyze=True
        ).details

    assert "rows=2 " in read(0)
    assert "rows=0 " in read(1)
    with pytest.raises(QueryTimeout):
        ENGINE.explain(DATA.querier(), "m", 0, 0, 0, timeout_s=1e-9, analyze=True)


def test_rate_of_a_steady_counter_is_exact_from_the_second_sample_on() -> None:
    result = ENGINE.range(REQUESTS.querier(), "rate(requests_total[2m])", 120_000, 600_000, 60_000).value
    same_cells(result.values, [[1.0] * 9])


def test_stats_count_what_was_read() -> None:
    stats = ENGINE.range(DATA.querier(), "sum(m)", 0, 600_000, 60_000, stats="true").stats
    assert stats["samples"]["samplesRead"] == 22
    assert stats["samples"]["peakSamples"] == 22
    assert set(stats["timings"]) >= {"evalTotalTime", "innerEvalTime", "execTotalTime"}


def per_step(query: str) -> list[int]:
    """Samples looked at, at minutes 5, 6 and 7."""
    engine = Engine(EngineOptions(threads=1, features=frozenset({"promql-per-step-stats"})))
    samples = engine.range(DATA.querier(), query, 300_000, 420_000, 60_000, stats="all").stats["samples"]
    counts = [count for _, count in samples["totalQueryableSamplesPerStep"]]
    assert [t for t, _ in samples["totalQueryableSamplesPerStep"]] == [300.0, 360.0, 420.0]
    assert samples["totalQueryableSamples"] == sum(counts)
    return counts


def test_stats_count_what_each_step_looks_at() -> None:
    assert per_step("m") == [2, 2, 2]
    assert per_step("sum_over_time(m[3m])") == [6, 6, 6]
    assert per_step("m @ 60") == [2, 2, 2]
    assert per_step("sum_over_time(m[3m] @ 60)") == [4, 4, 4]
    assert per_step("m + sum_over_time(m[2m])") == [6, 6, 6]
    # The cells of a subquery count, not what it reads.
    assert per_step("max_over_time(sum_over_time(m[4m])[2m:1m])") == [4, 4, 4]
    assert per_step("vector(1)") == [0, 0, 0]


def test_steps_are_shown_only_for_all_and_with_the_feature() -> None:
    samples = ENGINE.range(DATA.querier(), "m", 0, 600_000, 60_000, stats="all").stats["samples"]
    assert "totalQueryableSamplesPerStep" not in samples
    engine = Engine(EngineOptions(threads=1, features=frozenset({"promql-per-step-stats"})))
    samples = engine.range(DATA.querier(), "m", 0, 600_000, 60_000, stats="true").stats["samples"]
    assert samples["totalQueryableSamples"] == 22
    assert "totalQueryableSamplesPerStep" not in samples


def test_explain_shows_the_plan_without_reading() -> None:
    querier = CountingQuerier()
    plan = ENGINE.explain(querier, "sum by (i) (rate(m[5m])) / 2", 0, 600_000, 60_000)
    names = [line.split()[0] for line in plan.lines()]
    assert names == ["BinaryScalar", "Aggregate", "Window", "RangeScan", "Number"]
    assert querier.seen == []


ANALYZED = {
    "sum by (i) (rate(m[5m])) / 2": "[rows=2 pieces=1 samples=22 time=",
    "topk(1, m) + on(i) m": "VectorBinary + one-to-one on(i) [rows=",
    "m[5m]": "[rows=2 pieces=1 samples=10 time=",
    "max_over_time(m[5m:1m])": "[rows=2 pieces=1 samples=",
    "scalar(m @ 1)": "[rows=2 pieces=1 time=",
}


@pytest.mark.parametrize("query", list(ANALYZED))
def test_analysis_shows_what_each_operator_did(query: str) -> None:
    step = 0 if query == "m[5m]" else 60_000
    plan = ENGINE.explain(DATA.querier(), query, 600_000 if not step else 0, 600_000, step, analyze=True)
    lines = list(plan.lines())
    assert any(ANALYZED[query] in line for line in lines), lines
    plain = ("Number", "Scalar", "StepInvariant")
    assert all("time=" in line or line.split()[0] in plain for line in lines), lines


def test_engine_reports_under_prometheus_names() -> None:
    registry = CollectorRegistry()
    engine = Engine(EngineOptions(threads=1), registry)
    engine.instant(DATA.querier(), "m", 0)
    assert registry.get_sample_value("prometheus_engine_queries") == 0
    assert registry.get_sample_value("prometheus_engine_query_samples_total") == 2
    slices = {"slice": "inner_eval"}
    assert registry.get_sample_value("prometheus_engine_query_duration_seconds_count", slices) == 1


def test_many_threads_give_the_result_of_one() -> None:
    data = store(1000, {f'm{{i="{i}"}}': [float(i + k) for k in range(300)] for i in range(60)})
    many = Engine(EngineOptions(threads=3))
    try:
        for query in ("sum by (i) (rate(m[1m]))", "topk(3, m)", "quantile(0.3, m)", "m + m"):
            one = ENGINE.range(data.querier(), query, 0, 299_000, 1000).value
            two = many.range(data.querier(), query, 0, 299_000, 1000).value
            assert one.labels.rows() == two.labels.rows()
            assert (one.values.view(np.uint64) == two.values.view(np.uint64)).all()
    finally:
        many.close()


def test_cells_become_samples_and_absent_ones_do_not() -> None:
    values_in = cells([[1.0, None, math.nan], [None, None, None], [None, 5.0, None]], 3)
    offsets, t_ms, out = np.empty(4, dtype=np.int64), np.empty(9, dtype=np.int64), np.empty(9)
    n = subquery_kernels.cells_to_samples(values_in, 1000, 10, offsets, t_ms, out)
    assert offsets.tolist() == [0, 2, 2, 3]
    assert t_ms[:n].tolist() == [1000, 1020, 1010]
    assert str(out[:n].tolist()) == "[1.0, nan, 5.0]"


@pytest.mark.parametrize(
    "rows",
    [
        ('a{x="1"}', 'b{x="1"}'),
        ('{x="1", __type__="gauge"}', '{x="1", __type__="counter"}'),
        ('a{x="1", __type__="gauge"}', '{x="1"}'),
        ('a{x="1", __unit__="s", __type__="gauge"}', 'a{x="1"}'),
        ('a{x="1", __type__="gauge"}', 'a{x="1", __type__="counter"}'),
    ],
)
def test_series_that_differ_in_what_a_window_function_drops_are_refused(rows: tuple[str, str]) -> None:
    data = store(MINUTE_MS, {row: [1.0, 2.0, 3.0] for row in rows})
    assert len(ENGINE.instant(data.querier(), 'last_over_time({x="1"}[2m])', 120_000).value.values) == 2
    with pytest.raises(ExecutionError, match="vector cannot contain metrics with the same labelset"):
        ENGINE.instant(data.querier(), 'max_over_time({x="1"}[2m])', 120_000)


def test_start_timestamp_of_an_expression_has_no_results_but_its_errors() -> None:
    for features in (frozenset[str](), frozenset({"use-start-timestamps"})):
        engine = Engine(EngineOptions(features=features | {"promql-experimental-functions"}, threads=1))
        assert values("start_timestamp(m + 1)", 5 * MINUTE_MS, engine) == []
        for query in ("start_timestamp(m + on () m)", "abs(-start_timestamp(abs(m + on () m)))"):
            with pytest.raises(ExecutionError, match="found duplicate series"):
                values(query, 5 * MINUTE_MS, engine)
