"""Which classes are measured in fresh servers, and what replaces what."""

from __future__ import annotations

from benchmarks import querymemory
from benchmarks.queries import QueryResult
from benchmarks.queryclasses import CLASSES
from benchmarks.queryreport import MEMORY_MIN_BYTES, Measured

LATENCY = QueryResult(0.002, 3)


def measured(rise_bytes: int) -> Measured:
    return Measured(LATENCY, rise_bytes)


def test_a_class_counts_where_any_server_rises() -> None:
    found = {
        "vedette": {"a": measured(0), "b": measured(MEMORY_MIN_BYTES), "c": measured(0)},
        "prometheus": {"a": measured(MEMORY_MIN_BYTES - 1), "b": measured(0), "c": measured(2**30)},
    }
    assert querymemory.worth_measuring(found) == ["b", "c"]


def test_only_the_rise_is_replaced() -> None:
    found = {"vedette": {"a": measured(1), "b": measured(2)}, "prometheus": {"a": measured(3)}}
    assert querymemory.replaced(found, {"vedette": {"b": 20}, "prometheus": {"a": 30}}) == {
        "vedette": {"a": measured(1), "b": measured(20)},
        "prometheus": {"a": measured(30)},
    }


def test_the_warming_queries_are_classes() -> None:
    assert set(querymemory.WARMING) <= {query.name for query in CLASSES}
