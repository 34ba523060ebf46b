"""Window kernels against their twins, and how window functions treat names, stale samples and histograms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.kernels import scan as scan_kernels
from promql.matrix import ABSENT, ABSENT_BITS, Grid
from promql.operators.operator import WindowGrid
from promql.operators.samples import clean
from promql.operators.scan import split_rows
from promql.operators.window import WINDOW_FUNCTIONS
from tests.promql.sampledata import VALUES, Rows, batch_of_rows, same_cells, sample_rows
from tests.reference import windows as reference
from tsdb.select import NAN_BITS, STALE_BITS, SampleBatch

FINITE = st.one_of(st.integers(-50, 50).map(float), st.floats(-1e6, 1e6))

grids = st.builds(
    lambda first, step, steps, span: WindowGrid(first, step, steps, span, Grid(first, step, steps)),
    st.integers(-20_000, 60_000),
    st.sampled_from([0, 1, 1000, 7_000, 60_000]),
    st.integers(1, 12),
    st.sampled_from([1, 1000, 5_000, 60_000, 300_000]),
)


def run(name: str, rows: Rows, window: WindowGrid, *args: float) -> np.ndarray:
    """The kernel of a function over rows."""
    out = np.empty((len(rows), window.steps))
    arrays = [np.full(window.steps, arg) for arg in args]
    present = WINDOW_FUNCTIONS[name].floats(batch_of_rows(rows), window, arrays, out)
    assert present == int((out.view(np.uint64) != ABSENT_BITS).sum())
    return out


def windows_of(row: list[tuple[int, float]], grid: WindowGrid) -> list[list[tuple[int, float]]]:
    return [reference.samples_in(row, int(end), grid.range_ms) for end in grid.ends_ms()]


@pytest.mark.parametrize("name", sorted(reference.OVER_WINDOW))
@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(), grid=grids)
def test_window_kernel_equals_its_twin(name: str, rows: Rows, grid: WindowGrid) -> None:
    twin = reference.OVER_WINDOW[name]
    with np.errstate(all="ignore"):
        got = run(name, rows, grid)
    same_cells(got, [[twin(w) for w in windows_of(row, grid)] for row in rows])


@pytest.mark.parametrize(("name", "counter", "rate"), [("rate", 1, 1), ("increase", 1, 0), ("delta", 0, 0)])
@settings(max_examples=80, deadline=None)
@given(rows=sample_rows(), grid=grids)
def test_extrapolation_equals_its_twin(
    name: str, counter: int, rate: int, rows: Rows, grid: WindowGrid
) -> None:
    expected = [
        [
            reference.extrapolated(
                reference.samples_in(row, int(end), grid.range_ms),
                int(end),
                grid.range_ms,
                bool(counter),
                bool(rate),
            )
            for end in grid.ends_ms()
        ]
        for row in rows
    ]
    same_cells(run(name, rows, grid), expected)


@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(), grid=grids, q=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.9, 1.0, 2.0, math.nan]))
def test_quantile_over_time_equals_its_twin(rows: Rows, grid: WindowGrid, q: float) -> None:
    expected = [[reference.quantile(w, q) for w in windows_of(row, grid)] for row in rows]
    same_cells(run("quantile_over_time", rows, grid, q), expected)


@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(FINITE), grid=grids, ahead=st.sampled_from([-60.0, 0.0, 3600.0]))
def test_predict_linear_counts_from_the_evaluation_time(rows: Rows, grid: WindowGrid, ahead: float) -> None:
    ends = grid.ends_ms().tolist()
    expected = [
        [reference.predict(w, end, ahead) for w, end in zip(windows_of(row, grid), ends, strict=True)]
        for row in rows
    ]
    same_cells(run("predict_linear", rows, grid, ahead), expected, relative=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(), grid=grids, sf=st.floats(0.01, 0.99), tf=st.floats(0.01, 0.99))
def test_smoothing_equals_its_twin(rows: Rows, grid: WindowGrid, sf: float, tf: float) -> None:
    expected = [[reference.smooth(w, sf, tf) for w in windows_of(row, grid)] for row in rows]
    same_cells(run("double_exponential_smoothing", rows, grid, sf, tf), expected)


@settings(max_examples=60, deadline=None)
@given(rows=sample_rows(), grid=grids)
def test_lookback_equals_its_twin(rows: Rows, grid: WindowGrid) -> None:
    batch = batch_of_rows(rows)
    out = np.empty((len(rows), grid.steps))
    scan_kernels.latest_value(
        batch.offsets,
        batch.t_ms,
        batch.values.view(np.uint64),
        grid.first_end_ms,
        grid.step_ms,
        grid.range_ms,
        out.view(np.uint64),
    )
    expected = [[reference.latest(row, int(end), grid.range_ms) for end in grid.ends_ms()] for row in rows]
    same_cells(out, expected)


def newest(floats: list[tuple[int, float]], others: list[tuple[int, float]]) -> tuple[float | None, int]:
    """Of the samples of one window: the float, or the number of the histogram (-1 for none)."""
    if others and (not floats or others[-1][0] > floats[-1][0]):
        stale = np.float64(others[-1][1]).view(np.uint64) == STALE_BITS
        return None, -1 if stale else len(others) - 1
    return (floats[-1][1] if floats else None), -1


@settings(max_examples=100, deadline=None)
@given(rows=sample_rows(), others=sample_rows(), grid=grids, stale=st.booleans())
def test_the_newer_of_float_and_histogram_is_taken(
    rows: Rows, others: Rows, grid: WindowGrid, stale: bool
) -> None:
    count = min(len(rows), len(others))
    rows, others = rows[:count], others[:count]
    if stale:
        marker = float(bits(STALE_BITS)[0])
        others = [[(t_ms, marker if i % 2 else value) for i, (t_ms, value) in enumerate(o)] for o in others]
    batch, pool = batch_of_rows(rows), batch_of_rows(others)
    out, index = np.empty((count, grid.steps)), np.empty((count, grid.steps), dtype=np.int32)
    scan_kernels.latest_of_both(
        *(batch.offsets, batch.t_ms, batch.values.view(np.uint64)),
        *(pool.offsets, pool.t_ms, pool.values.view(np.uint64)),
        *(grid.first_end_ms, grid.step_ms, grid.range_ms, out.view(np.uint64), index),
    )
    values, places = [], []
    for row, other, first in zip(rows, others, pool.offsets.tolist(), strict=False):
        cells = [newest(w, o) for w, o in zip(windows_of(row, grid), windows_of(other, grid), strict=True)]
        values.append([cell[0] for cell in cells])
        before = [sum(t_ms <= end - grid.range_ms for t_ms, _ in other) for end in grid.ends_ms()]
        places.append([-1 if c[1] < 0 else first + b + c[1] for c, b in zip(cells, before, strict=True)])
    same_cells(out, values)
    assert index.tolist() == places


@pytest.mark.parametrize("name", ["rate", "sum_over_time", "max_over_time", "quantile_over_time", "changes"])
@settings(max_examples=40, deadline=None)
@given(rows=sample_rows(VALUES), grid=grids)
def test_splitting_rows_changes_nothing(name: str, rows: Rows, grid: WindowGrid) -> None:
    args = (0.5,) if name == "quantile_over_time" else ()
    whole = run(name, rows, grid, *args)
    parts = [run(name, [row], grid, *args) for row in rows]
    joined = np.concatenate(parts) if parts else whole
    assert (joined.view(np.uint64) == whole.view(np.uint64)).all()


def bits(*patterns: int) -> np.ndarray:
    return np.array(patterns, dtype=np.uint64).view(np.float64)


def test_stale_marker_as_latest_sample_means_absent_and_older_samples_do_not_show() -> None:
    batch = SampleBatch(np.array([0, 2]), np.array([1000, 2000]), bits(0x3FF0000000000000, STALE_BITS))
    out = np.empty((1, 3))
    scan_kernels.latest_value(
        batch.offsets, batch.t_ms, batch.values.view(np.uint64), 1000, 1000, 300_000, out.view(np.uint64)
    )
    same_cells(out, [[1.0, None, None]])


def test_stored_nan_that_looks_like_the_absent_cell_stays_a_sample() -> None:
    batch = SampleBatch(np.array([0, 1]), np.array([1000]), bits(ABSENT_BITS))
    out = np.empty((1, 1))
    scan_kernels.latest_value(
        batch.offsets, batch.t_ms, batch.values.view(np.uint64), 1000, 0, 300_000, out.view(np.uint64)
    )
    assert out.view(np.uint64)[0, 0] == NAN_BITS
    cleaned = clean(batch)
    assert cleaned.values.view(np.uint64).tolist() == [NAN_BITS]


def test_range_vectors_lose_stale_markers_and_keep_everything_else() -> None:
    values = bits(STALE_BITS, 0x4000000000000000, STALE_BITS, 0x7FF0000000000000)
    batch = SampleBatch(np.array([0, 2, 2, 4]), np.arange(4) * 10, values, start_t_ms=np.arange(4))
    got = clean(batch)
    assert got.offsets.tolist() == [0, 1, 1, 2]
    assert got.t_ms.tolist() == [10, 30]
    assert got.values.tolist() == [2.0, math.inf]
    assert got.start_t_ms is not None
    assert got.start_t_ms.tolist() == [1, 3]


def test_sum_of_integers_is_exact_whichever_path_computes_it() -> None:
    rows = [[(i * 1000, float(i * 7919 % 1000)) for i in range(500)]]
    grid = WindowGrid(0, 1000, 500, 60_000, Grid(0, 1000, 500))
    expected = [[reference.total(w) for w in windows_of(rows[0], grid)]]
    same_cells(run("sum_over_time", rows, grid), expected)


@pytest.mark.parametrize("name", ["sum_over_time", "avg_over_time", "min_over_time", "max_over_time"])
@pytest.mark.parametrize("odd", [(), (math.inf,), (math.nan, -0.0), (1e308, -1e308), (-math.inf, 0.0)])
@pytest.mark.parametrize(("steps", "span"), [(1, 400_000), (3, 150_000), (40, 90_000), (200, 33_000)])
def test_long_windows_side_by_side_equal_their_twins(
    name: str, odd: tuple[float, ...], steps: int, span: int
) -> None:
    random = np.random.default_rng(len(odd) + steps)
    rows: Rows = []
    for row in range(21):
        values = np.round(random.normal(size=random.integers(0, 400) if row % 5 else 300), 3)
        if row % 3 == 0:
            values[random.random(len(values)) < 0.02] = 0.0
        for value in odd if row % 2 else ():
            values[random.random(len(values)) < 0.01] = value
        times = np.sort(random.choice(400, len(values), replace=False)) * 1000
        rows.append(list(zip(times.tolist(), values.tolist(), strict=True)))
    step = 400_000 // steps
    grid = WindowGrid(step, step, steps, span, Grid(step, step, steps))
    with np.errstate(all="ignore"):
        got = run(name, rows, grid)
    twin = reference.OVER_WINDOW[name]
    same_cells(got, [[twin(w) for w in windows_of(row, grid)] for row in rows])


def test_pieces_cover_all_rows_once_and_stay_small() -> None:
    bounds = np.array([10, 2_000_000, 5, 5] + [1000] * 5000)
    pieces = split_rows(bounds, 100)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == len(bounds)
    assert all(hi == lo for (_, hi), (lo, _) in itertools.pairwise(pieces))
    assert max(hi - lo for lo, hi in pieces) < 1000


def test_few_samples_are_one_piece_and_more_are_small_ones() -> None:
    assert split_rows(np.full(200, 1_000), 10) == [(0, 200)]
    for rows in (300, 1_500, 5_000):
        lengths = [hi - lo for lo, hi in split_rows(np.full(rows, 1_000), 10)]
        assert sum(lengths) == rows
        assert max(lengths) <= 140 or len(lengths) >= 16
    # Many samples are read in large pieces, whose fixed cost counts.
    assert len(split_rows(np.full(50_000, 1_000), 10)) < 110


def test_absent_is_not_equal_to_any_canonical_nan() -> None:
    assert ABSENT.view(np.uint64) == ABSENT_BITS
    assert ABSENT_BITS != NAN_BITS
