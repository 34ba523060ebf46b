"""Rolling up samples and windows against a slow twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.rollup import rolled_up
from tsdb.rollup import COLUMNS, Windows, floor_borders, roll_up, windows_of_samples
from tsdb.select import NAN_BITS, STALE_BITS, SampleBatch

VALUES = st.one_of(
    st.none(),
    st.integers(0, 50).map(float),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0]),
    st.floats(allow_nan=False, width=64, min_value=-1e300, max_value=1e300),
)
SERIES = st.lists(st.tuples(st.integers(1, 60), VALUES), max_size=40)
STARTS = st.sampled_from([-40, -(2**62), 2**62])


def batch_of(rows: list[list[tuple[int, float | None]]]) -> SampleBatch:
    flat = [sample for row in rows for sample in row]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    bits = np.array([STALE_BITS if v is None else np.float64(v).view(np.uint64) for _, v in flat], np.uint64)
    return SampleBatch(offsets, np.array([t for t, _ in flat], np.int64), bits.view(np.float64))


def timed(steps: list[tuple[int, float | None]], start: int) -> list[tuple[int, float | None]]:
    out, t = [], start
    for gap, value in steps:
        t += gap
        out.append((t, value))
    return out


def check(found: Windows, rows: list[list[tuple[int, float | None]]], resolution: int) -> None:
    for k, row in enumerate(rows):
        columns, stale = rolled_up(row, resolution)
        lo, hi = int(found.offsets[k]), int(found.offsets[k + 1])
        assert found.t_ms[lo:hi].tolist() == list(columns)
        assert found.stale_t_ms[found.stale_offsets[k] : found.stale_offsets[k + 1]].tolist() == stale
        scale = math.fsum(abs(v) for _, v in row if v is not None and math.isfinite(v))
        for column in COLUMNS:
            got, want = found.columns[column][lo:hi], [columns[end][column] for end in columns]
            slack = 1e-12 * scale if column in ("sum", "resets") else 0.0
            np.testing.assert_allclose(got, want, rtol=0, atol=slack, err_msg=column)
            if not slack:
                assert np.signbit(got[got == 0]).tolist() == [math.copysign(1, x) < 0 for x in want if x == 0]
            assert set(got[np.isnan(got)].view(np.uint64).tolist()) <= {NAN_BITS}


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(SERIES, min_size=1, max_size=4), resolution=st.sampled_from([1, 7, 30, 100]), start=STARTS
)
def test_windows_of_samples_agree_with_the_slow_twin(rows, resolution, start) -> None:
    series = [timed(row, start) for row in rows]
    check(roll_up(windows_of_samples(batch_of(series)), resolution), series, resolution)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(SERIES, min_size=1, max_size=3), factor=st.sampled_from([2, 3, 12]), start=STARTS)
def test_windows_of_windows_are_those_of_the_samples(rows, factor, start) -> None:
    series = [timed(row, start) for row in rows]
    fine = roll_up(windows_of_samples(batch_of(series)), 20)
    check(roll_up(fine, 20 * factor), series, 20 * factor)


@pytest.mark.parametrize(
    ("time", "border"),
    [
        (0, 0),
        (1, 0),
        (59, 0),
        (60, 60),
        (119, 60),
        (120, 120),
        (121, 121),
        (200, 200),
        (201, 200),
        (299, 200),
    ],
)
def test_borders_inside_of_rolled_up_ranges_move_back_to_a_windows_end(time, border) -> None:
    ranges = [(0, 120, 60), (200, 300, 100)]
    assert floor_borders(np.array([time], dtype=np.int64), ranges).tolist() == [border]
