"""Cells f64[R, K] back to CSR samples, for the window functions over a subquery."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from tsdb.kernels.compile import kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@kernel("int64(float64[:,::1], int64, int64, int64[::1], int64[::1], float64[::1])", group="read")
def cells_to_samples(values: F64, start_ms: int, step_ms: int, offsets: I64, t_ms: I64, out: F64) -> int:
    """Present cells of every row with their evaluation times. Returns the number of samples."""
    bits = values.view(np.uint64)
    at = 0
    offsets[0] = 0
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if bits[row, k] != ABSENT_U64:
                t_ms[at] = start_ms + k * step_ms
                out[at] = values[row, k]
                at += 1
        offsets[row + 1] = at
    return at
