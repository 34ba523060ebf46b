"""The store as a whole: restarts, blocks, late samples, deletion, retention."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.tsdb.stores import HOUR, T0, Store, crash, histograms, matcher, name, reopen
from tsdb import compact
from tsdb.columns import Exemplar, HistogramColumns, Metadata, Rejected, SampleColumns, WriteBatch
from tsdb.errors import (
    InvalidLabelsError,
    LimitError,
    SeriesLimitError,
)
from tsdb.labels import Labels
from tsdb.limits import Limits
from tsdb.select import STALE_BITS, SelectHints

DAY = 24 * HOUR
MINUTE = 60_000


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "data")
    yield opened
    opened.db.close()


@pytest.mark.parametrize("restart", [reopen, crash])
def test_samples_are_there_after_a_restart(store, restart):
    store.fill(5, T0, 300)
    restart(store)
    assert store.read() == store.expected
    store.fill(5, T0 + 300 * 15_000, 10)
    restart(store)
    assert store.read() == store.expected


@pytest.mark.parametrize("restart", [None, reopen, crash])
def test_old_ranges_become_blocks_and_nothing_changes_for_a_reader(store, restart):
    store.fill(4, T0, 7 * 60, step=MINUTE)
    store.db.maintenance.run()
    assert [s.meta.min_time for s in store.db.blocks()] == [T0, T0 + 2 * HOUR]
    assert store.db.head.min_time == T0 + 4 * HOUR
    if restart is not None:
        restart(store)
    assert store.read() == store.expected
    assert store.read(matcher("i", "2"), mint=T0 + HOUR, maxt=T0 + 5 * HOUR) == {
        name(2): {t: v for t, v in store.expected[name(2)].items() if T0 + HOUR <= t <= T0 + 5 * HOUR}
    }
    store.fill(4, T0 + 7 * HOUR, 5, step=MINUTE)
    assert store.read() == store.expected


def test_a_head_that_spans_decades_is_cut_without_walking_through_them(store):
    reopen(store, retention_ms=0)
    store.add([(name(0), 1000, 1.0), (name(1), 1500, 1.0)])
    store.add([(name(0), T0, 2.0)])
    store.fill(1, T0 + HOUR, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    assert [s.meta.min_time for s in store.db.blocks()] == [0, T0]
    assert store.db.head.min_time == T0 + 6 * HOUR
    assert store.read() == store.expected


def test_the_log_is_cut_when_the_head_is(store):
    reopen(store, wal_segment_bytes=4096, snapshot_on_close=False)
    store.fill(4, T0, 7 * 60, step=MINUTE)
    before = store.db.wal_bytes()
    store.db.maintenance.run()
    assert store.db.wal_bytes() < before
    crash(store)
    assert store.read() == store.expected
    assert store.metric("prometheus_tsdb_wal_corruptions_total") == 0


def test_late_samples_are_merged_when_read_and_reach_blocks(store):
    store.fill(2, T0, 60, step=MINUTE)
    late = [(name(0), T0 + 30 * MINUTE + 1, 7.5), (name(1), T0 + 20 * MINUTE + 1, 8.5)]
    store.add(late)
    assert store.read() == store.expected
    # Late samples of a range that is a block already make a second block, which is merged into the first.
    store.fill(2, T0 + HOUR, 160, step=MINUTE)
    store.db.maintenance.run()
    assert store.db.head.min_time >= T0 + 2 * HOUR
    reopen(store, out_of_order_window_ms=4 * HOUR)
    store.add([(name(0), T0 + 10 * MINUTE + 1, 9.5)])
    assert store.read() == store.expected
    store.fill(2, T0 + 2 * HOUR + 100 * MINUTE, 160, step=MINUTE)
    store.db.maintenance.run()
    assert store.read() == store.expected
    metas = [s.meta for s in store.db.blocks()]
    assert all(a.max_time <= b.min_time for a, b in itertools.pairwise(metas))
    assert store.metric("prometheus_tsdb_vertical_compactions_total") == 1
    crash(store)
    assert store.read() == store.expected


def test_without_a_window_late_samples_are_refused_with_prometheus_words(store):
    reopen(store, out_of_order_window_ms=0)
    store.add([(name(0), T0, 1.0), (name(1), T0 + 2 * HOUR, 1.0)])
    late = [(name(1), T0 + 2 * HOUR - 1, 1.0), (name(0), T0 + 1, 1.0), (name(1), T0 + 2 * HOUR, 2.0)]
    result = store.append(late)
    assert result.codes.tolist() == [Rejected.OUT_OF_ORDER, Rejected.OUT_OF_BOUNDS, Rejected.DUPLICATE]
    assert list(result.messages) == [
        "out of order sample",
        "out of bounds",
        f"duplicate sample for timestamp {T0 + 2 * HOUR}; overrides not allowed: existing 1, new value 2",
    ]
    assert result.stored_count == 0
    assert store.metric("prometheus_tsdb_out_of_order_samples_total", type="float") == 1
    assert store.read() == store.expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (10267820369.0, "1.0267820369e+10"),
        (1.5e-5, "1.5e-05"),
        (-2.5, "-2.5"),
        (0.0, "0"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_values_in_messages_are_written_as_prometheus_does(store, value, text):
    store.append([(name(0), T0, 7.0)])
    assert store.append([(name(0), T0, value)]).messages[0].endswith(f"existing 7, new value {text}")


def test_an_atomic_batch_with_one_bad_sample_is_refused_whole(store):
    reopen(store, out_of_order_window_ms=0)
    store.add([(name(0), T0, 1.0)])
    result = store.append([(name(1), T0 + 1, 1.0), (name(0), T0, 2.0)], atomic=True)
    assert (result.stored_count, result.codes.tolist()) == (0, [0, Rejected.DUPLICATE])
    assert store.read() == store.expected
    crash(store)
    assert store.read() == store.expected


def test_stale_markers_keep_their_bits_through_log_and_block(store):
    bits = np.full(3, STALE_BITS, dtype=np.uint64)
    refs = store.db.appender().refs([name(i) for i in range(3)])
    t = np.full(3, T0, dtype=np.int64)
    store.db.appender().append(WriteBatch(SampleColumns(refs, t, bits.view(np.float64)))).durable.result(10)

    def stored() -> list[int]:
        selection = store.db.querier().select((), T0, T0)
        return selection.read(0, 3).values.view(np.uint64).tolist()

    assert stored() == [STALE_BITS] * 3
    crash(store)
    assert stored() == [STALE_BITS] * 3
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    assert len(store.db.blocks()) == 1
    assert stored() == [STALE_BITS] * 3


def test_a_head_that_fell_behind_is_cut_into_the_blocks_that_merging_would_make(store):
    start = T0 // (18 * HOUR) * (18 * HOUR) + 4 * HOUR
    store.fill(2, start, 121, step=5 * MINUTE)
    store.db.maintenance.compact_head()
    spans = [(s.meta.min_time - start, s.meta.max_time - start) for s in store.db.blocks()]
    assert spans == [(0, 2 * HOUR), (2 * HOUR, 8 * HOUR)]
    assert store.db.head.min_time == start + 8 * HOUR
    assert store.read() == store.expected
    crash(store)
    assert store.read() == store.expected


def test_a_late_sample_behind_blocks_makes_no_long_block(store):
    start = T0 // (18 * HOUR) * (18 * HOUR)
    store.fill(2, start, 169, step=5 * MINUTE)
    store.db.maintenance.compact_head()
    reopen(store, out_of_order_window_ms=2 * DAY)
    store.add([(name(0), start + HOUR + 1, 7.5)])
    store.fill(2, start + 14 * HOUR + 5 * MINUTE, 40, step=5 * MINUTE)
    store.db.maintenance.compact_head()
    spans = [(s.meta.min_time - start, s.meta.max_time - start) for s in store.db.blocks()]
    assert spans[:3] == [(0, 2 * HOUR), (0, 6 * HOUR), (6 * HOUR, 12 * HOUR)]
    assert store.read() == store.expected


@pytest.mark.parametrize(
    ("oldest", "newest", "cut"),
    [
        (0, 3 * HOUR, None),
        (0, 3 * HOUR + 1, 2 * HOUR),
        (HOUR, 7 * HOUR, 2 * HOUR),
        (HOUR, 7 * HOUR + 1, 6 * HOUR),
        (5 * HOUR, 19 * HOUR, 6 * HOUR),
        (5 * HOUR, 19 * HOUR + 1, 18 * HOUR),
        (-(1 << 62), 1 << 62, -(1 << 62) // (18 * HOUR) * (18 * HOUR) + 18 * HOUR),
    ],
)
def test_the_longest_range_that_is_due_is_cut(oldest, newest, cut):
    assert compact.head_cut(oldest, newest, [2 * HOUR, 6 * HOUR, 18 * HOUR]) == cut


def test_ranges_of_blocks_end_with_a_tenth_of_the_retention_or_the_longest_asked_for():
    two = 2 * HOUR
    assert compact.ranges(two, 15 * DAY) == [two, 6 * HOUR, 18 * HOUR]
    assert compact.ranges(two, 0)[-1] == 2 * 3**5 * HOUR
    assert compact.ranges(two, 15 * DAY, two) == [two]
    assert compact.ranges(two, DAY, 20 * HOUR) == [two, 6 * HOUR, 18 * HOUR]


def test_late_samples_before_the_head_have_smallest_ranges():
    late, main = (2 * HOUR, 4 * HOUR), (6 * HOUR, 12 * HOUR)
    assert compact.head_ranges(7 * HOUR, 8 * HOUR, 12 * HOUR, 2 * HOUR) == [main]
    assert compact.head_ranges(7 * HOUR, 3 * HOUR, 12 * HOUR, 2 * HOUR) == [late, (4 * HOUR, 6 * HOUR), main]


def test_blocks_grow_by_three_and_old_ones_go(store):
    reopen(store, retention_ms=10 * DAY)
    for part in range(5):
        store.fill(2, T0 + part * 4 * HOUR, 48, step=5 * MINUTE)
        store.db.maintenance.run()
    ranges = {s.meta.max_time - s.meta.min_time for s in store.db.blocks()}
    assert 6 * HOUR in ranges
    assert store.read() == store.expected
    assert store.metric("prometheus_tsdb_compactions_total") > 5
    newest = max(s.meta.max_time for s in store.db.blocks())
    reopen(store, retention_ms=7 * HOUR)
    store.db.maintenance.retain()
    assert all(s.meta.max_time > newest - 7 * HOUR for s in store.db.blocks())
    assert store.metric("prometheus_tsdb_time_retentions_total") > 0
    left = store.read()
    assert max(left[name(0)]) == max(store.expected[name(0)])
    store.db.reconfigure(replace(store.options, retention_bytes=1))
    store.db.maintenance.retain()
    assert store.db.blocks() == ()


def test_another_window_is_in_force_for_the_next_sample(store):
    store.add([(name(0), T0, 1.0)])
    for window_ms, accepted in ((0, 0), (HOUR, 1)):
        store.db.reconfigure(replace(store.options, out_of_order_window_ms=window_ms))
        assert store.append([(name(0), T0 - MINUTE, 2.0)]).stored_count == accepted


def test_the_latest_sample_is_the_one_before_what_was_deleted(store):
    store.fill(1, T0, 300, step=MINUTE // 4)
    last = max(store.expected[name(0)])
    store.db.delete_series([[matcher("i", "0")]], last - HOUR, last)
    querier = store.db.querier()
    hints = SelectHints(latest_only=True)
    batch = querier.select([matcher("i", "0")], T0, last, hints).read(0, 1)
    assert batch.t_ms[-1] == max(t for t in store.expected[name(0)] if t < last - HOUR)


def test_deleted_samples_are_gone_from_head_and_blocks_and_stay_gone(store):
    store.fill(3, T0, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    lo, hi = T0 + HOUR, T0 + 6 * HOUR
    store.db.delete_series([[matcher("i", "1")]], lo, hi)
    samples = store.expected[name(1)]
    store.expected[name(1)] = {t: v for t, v in samples.items() if not lo <= t <= hi}
    assert store.read() == store.expected
    crash(store)
    assert store.read() == store.expected
    store.db.clean_tombstones()
    assert all(not s.tombstones for s in store.db.blocks())
    assert store.read() == store.expected
    store.fill(3, T0 + 7 * HOUR, 120, step=2 * MINUTE)
    store.db.maintenance.run()
    assert store.read() == store.expected
    reopen(store)
    assert store.read() == store.expected


def test_a_snapshot_is_a_store_of_its_own(store, tmp_path):
    store.fill(3, T0, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    where = store.path / "snapshots" / store.db.snapshot()
    copy = Store(tmp_path / "copy")
    copy.db.close()
    shutil.copytree(where, copy.path, dirs_exist_ok=True)
    copy.open()
    assert copy.read() == store.expected
    copy.db.close()


def test_histograms_survive_log_snapshot_and_block(store):
    times = [T0 + n * MINUTE for n in range(10)]
    ref = int(store.db.appender().refs([name(0)])[0])
    columns = HistogramColumns(np.full(10, ref, dtype=np.uint32), histograms(times))
    result = store.db.appender().append(WriteBatch(histograms=columns))
    assert result.stored_count == 10
    result.durable.result(10)
    again = store.db.appender().append(WriteBatch(histograms=columns))
    # The newest is repeated, older ones are late with equal times: the first to arrive stays.
    assert again.histogram_codes.tolist() == [0] * 10

    def check() -> None:
        batch = store.db.querier().select((), T0 + MINUTE, T0 + 4 * MINUTE).read(0, 1).histograms
        assert batch is not None
        assert batch.t_ms.tolist() == times[1:5]
        assert batch.row_offsets.tolist() == [0, 4]
        assert batch.sum.tolist() == [1.25, 2.5, 3.75, 5.0]
        assert batch.pos_index.tolist() == [-3, 5] * 4
        assert batch.pos_count.tolist() == [float(n) for n in range(2, 10)]

    check()
    crash(store)
    check()
    reopen(store)
    check()
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    assert store.db.head.series.series_count == 0
    check()
    crash(store)
    check()


def test_a_float_at_the_time_of_a_histogram_is_a_duplicate(store):
    ref = int(store.db.appender().refs([name(0)])[0])
    refs = np.array([ref], dtype=np.uint32)
    store.db.appender().append(WriteBatch(histograms=HistogramColumns(refs, histograms([T0]))))
    assert store.append([(name(0), T0, 1.0)]).codes.tolist() == [Rejected.DUPLICATE]
    other = replace(histograms([T0]), sum=np.array([9.0]))
    result = store.db.appender().append(WriteBatch(histograms=HistogramColumns(refs, other)))
    assert result.histogram_codes.tolist() == [Rejected.DUPLICATE]
    assert store.append([(name(0), T0 + 1, 1.0)]).codes.tolist() == [Rejected.NO]


@pytest.mark.parametrize("restart", [reopen, crash])
def test_exemplars_and_metadata_are_kept(store, restart):
    ref = int(store.db.appender().refs([name(0)])[0])
    trace = Labels.from_dict({"trace_id": "abc"})
    batch = WriteBatch(
        SampleColumns(np.array([ref], dtype=np.uint32), np.array([T0]), np.array([1.0])),
        exemplars=[Exemplar(ref, trace, 0.5, T0), Exemplar(ref, trace, 0.5, T0)],
        metadata=[Metadata("m", "counter", "What it counts.", "bytes")],
    )
    store.db.appender().append(batch).durable.result(10)
    restart(store)
    found = store.db.exemplars([[matcher("__name__", "m")]], T0, T0)
    assert [(s.labels, [(e.labels, e.value, e.t_ms) for e in s.exemplars]) for s in found] == [
        (name(0), [(trace, 0.5, T0)])
    ]
    assert store.db.metadata() == [Metadata("m", "counter", "What it counts.", "bytes")]


def test_label_names_values_and_series(store):
    store.add([(name(0, zone="a"), T0, 1.0), (name(1, zone="b"), T0, 1.0), (name(2), T0, 1.0)])
    querier = store.db.querier()
    assert querier.label_names([], T0, T0) == ["__name__", "i", "zone"]
    assert querier.label_names([[matcher("i", "2")]], T0, T0) == ["__name__", "i"]
    assert querier.label_values("zone", [], T0, T0) == ["a", "b"]
    assert querier.label_values("zone", [[matcher("i", "1")]], T0, T0) == ["b"]
    assert querier.label_values("i", [], T0, T0, limit=2) == ["0", "1"]
    assert querier.series([[matcher("zone", "a")], [matcher("i", "0")]], T0, T0).rows() == [name(0, zone="a")]
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    assert querier.label_names([], T0, T0) == ["__name__", "i", "zone"]
    assert querier.label_values("zone", [], T0, T0) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([Labels(())], InvalidLabelsError, "empty labelset"),
        ([Labels((("a", "1"), ("a", "2")))], InvalidLabelsError, 'label name "a" is not unique'),
        ([Labels((("a", "\ud800"),))], InvalidLabelsError, "not valid UTF-8"),
        (
            [name(0, big="x" * 300)],
            LimitError,
            'label "big" has 300 bytes, above the label_value_length_limit of 256',
        ),
        ([name(0, a="1", b="2")], LimitError, "4 labels exceed the label_limit of 3"),
        (
            [name(i) for i in range(6)],
            SeriesLimitError,
            "0 active series and 6 new ones exceed the series_limit of 5",
        ),
    ],
)
def test_bad_label_sets_are_refused_and_none_of_the_call_is_created(store, rows, error, text):
    reopen(store, limits=Limits(active_series=5, labels_per_series=3, label_value_bytes=256))
    with pytest.raises(error, match=text):
        store.db.appender().refs([name(9), *rows] if len(rows) == 1 else rows)
    assert store.db.head.series.series_count == 0
