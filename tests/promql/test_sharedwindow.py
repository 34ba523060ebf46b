"""Windows over rows that share columns of timestamps, against the twins of the row-by-row kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.matrix import ABSENT_BITS, Grid
from promql.operators import sharedwindow
from promql.operators.operator import WindowGrid
from promql.operators.sharedwindow import EXTRAPOLATED, ColumnWindows
from tests.promql.sampledata import VALUES, Rows, same_cells
from tests.promql.test_window import grids
from tests.reference import windows as reference
from tsdb.select import NAN_BITS, STALE_BITS, ColumnNumbers, NumberedColumns, RowValues, SharedSamples


def rows_of(samples: SharedSamples) -> RowValues:
    return RowValues(samples.offsets, samples.values, lambda: samples)


def extrapolated(name: str, samples: SharedSamples, window: WindowGrid, out: np.ndarray) -> int:
    return ColumnWindows(window, name).extrapolated(rows_of(samples), out)


COUNTERS = st.integers(0, 40).map(float)


@st.composite
def shared_rows(draw: st.DrawFn) -> tuple[Rows, SharedSamples]:
    """Up to 5 series over up to 3 columns of timestamps, some of them long beside the windows."""
    gaps = st.lists(st.sampled_from([1, 500, 1000, 1000, 1000, 15_000, 60_000]), max_size=40)
    columns = [np.cumsum([draw(st.integers(-5_000, 5_000)), *draw(gaps)])[1:] for _ in range(3)]
    column = draw(st.lists(st.integers(0, 2), max_size=5))
    values = draw(st.sampled_from([VALUES, COUNTERS]))
    rows = [[(int(t), draw(values)) for t in columns[c]] for c in column]
    flat = np.array([v for row in rows for _, v in row], dtype=np.float64)
    flat.view(np.uint64)[np.isnan(flat)] = NAN_BITS
    return rows, SharedSamples(
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
        flat,
        np.array(column, dtype=np.int64),
        np.cumsum([0, *map(len, columns)]).astype(np.int64),
        np.concatenate(columns).astype(np.int64),
    )


@pytest.mark.parametrize("name", sorted(EXTRAPOLATED))
@settings(max_examples=80, deadline=None)
@given(data=shared_rows(), grid=grids)
def test_extrapolation_equals_its_twin(name: str, data: tuple[Rows, SharedSamples], grid: WindowGrid) -> None:
    rows, samples = data
    counter, rate = EXTRAPOLATED[name]
    out = np.empty((len(rows), grid.steps))
    with np.errstate(all="ignore"):
        present = extrapolated(name, samples, grid, out)
    assert present == int((out.view(np.uint64) != ABSENT_BITS).sum())
    ends, span = grid.ends_ms().tolist(), grid.range_ms
    expected = [
        [
            reference.extrapolated(reference.samples_in(row, end, span), end, span, bool(counter), bool(rate))
            for end in ends
        ]
        for row in rows
    ]
    same_cells(out, expected)


@settings(max_examples=80, deadline=None)
@given(data=shared_rows(), grid=grids, stale=st.sets(st.integers(0, 150)))
def test_lookback_equals_its_twin(
    data: tuple[Rows, SharedSamples], grid: WindowGrid, stale: set[int]
) -> None:
    rows, samples = data
    flat = iter(range(len(samples.values)))
    marked = [[(t, v, next(flat) in stale) for t, v in row] for row in rows]
    for at in stale & set(range(len(samples.values))):
        samples.values.view(np.uint64)[at] = STALE_BITS
    out = np.empty((len(rows), grid.steps))
    present = ColumnWindows(grid).latest(rows_of(samples), out)
    assert present == int((out.view(np.uint64) != ABSENT_BITS).sum())
    expected = []
    for row in marked:
        cells = []
        for end in grid.ends_ms().tolist():
            inside = [(v, gone) for t, v, gone in row if end - grid.range_ms < t <= end]
            cells.append(None if not inside or inside[-1][1] else inside[-1][0])
        expected.append(cells)
    same_cells(out, expected)


@settings(max_examples=60, deadline=None)
@given(data=shared_rows(), odd=st.integers(0, 150), bits=st.sampled_from([STALE_BITS, ABSENT_BITS]))
def test_rows_with_odd_nans_are_refused_wherever_they_are(
    data: tuple[Rows, SharedSamples], odd: int, bits: int
) -> None:
    rows, samples = data
    window = WindowGrid(1000, 10, 1, 500, Grid(1000, 0, 1))
    out = np.empty((len(rows), 1))
    assert extrapolated("rate", samples, window, out) >= 0
    if odd < len(samples.values):
        samples.values.view(np.uint64)[odd] = bits
        assert extrapolated("rate", samples, window, out) == -1


def test_rate_leaves_stale_markers_to_the_rows_that_are_cleaned() -> None:
    t_ms, one = np.array([1000, 2000, 3000], dtype=np.int64), np.array([0, 3], dtype=np.int64)
    values = np.array([1.0, 2.0, 3.0])
    samples = SharedSamples(one, values, np.zeros(1, dtype=np.int64), one, t_ms)
    window, out = WindowGrid(3000, 0, 1, 5000, Grid(3000, 0, 1)), np.empty((1, 1))
    assert extrapolated("delta", samples, window, out) == 1
    values.view(np.uint64)[1] = STALE_BITS
    assert extrapolated("delta", samples, window, out) == -1


def test_a_negative_zero_stays_one() -> None:
    t_ms = np.array([1000], dtype=np.int64)
    one = np.array([0, 1], dtype=np.int64)
    samples = SharedSamples(one, np.array([-0.0]), np.zeros(1, dtype=np.int64), one, t_ms)
    out = np.empty((1, 1))
    ColumnWindows(WindowGrid(2000, 0, 1, 5000, Grid(2000, 0, 1))).latest(rows_of(samples), out)
    assert np.signbit(out[0, 0])


@pytest.mark.parametrize("columns_max", [4096, 1])
@settings(max_examples=60, deadline=None)
@given(data=shared_rows(), grid=grids, cuts=st.lists(st.integers(0, 5), max_size=3))
def test_windows_found_once_are_those_of_each_piece(
    columns_max: int, data: tuple[Rows, SharedSamples], grid: WindowGrid, cuts: list[int]
) -> None:
    """Pieces whose columns are numbered, until there are too many, give what they give one by one."""
    _, samples = data
    column_t = [
        samples.t_ms[a:b]
        for a, b in zip(samples.column_offsets[:-1], samples.column_offsets[1:], strict=True)
    ]

    def piece(lo: int, hi: int) -> tuple[RowValues, RowValues]:
        first = samples.offsets[lo]
        offsets = samples.offsets[lo : hi + 1] - first
        values = samples.values[first : samples.offsets[hi]].copy()
        column = samples.column[lo:hi].copy()
        part = SharedSamples(offsets, values, column, samples.column_offsets, samples.t_ms)

        def numbered(numbers: ColumnNumbers) -> NumberedColumns | None:
            before, none = numbers.count, np.zeros(hi - lo, dtype=np.int64)
            found = numbers.of(column, 3, none, none, none[:0])
            if found is None:
                return None
            times = [column_t[samples.column[lo + row]] for row in found[1].tolist()]
            ends = np.cumsum([0, *map(len, times)]).astype(np.int64)
            return NumberedColumns(found[0], before, ends, np.concatenate([*times, ends[:0]]))

        return rows_of(part), RowValues(offsets, values, lambda: part, numbered)

    borders = sorted({0, len(samples), *(min(cut, len(samples)) for cut in cuts)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharedwindow, "COLUMNS_MAX", columns_max)
        for name in ("", *EXTRAPOLATED):
            kept = ColumnWindows(grid, name)
            for lo, hi in itertools.pairwise(borders):
                alone, together = piece(lo, hi)
                want, got = np.empty((2, hi - lo, grid.steps))
                windows = ColumnWindows(grid, name)
                if name:
                    assert windows.extrapolated(alone, want) == kept.extrapolated(together, got)
                else:
                    assert windows.latest(alone, want) == kept.latest(together, got)
                assert got.view(np.uint64).tolist() == want.view(np.uint64).tolist()
