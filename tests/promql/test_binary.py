"""Binary operators: kernels against Python, matching, errors, fill, set operators."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.ast import BinaryExpr
from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.kernels import binary as kernels
from promql.matrix import Matrix
from promql.memory import MemoryStore
from promql.operators.binary import VectorBinary
from promql.operators.collect import CollectedOperator, collect
from promql.options import EngineOptions
from promql.parser import parse
from tests.promql.operands import FixedVector, context
from tests.promql.sampledata import VALUES, cells, same_cells, store
from tests.reference.windows import divide

ENGINE = Engine(EngineOptions(features=frozenset({"promql-binop-fill-modifiers"}), threads=1))
DELAYED = Engine(EngineOptions(features=frozenset({"promql-delayed-name-removal"}), threads=1))


def power(x: float, y: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.power(x, y))


def remainder(x: float, y: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.fmod(x, y))


ARITHMETIC = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": divide,
    "%": remainder,
    "atan2": math.atan2,
}
COMPARE = {
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    ">": lambda x, y: x > y,
    "<": lambda x, y: x < y,
    ">=": lambda x, y: x >= y,
    "<=": lambda x, y: x <= y,
}
maybe = st.one_of(st.none(), VALUES)
rows_of_three = st.lists(st.lists(maybe, min_size=3, max_size=3), min_size=1, max_size=4)
Rows = list[list[float | None]]


@pytest.mark.parametrize("op", ["==", "!=", "<", "<=", ">", ">="])
def test_comparison_of_scalars_equals_python(op: str) -> None:
    python = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le}
    python |= {">": operator.gt, ">=": operator.ge}
    engine = Engine(EngineOptions(threads=1))
    for other in ("1", "2.5", "NaN", "Inf", "-Inf", "-0"):
        value = engine.range(MemoryStore().querier(), f"time() {op} bool {other}", 0, 4_000, 1_000).value
        assert isinstance(value, Matrix)
        assert value.values[0].tolist() == [float(python[op](float(t), float(other))) for t in range(5)]


@pytest.mark.parametrize("op", sorted(ARITHMETIC))
@settings(max_examples=50, deadline=None)
@given(lhs=rows_of_three, rhs=rows_of_three, data=st.data())
def test_arithmetic_of_rows_equals_python(op: str, lhs: Rows, rhs: Rows, data: st.DataObject) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(lhs) - 1), st.integers(0, len(rhs) - 1)), max_size=6)
    )
    left = np.array([i for i, _ in pairs], dtype=np.int64)
    right = np.array([j for _, j in pairs], dtype=np.int64)
    out = np.empty((len(pairs), 3))
    kernels.arithmetic_rows(kernels.CODES[op], cells(lhs, 3), cells(rhs, 3), left, right, out)
    expected = [
        [
            None if x is None or y is None else ARITHMETIC[op](x, y)
            for x, y in zip(lhs[i], rhs[j], strict=True)
        ]
        for i, j in pairs
    ]
    same_cells(out, expected)


@pytest.mark.parametrize("return_bool", [0, 1])
@pytest.mark.parametrize("op", sorted(COMPARE))
@settings(max_examples=30, deadline=None)
@given(lhs=rows_of_three, y=VALUES)
def test_comparison_with_a_scalar_keeps_the_vector_side(
    op: str, return_bool: int, lhs: Rows, y: float
) -> None:
    values = cells(lhs, 3)
    kernels.compare_scalar(kernels.COMPARISONS[op], values, np.full(3, y), 1, return_bool)
    expected = []
    for row in lhs:
        line: list[float | None] = []
        for x in row:
            holds = x is not None and COMPARE[op](y, x)
            if x is None:
                line.append(None)
            elif return_bool:
                line.append(1.0 if holds else 0.0)
            else:
                line.append(x if holds else None)
        expected.append(line)
    same_cells(values, expected)


@settings(max_examples=50, deadline=None)
@given(x=st.floats(-50, 50), y=st.floats(-5, 5))
def test_power_is_that_of_the_c_library(x: float, y: float) -> None:
    out = np.empty(1)
    kernels.arithmetic_scalars(kernels.POW, np.array([x]), np.array([y]), out)
    same_cells(out.reshape(1, 1), [[power(x, y)]], relative=1e-14)


DATA = store(
    60_000,
    {
        'req{job="a", code="200"}': [10, 20, 30],
        'req{job="a", code="500"}': [1, 2, 3],
        'req{job="b", code="200"}': [5, 5, 5],
        'cap{job="a", zone="x"}': [100, 100, 100],
        'cap{job="b", zone="y"}': [50, None, 0],
        'cap{job="c"}': [7, 7, 7],
    },
)
CASES: dict[str, dict[str, list[float | None]]] = {
    'req{code="200"} / on(job) cap': {'{job="a"}': [0.1, 0.2, 0.3], '{job="b"}': [0.1, 0.1, math.inf]},
    "req / on(job) group_left(zone) cap": {
        '{code="200", job="a", zone="x"}': [0.1, 0.2, 0.3],
        '{code="200", job="b", zone="y"}': [0.1, 0.1, math.inf],
        '{code="500", job="a", zone="x"}': [0.01, 0.02, 0.03],
    },
    "cap - on(job) group_right req": {
        '{code="200", job="a"}': [90, 80, 70],
        '{code="200", job="b"}': [45, 45, -5],
        '{code="500", job="a"}': [99, 98, 97],
    },
    'req{code="200"} > on(job) cap': {'req{code="200", job="a"}': [None] * 3},
    'cap{zone!=""} > ignoring(code, zone) req{code="200"}': {
        'cap{job="a"}': [100, 100, 100],
        'cap{job="b"}': [50, 50, None],
    },
    'cap == bool on(job) req{code="200"}': {'{job="a"}': [0, 0, 0], '{job="b"}': [0, 0, 0]},
    "req and on(job) cap": {
        'req{code="200", job="a"}': [10, 20, 30],
        'req{code="200", job="b"}': [5, 5, 5],
        'req{code="500", job="a"}': [1, 2, 3],
    },
    "cap unless on(job) req": {'cap{job="c"}': [7, 7, 7]},
    'req{code="500"} or cap{job="c"}': {'cap{job="c"}': [7, 7, 7], 'req{code="500", job="a"}': [1, 2, 3]},
    'req{code="500"} + on(job) fill_right(0) nothing': {'{job="a"}': [1, 2, 3]},
    'req{code="500"} + on(job) fill(0) cap': {
        '{job="a"}': [101, 102, 103],
        '{job="b"}': [50, 50, 0],
        '{job="c"}': [7, 7, 7],
    },
    "2 ^ cap{job='c'}": {'{job="c"}': [128, 128, 128]},
    "10 < cap{job='c'}": {},
    "5 < cap{job='c'}": {'cap{job="c"}': [7, 7, 7]},
    "-cap{job='c'}": {'{job="c"}': [-7, -7, -7]},
}
CASES['req{code="200"} > on(job) cap'] = {'{job="b"}': [None, None, 5]}


@pytest.mark.parametrize("query", list(CASES))
def test_binary_expression_over_a_range(query: str) -> None:
    result = ENGINE.range(DATA.querier(), query, 0, 120_000, 60_000).value
    got = {str(labels): row for labels, row in zip(result.labels.rows(), result.values, strict=True)}
    assert list(got) == sorted(CASES[query])
    if got:
        expected = [CASES[query][key] for key in got]
        same_cells(result.values, [[None if v is None else float(v) for v in row] for row in expected])


ERRORS = {
    "req + on(job) cap": "many-to-one matching must be explicit (group_left/group_right)",
    "cap + on(job) req": 'found duplicate series for the match group {job="a"} on the right hand-side of the '
    'operation: [{__name__="req", code="200", job="a"}, {__name__="req", code="500", job="a"}];many-to-many '
    "matching not allowed: matching labels must be unique on one side",
    "req + on(job) group_right cap": 'duplicate series for the match group {job="a"} on the left hand-side',
    "req > on(job) cap": "many-to-one matching must be explicit",
    'req + on(job) group_left(code) label_replace(cap, "code", "x", "job", ".*")': (
        "grouping labels must ensure unique matches"
    ),
}


@pytest.mark.parametrize("query", list(ERRORS))
def test_match_that_is_not_unique_is_an_error(query: str) -> None:
    with pytest.raises(ExecutionError) as caught:
        ENGINE.range(DATA.querier(), query, 0, 120_000, 60_000)
    assert ERRORS[query] in str(caught.value)


def test_candidates_that_never_share_a_step_are_no_duplicates() -> None:
    data = store(
        60_000,
        {
            'one{i="1", v="old"}': [1, 1, None, None],
            'one{i="1", v="new"}': [None, None, None, 3],
            'many{i="1"}': [10, 10, 10, 10],
        },
    )
    options = EngineOptions(lookback_ms=60_000, threads=1)
    result = Engine(options).range(data.querier(), "many * on(i) group_left(v) one", 0, 180_000, 60_000).value
    assert [str(labels) for labels in result.labels.rows()] == ['{i="1", v="new"}', '{i="1", v="old"}']
    same_cells(result.values, [[None, None, None, 30.0], [10.0, 10.0, None, None]])
    merged = Engine(options).range(data.querier(), "many * on(i) one", 0, 180_000, 60_000).value
    same_cells(merged.values, [[10.0, 10.0, None, 30.0]])


def test_equal_series_after_names_are_dropped_are_an_error_only_where_they_meet() -> None:
    data = store(60_000, {"a": [1, 1, None], "b": [None, None, 2]})
    engine = Engine(EngineOptions(lookback_ms=60_000, threads=1))
    query = '-{__name__=~"a|b"}'
    result = engine.range(data.querier(), query, 0, 120_000, 60_000).value
    same_cells(result.values, [[-1.0, -1.0, -2.0]])
    with pytest.raises(ExecutionError, match="vector cannot contain metrics with the same labelset"):
        engine.range(store(60_000, {"a": [1], "b": [1]}).querier(), query, 0, 0, 60_000)


def test_delayed_removal_keeps_names_for_aggregations_and_drops_them_at_the_end() -> None:
    data = store(60_000, {"a_total": [1, 61], "b_total": [1, 121]})
    query = 'sum by (__name__) (rate({__name__=~".+_total"}[5m]))'
    eager = Engine(EngineOptions(threads=1))
    with pytest.raises(ExecutionError, match="same labelset"):
        eager.instant(data.querier(), query, 60_000)
    with pytest.raises(ExecutionError, match="same labelset"):
        DELAYED.instant(data.querier(), query, 60_000)
    kept = DELAYED.instant(
        data.querier(), f'label_replace({query}, "x", "$1", "__name__", "(.+)")', 60_000
    ).value
    assert [str(labels) for labels in kept.labels.rows()] == ['{x="a_total"}', '{x="b_total"}']


def test_a_series_of_or_keeps_or_loses_its_name_as_its_first_sample_says() -> None:
    data = store(60_000, {"m": [None, 4, 9], "n": [1, None, None]})
    found = DELAYED.range(
        data.querier(), 'm or abs(label_replace(n, "__name__", "m", "", ""))', 0, 120_000, 60_000
    )
    matrix = found.value
    assert isinstance(matrix, Matrix)
    assert [str(labels) for labels in matrix.labels.rows()] == ["{}"]
    same_cells(matrix.values, [[1.0, 4.0, 9.0]])


def test_a_label_made_up_before_its_series_are_read_matches_theirs() -> None:
    """The store learns its strings when series are read, as a database does from samples that come then."""
    made = store(1000, {'m{le="1"}': [1.0]})
    answer = ENGINE.instant(made.querier(), 'absent(nothing{le="1"}) or on (le) m', 0).value
    assert isinstance(answer, Matrix)
    assert [str(labels) for labels in answer.labels.rows()] == ['{le="1"}']


def test_a_result_takes_no_array_that_others_still_read() -> None:
    ctx = context(2)
    rows = [({"a": str(i)}, [float(i), 2.0 * i]) for i in range(3)]
    shared = collect(FixedVector(ctx, rows))
    before = shared.values.copy()
    expr = parse("x * y")
    assert isinstance(expr, BinaryExpr)
    for lhs in (CollectedOperator(ctx, shared), FixedVector(ctx, rows)):
        got = collect(VectorBinary(expr, lhs, CollectedOperator(ctx, shared)))
        assert got.values.tolist() == (before * before).tolist()
        assert shared.values.tolist() == before.tolist()
