"""Random queries must not depend on how they are evaluated.

A range query equals its instant queries side by side; small pieces, several threads and sharing of
sub-expressions change nothing. Repeat a case: `pytest tests/promql/test_consistency.py -k SEED`.
"""

from __future__ import annotations

import numpy as np
import pytest

from promql import prepared
from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.matrix import ABSENT, Matrix
from promql.operators import operator as protocol
from promql.operators import scan
from promql.options import EngineOptions
from tests.promql.randomqueries import random_query, random_store
from tsdb.labels import Labels

SEEDS = range(20)
QUERIES_A_SEED = 12
FEATURES = frozenset({"promql-experimental-functions", "promql-delayed-name-removal"})
ENGINE = Engine(EngineOptions(features=FEATURES, threads=1))
START_MS, END_MS, STEP_MS = 1_000_003, 2_300_003, 130_000

Cells = dict[Labels, np.ndarray]


def evaluate(engine: Engine, seed: int, query: str) -> Cells | str:
    """Rows of a range query by label set as bits, or the text of its error."""
    try:
        value = engine.range(random_store(seed).querier(), query, START_MS, END_MS, STEP_MS).value
    except ExecutionError as error:
        return str(error)
    assert isinstance(value, Matrix)
    return dict(zip(value.labels.rows(), value.values.view(np.uint64), strict=True))


def assert_same(query: str, one: Cells | str, two: Cells | str) -> None:
    if isinstance(one, str) or isinstance(two, str):
        assert isinstance(one, str), (query, two)
        assert isinstance(two, str), (query, one)
        return
    assert list(one) == list(two), query
    for labels, row in one.items():
        assert same_bits(row, two[labels]), (query, labels, row.view(float), two[labels].view(float))


def same_bits(one: np.ndarray, two: np.ndarray) -> bool:
    """Equal bits, or NaNs of any kind on both sides; absent is only equal to absent."""
    absent = ABSENT.view(np.uint64)
    nans = np.isnan(one.view(np.float64)) & np.isnan(two.view(np.float64))
    return bool((((one == absent) == (two == absent)) & ((one == two) | nans)).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_range_query_equals_its_instant_queries(seed: int) -> None:
    store = random_store(seed)
    for number in range(QUERIES_A_SEED):
        query = random_query(seed * 1000 + number)
        whole = evaluate(ENGINE, seed, query)
        for k, at_ms in enumerate(range(START_MS, END_MS + 1, STEP_MS)):
            try:
                one = ENGINE.instant(store.querier(), query, at_ms).value
            except ExecutionError:
                assert isinstance(whole, str), (query, at_ms)
                continue
            if isinstance(whole, str):
                continue
            assert isinstance(one, Matrix)
            found = dict(zip(one.labels.rows(), one.values.view(np.uint64)[:, 0], strict=True))
            assert set(found) <= set(whole), (query, at_ms)
            for labels, row in whole.items():
                expected = np.array([found.get(labels, ABSENT.view(np.uint64))], dtype=np.uint64)
                assert same_bits(row[k : k + 1], expected), (query, at_ms, labels, row[k : k + 1].view(float))


@pytest.mark.parametrize("seed", range(100, 108))
def test_small_pieces_and_threads_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [random_query(seed * 1000 + number) for number in range(QUERIES_A_SEED)]
    expected = [evaluate(ENGINE, seed, query) for query in queries]
    monkeypatch.setattr(protocol, "PIECE_WORK_MAX", 40)
    monkeypatch.setattr(scan, "PIECE_WORK_MAX", 40)
    threaded = Engine(EngineOptions(features=FEATURES, threads=2))
    try:
        for query, cells in zip(queries, expected, strict=True):
            assert_same(query, cells, evaluate(threaded, seed, query))
    finally:
        threaded.close()


@pytest.mark.parametrize("seed", range(200, 208))
def test_sharing_sub_expressions_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = []
    for number in range(QUERIES_A_SEED):
        part = random_query(seed * 1000 + number, depth=2)
        queries.append(f"({part}) or ({part}) + ignoring () ({part})")
    shared = [evaluate(ENGINE, seed, query) for query in queries]
    monkeypatch.setattr(prepared, "_prepare_cached", prepared._prepare)
    monkeypatch.setattr(prepared, "shared_expressions", lambda expr: frozenset())
    for query, cells in zip(queries, shared, strict=True):
        assert_same(query, cells, evaluate(ENGINE, seed, query))
