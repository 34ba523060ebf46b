"""Native histograms of every schema, bit for bit through head, log, snapshot and block."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.stores import HOUR, T0, Store, name
from tsdb.columns import HistogramColumns, Rejected, WriteBatch
from tsdb.headhistograms import take
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch
from tsdb.select import HISTOGRAM_WORK, STALE_BITS, SelectHints, work_bounds_of

SCHEMAS = [*range(-4, 9), CUSTOM_BUCKETS_SCHEMA]
SIDES = (("pos_offsets", ("pos_index", "pos_count")), ("neg_offsets", ("neg_index", "neg_count")))


def made(schema: int, times: list[int], seed: int) -> HistogramBatch:
    """Random histograms: gaps between buckets, empty sides, stale markers, float ones."""
    source = np.random.default_rng(seed)
    count = len(times)

    def side(longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lengths = source.integers(0, longest + 1, count)
        offsets = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        first = 0 if schema == CUSTOM_BUCKETS_SCHEMA else -40
        index = [np.sort(source.choice(np.arange(first, first + 90), n, replace=False)) for n in lengths]
        flat = np.concatenate([*index, np.empty(0)]).astype(np.int32)
        return offsets, flat, source.integers(0, 2**53, len(flat)).astype(np.float64)

    pos = side(20)
    neg = side(0 if schema == CUSTOM_BUCKETS_SCHEMA else 8)
    bounds = (
        source.integers(1, 6, count) if schema == CUSTOM_BUCKETS_SCHEMA else np.zeros(count, dtype=np.int64)
    )
    custom_offsets = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(bounds, out=custom_offsets[1:])
    sums = source.normal(0, 1e6, count)
    sums.view(np.uint64)[source.random(count) < 0.1] = STALE_BITS
    return HistogramBatch(
        row_offsets=np.zeros(1, dtype=np.int64),
        t_ms=np.array(times, dtype=np.int64),
        start_t_ms=None,
        schema=np.full(count, schema, dtype=np.int32),
        reset_hint=source.integers(0, 4, count).astype(np.uint8),
        zero_threshold=source.choice([0.0, 2.0**-128, 1e-3], count),
        zero_count=source.integers(0, 100, count).astype(np.float64),
        count=source.integers(0, 2**53, count).astype(np.float64),
        sum=sums,
        pos_offsets=pos[0],
        pos_index=pos[1],
        pos_count=pos[2],
        neg_offsets=neg[0],
        neg_index=neg[1],
        neg_count=neg[2],
        custom_offsets=custom_offsets,
        custom_values=np.sort(source.normal(0, 1, int(custom_offsets[-1]))),
        is_float=np.full(count, seed % 2, dtype=np.uint8),
    )


def describe(batch: HistogramBatch, i: int) -> tuple:
    """Everything of one sample, floats as bytes."""
    parts = [
        getattr(batch, field)[i : i + 1].tobytes()
        for field in (
            "t_ms",
            "schema",
            "reset_hint",
            "zero_threshold",
            "zero_count",
            "count",
            "sum",
            "is_float",
        )
    ]
    for offsets, columns in (*SIDES, ("custom_offsets", ("custom_values",))):
        lo, hi = getattr(batch, offsets)[i : i + 2].tolist()
        parts.extend(getattr(batch, column)[lo:hi].tobytes() for column in columns)
    return tuple(parts)


def stored(store: Store) -> dict:
    selection = store.db.querier().select((), -(2**62), 2**62)
    batch = selection.read(0, len(selection.labels)).histograms
    assert batch is not None
    found = {}
    for row, labels in enumerate(selection.labels.rows()):
        lo, hi = batch.row_offsets[row : row + 2].tolist()
        found[labels] = [describe(batch, i) for i in range(lo, hi)]
    return found


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_comes_back_bit_for_bit(tmp_path, schema):
    store = Store(tmp_path / "data")
    expected = {}
    for i in range(2):
        batch = made(schema, [T0 + n * 60_000 for n in range(12)], seed=100 * i + schema + 60)
        refs = np.full(12, int(store.db.appender().refs([name(i)])[0]), dtype=np.uint32)
        result = store.db.appender().append(
            WriteBatch(histograms=HistogramColumns(refs, batch)), now_ms=T0 + HOUR
        )
        assert result.stored_count == 12
        result.durable.result(10)
        expected[name(i)] = [describe(batch, n) for n in range(12)]
    assert stored(store) == expected
    selection = store.db.querier().select((), T0, T0 + HOUR)
    assert work_bounds_of(selection).tolist() == [12 * HISTOGRAM_WORK] * 2
    shutil.copytree(store.path, tmp_path / "killed")
    store.db.close()
    store.open()
    assert stored(store) == expected
    store.db.close()
    store.path = tmp_path / "killed"
    store.open()
    assert stored(store) == expected
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    assert stored(store) == expected
    store.db.close()


def test_a_selection_reads_what_was_there_when_it_was_made(tmp_path):
    store = Store(tmp_path / "data")
    batch = made(2, [T0 + n * 60_000 for n in range(12)], seed=1)

    def append(first: int) -> None:
        refs = np.full(6, int(store.db.appender().refs([name(0)])[0]), dtype=np.uint32)
        part = HistogramColumns(refs, take(batch, np.arange(first, first + 6), np.zeros(1, dtype=np.int64)))
        assert store.db.appender().append(WriteBatch(histograms=part), now_ms=T0 + HOUR).stored_count == 6

    append(0)
    selection = store.db.querier().select((), T0, T0 + HOUR)
    append(6)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    found = selection.read(0, 1).histograms
    assert [describe(found, i) for i in range(len(found))] == [describe(batch, i) for i in range(6)]
    store.db.close()


orders = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders)
def test_histograms_in_any_order_are_read_in_order_each_time_once(tmp_path_factory, order):
    store = Store(tmp_path_factory.mktemp("data") / "store")
    ref = int(store.db.appender().refs([name(0)])[0])
    expected, newest = {}, -1
    for arrival, n in enumerate(order):
        batch = made(2, [T0 + n * 60_000], seed=2 * arrival)
        columns = HistogramColumns(np.array([ref], dtype=np.uint32), batch)
        result = store.db.appender().append(WriteBatch(histograms=columns), now_ms=T0 + HOUR)
        if n == newest:
            assert result.histogram_codes.tolist() == [Rejected.DUPLICATE]
        else:
            assert result.histogram_codes.tolist() == [Rejected.NO]
            expected.setdefault(n, describe(batch, 0))
        newest = max(newest, n)
    assert stored(store) == {name(0): [expected[n] for n in sorted(expected)]}
    for n in sorted(expected):
        latest = store.db.querier().select((), T0, T0 + n * 60_000 + 59_999, SelectHints(latest_only=True))
        batch = latest.read(0, len(latest.labels)).histograms
        assert [describe(batch, i) for i in range(len(batch))] == [expected[n]]
    store.db.close()


@pytest.mark.parametrize(("mint", "maxt"), [(0, 0), (1, 59_999), (60_000, 90_000), (120_000, 700_000)])
def test_series_are_named_without_their_histograms_being_read(tmp_path, mint, maxt):
    store = Store(tmp_path / "data")
    batch = made(3, [T0, T0 + 60_000], seed=1)
    refs = np.full(2, int(store.db.appender().refs([name(0)])[0]), dtype=np.uint32)
    store.db.appender().append(WriteBatch(histograms=HistogramColumns(refs, batch)), now_ms=T0 + HOUR)
    store.add([(name(1), T0 + 60_000, 1.0)])
    store.add([(name(2), T0 + 60_000, 1.0), (name(2), T0 + 600_000, 1.0)])
    found = {
        labels_only: store.db.querier()
        .select((), T0 + mint, T0 + maxt, SelectHints(labels_only=labels_only))
        .labels.rows()
        for labels_only in (False, True)
    }
    assert found[True] == found[False]
    assert (name(0) in found[True]) == any(mint <= t <= maxt for t in (0, 60_000))
    store.db.close()


def test_the_latest_histogram_of_each_series_is_the_last_in_time(tmp_path):
    store = Store(tmp_path / "data")
    for i, times in enumerate(([T0, T0 + 60_000, T0 + 30_000], [T0 + 10_000])):
        batch = made(2, sorted(times), seed=i)
        refs = np.full(len(times), int(store.db.appender().refs([name(i)])[0]), dtype=np.uint32)
        store.db.appender().append(WriteBatch(histograms=HistogramColumns(refs, batch)), now_ms=T0 + HOUR)
    found = []
    for maxt, hints in ((T0 + 45_000, SelectHints(latest_only=True)), (T0 + 45_000, SelectHints())):
        selection = store.db.querier().select((), T0, maxt, hints)
        batch = selection.read(0, len(selection.labels)).histograms
        rows = selection.labels.rows()
        ends = batch.row_offsets[1:].tolist()
        found.append({row: describe(batch, end - 1) for row, end in zip(rows, ends, strict=True)})
        if hints.latest_only:
            assert batch.row_offsets.tolist() == [0, 1, 2]
            assert sorted(batch.t_ms.tolist()) == [T0 + 10_000, T0 + 30_000]
    assert found[0] == found[1]
    store.db.close()
