"""A query can be stopped between pieces, and pieces whose cells take long are small."""

from __future__ import annotations

from random import Random

import pytest

from promql.budget import new_cancel_flag
from promql.engine import Engine
from promql.engineerrors import QueryCancelled
from promql.memory import MemoryStore
from promql.operators import operator as protocol
from promql.operators import scan, stepruns, window
from promql.options import EngineOptions
from tests.fuzz.data import END_MS, fill_store, make_series
from tests.fuzz.differ import Result, differing, rows_of_result
from tsdb.labels import Labels
from tsdb.select import SampleBatch

ENGINE = Engine(EngineOptions(threads=1))
ROWS, SAMPLES = 50, 200


def _store() -> MemoryStore:
    store = MemoryStore()
    for row in range(ROWS):
        labels = Labels.from_dict({"__name__": "m", "row": str(row)})
        for i in range(SAMPLES):
            store.add_float(labels, i * 1000, float(i * row % 17))
    return store


@pytest.mark.parametrize(
    ("function", "expected"), [("quantile_over_time(0.9, m[160s])", 5), ("stddev_over_time(m[160s])", 1)]
)
def test_a_cancelled_query_ends_after_the_piece_it_is_at(
    function: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PIECE_WORK_MAX", 3000)
    monkeypatch.setattr(scan, "PIECE_WORK_MAX", 10_000_000)
    flag, rows = new_cancel_flag(), []
    evaluate = window.WindowOperator._evaluate

    def watched(self: window.WindowOperator, piece: protocol.RangePiece) -> protocol.Piece:
        rows.append(len(piece.samples))
        flag[0] = 1
        return evaluate(self, piece)

    monkeypatch.setattr(window.WindowOperator, "_evaluate", watched)
    with pytest.raises(QueryCancelled, match="query was canceled in expression evaluation"):
        ENGINE.range(_store().querier(), function, 0, 199_000, 1000, cancel=flag)
    assert rows == [expected], "a row has 200 windows of 88 samples on average"


LONG_WINDOWS = (
    *("stddev_over_time(m[160s])", "quantile_over_time(scalar(m{row='3'}) / 20, m[60s:5s])"),
    *("predict_linear(m[50s], 30)", "deriv(m[50s])", "rate(m[90s:7s])", "sum_over_time(m[100s] @ 150)"),
    *("mad_over_time(m[30s] offset 20s)", "predict_linear(m[60s] @ end(), 10)", "avg_over_time(m[40s:3s])"),
    "double_exponential_smoothing(m[30s], 0.5, 0.3)",
)


@pytest.mark.parametrize("query", LONG_WINDOWS)
def test_long_windows_taken_in_runs_of_steps_give_the_same(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(EngineOptions(threads=1, features=frozenset({"promql-experimental-functions"})))
    store, runs = _store(), []
    whole = rows_of_result(engine.range(store.querier(), query, 0, 199_000, 7000))
    part = protocol.WindowGrid.part

    def watched(self: protocol.WindowGrid, at: int, end: int) -> protocol.WindowGrid:
        runs.append(end - at)
        return part(self, at, end)

    monkeypatch.setattr(protocol.WindowGrid, "part", watched)
    monkeypatch.setattr(stepruns, "RUN_NS", 1)
    assert not differing(whole, rows_of_result(engine.range(store.querier(), query, 0, 199_000, 7000)))
    assert set(runs) == ({1} if "@" not in query or "predict" in query else set())


def test_a_cancelled_query_ends_within_a_row_of_long_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    flag, runs = new_cancel_flag(), []
    part = protocol.WindowGrid.part

    def watched(self: protocol.WindowGrid, at: int, end: int) -> protocol.WindowGrid:
        runs.append((at, end))
        flag[0] = 1
        return part(self, at, end)

    monkeypatch.setattr(protocol.WindowGrid, "part", watched)
    monkeypatch.setattr(stepruns, "RUN_NS", 1)
    with pytest.raises(QueryCancelled):
        ENGINE.range(_store().querier(), "stddev_over_time(m[160s])", 0, 199_000, 1000, cancel=flag)
    assert runs == [(0, 1)]


def test_windows_of_quick_functions_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    evaluate = window.WindowOperator._evaluate

    def watched(self: window.WindowOperator, piece: protocol.RangePiece) -> protocol.Piece:
        counts.append(len(piece.samples))
        return evaluate(self, piece)

    monkeypatch.setattr(window.WindowOperator, "_evaluate", watched)
    ENGINE.range(_store().querier(), "max_over_time(m[160s])", 0, 199_000, 1000)
    assert counts == [ROWS]


HISTOGRAM_QUERIES = (
    *("rate(h[5m])", "sum_over_time(h[3m])", "last_over_time(h[5m])", "irate(h[4m])", "delta(h[4m])"),
    *("histogram_quantile(0.9, increase(h[5m]))", "count_over_time(h[90s])", "resets(h[5m])"),
)


@pytest.mark.parametrize("seed", range(3))
def test_histograms_taken_in_runs_of_rows_give_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill_store(make_series(Random(f"{seed}:cancelling")))
    selector = '{__name__=~"h.*"}'

    def answers() -> list[Result]:
        texts = [query.replace("h[", f"{selector}[") for query in HISTOGRAM_QUERIES]
        return [rows_of_result(ENGINE.range(store.querier(), text, 0, END_MS, 60_000)) for text in texts]

    whole = answers()
    taken: list[int] = []
    take = window.rows_between
    monkeypatch.setattr(window, "HISTOGRAM_CELLS_MAX", 1)

    def watched(batch: SampleBatch, lo: int, hi: int) -> SampleBatch:
        taken.append(hi - lo)
        return take(batch, lo, hi)

    monkeypatch.setattr(window, "rows_between", watched)
    for query, one, two in zip(HISTOGRAM_QUERIES, whole, answers(), strict=True):
        assert not differing(one, two), query
    assert taken, "the store has no histograms"
    assert set(taken) == {1}
