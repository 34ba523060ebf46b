"""Windows of anchored and smoothed selectors, and of counters with start timestamps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from promql.contiguous import contiguous
from promql.kernels import extended as kernels
from promql.kernels import starttimes
from promql.matrix import F64Array
from promql.operators.operator import WindowGrid
from tsdb.select import SampleBatch

START_TIME_FUNCTIONS = ("rate", "increase", "irate", "resets")


def extended_window(
    name: str, modifier: str, samples: SampleBatch, window: WindowGrid, lookback_ms: int, out: F64Array
) -> int:
    """rate, increase, delta, changes, resets of an extended range into `out` f64[R, K]; returns cells
    present."""
    first, step, _, span, _ = window
    columns = (samples.offsets, samples.t_ms, samples.values)
    if name in ("changes", "resets"):
        flag = int(name == "resets")
        return kernels.anchored_transitions(*columns, first, step, span, lookback_ms, flag, out)
    smoothed, counter = int(modifier == "smoothed"), int(name != "delta")
    rate = int(name == "rate")
    return kernels.extended_rate(*columns, first, step, span, lookback_ms, smoothed, counter, rate, out)


def start_time_window(
    name: str, samples: SampleBatch, window: WindowGrid, overlap: Callable[[int], None], out: F64Array
) -> int:
    """One of START_TIME_FUNCTIONS with the samples' start timestamps; `overlap(row)` is called for the first
    row whose start lies before its previous sample."""
    first, step, _, span, _ = window
    assert samples.start_t_ms is not None
    starts = contiguous(samples.start_t_ms, np.int64)
    columns = (samples.offsets, samples.t_ms, samples.values, starts)
    if name == "irate":
        return starttimes.instant_rate(*columns, first, step, span, out)
    if name == "resets":
        return starttimes.resets(*columns, first, step, span, out)
    overlaps = np.zeros(len(samples), dtype=np.uint8)
    present = starttimes.extrapolated(*columns, first, step, span, int(name == "rate"), out, overlaps)
    for row in np.flatnonzero(overlaps).tolist():
        overlap(row)
    return present
