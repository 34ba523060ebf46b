"""Functions over one window that holds all samples which were read: what the values alone tell.

An instant query's range selector asks the store for exactly its window. The times of the samples, as many
bytes as the values, are then neither laid out nor searched for borders.
"""

from __future__ import annotations

from collections.abc import Callable

from promql.kernels import wholewindow as kernels
from promql.matrix import F64Array
from tsdb.select import RowValues

_Whole = Callable[[RowValues, F64Array], int]


def _of(kernel: Callable[..., int], flag: int) -> _Whole:
    return lambda rows, out: kernel(rows.offsets, rows.values, flag, out)


WHOLE_WINDOW: dict[str, _Whole] = {
    "sum_over_time": _of(kernels.row_sums, 0),
    "avg_over_time": _of(kernels.row_sums, 1),
    "min_over_time": _of(kernels.row_extremes, 0),
    "max_over_time": _of(kernels.row_extremes, 1),
    "count_over_time": _of(kernels.row_edges, kernels.COUNT),
    "present_over_time": _of(kernels.row_edges, kernels.PRESENT),
    "last_over_time": _of(kernels.row_edges, kernels.LAST),
    "first_over_time": _of(kernels.row_edges, kernels.FIRST),
}
"""Functions to f64[R, 1]. They return the cells present, or -1 where the rows have stale markers or other
samples that the kernels with times look at more closely; `out` is then undefined."""
