"""Kernels that query the columns of roll-ups, beside their slow twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.kernels import rollup as kernels
from promql.matrix import ABSENT_BITS
from tests.reference.rollup import Window, extrapolated, latest_index, rolled_up

RESOLUTION_MS = 50
FAR_MS = (2**62) // RESOLUTION_MS * RESOLUTION_MS

VALUES = st.one_of(
    st.integers(0, 9).map(float),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, -1e300]),
    st.floats(-1e9, 1e9),
    st.none(),
)
ROWS = st.lists(st.lists(st.tuples(st.integers(1, 130), VALUES), max_size=25), min_size=1, max_size=3)
ORIGINS = st.sampled_from([0, -100, FAR_MS, -FAR_MS])
BORDERS = st.lists(st.integers(0, 8).map(lambda n: n * RESOLUTION_MS), min_size=1, max_size=6)
"""Borders inside of roll-ups are those of windows; `latest_index_at` gets them a lookback apart."""


def windows_of(steps: list[tuple[int, float | None]], origin_ms: int) -> list[Window]:
    times = itertools.accumulate((gap for gap, _ in steps), initial=origin_ms)
    samples = list(zip(itertools.islice(times, 1, None), (value for _, value in steps), strict=True))
    return [Window(end, columns) for end, columns in rolled_up(samples, RESOLUTION_MS)[0].items()]


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return offsets, np.array([t for row in rows for t in row], dtype=np.int64)


def same(got: float, want: float | None) -> bool:
    bits = int(np.float64(got).view(np.uint64))
    if want is None or bits == ABSENT_BITS:
        return want is None and bits == ABSENT_BITS
    if math.isnan(want) or math.isinf(want):
        return math.isnan(got) if math.isnan(want) else got == want
    return math.isclose(got, want, rel_tol=1e-12, abs_tol=1e-300) and math.copysign(1, got) == math.copysign(
        1, want
    )


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS,
    origin=ORIGINS,
    gaps=BORDERS,
    span=st.integers(1, 14),
    asked=st.integers(1, 700),
    data=st.data(),
)
def test_extrapolation_from_windows_equals_its_twin(rows, origin, gaps, span, asked, data) -> None:
    counter, rate = data.draw(st.sampled_from([(True, True), (True, False), (False, False)]))
    ends = [origin + t for t in itertools.accumulate(gaps)]
    starts = [end - span * RESOLUTION_MS for end in ends]
    windows = [windows_of(row, origin) for row in rows]
    offsets, t_ms = csr([[w.end_ms for w in row] for row in windows])
    columns = [
        np.array([w[name] for row in windows for w in row], dtype=np.float64)
        for name in ("count", "first", "last", "resets", "first_age", "last_age")
    ]
    out = np.empty((len(rows), len(ends)))
    borders = np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)
    present = kernels.extrapolated(offsets, t_ms, *columns, *borders, asked, counter, rate, out)
    want = [
        [extrapolated(row, lo, hi, asked, counter, rate) for lo, hi in zip(starts, ends, strict=True)]
        for row in windows
    ]
    assert all(same(out[i, k], want[i][k]) for i in range(len(rows)) for k in range(len(ends))), (out, want)
    assert present == sum(value is not None for row in want for value in row)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, origin=ORIGINS, gaps=BORDERS, lookback=st.integers(1, 500))
def test_the_latest_window_is_that_of_its_twin(rows, origin, gaps, lookback) -> None:
    ends = [origin + t for t in itertools.accumulate(gaps)]
    times = [[w.end_ms for w in windows_of(row, origin)] for row in rows]
    offsets, t_ms = csr(times)
    out = np.empty((len(rows), len(ends)), dtype=np.int32)
    present = kernels.latest_index_at(offsets, t_ms, np.array(ends, dtype=np.int64), lookback, out)
    want = [[latest_index(row, end, lookback) for end in ends] for row in times]
    places = [[-1 if at < 0 else at + int(offsets[i]) for at in row] for i, row in enumerate(want)]
    assert out.tolist() == places
    assert present == sum(at >= 0 for row in want for at in row)
