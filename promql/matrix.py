"""Values of PromQL at evaluation steps: [series x steps] arrays.

ABSENT marks a step without a float sample. It is one reserved NaN pattern that no stored sample can have (the
scan canonicalises NaNs), so a cell is absent iff its bits, read as uint64, equal ABSENT_BITS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.serieslabels import SeriesLabels

ABSENT_BITS = 0x7FF8000000000AB5
ABSENT = np.array([ABSENT_BITS], dtype=np.uint64).view(np.float64)[0]

F64Array = npt.NDArray[np.float64]
I32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


class Grid(NamedTuple):
    """Evaluation times `start_ms + k * step_ms`, k < steps. An instant is one step of 0 ms."""

    start_ms: int
    step_ms: int
    steps: int

    @property
    def end_ms(self) -> int:
        """The last evaluation time."""
        return self.start_ms + self.step_ms * (self.steps - 1)

    def times_ms(self) -> npt.NDArray[np.int64]:
        """i64[steps]."""
        return self.start_ms + self.step_ms * np.arange(self.steps, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class HistogramCells:
    """Histograms of a matrix: `index` i32[S, K] points into `pool` (`row_offsets` unused), -1 where none."""

    index: I32Array
    pool: HistogramBatch


@dataclass(frozen=True, slots=True)
class Matrix:
    """Instant vectors at every step of a grid: `values` f64[S, K]. `drop_name` bool[S] is the delayed-removal
    flag of each series. A cell has a float, a histogram, or nothing."""

    labels: SeriesLabels
    grid: Grid
    values: F64Array
    drop_name: BoolArray
    histograms: HistogramCells | None = None

    def present(self) -> BoolArray:
        """bool[S, K]: cells with a float sample."""
        return np.asarray(self.values.view(np.uint64) != np.uint64(ABSENT_BITS))
