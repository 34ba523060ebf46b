"""A store with tiers over a week: what is made, what goes, and what queries answer."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from promql.engine import Engine
from promql.options import EngineOptions
from tests.tsdb.rollupstore import DAY, MINUTE, ROLLED, STALE, TIERS, append, live, series
from tests.tsdb.stores import HOUR, T0, Store, histograms, matcher
from tsdb.columns import HistogramColumns, WriteBatch
from tsdb.errors import InvalidLabelsError
from tsdb.labels import Labels
from tsdb.rollup import ROLLUP_LABEL, SeriesRetention, Tier
from tsdb.select import SelectHints, rollup_of

WEEK_HOURS = 7 * 24
ENGINE = Engine(EngineOptions(threads=1))
TIMES = [T0 + hour * HOUR for hour in (7, 24, 50, 100, 150, 166)]
ODD_TIMES = [t + 17 * MINUTE + 3456 for t in TIMES]

QUERIES = [
    *(f"{f}_over_time(gauge[2h])" for f in ("sum", "count", "avg", "min", "max", "first", "last", "present")),
    *(f"{f}(counter_total[3h])" for f in ("rate", "increase")),
    "delta(gauge[1h])",
    "gauge",
    "sum by (job) (rate(counter_total[1h]))",
    "max_over_time(gauge[1h] offset 1h)",
]


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """One week three times: at full resolution only, with roll-ups beside it, and with roll-ups for it."""
    root = tmp_path_factory.mktemp("week")
    plain = Store(root / "plain", options=replace(ROLLED, tiers=()))
    beside = Store(root / "beside", options=ROLLED)
    tiers = (replace(TIERS[0], retention_ms=4 * DAY), TIERS[1])
    instead = Store(root / "instead", options=replace(ROLLED, tiers=tiers, full_resolution_ms=12 * HOUR))
    for store in (plain, beside, instead):
        live(store, WEEK_HOURS)
    yield plain, beside, instead
    for store in (plain, beside, instead):
        store.db.close()


def answers(store: Store, query: str, at: int) -> dict[Labels, float]:
    querier = store.db.querier()
    value = ENGINE.instant(querier, query, at).value
    return dict(zip(value.labels.rows(), value.values[:, 0].tolist(), strict=True))


def same(got: dict[Labels, float], want: dict[Labels, float]) -> None:
    assert got.keys() == want.keys()
    for labels, value in want.items():
        have = got[labels]
        both_nan = math.isnan(have) and math.isnan(value)
        assert both_nan or math.isclose(have, value, rel_tol=1e-9, abs_tol=1e-9), (labels, have, value)


def resolutions(store: Store) -> dict[int, tuple[int, int]]:
    """First and last time of the blocks of each resolution."""
    found: dict[int, tuple[int, int]] = {}
    for stored in store.db.blocks():
        meta = stored.meta
        lo, hi = found.get(meta.resolution_ms, (meta.min_time, meta.max_time))
        found[meta.resolution_ms] = min(lo, meta.min_time), max(hi, meta.max_time)
    return found


def test_tiers_cover_what_is_old_enough_and_replace_what_the_configuration_says(week) -> None:
    plain, beside, instead = week
    end = T0 + WEEK_HOURS * HOUR
    assert set(resolutions(plain)) == {0}
    spans = resolutions(beside)
    assert spans[0][0] == T0
    assert end - 14 * HOUR <= spans[5 * MINUTE][1] <= end - 6 * HOUR + 1
    assert end - 3 * DAY <= spans[HOUR][1] <= end - 2 * DAY + 1
    gone = resolutions(instead)
    assert end - 24 * HOUR <= gone[0][0] <= end - 12 * HOUR
    assert T0 + 12 * HOUR < gone[5 * MINUTE][0] <= end - 4 * DAY + 24 * HOUR
    assert gone[HOUR][0] <= T0
    for store in (beside, instead):
        assert store.metric("vedette_tsdb_rolled_up_samples_total", resolution="300") > 0
        assert store.metric("vedette_tsdb_rolled_up_samples_total", resolution="3600") > 0
    assert instead.metric("vedette_tsdb_rollup_superseded_blocks_total") > 0
    assert beside.metric("vedette_tsdb_rollup_superseded_blocks_total") == 0


@pytest.mark.parametrize("query", QUERIES)
def test_aligned_queries_are_exact_whether_samples_are_there_or_not(week, query) -> None:
    plain, beside, instead = week
    for at in TIMES:
        want = answers(plain, query, at)
        same(answers(beside, query, at), want)
        same(answers(instead, query, at), want)


@pytest.mark.parametrize("query", QUERIES)
def test_other_queries_are_exact_while_samples_are_there(week, query) -> None:
    plain, beside, _ = week
    for at in ODD_TIMES:
        same(answers(beside, query, at), answers(plain, query, at))


def test_long_aligned_queries_read_windows_only(week) -> None:
    plain, beside, _ = week
    query = "sum by (job) (sum_over_time(gauge[1d]))"
    before = beside.metric("vedette_tsdb_rollup_selects_total", reason="exact")
    read = []
    for store in (plain, beside):
        result = ENGINE.range(store.db.querier(), query, T0 + DAY, T0 + 4 * DAY, DAY)
        read.append(result.stats["samples"]["samplesRead"])
    assert read[1] < read[0] / 20
    assert beside.metric("vedette_tsdb_rollup_selects_total", reason="exact") == before + 1


@pytest.mark.parametrize("query", QUERIES)
def test_other_queries_are_answered_for_moved_borders_once_samples_are_gone(week, query) -> None:
    plain, _, instead = week
    offset = HOUR if "offset" in query else 0
    for at in ODD_TIMES[:4]:
        rollup = rollup_of(instead.db.querier().select([matcher("__name__", "gauge")], at - 4 * HOUR, at))
        moved = int(rollup.borders(np.array([at - offset], dtype=np.int64))[0]) + offset
        assert 0 < at - moved < HOUR
        assert (at - moved) % (5 * MINUTE) == 17 * MINUTE % (5 * MINUTE) + 3456
        same(answers(instead, query, at), answers(plain, query, moved))


def test_the_hidden_label_is_never_seen(week) -> None:
    plain, _, instead = week
    for store in (plain, instead):
        querier = store.db.querier()
        assert querier.label_names([], T0, T0 + 7 * DAY) == ["__name__", "i", "job"]
        assert querier.label_values(ROLLUP_LABEL, [], T0, T0 + 7 * DAY) == []
        found = querier.series([[matcher("job", "ab"[0])]], T0, T0 + DAY)
        assert found.rows() == [series(m, i) for m in ("counter_total", "gauge") for i in (0, 2)]
        rows = querier.select([matcher("i", "1")], T0, T0 + DAY).labels.rows()
        assert sorted(rows) == [series(m, 1) for m in ("counter_total", "gauge")]


def test_samples_that_are_gone_are_read_as_the_last_of_each_window(week) -> None:
    plain, _, instead = week
    mint, maxt = T0 + 20 * HOUR, T0 + 30 * HOUR
    full, rolled = (
        store.read(matcher("__name__", "counter_total"), mint=mint, maxt=maxt) for store in (plain, instead)
    )
    assert full.keys() == rolled.keys()
    for labels, samples in rolled.items():
        assert 5 < len(samples) < len(full[labels]) / 20
        assert samples.items() <= full[labels].items()


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "data", options=ROLLED)
    yield opened
    opened.db.close()


def reopen(store: Store, **changes) -> None:
    store.db.close()
    store.open(**changes)


def rolled_blocks(store: Store) -> list[str]:
    return [stored.meta.ulid for stored in store.db.blocks() if stored.meta.resolution_ms]


def test_a_second_round_makes_nothing_again_and_a_restart_finds_everything(store) -> None:
    live(store, 20)
    made = rolled_blocks(store)
    assert made
    store.db.maintenance.run()
    assert rolled_blocks(store) == made
    want = {query: answers(store, query, T0 + 8 * HOUR) for query in QUERIES}
    reopen(store)
    assert rolled_blocks(store) == made
    for query, expected in want.items():
        same(answers(store, query, T0 + 8 * HOUR), expected)


def test_late_samples_are_rolled_up_again(store) -> None:
    live(store, 20)
    made = rolled_blocks(store)
    reopen(store, out_of_order_window_ms=DAY)
    late = series("gauge", 0)
    t = T0 + 8 * HOUR - 30_000
    append(store, [(late, t, 1e6)])
    query, at = 'max_over_time(gauge{i="0"}[1h])', T0 + 8 * HOUR
    assert list(answers(store, query, at).values()) == [1e6]
    live(store, 6, first=20)
    assert rolled_blocks(store) != made
    before = store.metric("vedette_tsdb_rollup_selects_total", reason="exact")
    assert list(answers(store, query, at).values()) == [1e6]
    assert store.metric("vedette_tsdb_rollup_selects_total", reason="exact") == before + 1


def test_late_samples_behind_a_replaced_range_are_read_beside_it(store) -> None:
    reopen(store, full_resolution_ms=8 * HOUR)
    live(store, 30)
    assert resolutions(store)[0][0] > T0 + 8 * HOUR
    query, at = 'count_over_time(counter_total{i="0"}[1h])', T0 + 8 * HOUR
    before = answers(store, query, at)
    reopen(store, out_of_order_window_ms=2 * DAY)
    append(store, [(series("counter_total", 0), T0 + 8 * HOUR - 31_234, 5.0)])
    want = {labels: value + 1 for labels, value in before.items()}
    assert answers(store, query, at) == want
    live(store, 10, first=30)
    assert answers(store, query, at) == want


def test_deleted_series_are_gone_from_roll_ups_too(store) -> None:
    live(store, 20)
    span = T0 + 6 * HOUR, T0 + 9 * HOUR
    for options in ({}, {"full_resolution_ms": 8 * HOUR}):
        reopen(store, **options)
        store.db.maintenance.run()
        store.db.delete_series([[matcher("__name__", "gauge")]], *span)
        for _ in range(2):
            assert answers(store, "sum_over_time(gauge[1h])", T0 + 8 * HOUR) == {}
            assert answers(store, "gauge", T0 + 8 * HOUR) == {}
            assert answers(store, "sum_over_time(counter_total[1h])", T0 + 8 * HOUR)
            store.db.maintenance.run()
            store.db.clean_tombstones()
        span = T0, T0 + 9 * HOUR


def test_series_with_a_retention_of_their_own_go_at_every_resolution(store) -> None:
    rule = SeriesRetention((("__name__", "gauge"), ("job", "a|x")), 8 * HOUR)
    reopen(store, series_retention=(rule,), full_resolution_ms=12 * HOUR)
    live(store, 40)
    kept = answers(store, "count_over_time(gauge[1h])", T0 + 10 * HOUR)
    assert {labels.get("job") for labels in kept} <= {"b"}
    assert len(answers(store, "count_over_time(counter_total[1h])", T0 + 10 * HOUR)) >= 2
    assert {labels.get("job") for labels in answers(store, "gauge", T0 + 39 * HOUR)} & {"a"}


def test_a_stale_series_stays_stale_in_a_roll_up(store) -> None:
    reopen(store, tiers=(Tier(6 * HOUR, HOUR),), full_resolution_ms=6 * HOUR)
    gone, back = series("gauge", 7), series("gauge", 8)
    for labels, stop in ((gone, 57), (back, 57)):
        append(store, [(labels, T0 + n * MINUTE, float(n)) for n in range(stop)])
    append(store, [(gone, T0 + 58 * MINUTE, STALE), (back, T0 + 58 * MINUTE, STALE)])
    append(store, [(back, T0 + 59 * MINUTE, 1.0)])
    live(store, 14, first=2)
    assert resolutions(store)[0][0] > T0 + 2 * HOUR
    assert answers(store, "gauge", T0 + HOUR) == {back: 1.0}
    assert answers(store, "count_over_time(gauge[1h])", T0 + HOUR) == {
        labels.without("__name__"): count for labels, count in ((gone, 56.0), (back, 57.0))
    }


def test_the_label_of_roll_ups_is_refused_from_outside(store) -> None:
    with pytest.raises(InvalidLabelsError, match="__rollup__ is reserved"):
        store.db.appender().refs([Labels.from_dict({"__name__": "a", ROLLUP_LABEL: "sum"})])


def test_remote_readers_get_samples_while_they_are_there(week) -> None:
    plain, beside, _ = week
    bounds = T0 + DAY, T0 + DAY + HOUR
    for hints in (SelectHints(), SelectHints(step_ms=HOUR, range_ms=HOUR, function="sum_over_time")):
        assert rollup_of(beside.db.querier().select([], *bounds, hints)) is None
    assert (
        beside.read(mint=bounds[0], maxt=bounds[1]).keys()
        == plain.read(mint=bounds[0], maxt=bounds[1]).keys()
    )


def test_native_histograms_stay_whole_behind_roll_ups(store) -> None:
    reopen(store, full_resolution_ms=8 * HOUR)
    labels, times = series("latency", 0), [T0 + n * MINUTE for n in range(150)]
    ref = int(store.db.appender().refs([labels])[0])
    columns = HistogramColumns(np.full(len(times), ref, dtype=np.uint32), histograms(times))
    store.now_s = times[-1] / 1000
    assert store.db.appender().append(WriteBatch(histograms=columns)).stored_count == len(times)
    queries = [f"histogram_count({f}(latency[1h]))" for f in ("increase", "rate", "sum_over_time")]
    queries += ["histogram_sum(latency)", "count_over_time(latency[30m])"]
    want = [answers(store, query, T0 + 2 * HOUR + 1234) for query in queries]
    assert all(want)
    live(store, 20, first=3)
    assert resolutions(store)[0][0] > T0 + 2 * HOUR
    for query, expected in list(zip(queries, want, strict=True))[:3]:
        same(answers(store, query, T0 + 2 * HOUR + 1234), expected)
    same(answers(store, queries[3], T0 + 2 * HOUR), {labels.without("__name__"): 120 * 1.25})
    same(answers(store, queries[4], T0 + 2 * HOUR + 1234), want[4])


def test_a_crash_while_a_roll_up_is_swapped_in_leaves_one_of_both(store) -> None:
    live(store, 20)
    copies = store.path.with_name("copies")
    for stored in store.db.blocks():
        if stored.meta.resolution_ms:
            shutil.copytree(stored.path, copies / stored.path.name)
    before = rolled_blocks(store)
    live(store, 22, first=20)
    want = answers(store, "sum_over_time(gauge[6h])", T0 + 12 * HOUR)
    merged = [name for name in before if name not in rolled_blocks(store)]
    assert merged
    store.db.close()
    for name in merged:
        shutil.copytree(copies / name, store.path / name)
    store.open()
    assert not set(merged) & set(rolled_blocks(store))
    same(answers(store, "sum_over_time(gauge[6h])", T0 + 12 * HOUR), want)
