"""Random samples for the kernel tests, and small stores for the engine tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from promql.matrix import ABSENT, F64Array
from promql.memory import MemoryStore
from promql.parser import parse_metric
from tsdb.select import SampleBatch

Rows = list[list[tuple[int, float]]]

VALUES = st.one_of(
    st.integers(-50, 50).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-300]),
)


@st.composite
def sample_rows(draw: st.DrawFn, values: st.SearchStrategy[float] = VALUES) -> Rows:
    """Up to 4 series of up to 25 samples with irregular gaps, ascending in time."""
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        gaps = draw(st.lists(st.sampled_from([1, 500, 1000, 1000, 1000, 15_000, 60_000]), max_size=25))
        t = draw(st.integers(-5_000, 5_000))
        row = []
        for gap in gaps:
            t += gap
            row.append((t, draw(values)))
        rows.append(row)
    return rows


def batch_of_rows(rows: Rows) -> SampleBatch:
    """CSR columns of rows."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    t_ms = np.array([t for row in rows for t, _ in row], dtype=np.int64)
    values = np.array([v for row in rows for _, v in row], dtype=np.float64)
    return SampleBatch(offsets, t_ms, values)


def cells(rows: Sequence[Sequence[float | None]], steps: int) -> F64Array:
    """f64[R, K] with ABSENT for None."""
    out = np.full((len(rows), steps), ABSENT)
    for i, row in enumerate(rows):
        for k, value in enumerate(row):
            if value is not None:
                out[i, k] = value
    return out


def same_cells(got: F64Array, expected: Sequence[Sequence[float | None]], relative: float = 0.0) -> None:
    """Assert equality cell by cell: absent where None, NaN equal to NaN."""
    absent = got.view(np.uint64) == ABSENT.view(np.uint64)
    for i, row in enumerate(expected):
        for k, want in enumerate(row):
            have = None if absent[i, k] else float(got[i, k])
            if want is None or have is None:
                assert have is want, (i, k, have, want)
            elif math.isnan(want) or math.isnan(have):
                assert math.isnan(want), (i, k, have, want)
                assert math.isnan(have), (i, k, have, want)
            elif relative and math.isfinite(want):
                assert math.isclose(have, want, rel_tol=relative, abs_tol=relative), (i, k, have, want)
            else:
                assert have == want, (i, k, have, want)


def store(step_ms: int, lines: dict[str, Sequence[float | None]]) -> MemoryStore:
    """A store with one series a line: values at 0, step, 2 step, ...; None is a gap."""
    made = MemoryStore()
    for text, values in lines.items():
        labels = parse_metric(text)
        for i, value in enumerate(values):
            if value is not None:
                made.add_float(labels, i * step_ms, value)
    return made
