"""What `stats` says a query looks at and reads, by step: cases added up by hand, as Prometheus counts.

Three series with a sample every 10 s. Steps are 5 s apart from 201 s on.
"""

from __future__ import annotations

import numpy as np
import pytest

from promql.engine import Engine
from promql.memory import MemoryStore
from promql.options import EngineOptions
from promql.stepcounts import Consumer
from tsdb.labels import Labels

FEATURES = frozenset({"promql-per-step-stats"})
START_MS, STEP_MS, STEPS = 201_000, 5_000, 4


def _store() -> MemoryStore:
    store = MemoryStore()
    for i in range(3):
        for t in range(0, 1_000_000, 10_000):
            store.add_float(Labels.from_dict({"__name__": "m", "i": str(i)}), t, float(t))
    return store


STORE = _store()

CASES = [
    # query, samples looked at by step, samples read by step
    ("1", [0, 0, 0, 0], [0, 0, 0, 0]),
    ("m", [3, 3, 3, 3], [3, 3, 3, 3]),
    # A window of six; what is newer than 5 s: nothing, 210, nothing.
    ("sum_over_time(m[60s])", [18, 18, 18, 18], [18, 0, 3, 0]),
    ("sum_over_time(m[60s] offset 5s)", [18, 18, 18, 18], [18, 3, 0, 3]),
    # Windows shorter than the step have gaps: 200, nothing, 210, nothing.
    ("sum_over_time(m[2s])", [3, 0, 3, 0], [3, 0, 3, 0]),
    # Once evaluated, looked at from every step.
    ("sum_over_time(m[60s] @ 30)", [12, 12, 12, 12], [12, 0, 0, 0]),
    # Evaluated at each step, over one window.
    ("predict_linear(m[60s] @ 30, 60)", [12, 12, 12, 12], [12, 0, 0, 0]),
    ("m + sum_over_time(m[60s])", [21, 21, 21, 21], [21, 3, 6, 3]),
    # Inner steps every 5 s in 20 s; a new one for each step: 205 for 206, and so on.
    ("sum_over_time(m[20s:5s])", [12, 12, 12, 12], [12, 3, 3, 3]),
    # Windows of the inner range: 18 at 185, then what is newer than 5 s at 190, 195, 200; 205, 210, 215.
    ("sum_over_time(sum_over_time(m[60s])[20s:5s])", [12, 12, 12, 12], [18 + 3 + 0 + 3, 0, 3, 0]),
    # Inner steps between the windows: 200, 201 of (199, 201]; 205, 206; 210, 211; 215, 216.
    ("sum_over_time(m[2s:1s])", [6, 6, 6, 6], [6, 6, 6, 6]),
    ("sum_over_time(m[20s:5s] @ 100)", [12, 12, 12, 12], [12, 0, 0, 0]),
]


@pytest.mark.parametrize(("query", "seen", "read"), CASES)
def test_steps_count_what_they_look_at_and_what_is_read_for_them(
    query: str, seen: list[int], read: list[int]
) -> None:
    engine = Engine(EngineOptions(threads=1, features=FEATURES))
    end = START_MS + (STEPS - 1) * STEP_MS
    samples = engine.range(STORE.querier(), query, START_MS, end + 4_000, STEP_MS, stats="all").stats[
        "samples"
    ]
    times = [(START_MS + k * STEP_MS) / 1000 for k in range(STEPS)]
    assert samples["totalQueryableSamplesPerStep"] == list(zip(times, seen, strict=True))
    assert samples["samplesReadPerStep"] == list(zip(times, read, strict=True))
    assert (samples["totalQueryableSamples"], samples["samplesRead"]) == (sum(seen), sum(read))


INSTANT = [
    ("m[60s]", 18, 18),
    ("m[60s:5s]", 36, 36),
    # The whole query is a subquery: what its inside looks at counts; the inside reads each sample once.
    ("sum_over_time(m[60s])[20s:5s]", 4 * 18, 18 + 3 + 0 + 3),
    ("vector(1)[20s:5s]", 0, 0),
    ("max_over_time(m[60s:5s])", 36, 36),
    ("max_over_time(vector(1)[20s:5s])", 4, 0),
]


@pytest.mark.parametrize(("query", "seen", "read"), INSTANT)
def test_instant_queries_count_as_one_step(query: str, seen: int, read: int) -> None:
    engine = Engine(EngineOptions(threads=1, features=FEATURES))
    samples = engine.instant(STORE.querier(), query, START_MS, stats="all").stats["samples"]
    assert (samples["totalQueryableSamples"], samples["samplesRead"]) == (seen, read)
    assert samples["samplesReadPerStep"] == [(START_MS / 1000, read)]


def test_an_inner_step_belongs_to_the_first_window_that_holds_it() -> None:
    times = np.arange(-40, 60, dtype=np.int64)
    for consumer in (
        Consumer(0, 10, 4, 7),
        Consumer(0, 10, 4, 25),
        Consumer(5, 0, 4, 20),
        Consumer(3, 1, 1, 9),
    ):
        want = []
        for t in times.tolist():
            ends = [consumer.first_end_ms + k * consumer.step_ms for k in range(consumer.steps)]
            want.append(next((k for k, end in enumerate(ends) if end - consumer.range_ms < t <= end), -1))
        assert consumer.first_step(times).tolist() == want
