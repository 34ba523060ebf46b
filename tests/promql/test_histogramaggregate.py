"""sum and avg of histograms that come in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.budget import QueryBudget
from promql.engineerrors import MemoryLimitError
from promql.histogrampool import batch_of, pool_of
from promql.matrix import HistogramCells
from promql.operators import histogramaggregate
from promql.operators.histogramaggregate import HistogramTotals
from promql.operators.histogramstream import StreamedSums
from promql.operators.histogramwindow import COMBINE_NOTES
from tests.promql.operands import histogram_at, pool_from
from tests.promql.randomhistograms import histograms
from tests.promql.test_histogramarith import same
from tests.reference.histograms import CUSTOM, NOT_RESET, RESET, FloatHistogram, combine

Column = list[FloatHistogram | None]


def cells_of(column: Column) -> HistogramCells:
    """One step of some rows. The pool holds one histogram that no cell uses."""
    found = [FloatHistogram(count=99.0), *(h for h in column if h is not None)]
    numbers = iter(range(1, len(found)))
    index = [[next(numbers) if h is not None else -1] for h in column]
    return HistogramCells(np.array(index, dtype=np.int32).reshape(-1, 1), batch_of(pool_from(found)))


def budget(bytes_max: int = 1 << 30) -> QueryBudget:
    return QueryBudget(1 << 30, bytes_max, 60.0)


def totals_of(
    op: str, pieces: list[Column], groups: list[int], notes: list[str], limit: QueryBudget | None = None
) -> list[FloatHistogram | None]:
    """Result of each group at the one step."""
    count = max(groups, default=0) + 1
    totals = HistogramTotals(
        op, np.array(groups, dtype=np.int64), count, 1, limit or budget(), lambda *n: notes.append(n[2])
    )
    lo = 0
    for piece in pieces:
        totals.add(lo, cells_of(piece))
        lo += len(piece)
    cells = totals.finish(totals.here)
    if cells is None:
        return [None] * count
    pool = pool_of(cells.pool)
    return [None if i < 0 else histogram_at(pool, i) for i in cells.index[:, 0].tolist()]


pieces_lists = st.lists(st.lists(st.one_of(st.none(), histograms()), max_size=3), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(pieces=pieces_lists, op=st.sampled_from(["sum", "avg"]), data=st.data())
def test_groups_agree_with_the_slow_twin(pieces: list[Column], op: str, data: st.DataObject) -> None:
    rows = [h for piece in pieces for h in piece]
    groups = [data.draw(st.integers(0, 1)) for _ in rows]
    got = totals_of(op, pieces, groups, [])
    for group, have in enumerate(got):
        members = [h for h, g in zip(rows, groups, strict=True) if g == group and h is not None]
        want = combine(members, op == "avg").histogram if members else None
        assert (have is None) == (want is None)
        assert have is None or want is None or same(have, want.compact(), 1e-12)


@pytest.mark.parametrize("op", ["sum", "avg"])
def test_adding_up_on_the_way_changes_nothing_but_rounding(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[Column] = [
        [FloatHistogram(count=c, sum=c / 3, positive={i % 3: c}) for i in range(4)] for c in (1.0, 2.5, 7.0)
    ]
    groups = [0, 1, 0, 1] * 3
    whole = totals_of(op, pieces, groups, [])
    monkeypatch.setattr(histogramaggregate, "HELD_BYTES_MAX", 0)
    parts = totals_of(op, pieces, groups, [])
    for have, want in zip(parts, whole, strict=True):
        assert have is not None
        assert want is not None
        assert same(have, want, 1e-14)


counts = st.one_of(st.integers(-3, 9).map(float), st.floats(-1e9, 1e9), st.just(float("inf")))
buckets = st.dictionaries(st.integers(-4, 6), counts, max_size=5)
alike = st.builds(
    FloatHistogram,
    schema=st.just(2),
    hint=st.sampled_from([0, RESET, NOT_RESET]),
    zero_threshold=st.just(0.125),
    zero_count=counts,
    count=counts,
    sum=counts,
    positive=buckets,
    negative=buckets,
)


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.lists(st.one_of(alike, alike, st.none()), min_size=2, max_size=4), min_size=2, max_size=4
    ),
    data=st.data(),
)
def test_sums_of_one_resolution_are_the_same_to_the_bit(pieces: list[Column], data: st.DataObject) -> None:
    groups = [data.draw(st.integers(0, 1)) for piece in pieces for _ in piece]
    notes: list[str] = []
    whole = totals_of("sum", pieces, groups, notes)
    streamed, streamed_notes = StreamedSums(np.array(groups, dtype=np.int64), (2, 1), 2, 0.125), []
    lo = 0
    for piece in pieces:
        assert streamed.add(np.arange(lo, lo + len(piece)), cells_of(piece), 1 << 20)
        lo += len(piece)
    cells, flags, firsts = streamed.finish(np.ones((2, 1), dtype=np.bool_))
    streamed_notes = [COMBINE_NOTES[1][2]] if flags.any() else []
    assert streamed_notes == notes
    rows = [h for piece in pieces for h in piece]
    for group, want in enumerate(whole):
        mine = [row for row, h in enumerate(rows) if h is not None and groups[row] == group]
        at = int(cells.index[group, 0])
        assert (at >= 0) == (want is not None) == bool(mine)
        assert firsts[group, 0] == (mine[0] if mine else -1)
        if want is not None:
            have = histogram_at(pool_of(cells.pool), at)
            assert repr(have) == repr(want)
            slow = combine([h for row in mine if (h := rows[row]) is not None], False)
            assert same(have, slow.histogram.compact(), 1e-12)
            assert not slow.collision or notes


@pytest.mark.parametrize(
    "last", [{"schema": 1}, {"schema": 2, "zero_threshold": 0.5}, {"schema": 2, "positive": {-40: 1.0}}]
)
def test_streaming_ends_where_something_else_comes(
    last: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(i: int) -> FloatHistogram:
        positive = dict.fromkeys(range(9), i / 3)
        return FloatHistogram(2, zero_threshold=0.125, count=1.0, sum=float(i), positive=positive)

    pieces: list[Column] = [[made(4 * k + i) for i in range(4)] for k in range(5)]
    pieces.append([FloatHistogram(**{"zero_threshold": 0.125, "count": 1.0, **last})])
    pieces.append([made(9)])
    groups = [0] * 22
    whole = totals_of("sum", pieces, groups, [])
    used: list[bool] = []
    add = StreamedSums.add
    monkeypatch.setattr(histogramaggregate, "STREAM_BYTES_MIN", 0)
    monkeypatch.setattr(StreamedSums, "add", lambda *a: used.append(add(*a)) or used[-1])
    parts = totals_of("sum", pieces, groups, [])
    assert used == [True] * (len(used) - 1) + [False]
    assert len(used) == 6
    assert parts[0] is not None
    assert whole[0] is not None
    assert same(parts[0], whole[0], 1e-14)


def test_a_group_that_mixed_bucket_kinds_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogramaggregate, "HELD_BYTES_MAX", 0)
    custom = FloatHistogram(CUSTOM, count=1.0, positive={0: 1.0}, custom=(1.0,))
    plain = FloatHistogram(count=1.0, positive={0: 1.0})
    notes: list[str] = []
    assert totals_of("sum", [[plain, custom], [plain]], [0, 0, 0], notes) == [None]
    assert notes[0].startswith("vector contains a mix of histograms with exponential and custom")


def test_conflicting_hints_are_reported() -> None:
    notes: list[str] = []
    totals_of("sum", [[FloatHistogram(hint=RESET)], [FloatHistogram(hint=NOT_RESET)]], [0, 0], notes)
    assert notes == ["conflicting counter resets during histogram aggregation"]


def test_memory_is_counted_against_the_budget() -> None:
    wide = FloatHistogram(count=1.0, positive=dict.fromkeys(range(500), 1.0))
    with pytest.raises(MemoryLimitError, match="limit of 4000 bytes"):
        totals_of("sum", [[wide]], [0], [], budget(4000))
    held = budget()
    totals_of("sum", [[wide], [wide]], [0, 0], [], held)
    assert held.bytes_peak > 12_000
    held.hold_bytes(held.bytes_max - 1)
