"""Anchored and smoothed windows over native histograms: kernels against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.histogrampool import pool_of
from promql.matrix import Grid, HistogramCells
from promql.operators.histogramwindow import Extended, smoothed_histograms, window_histograms
from promql.operators.operator import WindowGrid
from tests.promql.operands import histogram_at
from tests.promql.test_histogramarith import neighbour_lists, same
from tests.promql.test_histogramwindow import piece_of, rows_batch
from tests.reference import extendedhistograms as reference
from tests.reference.histograms import FloatHistogram

LOOKBACK_MS = 30_000
MARGIN = 1e-12
Row = list[tuple[int, FloatHistogram]]

grids = st.builds(
    lambda first, step, span: WindowGrid(first, step, 5, span, Grid(first, step, 5)),
    st.integers(-5_000, 60_000),
    st.sampled_from([1, 5_000, 7_001]),
    st.sampled_from([1_000, 10_000, 25_000]),
)


@st.composite
def timed_rows(draw: st.DrawFn) -> list[Row]:
    """One or two rows of counters that mostly grow, with gaps as long as the lookback."""
    rows = []
    for _ in range(draw(st.integers(1, 2))):
        t, row = draw(st.integers(0, 10_000)), []
        for h in draw(neighbour_lists()):
            row.append((t, h))
            t += draw(st.sampled_from([1, 5_000, 10_000, 10_000, 30_000]))
        rows.append(row)
    return rows


def check(cells: HistogramCells | None, want: list[list[FloatHistogram | None]]) -> None:
    assert cells is not None
    pool = pool_of(cells.pool)
    for indexes, expected in zip(cells.index.tolist(), want, strict=True):
        for index, cell in zip(indexes, expected, strict=True):
            if cell is None:
                assert index == -1
            else:
                assert index >= 0
                assert same(histogram_at(pool, index), cell, MARGIN)


@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
@pytest.mark.parametrize("name", ["rate", "increase", "delta"])
@settings(max_examples=60, deadline=None)
@given(rows=timed_rows(), grid=grids)
def test_extended_rate_of_histograms_equals_its_twin(
    modifier: str, name: str, rows: list[Row], grid: WindowGrid
) -> None:
    batch = rows_batch([[h for _, h in row] for row in rows], [[t for t, _ in row] for row in rows])
    which = np.ones((len(rows), grid.steps), dtype=np.bool_)
    extended = Extended(modifier, LOOKBACK_MS)
    got = window_histograms(name, piece_of(batch), grid, which, lambda *note: None, extended=extended)
    smoothed, counter, rate = modifier == "smoothed", name != "delta", name == "rate"
    want = [
        [
            reference.extended_rate(row, end, grid.range_ms, LOOKBACK_MS, smoothed, counter, rate)
            for end in grid.ends_ms().tolist()
        ]
        for row in rows
    ]
    check(got.cells, want)


@settings(max_examples=150, deadline=None)
@given(rows=timed_rows(), grid=grids)
def test_smoothed_histograms_equal_their_twin(rows: list[Row], grid: WindowGrid) -> None:
    batch = rows_batch([[h for _, h in row] for row in rows], [[t for t, _ in row] for row in rows])
    which = np.ones((len(rows), grid.steps), dtype=np.bool_)
    first, step = grid.first_end_ms, grid.step_ms
    got = smoothed_histograms(batch, first, step, LOOKBACK_MS, which, lambda *note: None)
    ends = grid.ends_ms().tolist()
    check(got, [[reference.smoothed_value(row, end, LOOKBACK_MS) for end in ends] for row in rows])
