"""Queries over roll-ups against full resolution: the table of docs/rollups.md, line by line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.engine import Engine
from promql.memory import MemoryStore
from promql.operators.rollups import LAST_ONLY, MOVED, ROLLED_FUNCTIONS
from promql.options import EngineOptions
from tests.promql.rolledquerier import Range, RolledQuerier
from tsdb.labels import Labels

SECOND = 1000
ENGINE = Engine(EngineOptions(threads=1, lookback_ms=70 * SECOND))

SUMS = {"sum_over_time", "avg_over_time", "rate", "increase", "delta"}
"""Functions that add in another order: equal but for rounding; all others are equal to the bit."""

RANGES: list[list[Range]] = [
    [(0, 1200 * SECOND, 60 * SECOND)],
    [(-300 * SECOND, 300 * SECOND, 300 * SECOND), (300 * SECOND, 900 * SECOND, 60 * SECOND)],
    [(300 * SECOND, 600 * SECOND, 100 * SECOND)],
]

NUMBERS = st.one_of(
    st.integers(0, 30).map(float), st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])
)
COUNTER_STEPS = st.one_of(st.integers(0, 20).map(float), st.just(-1.0))


@st.composite
def stores(draw: st.DrawFn, kind: str) -> MemoryStore:
    """Up to two series of 1,200 s: gaps, stale markers, and NaN and infinities or counter resets."""
    made = MemoryStore()
    for i in range(draw(st.integers(1, 2))):
        labels = Labels.from_dict({"__name__": "x_total", "i": str(i)})
        t, counter = draw(st.sampled_from([-300, -7, 0, 300])) * SECOND, 0.0
        for _ in range(draw(st.integers(0, 60))):
            t += draw(st.sampled_from([1, 15, 15, 15, 20, 45, 300])) * SECOND + draw(
                st.sampled_from([0, 0, 1])
            )
            if draw(st.integers(0, 12)) == 0:
                made.add_stale(labels, t)
                continue
            if kind == "counter":
                step = draw(COUNTER_STEPS)
                counter = 0.5 if step < 0 else counter + step
                made.add_float(labels, t, counter)
            else:
                made.add_float(labels, t, draw(NUMBERS))
    return made


def grid(draw_start: int, step: int) -> list[int]:
    return [draw_start + k * step for k in range(6)]


def by_labels(querier, query: str, at: int) -> dict[Labels, float]:
    value = ENGINE.instant(querier, query, at).value
    return dict(zip(value.labels.rows(), value.values[:, 0].tolist(), strict=True))


def full_resolution(store: MemoryStore, function: str, lo: int, hi: int, span: int) -> dict[Labels, float]:
    """The function over (lo, hi], scaled to the range asked for where that is what it gives."""
    if hi <= lo:
        return {}
    found = by_labels(store.querier(), f"{function}(x_total[{hi - lo}ms])", hi)
    scale = span / (hi - lo) if function in ("increase", "delta") else 1.0
    return {labels: value * scale for labels, value in found.items()}


def largest(store: MemoryStore) -> float:
    numbers = [abs(v) for v in _values(store) if math.isfinite(v)]
    return max([1.0, *numbers]) * 64


def compare(function: str, got: dict[Labels, float], want: dict[Labels, float], slack: float) -> None:
    assert got.keys() == want.keys(), (function, got, want)
    for labels, value in want.items():
        have = got[labels]
        if function in SUMS and math.isfinite(value):
            assert math.isclose(have, value, rel_tol=1e-9, abs_tol=slack), (function, have, value)
        else:
            assert have == value or (math.isnan(have) and math.isnan(value)), (function, have, value)


def check_ranges(store: MemoryStore, ranges: list[Range], start: int, step: int, span: int) -> None:
    querier = RolledQuerier(store, ranges)
    for function in sorted(ROLLED_FUNCTIONS):
        times = grid(start, step)
        result = ENGINE.range(querier, f"{function}(x_total[{span}ms])", times[0], times[-1], step).value
        present = result.present()
        rows = result.labels.rows()
        for k, t in enumerate(times):
            lo, hi = querier.border(t - span), querier.border(t)
            want = full_resolution(store, function, lo, hi, span)
            got = {row: float(result.values[i, k]) for i, row in enumerate(rows) if present[i, k]}
            compare(function, got, want, 1e-9 * largest(store))


@pytest.mark.parametrize("kind", ["counter", "gauge"])
def test_aligned_windows_give_what_full_resolution_gives(kind: str) -> None:
    @settings(max_examples=30, deadline=None)
    @given(store=stores(kind), ranges=st.sampled_from(RANGES), at=st.integers(0, 3), span=st.integers(1, 3))
    def run(store: MemoryStore, ranges: list[Range], at: int, span: int) -> None:
        querier = RolledQuerier(store, ranges)
        step = 300 * SECOND
        assert all(querier.border(t) == t for t in grid(at * step, step))
        check_ranges(store, ranges, at * step, step, span * step)

    run()


@pytest.mark.parametrize("kind", ["counter", "gauge"])
def test_other_windows_are_those_of_moved_borders(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(
        store=stores(kind),
        ranges=st.sampled_from(RANGES),
        start=st.integers(-100, 600),
        step=st.integers(1, 200),
        span=st.integers(1, 500),
    )
    def run(store: MemoryStore, ranges: list[Range], start: int, step: int, span: int) -> None:
        check_ranges(store, ranges, start * SECOND, step * SECOND, span * SECOND)

    run()


@settings(max_examples=80, deadline=None)
@given(
    store=stores("gauge"),
    ranges=st.sampled_from(RANGES),
    start=st.integers(-100, 600),
    step=st.integers(1, 200),
    query=st.sampled_from(["x_total", "timestamp(x_total)", "x_total offset 1m"]),
)
def test_an_instant_selector_looks_back_from_the_moved_time(store, ranges, start, step, query) -> None:
    querier = RolledQuerier(store, ranges)
    times = grid(start * SECOND, step * SECOND)
    result = ENGINE.range(querier, query, times[0], times[-1], step * SECOND).value
    present, rows = result.present(), result.labels.rows()
    offset = 60 * SECOND if "offset" in query else 0
    for k, t in enumerate(times):
        want = by_labels(store.querier(), query, querier.border(t - offset) + offset)
        got = {row: float(result.values[i, k]) for i, row in enumerate(rows) if present[i, k]}
        compare("", got, want, 0.0)


def counter(until: int) -> MemoryStore:
    made = MemoryStore()
    labels = Labels.from_dict({"__name__": "x_total"})
    for t in range(15 * SECOND, until + 1, 15 * SECOND):
        made.add_float(labels, t, float(t % 7000))
    return made


NOTES = {
    "sum_over_time(x_total[5m])": (600, []),
    "sum_over_time(x_total[290s])": (600, [MOVED]),
    "x_total": (600, []),
    "sum(x_total) + 1": (601, [MOVED]),
    "quantile_over_time(0.5, x_total[5m])": (600, [LAST_ONLY]),
    "stddev_over_time(x_total[5m])": (601, [LAST_ONLY]),
    "sum_over_time(x_total[1m])": (1300, []),
}


@pytest.mark.parametrize("query", NOTES)
def test_infos_say_what_roll_ups_did_to_an_answer(query: str) -> None:
    at, notes = NOTES[query]
    querier = RolledQuerier(counter(1300 * SECOND), [(0, 1200 * SECOND, 60 * SECOND)])
    infos = ENGINE.instant(querier, query, at * SECOND).infos
    assert [info.removeprefix("PromQL info: ").rsplit(" (", 1)[0] for info in infos] == notes


def test_functions_that_need_samples_see_the_last_one_of_each_window() -> None:
    store = counter(1200 * SECOND)
    querier = RolledQuerier(store, [(0, 1200 * SECOND, 60 * SECOND)])
    seen = ENGINE.instant(querier, "x_total[5m]", 600 * SECOND).value
    last = {t: v for t, v in _samples(store).items() if t % (60 * SECOND) == 0 and 300_000 < t <= 600_000}
    assert _pairs(seen) == last


def _values(store: MemoryStore) -> list[float]:
    bits = [bits for series in store.series for bits in series.bits]
    return np.array(bits, dtype=np.uint64).view(np.float64).tolist()


def _samples(store: MemoryStore) -> dict[int, float]:
    times = [t for series in store.series for t in series.times]
    return dict(zip(times, _values(store), strict=True))


def _pairs(vectors) -> dict[int, float]:
    return dict(zip(vectors.samples.t_ms.tolist(), vectors.samples.values.tolist(), strict=True))
