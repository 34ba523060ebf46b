"""rate, increase and delta of windows whose histograms keep their buckets (promql.kernels.histogramplain)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.contiguous import contiguous
from promql.histogrampool import batch_of, first_of_pool, pool_with_room
from promql.kernels import histogramplain as kernels
from promql.kernels.histogrampool import Pool
from promql.kernels.histogramrate import NOT_GAUGE
from promql.matrix import BoolArray, HistogramCells
from promql.operators.operator import WindowGrid
from tsdb.histogram import HistogramBatch


@dataclass(frozen=True, slots=True)
class PlainRates:
    """`flags` u8[R] are those of `promql.kernels.histogramrate`; `others` bool[R, K] the windows that are
    left to do, None where there are none."""

    cells: HistogramCells
    flags: npt.NDArray[np.uint8]
    others: BoolArray | None


def plain_rates(
    name: str,
    batch: HistogramBatch,
    pool: Pool,
    run: npt.NDArray[np.int64],
    window: WindowGrid,
    which: BoolArray,
) -> PlainRates:
    """Evaluate those windows of `which` bool[R, K] that lie in one run; `run` as of `resets_and_runs`."""
    rows, t_ms = contiguous(batch.row_offsets, np.int64), contiguous(batch.t_ms, np.int64)
    borders = (window.first_end_ms, window.step_ms, window.range_ms)
    begins, ends = np.empty(which.shape, dtype=np.int32), np.empty(which.shape, dtype=np.int32)
    others, room = np.empty(which.shape, dtype=np.bool_), np.empty(4, dtype=np.int64)
    asked = np.ascontiguousarray(which)
    left = kernels.plain_windows(pool, rows, t_ms, run, asked, *borders, begins, ends, others, room)
    out, fill = pool_with_room(*room.tolist()), np.empty(4, dtype=np.int64)
    index = np.empty(which.shape, dtype=np.int32)
    flags = np.empty(len(which), dtype=np.uint8)
    kernels.plain_rates(
        pool, t_ms, begins, ends, *borders, name != "delta", name == "rate", out, index, flags, fill
    )
    cells = HistogramCells(index, batch_of(first_of_pool(out, fill.tolist())))
    return PlainRates(cells, flags * np.uint8(NOT_GAUGE), others if left else None)
