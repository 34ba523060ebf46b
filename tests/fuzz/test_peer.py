"""A few random queries against Debian's Prometheus; `python -m tests.fuzz.peer` asks more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.fuzz.data import fill_store
from tests.fuzz.differ import Fuzz
from tests.fuzz.peer import available, compare, exposition, float_series, prometheus

CASES = 400


@pytest.mark.e2e
@pytest.mark.skipif(not available(), reason="Debian's prometheus is not installed")
def test_engine_and_prometheus_agree_on_random_float_queries() -> None:
    seed = 31
    series = float_series(seed)
    store, fuzz = fill_store(series), Fuzz(seed, old_names=True)
    skipped: Counter[str] = Counter()
    problems = []
    with prometheus(series) as base:
        for number in range(CASES):
            case = replace(fuzz.case(number), delayed=False, starts=False)
            problem = compare(fuzz, case, base, series, store, skipped)
            if problem:
                problems.append(f"{case.query!r} at {case.times}: {problem}")
    assert not problems, "\n".join(problems[:5])
    assert sum(skipped.values()) < CASES * 2 // 3


def test_exposition_keeps_milliseconds_through_the_old_reader() -> None:
    series = float_series(31)
    lines = exposition(series).splitlines()
    assert lines[-1] == "# EOF"
    times = [int(float(line.rsplit(" ", 1)[1]) * 1000) for line in lines[:-1]]
    assert sorted(times) == sorted(s.t_ms for row in series for s in row.samples)
