"""Aggregation kernels against their twins, and the aggregations of the language."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.kernels import aggregate as kernels
from promql.matrix import ABSENT_BITS
from promql.operators.aggregate import Accumulators
from promql.operators.collect import absent_cells
from promql.operators.labelcolumns import label_hashes
from promql.options import EngineOptions
from tests.promql.sampledata import VALUES, cells, same_cells, store
from tests.reference.aggregations import AGGREGATIONS, best, quantile_of
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

EXPERIMENTAL = EngineOptions(features=frozenset({"promql-experimental-functions"}), threads=1)

matrices = st.integers(1, 5).flatmap(
    lambda steps: st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.one_of(st.none(), VALUES), min_size=steps, max_size=steps)),
        max_size=12,
    ).map(lambda rows: (steps, rows))
)
Table = tuple[int, list[tuple[int, list[float | None]]]]


def by_group(table: Table, group: int, step: int) -> list[tuple[int, float]]:
    """(row, value) of the samples of a group at a step."""
    found = []
    for row, (g, values) in enumerate(table[1]):
        value = values[step]
        if g == group and value is not None:
            found.append((row, value))
    return found


@pytest.mark.parametrize("op", sorted(AGGREGATIONS))
@settings(max_examples=60, deadline=None)
@given(table=matrices, cut=st.integers(0, 12))
def test_aggregation_equals_its_twin_however_rows_are_batched(op: str, table: Table, cut: int) -> None:
    steps, rows = table
    group = np.array([g for g, _ in rows], dtype=np.int64)
    values = cells([v for _, v in rows], steps)
    totals = Accumulators(op, 3, steps)
    totals.add(group[:cut], values[:cut])
    totals.add(group[cut:], values[cut:])
    expected = []
    for g in range(3):
        found = [[v for _, v in by_group(table, g, k)] for k in range(steps)]
        expected.append([AGGREGATIONS[op](v) if v else None for v in found])
    same_cells(totals.finish(), expected)


@settings(max_examples=60, deadline=None)
@given(table=matrices, q=st.sampled_from([-1.0, 0.0, 0.3, 0.5, 1.0, 1.5, math.nan]))
def test_quantile_aggregation_equals_its_twin(table: Table, q: float) -> None:
    steps, rows = table
    group = np.array([g for g, _ in rows], dtype=np.int64)
    out = absent_cells(3, steps)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(4)).astype(np.int64)
    values = cells([v for _, v in rows], steps)
    for first in range(steps):
        kernels.quantile_of_groups(order, bounds, values, np.full(steps, q), first, 1, out)
    expected = []
    for g in range(3):
        found = [[v for _, v in by_group(table, g, k)] for k in range(steps)]
        expected.append([quantile_of(q, v) if v else None for v in found])
    same_cells(out, expected)


@pytest.mark.parametrize("is_top", [0, 1])
@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.one_of(st.just(math.nan), st.floats(-100, 100)), max_size=15), k=st.integers(1, 6))
def test_heap_keeps_the_best_values(is_top: int, values: list[float], k: int) -> None:
    seen: set[float] = set()
    unique = [v for v in values if math.isnan(v) or not (v in seen or seen.add(v))]
    group = np.zeros(len(unique), dtype=np.int64)
    heap_v, heap_row = np.zeros((1, 1, k)), np.zeros((1, 1, k), dtype=np.int64)
    size = np.zeros((1, 1), dtype=np.int64)
    column = np.array(unique).reshape(-1, 1)
    kernels.accumulate_best(group, 0, column, np.array([k]), is_top, heap_v, heap_row, size)
    chosen = set(heap_row[0, 0, : size[0, 0]].tolist())
    expected = best(list(enumerate(unique)), k, bool(is_top))
    numbers = {row for row in expected if not math.isnan(unique[row])}
    assert {row for row in chosen if not math.isnan(unique[row])} == numbers
    assert len(chosen) == len(expected)


def xxhash64_twin(data: bytes) -> int:
    """xxHash64, seed 0, straight from its specification."""
    p1, p2, p3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    p4, p5, mask = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, (1 << 64) - 1

    def rotate(x: int, n: int) -> int:
        return ((x << n) | (x >> (64 - n))) & mask

    def mix(acc: int, lane: int) -> int:
        return rotate((acc + lane * p2) & mask, 31) * p1 & mask

    at = 0
    if len(data) >= 32:
        lanes = [(p1 + p2) & mask, p2, 0, (-p1) & mask]
        while at + 32 <= len(data):
            for i in range(4):
                lanes[i] = mix(lanes[i], int.from_bytes(data[at + 8 * i : at + 8 * i + 8], "little"))
            at += 32
        acc = sum(rotate(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
        for lane in lanes:
            acc = ((acc ^ mix(0, lane)) * p1 + p4) & mask
    else:
        acc = p5
    acc = (acc + len(data)) & mask
    while at + 8 <= len(data):
        acc = (rotate(acc ^ mix(0, int.from_bytes(data[at : at + 8], "little")), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= len(data):
        lane = int.from_bytes(data[at : at + 4], "little")
        acc = (rotate(acc ^ (lane * p1 & mask), 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        acc = rotate(acc ^ (byte * p5 & mask), 11) * p1 & mask
    acc = ((acc ^ (acc >> 33)) * p2) & mask
    acc = ((acc ^ (acc >> 29)) * p3) & mask
    return acc ^ (acc >> 32)


def layout(labels: Labels) -> bytes:
    """The bytes Prometheus hashes."""
    out = b""
    for pair in labels.pairs:
        for text in pair:
            raw = text.encode()
            size = bytes([len(raw)]) if len(raw) < 255 else b"\xff" + len(raw).to_bytes(3, "little")
            out += size + raw
    return out


def test_xxhash64_twin_knows_the_published_values() -> None:
    assert xxhash64_twin(b"") == 0xEF46DB3751D8E999
    assert xxhash64_twin(b"abc") == 0x44BC2CF5AD770999


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text("abcdé", min_size=1, max_size=9), st.text(max_size=300), max_size=5),
        max_size=5,
    )
)
def test_label_hash_equals_xxhash_of_the_layout(rows: list[dict[str, str]]) -> None:
    sets = [Labels.from_dict(row) for row in rows]
    got = label_hashes(SeriesLabels.from_labels(sets, SymbolTable()))
    assert got.tolist() == [xxhash64_twin(layout(labels)) for labels in sets]


DATA = store(
    60_000,
    {
        'm{g="a", i="1"}': [1, 2, 3],
        'm{g="a", i="2"}': [5, 5, 1],
        'm{g="b", i="1"}': [7, 7, math.nan],
        'n{g="b"}': [0.5, 0.5, 0.5],
    },
)

CASES = {
    "sum by (g) (m)": {'{g="a"}': [6, 7, 4], '{g="b"}': [7, 7, math.nan]},
    "sum without (i) (m)": {'{g="a"}': [6, 7, 4], '{g="b"}': [7, 7, math.nan]},
    "sum(m)": {"{}": [13, 14, math.nan]},
    "sum by (nope) (m)": {"{}": [13, 14, math.nan]},
    "count by (g) (m)": {'{g="a"}': [2, 2, 2], '{g="b"}': [1, 1, 1]},
    "max(m)": {"{}": [7, 7, 3]},
    "topk(1, m)": {'m{g="a", i="1"}': [None, None, 3], 'm{g="b", i="1"}': [7, 7, None]},
    "bottomk by (g) (1, m)": {
        'm{g="a", i="1"}': [1, 2, None],
        'm{g="a", i="2"}': [None, None, 1],
        'm{g="b", i="1"}': [7, 7, math.nan],
    },
    "topk(0, m)": {},
    'count_values("v", m)': {
        '{v="1"}': [1, None, 1],
        '{v="2"}': [None, 1, None],
        '{v="3"}': [None, None, 1],
        '{v="5"}': [1, 1, None],
        '{v="7"}': [1, 1, None],
        '{v="NaN"}': [None, None, 1],
    },
    'count_values by (g) ("g", m)': {
        '{g="1"}': [1, None, 1],
        '{g="2"}': [None, 1, None],
        '{g="3"}': [None, None, 1],
        '{g="5"}': [1, 1, None],
        '{g="7"}': [1, 1, None],
        '{g="NaN"}': [None, None, 1],
    },
    "group by (__name__) ({g='b'})": {"m": [1, 1, 1], "n": [1, 1, 1]},
    "topk(scalar(n), m)": {},
    "limitk(1, m)": {'m{g="a", i="1"}': [1, 2, 3]},
    "quantile by (g) (0.5, m)": {'{g="a"}': [3, 3.5, 2], '{g="b"}': [7, 7, math.nan]},
}


@pytest.mark.parametrize("query", list(CASES))
def test_aggregation_of_a_range(query: str) -> None:
    result = Engine(EXPERIMENTAL).range(DATA.querier(), query, 0, 120_000, 60_000).value
    expected = CASES[query]
    assert [str(labels) for labels in result.labels.rows()] == list(expected)
    same_cells(result.values, [[None if v is None else float(v) for v in row] for row in expected.values()])


def test_limit_ratio_and_its_complement_share_all_series() -> None:
    data = store(60_000, {f'm{{i="{i}"}}': [1] for i in range(50)})
    engine = Engine(EXPERIMENTAL)
    kept = engine.instant(data.querier(), "limit_ratio(0.3, m)", 0).value.labels.rows()
    rest = engine.instant(data.querier(), "limit_ratio(-0.7, m)", 0).value.labels.rows()
    assert len(kept) + len(rest) == 50
    assert set(kept).isdisjoint(rest)
    assert 0 < len(kept) < 50


ERRORS = {
    "topk(NaN, m)": "Parameter value is NaN",
    "topk(1e300, m)": "Scalar value 1e+300 overflows int64",
    "limit_ratio(NaN, m)": "Ratio value is NaN",
}


@pytest.mark.parametrize("query", list(ERRORS))
def test_bad_parameter_is_an_error(query: str) -> None:
    with pytest.raises(ExecutionError, match=ERRORS[query].replace("+", r"\+")):
        Engine(EXPERIMENTAL).instant(DATA.querier(), query, 0)


def test_topk_of_an_instant_query_comes_in_order_of_value() -> None:
    result = Engine(EXPERIMENTAL).instant(DATA.querier(), "topk(3, m)", 0).value
    assert result.values[:, 0].tolist() == [7.0, 5.0, 1.0]


def test_quantile_outside_of_its_range_warns_with_its_place() -> None:
    result = Engine(EXPERIMENTAL).instant(DATA.querier(), "quantile(1.5, m)", 0)
    assert result.warnings == ("PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:10)",)
    assert result.value.values.tolist() == [[math.inf]]


def test_large_sum_does_not_hold_its_input() -> None:
    steps = 64
    data = store(1000, {f'm{{i="{i}"}}': [float(i)] for i in range(300)})
    options = EngineOptions(bytes_max=300 * steps * 8 // 2, threads=1)
    result = Engine(options).range(data.querier(), "sum(m)", 0, (steps - 1) * 1000, 1000)
    assert result.value.values.tolist() == [[float(sum(range(300)))] * steps]
    assert (result.value.values.view(np.uint64) != ABSENT_BITS).all()
