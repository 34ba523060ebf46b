"""--query.max-samples and peakSamples: each query is accepted at its peak and refused one sample below.

The expected numbers follow from how Prometheus 3.x evaluates: they are added up beside each case.
"""

from __future__ import annotations

import numpy as np
import pytest

from promql.engine import Engine
from promql.engineerrors import TooManySamples
from promql.kernels import aggregate as kernels
from promql.matrix import ABSENT
from promql.memory import MemoryStore
from promql.options import EngineOptions
from tsdb.labels import Labels

FEATURES = frozenset({"promql-experimental-functions"})


def _store() -> MemoryStore:
    """`one` with a series, `two` with two, a sample every 10 s for 1,000 s."""
    store = MemoryStore()
    names = [("one", ""), ("two", "a"), ("two", "b")]
    for name, row in names:
        labels = Labels.from_dict({"__name__": name} | ({"row": row} if row else {}))
        for i in range(101):
            store.add_float(labels, i * 10_000, float(i))
    return store


STORE = _store()

INSTANT = [
    ("1", 1),
    ("one", 1),
    ("one[20s]", 2),
    # All windows of all series.
    ("{__name__=~'one|two'}[200s]", 3 * 20),
    ("one[20s:5s]", 4),
    # A window of two, and its result before the window goes.
    ("rate(one[20s])", 3),
    # Two arguments, the vectors of the step (both), the results.
    ("two + on (row) two", 2 + 2 + 4 + 2),
    # The input, then the result alone.
    ("sum(two)", 2),
    ("sum(rate(two[20s]))", 2 + 2),
    ("topk(1, two)", 2),
    ("count_values('v', two)", 2 + 2 + 1),
    ("label_replace(two, 'x', '$1', 'row', '(.*)')", 2),
    ("-two", 2),
    # No argument is held, but the vector of the step is, and the result.
    ("timestamp(two)", 4),
    ("abs(two)", 2 + 2 + 2),
    ("time()", 1),
    ("vector(1)", 1 + 1 + 1),
    ("scalar(one)", 1 + 1 + 1),
    # The number stays while the function runs.
    ("quantile_over_time(0.5, two[20s])", 1 + 2 + 2),
    # A subquery of 2 x 4, a window of 4, the results.
    ("max_over_time(two[20s:5s])", 8 + 4 + 2),
    ("absent_over_time(two[20s])", 2 + 2),
    # No selector inside: the number and the vector at 100 steps, a window of 100, the result.
    ("max_over_time(vector(1)[1s:10ms])", 100 + 100 + 1),
    # The inner vector at 100 steps, its window of 10, and the results of 10 steps.
    ("max_over_time(max_over_time(vector(1)[10s:1s])[100s:10s])", 100 + 10 + 10),
    # Both sums, the vectors of the step, the result.
    ("sum(two) + sum(two)", 1 + 1 + 2 + 1),
]

RANGE = [  # three steps
    ("1", 3),
    ("one", 3),
    ("one @ 10", 3),
    ("two", 6),
    ("sum(two)", 6),
    # Results of both series, the window of the second.
    ("rate(two[20s])", 6 + 2),
    # At the last step: arguments, its vectors, all results.
    ("two + on (row) two", 6 + 6 + 4 + 6),
    ("two + 1", 6 + 3 + 3 + 6),
    # The second sum over the first, or the addition.
    ("sum(two) + sum(two)", max(3 + 6, 3 + 3 + 2 + 3)),
    # One side is evaluated once and repeated, or both with the addition.
    ("one @ 10 + one", 3 + 3 + 2 + 3),
    ("one @ 10 + one @ 20", 1 + 1 + 2 + 1),
    # Inner steps 5 s apart over 20 s + 20 s, a window of 4.
    ("max_over_time(two[20s:5s])", 2 * 8 + 4 + 6),
    ("sum(max_over_time(two[20s:5s]))", 2 * 8 + 4 + 6),
    # Once 8 + 4 + 2, then its two results three times.
    ("max_over_time(two[20s:5s] @ 100)", 8 + 4 + 2),
    ("timestamp(two)", 6 + 2),
]


def _run(query: str, samples_max: int, steps: int, stats: str) -> int:
    engine = Engine(EngineOptions(threads=1, samples_max=samples_max, features=FEATURES))
    if steps == 1:
        found = engine.instant(STORE.querier(), query, 200_000, stats=stats)
    else:
        found = engine.range(
            STORE.querier(), query, 200_000, 200_000 + (steps - 1) * 10_000, 10_000, stats=stats
        )
    return int(found.stats["samples"]["peakSamples"])


CASES = [*((query, peak, 1) for query, peak in INSTANT), *((query, peak, 3) for query, peak in RANGE)]


@pytest.mark.parametrize(("query", "peak", "steps"), CASES)
def test_the_peak_is_shown_and_one_sample_less_refuses(query: str, peak: int, steps: int) -> None:
    assert _run(query, 50_000_000, steps, "true") == peak
    _run(query, peak, steps, "")
    with pytest.raises(TooManySamples):
        _run(query, peak - 1, steps, "")


@pytest.mark.parametrize("inner", ["two", "-two", "abs(-two)", "two @ 10", "-(two @ 10) + two"])
def test_a_subquery_without_steps_holds_nothing(inner: str) -> None:
    assert _run(f"max_over_time(({inner})[10s:1m])", 50_000_000, 1, "true") == 0


def test_nothing_is_counted_far_below_the_limit() -> None:
    assert _run("sum(rate(two[1m]))", 50_000_000, 3, "") == 0


def test_equal_parts_count_as_often_as_they_stand_there() -> None:
    engine = Engine(EngineOptions(threads=1))
    query = "rate(two[20s]) + rate(two[20s])"
    for stats in ("true", "all"):
        samples = engine.instant(STORE.querier(), query, 200_000, stats=stats).stats["samples"]
        assert samples["totalQueryableSamples"] == 8


def test_pieces_and_threads_do_not_change_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promql.operators.scan.PIECE_WORK_MAX", 10)
    monkeypatch.setattr("promql.operators.operator.PIECE_WORK_MAX", 10)
    engine = Engine(EngineOptions(threads=2))
    try:
        for query, peak in RANGE:
            found = engine.range(STORE.querier(), query, 200_000, 220_000, 10_000, stats="true")
            assert found.stats["samples"]["peakSamples"] == peak, query
    finally:
        engine.close()


@pytest.mark.parametrize("seed", range(5))
def test_cells_with_a_float_are_counted_as_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = np.array([ABSENT, 0.0, -0.0, 1.5, np.nan, np.inf])
    values = choices[rng.integers(0, len(choices), rng.integers(0, 9, 2))]
    absent_bits = ABSENT.view(np.uint64)
    assert kernels.count_present(values) == sum(
        int(bits != absent_bits) for bits in values.view(np.uint64).flat
    )
