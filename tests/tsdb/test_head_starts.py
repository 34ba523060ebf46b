"""Start timestamps of float samples: in the head against a slow twin, and through log, snapshot, blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.starts import ReferenceStarts
from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, name
from tests.tsdb.test_head import SERIES, labels, make_head
from tsdb.columns import SampleColumns, WriteBatch
from tsdb.errors import LimitError
from tsdb.head import Head
from tsdb.kernels import append as k
from tsdb.labels import Matcher, MatchType
from tsdb.walrecords import decode_starts, encode_starts

EXTREMES = [0, 1, -1, 2**63 - 1, -(2**63), T0]


def read_starts(head: Head, i: int, mint: int, maxt: int, rows: bool) -> list[tuple[int, int]]:
    selection = head.select([Matcher(MatchType.EQUAL, "i", str(i))], mint, maxt)
    if not len(selection.labels):
        return []
    batch = selection.read_rows(np.array([0])) if rows else selection.read(0, 1)
    starts = batch.start_t_ms if batch.start_t_ms is not None else np.zeros_like(batch.t_ms)
    return list(zip(batch.t_ms.tolist(), starts.tolist(), strict=True))


times = st.one_of(
    st.integers(-20, 200).map(lambda n: T0 + n * 15_000),
    st.integers(-HOUR, HOUR).map(lambda n: T0 + n),
)
starts = st.one_of(st.sampled_from(EXTREMES), st.integers(-5, 5).map(lambda n: T0 + n * 60_000))
rows = st.lists(st.tuples(st.integers(0, SERIES - 1), times, starts), min_size=1, max_size=40)
steps = st.lists(
    st.tuples(rows, st.sampled_from(["starts", "starts", "none", "cut"])), min_size=1, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(-50, 200), st.integers(0, 200), st.booleans())
def test_every_sample_keeps_its_start(batches, a, span, by_rows):
    head, refs = make_head()
    twin = [ReferenceStarts() for _ in range(SERIES)]
    oldest = -(2**62)
    for batch, kind in batches:
        t = np.array([row[1] for row in batch], dtype=np.int64)
        begun = np.array([row[2] for row in batch], dtype=np.int64)
        if kind == "none":
            begun[:] = 0
        picked = refs[[row[0] for row in batch]]
        # Values differ, so that no sample repeats another.
        bits = np.arange(len(batch), dtype=np.uint64)
        codes, _ = head.admit(picked, t, bits, head.rules(T0 + 2 * HOUR, int(t[0])))
        head.store(picked, t, bits, codes, None if kind == "none" else begun)
        for row, code in enumerate(codes.tolist()):
            if code in (k.ACCEPTED, k.LATE):
                twin[batch[row][0]].add(int(t[row]), int(begun[row]), code == k.LATE)
        if kind == "cut":
            newest = [max(s.in_order, default=None) for s in twin]
            if None not in newest:
                oldest = max(oldest, min(newest) - 60_000)
                head.truncate(oldest)
    lo, hi = T0 + a * 15_000, T0 + (a + span) * 15_000
    for i in range(SERIES):
        for mint, maxt in ((oldest, 2**62), (max(lo, oldest), max(hi, oldest))):
            assert read_starts(head, i, mint, maxt, by_rows) == twin[i].read(mint, maxt)


def test_a_head_without_starts_gives_none_and_touches_nothing():
    head, refs = make_head()
    t = np.full(SERIES, T0, dtype=np.int64)
    bits = np.zeros(SERIES, dtype=np.uint64)
    codes, _ = head.admit(refs, t, bits, head.rules(T0, T0))
    head.store(refs, t, bits, codes, np.zeros(SERIES, dtype=np.int64))
    assert not head.starts.used
    assert head.select([], T0, T0).read(0, SERIES).start_t_ms is None


def test_equal_starts_take_one_entry():
    head, refs = make_head(series=1)
    for n in range(300):
        t = np.array([T0 + n * 1000], dtype=np.int64)
        codes, _ = head.admit(refs, t, np.zeros(1, dtype=np.uint64), head.rules(T0 + HOUR, T0))
        head.store(refs, t, np.zeros(1, dtype=np.uint64), codes, np.array([T0 - 5]))
    assert head.starts.end == 2


def test_a_dead_series_leaves_no_start_to_the_next_one_in_its_slot():
    head, refs = make_head(series=1)
    t = np.array([T0], dtype=np.int64)
    codes, _ = head.admit(refs, t, np.zeros(1, dtype=np.uint64), head.rules(T0, T0))
    head.store(refs, t, np.zeros(1, dtype=np.uint64), codes, np.array([77]))
    head.truncate(T0 + 1)
    head.truncate(T0 + 2)
    assert head.series.series_count == 0
    assert head.starts.end == 1
    again, _ = head.find_or_create([labels(9)])
    assert int(head.starts.newest[again[0] & 0xFFFFFF]) == 0


def test_more_changes_than_fit_are_refused_before_anything_is_stored(monkeypatch):
    head, _ = make_head(series=1)
    monkeypatch.setattr(head.starts, "changes", head.starts.changes[:8])
    with pytest.raises(LimitError, match="limit is 8"):
        head.check_room(8)


@pytest.mark.parametrize("values", [[], [0], EXTREMES, EXTREMES[::-1]])
def test_starts_of_a_record_come_back(values):
    column = np.array(values, dtype=np.int64)
    data = np.frombuffer(b"".join(encode_starts(column)), dtype=np.uint8)
    assert decode_starts(data).tolist() == values


# Store level.


def append(store: Store, rows: list[tuple[int, int, float, int]]) -> None:
    appender = store.db.appender()
    refs = appender.refs([name(row[0]) for row in rows])
    t = np.array([row[1] for row in rows], dtype=np.int64)
    store.now_s = max(store.now_s, float(t.max()) / 1000)
    values = np.array([row[2] for row in rows])
    begun = np.array([row[3] for row in rows], dtype=np.int64)
    result = appender.append(WriteBatch(SampleColumns(refs, t, values, begun)))
    assert result.stored_count == len(rows)
    result.durable.result(10)


def stored(store: Store) -> dict[tuple[str, int], int]:
    querier = store.db.querier()
    selection = querier.select([], -(2**62), 2**62)
    batch = selection.read(0, len(selection.labels))
    starts = batch.start_t_ms if batch.start_t_ms is not None else np.zeros_like(batch.t_ms)
    found = {}
    for row, series in enumerate(selection.labels.rows()):
        for i in range(int(batch.offsets[row]), int(batch.offsets[row + 1])):
            found[dict(series.pairs)["i"], int(batch.t_ms[i])] = int(starts[i])
    querier.close()
    return found


def fill(store: Store) -> dict[tuple[str, int], int]:
    expected = {}
    for n in range(60):
        t = T0 + n * 240_000
        rows = [(i, t, float(n), 0 if i == 2 else T0 - 1000 + i + (n // 25)) for i in range(3)]
        if n % 7 == 3:
            rows.append((0, t - 60_000, 0.5, 99))
        append(store, rows)
        expected.update({(str(i), t): start for i, t, _, start in rows})
    return expected


def test_starts_survive_replay_snapshot_cut_and_merge(tmp_path):
    store = Store(tmp_path, replace(OPTIONS, start_timestamps=True))
    expected = fill(store)
    assert stored(store) == expected
    store.db.close()
    store.open(snapshot_on_close=False)
    assert store.metric("prometheus_tsdb_clean_start") == 1
    assert stored(store) == expected
    store.db.close()
    store.open()
    assert store.metric("prometheus_tsdb_clean_start") == 0
    assert stored(store) == expected
    store.db.maintenance.run()
    assert store.db.blocks()
    assert stored(store) == expected
    store.db.close()
    store.open()
    assert stored(store) == expected
    store.db.close()


def test_starts_are_dropped_unless_asked_for(tmp_path):
    store = Store(tmp_path)
    append(store, [(0, T0, 1.0, 55)])
    assert set(stored(store).values()) == {0}
    assert not store.db.head.starts.used
    store.db.close()
