"""The frame of the window kernels: two pointers into the samples of a row that only move forward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import seek_after
from tsdb.kernels.compile import inline


@inline
def next_window(
    t_ms: npt.NDArray[np.int64], a: int, b: int, hi: int, after_ms: int, end_ms: int
) -> tuple[int, int]:
    """Samples [a, b) of the window (after_ms, end_ms], found from those of an earlier window of the row,
    whose samples end at `hi`; both begin as the row's first."""
    a = seek_after(t_ms, a, hi, after_ms)
    return a, seek_after(t_ms, max(a, b), hi, end_ms)
