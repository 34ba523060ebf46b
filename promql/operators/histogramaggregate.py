"""sum and avg of histograms by group (prometheus-surface.md 2.6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from promql.histogrampool import batch_of, pool_of
from promql.kernels import histogramcombine
from promql.matrix import BoolArray, HistogramCells
from promql.operators.histogramwindow import COMBINE_NOTES

I64Array = npt.NDArray[np.int64]
Note = Callable[[int, str, str], None]


def aggregate_histograms(
    op: str,
    cells: HistogramCells,
    groups: I64Array,
    group_count: int,
    allowed: BoolArray,
    note: Note,
) -> HistogramCells:
    """Sum (or average, `op` "avg") of the cells i32[S, K] of each group, `groups` i64[S], at the steps
    `allowed` bool[G, K]; members are added in row order. `note` gets a row of the first group concerned."""
    steps = cells.index.shape[1]
    rows, at = np.nonzero(cells.index >= 0)
    targets = groups[rows] * steps + at
    order = np.argsort(targets, kind="stable")
    members = cells.index[rows, at][order].astype(np.int64)
    bounds = np.zeros(group_count * steps + 1, dtype=np.int64)
    np.cumsum(np.bincount(targets, minlength=group_count * steps), out=bounds[1:])
    lo, hi = bounds[:-1].copy(), bounds[1:].copy()
    hi[~allowed.ravel()] = lo[~allowed.ravel()]
    index = np.empty(len(lo), dtype=np.int32)
    flags = np.empty(len(lo), dtype=np.uint8)
    pool = histogramcombine.combine(pool_of(cells.pool), members, lo, hi, op == "avg", True, index, flags)
    for flag, kind, text in COMBINE_NOTES:
        hit = np.flatnonzero(flags & flag)
        if len(hit):
            note(int(rows[order[bounds[hit[0]]]]), kind, text)
    return HistogramCells(index.reshape(group_count, steps), batch_of(pool))
