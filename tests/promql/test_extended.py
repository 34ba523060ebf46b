"""Anchored, smoothed and start-timestamp windows against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.kernels import extended as kernels
from promql.matrix import Grid
from promql.operators.extended import extended_window, start_time_window
from promql.operators.operator import WindowGrid
from tests.promql.sampledata import Rows, batch_of_rows, same_cells, sample_rows
from tests.reference import extended as reference
from tsdb.select import SampleBatch

LOOKBACK_MS = 30_000

grids = st.builds(
    lambda first, step, steps, span: WindowGrid(first, step, steps, span, Grid(first, step, steps)),
    st.integers(-20_000, 60_000),
    st.sampled_from([1, 1000, 7_000, 60_000]),
    st.integers(1, 10),
    st.sampled_from([1000, 5_000, 60_000]),
)
numbers = st.one_of(st.integers(0, 50).map(float), st.floats(-1e6, 1e6))


@pytest.mark.parametrize("modifier", ["anchored", "smoothed"])
@pytest.mark.parametrize("name", ["rate", "increase", "delta"])
@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(numbers), grid=grids)
def test_extended_rate_equals_its_twin(modifier: str, name: str, rows: Rows, grid: WindowGrid) -> None:
    out = np.empty((len(rows), grid.steps))
    extended_window(name, modifier, batch_of_rows(rows), grid, LOOKBACK_MS, out)
    expected = [
        [
            reference.extended_rate(
                row,
                int(end),
                grid.range_ms,
                LOOKBACK_MS,
                modifier == "smoothed",
                name != "delta",
                name == "rate",
            )
            for end in grid.ends_ms()
        ]
        for row in rows
    ]
    same_cells(out, expected, relative=1e-12)


@pytest.mark.parametrize("name", ["changes", "resets"])
@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(), grid=grids)
def test_anchored_transitions_equal_their_twin(name: str, rows: Rows, grid: WindowGrid) -> None:
    out = np.empty((len(rows), grid.steps))
    extended_window(name, "anchored", batch_of_rows(rows), grid, LOOKBACK_MS, out)
    expected = [
        [
            reference.transitions(row, int(end), grid.range_ms, LOOKBACK_MS, name == "resets")
            for end in grid.ends_ms()
        ]
        for row in rows
    ]
    same_cells(out, expected)


@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(numbers), grid=grids)
def test_smoothed_selector_equals_its_twin(rows: Rows, grid: WindowGrid) -> None:
    batch = batch_of_rows(rows)
    out = np.empty((len(rows), grid.steps))
    first, step = grid.first_end_ms, grid.step_ms
    kernels.smoothed_value(batch.offsets, batch.t_ms, batch.values, first, step, LOOKBACK_MS, out)
    expected = [
        [reference.smoothed_value(row, int(end), LOOKBACK_MS) for end in grid.ends_ms()] for row in rows
    ]
    same_cells(out, expected)


@st.composite
def started_rows(draw: st.DrawFn) -> list[list[tuple[int, float, int]]]:
    """Rows whose samples may know when they started: before, at, or after the previous sample."""
    rows = []
    for row in draw(sample_rows(numbers)):
        made = []
        for t, v in row:
            back = draw(st.sampled_from([None, 0, 1, 500, 1000, 15_000, 60_000, -1]))
            made.append((t, v, 0 if back is None else t - back))
        rows.append(made)
    return rows


@pytest.mark.parametrize("name", ["rate", "increase"])
@settings(max_examples=80, deadline=None)
@given(rows=started_rows(), grid=grids)
def test_rate_with_start_timestamps_equals_its_twin(
    name: str, rows: list[list[tuple[int, float, int]]], grid: WindowGrid
) -> None:
    plain = batch_of_rows([[(t, v) for t, v, _ in row] for row in rows])
    starts = np.array([s for row in rows for _, _, s in row], dtype=np.int64)
    batch = SampleBatch(plain.offsets, plain.t_ms, plain.values, starts)
    out = np.empty((len(rows), grid.steps))
    overlapping: list[int] = []
    start_time_window(name, batch, grid, overlapping.append, out)
    expected = []
    for row in rows:
        windows = [[s for s in row if end - grid.range_ms < s[0] <= end] for end in grid.ends_ms().tolist()]
        ends = grid.ends_ms().tolist()
        expected.append(
            [
                reference.rate_from_starts(w, end, grid.range_ms, name == "rate")
                for w, end in zip(windows, ends, strict=True)
            ]
        )
    same_cells(out, expected)
    assert set(overlapping) <= set(range(len(rows)))


@settings(max_examples=80, deadline=None)
@given(rows=started_rows(), grid=grids)
def test_irate_and_resets_with_start_timestamps_equal_their_twins(
    rows: list[list[tuple[int, float, int]]], grid: WindowGrid
) -> None:
    plain = batch_of_rows([[(t, v) for t, v, _ in row] for row in rows])
    starts = np.array([s for row in rows for _, _, s in row], dtype=np.int64)
    batch = SampleBatch(plain.offsets, plain.t_ms, plain.values, starts)
    ends = grid.ends_ms().tolist()
    windows = [[[s for s in row if end - grid.range_ms < s[0] <= end] for end in ends] for row in rows]
    for name, twin in (
        ("irate", reference.instant_rate_from_starts),
        ("resets", reference.resets_from_starts),
    ):
        out = np.empty((len(rows), grid.steps))
        start_time_window(name, batch, grid, lambda row: None, out)
        same_cells(out, [[twin(window) for window in row] for row in windows])
