"""Which samples of a pool are counter resets, and the runs between which nothing but counts changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.histogramarith import neighbours
from promql.kernels.histogramplain import runs_of
from promql.kernels.histogrampool import Pool

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]


def resets_and_runs(pool: Pool, row_offsets: I64Array, is_counter: bool = True) -> tuple[U8Array, I64Array]:
    """u8[H]: 1 where a sample is a reset since the one before it in its row. i64[H]: first sample of the run
    (promql.kernels.histogramplain) of each. Without `is_counter` nothing is a reset."""
    count = len(pool[0])
    reset, run = np.empty(count, dtype=np.uint8), np.empty(count, dtype=np.int64)
    if runs_of(pool, row_offsets, is_counter, reset, run):
        neighbours(pool, row_offsets, False, reset)
    return reset, run
