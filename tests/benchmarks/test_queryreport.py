"""The bars of the query benchmark, and its table."""

from __future__ import annotations

import math

import pytest

from benchmarks import queryreport
from benchmarks.queries import QueryClass, QueryResult, request_path
from benchmarks.queryclasses import CLASSES, classes_over
from benchmarks.queryreport import Measured, Results, bar_ms, table

NAN = float("nan")


@pytest.mark.parametrize(
    ("samples", "prometheus_ms", "victoria_ms", "bar"),
    [
        (1000, 1.0, 4.9, 2.0),
        (1000, 5.1, 7.0, 5.1),
        (1000, 90.0, 7.0, 7.0),
        (1000, 90.0, NAN, 90.0),
        (6_000_000, 500.0, 300.0, 100.0),
        (6_000_000, 500.0, 100.0, 50.0),
        (6_000_000, 500.0, NAN, 100.0),
    ],
)
def test_bars_are_those_of_the_class_size(
    samples: int, prometheus_ms: float, victoria_ms: float, bar: float
) -> None:
    assert bar_ms(samples, prometheus_ms, victoria_ms) == bar


def test_without_a_peer_there_is_no_bar() -> None:
    assert math.isnan(bar_ms(1000, NAN, NAN))


def test_the_table_says_what_is_met_and_what_differs() -> None:
    def measured(ms: float, rows: int, mib: int) -> Measured:
        return Measured(QueryResult(ms / 1000, rows), mib << 20)

    results = Results(
        10,
        100,
        {"a": 10, "b": 10},
        {
            "vedette": {"a": measured(1.0, 3, 10), "b": measured(9.0, 3, 90)},
            "prometheus": {"a": measured(0.5, 3, 40), "b": measured(6.0, 4, 90)},
            "victoria-metrics": {"a": measured(0.7, 3, 1), "b": Measured(QueryResult(NAN, 0, "422"), 0)},
        },
    )
    lines = table(results, "today").splitlines()
    assert "| a | 0.00 | 2.0 | met | 1.0 | 0.5 | 0.7 | met | 10 | 40 | 1 |" in lines
    assert "| b | 0.00 | 6.0 | 1.50 x | 9.0 | 6.0 | - | 2.00 x | 90 | 90 | - |" in lines
    assert "1 of 2 latency bars met." in lines
    assert "* b: victoria-metrics answered 422" in lines
    assert "* b: rows differ: {'vedette': 3, 'prometheus': 4}" in lines


def test_there_are_at_least_twenty_classes_of_different_names() -> None:
    assert len({query.name for query in CLASSES}) == len(CLASSES) >= 20
    whole = classes_over(7200)
    assert all(query.window_s >= 0 and "WHOLE" not in query.text for query in whole)


def test_paths_are_those_of_the_endpoints() -> None:
    assert request_path(QueryClass("i", "up"), 0, 60, ()) == "/api/v1/query?query=up&time=60.000"
    assert "start=30.000&end=60.000&step=15.000" in request_path(QueryClass("r", "up", 30, 2), 0, 60, ())
    series = request_path(QueryClass("s", "up", path="/api/v1/series"), 0, 60, ())
    assert series == "/api/v1/series?match%5B%5D=up&start=0.000&end=60.000"


def test_a_rise_beside_a_peer_that_took_none_is_missed_without_a_ratio() -> None:
    assert queryreport._memory_verdict(9 << 20, 0.0) == "missed"
    assert queryreport._memory_verdict(9 << 20, 20 << 20) == "met"
    assert queryreport._memory_verdict(9 << 20, 9 << 20) == "2.00 x"
