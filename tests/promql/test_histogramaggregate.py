"""sum and avg of histograms that come in pieces."""

from __future__ import annotations

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
