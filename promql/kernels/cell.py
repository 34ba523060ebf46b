"""Devices that all float kernels share: the absent cell, compensated sums, window borders."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import inline

ABSENT_U64 = np.uint64(0x7FF8000000000AB5)
"""promql.matrix.ABSENT_BITS, as kernels need it."""


@inline
def kahan(x: float, total: float, comp: float) -> tuple[float, float]:
    """One step of Neumaier's sum: (new total, new compensation); an infinite total clears the compensation.

    Order of operations is Prometheus's (prometheus-surface.md 2.11). Written without branches: which of two
    summands is larger cannot be predicted."""
    new = total + x
    larger, smaller = (total, x) if abs(total) >= abs(x) else (x, total)
    grown = comp + ((larger - new) + smaller)
    return new, 0.0 if math.isinf(new) else grown


@inline
def seek_after(t_ms: npt.NDArray[np.int64], at: int, hi: int, bound_ms: int) -> int:
    """First index from `at` whose time is greater than `bound_ms`, at most `hi`."""
    while at < hi and t_ms[at] <= bound_ms:
        at += 1
    return at
