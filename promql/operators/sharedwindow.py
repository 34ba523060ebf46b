"""Instant selectors, rate, increase and delta over rows that share columns of timestamps."""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from promql.kernels import shared as kernels
from promql.matrix import F64Array
from promql.operators.operator import WindowGrid
from tsdb.select import ColumnNumbers, NumberedColumns, RowValues

I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]

EXTRAPOLATED = {"rate": (1, 1), "increase": (1, 0), "delta": (0, 0)}
"""Functions of `ColumnWindows.extrapolated`: whether of counters, whether per second."""


COLUMNS_MAX = 1 << 12
TABLE_BYTES = 1 << 23
"""Of what is kept of all columns of a query: beyond it each piece finds the windows of its own."""


class ColumnWindows:
    """Windows of a selection's columns of timestamps, found once for all pieces of its rows. Any thread."""

    def __init__(self, window: WindowGrid, name: str = "") -> None:
        """With the `name` of a function of EXTRAPOLATED also what that needs of times."""
        self._window, self._name = window, name
        bytes_a_step = 40 if name else 8
        self._columns_max = min(COLUMNS_MAX, TABLE_BYTES // (bytes_a_step * max(window.steps, 1)))
        self._lock = Lock()
        self._numbers: ColumnNumbers | None = None
        self._bounds = np.empty((2, 0, window.steps), dtype=np.int32)
        self._times = np.empty((0, window.steps, 4))

    def latest(self, rows: RowValues, out: F64Array) -> int:
        """The last sample of each window to `out` f64[R, K]. Returns cells present."""
        column, (begins, ends), _ = self._of(rows)
        return kernels.latest_value(
            rows.offsets, rows.values.view(np.uint64), column, begins, ends, out.view(np.uint64)
        )

    def extrapolated(self, rows: RowValues, out: F64Array) -> int:
        """The function to `out` f64[R, K]. Returns cells present; -1 where there are stale markers, or
        NaNs that could be taken for absent cells, and `out` is then undefined."""
        column, (begins, ends), times = self._of(rows)
        is_counter, is_rate = EXTRAPOLATED[self._name]
        return kernels.extrapolated(
            rows.offsets, rows.values, column, begins, ends, times, self._window.range_ms, is_counter,
            is_rate, out,
        )  # fmt: skip

    def _of(self, rows: RowValues) -> tuple[I64Array, I32Array, F64Array]:
        """Column of each row, and of all columns begins and ends of windows and what is known of times."""
        if rows.numbered is not None and self._columns_max:
            with self._lock:
                if self._numbers is None:
                    self._numbers = ColumnNumbers(self._columns_max)
                found = rows.numbered(self._numbers)
                if found is not None:
                    if len(found.offsets) > 1:
                        self._add(found)
                    return found.column, self._bounds, self._times
        samples = rows.timed()
        return samples.column, *self._find(samples.column_offsets, samples.t_ms)

    def _add(self, found: NumberedColumns) -> None:
        """Keep what is new. Memory is had for all columns from the beginning, as it takes none before it is
        written to; what others know of is not changed."""
        first, end, steps = found.first, found.first + len(found.offsets) - 1, self._window.steps
        if not self._bounds.shape[1]:
            self._bounds = np.empty((2, self._columns_max, steps), dtype=np.int32)
            self._times = np.empty((self._columns_max if self._name else 0, steps, 4))
        self._bounds[:, first:end], times = self._find(found.offsets, found.t_ms)
        if self._name:
            self._times[first:end] = times

    def _find(self, offsets: I64Array, t_ms: I64Array) -> tuple[I32Array, F64Array]:
        first, step, steps, span, _ = self._window
        columns = len(offsets) - 1
        bounds = np.empty((2, columns, steps), dtype=np.int32)
        kernels.window_bounds(offsets, t_ms, first, step, span, bounds[0], bounds[1])
        times = np.empty((columns if self._name else 0, steps, 4))
        if self._name:
            is_rate = EXTRAPOLATED[self._name][1]
            kernels.extrapolation(offsets, t_ms, bounds[0], bounds[1], first, step, span, is_rate, times)
        return bounds, times
