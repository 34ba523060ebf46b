"""One window with all samples of its rows: kernels without times against the twins of those with times."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.engine import Engine
from promql.matrix import ABSENT_BITS, Matrix
from promql.operators.wholewindow import WHOLE_WINDOW
from tests.promql.sampledata import VALUES, Rows, batch_of_rows, same_cells
from tests.reference import windows as reference
from tests.tsdb.stores import HOUR, T0, Store, name
from tsdb.select import NAN_BITS, STALE_BITS, RowValues, SharedSamples

STALE = float(np.uint64(STALE_BITS).view(np.float64))


def no_times() -> SharedSamples:
    raise AssertionError("times are not to be asked for")


@st.composite
def long_rows(draw: st.DrawFn) -> Rows:
    """Up to 20 rows, more than are summed side by side, some of them longer than what is packed at a time."""
    values = draw(st.sampled_from([VALUES, st.integers(-50, 50).map(float), st.floats(-1e6, 1e6)]))
    few = draw(st.lists(values, min_size=1, max_size=12))
    lengths = draw(st.lists(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 150]), max_size=20))
    return [[(i, few[(i * k + i) % len(few)]) for i in range(length)] for k, length in enumerate(lengths)]


def values_of(rows: Rows) -> RowValues:
    batch = batch_of_rows(rows)
    batch.values.view(np.uint64)[np.isnan(batch.values)] = NAN_BITS
    return RowValues(batch.offsets, batch.values, no_times)


@pytest.mark.parametrize("function", sorted(WHOLE_WINDOW))
@settings(max_examples=25, deadline=None)
@given(rows=long_rows())
def test_a_whole_window_equals_its_twin(function: str, rows: Rows) -> None:
    twin, out = reference.OVER_WINDOW[function], np.empty((len(rows), 1))
    with np.errstate(all="ignore"):
        present = WHOLE_WINDOW[function](values_of(rows), out)
        want = [[twin(row)] for row in rows]
    if present < 0:
        odd = [v for row in rows for _, v in row if math.isnan(v) or (v == 0 and math.copysign(1, v) < 0)]
        assert odd or any(cell is not None and math.isnan(cell) for (cell,) in want)
        return
    assert present == sum(cell is not None for (cell,) in want)
    same_cells(out, want)


@pytest.mark.parametrize("function", sorted(WHOLE_WINDOW))
@pytest.mark.parametrize("bits", [STALE_BITS, ABSENT_BITS])
def test_rows_with_odd_nans_are_refused_wherever_they_are(function: str, bits: int) -> None:
    rows = values_of([[(i, i / 8 + 1) for i in range(70)] for _ in range(18)])
    out = np.empty((18, 1))
    for at in (0, 69, 500, len(rows.values) - 1):
        assert WHOLE_WINDOW[function](rows, out) == 18
        before = rows.values[at]
        rows.values.view(np.uint64)[at] = bits
        assert WHOLE_WINDOW[function](rows, out) == -1
        rows.values[at] = before


def test_an_instant_query_over_block_and_head_finds_what_a_range_finds(tmp_path: Path) -> None:
    store, engine = Store(tmp_path), Engine()
    store.add([(name(i), T0 + k * 60_000, (k * 7 % 11) / 10 - i) for k in range(120) for i in range(4)])
    store.add([(name(2), T0 + 2 * HOUR - 1000, STALE), (name(3), T0 + 2 * HOUR - 1000, -0.0)])
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.add([(name(i), T0 + 2 * HOUR + k * 60_000, k / 3) for k in range(30) for i in (0, 1, 3, 5)])
    store.add([(name(5), T0 + 2 * HOUR + 30 * 60_000, STALE)])
    end = T0 + 2 * HOUR + 31 * 60_000
    for matchers in ("", 'i!="2",i!="5"', 'i="1"', 'i="0"'):
        for function in sorted(WHOLE_WINDOW):
            for span in ("3h", "20m", "1s"):
                text = f"{function}({{__name__=~'.+'{',' + matchers if matchers else ''}}}[{span}])"
                one = engine.instant(store.db.querier(), text, end).value
                two = engine.range(store.db.querier(), text, end, end + 1, 1).value
                assert isinstance(one, Matrix)
                assert isinstance(two, Matrix)
                found = dict(zip(one.labels.rows(), one.values.view(np.uint64)[:, 0].tolist(), strict=True))
                first = two.values.view(np.uint64)[:, 0].tolist()
                want = dict(zip(two.labels.rows(), first, strict=True))
                assert found == {row: bits for row, bits in want.items() if bits != ABSENT_BITS}, text
    store.db.close()
