"""Window kernels of anchored and smoothed selectors (prometheus-surface.md 2.8).

The samples reach a lookback beyond the window. Anchored takes the value at the window's start from the last
sample at or before it; smoothed interpolates at both borders. Nothing is extrapolated.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, seek_after
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@inline
def _between(t_ms: I64, v: F64, i: int, at_ms: int, is_counter: int) -> float:
    """Value at a time between samples i and i+1; across a counter reset the line starts from zero."""
    y1, y2 = v[i], v[i + 1]
    if is_counter != 0 and y2 < y1:
        y1 = 0.0
    return float(y1 + (y2 - y1) * float(at_ms - t_ms[i]) / float(t_ms[i + 1] - t_ms[i]))


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, int64, int64,"
    " float64[:,::1])",
    group="read",
)
def extended_rate(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    lookback_ms: int,
    is_smoothed: int,
    is_counter: int,
    is_rate: int,
    out: F64,
) -> int:
    """rate, increase or delta of an anchored or smoothed range. Returns cells present."""
    out_bits = out.view(np.uint64)
    range_s = range_ms / 1000.0
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            start_ms = end_ms - range_ms
            a, b = next_window(
                t_ms, a, b, hi, start_ms - lookback_ms, end_ms + (lookback_ms if is_smoothed != 0 else 0)
            )
            out_bits[row, k] = ABSENT_U64
            last = b - 1
            if b > a:
                first = a
                while first < b - 1 and t_ms[first] <= start_ms:
                    first += 1
                first = max(a, first - 1)
                if is_smoothed != 0:
                    last = a
                    while last < b - 1 and t_ms[last] < end_ms:
                        last += 1
                if t_ms[last] > start_ms and t_ms[first] <= end_ms:
                    if is_smoothed != 0 and t_ms[first] < start_ms:
                        left = _between(t_ms, v, first, start_ms, is_counter)
                    else:
                        left = v[first]
                    if is_smoothed != 0 and last > a and t_ms[last] > end_ms:
                        right = _between(t_ms, v, last - 1, end_ms, is_counter)
                    else:
                        right = v[last]
                    result = right - left
                    if is_counter != 0:
                        before = left
                        lo = first + 1 if t_ms[first] <= start_ms else first
                        up = last - 1 if t_ms[last] >= end_ms else last
                        correction = 0.0
                        for i in range(lo, up + 1):
                            if v[i] < before:
                                correction += before
                            before = v[i]
                        if right < before:
                            correction += before
                        result += correction
                    out[row, k] = result / range_s if is_rate != 0 else result
                    present += 1
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, float64[:,::1])",
    group="read",
)
def anchored_transitions(
    offsets: I64,
    t_ms: I64,
    v: F64,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    lookback_ms: int,
    resets_only: int,
    out: F64,
) -> int:
    """changes or resets of an anchored range: from the last sample at or before its start."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            start_ms = end_ms - range_ms
            a, b = next_window(t_ms, a, b, hi, start_ms - lookback_ms, end_ms)
            if b > a and t_ms[b - 1] > start_ms:
                first = a
                while first < b - 1 and t_ms[first] <= start_ms:
                    first += 1
                first = max(a, first - 1)
                count = 0
                for i in range(first + 1, b):
                    if resets_only != 0:
                        count += v[i] < v[i - 1]
                    else:
                        count += v[i] != v[i - 1] and not (math.isnan(v[i]) and math.isnan(v[i - 1]))
                out[row, k] = count
                present += 1
            else:
                out_bits[row, k] = ABSENT_U64
            end_ms += step_ms
    return present


@kernel("int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, float64[:,::1])", group="read")
def smoothed_value(
    offsets: I64, t_ms: I64, v: F64, first_ms: int, step_ms: int, lookback_ms: int, out: F64
) -> int:
    """A smoothed instant selector: interpolated between the neighbours within the lookback, or the last value
    where none follows. Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        lo, hi = offsets[row], offsets[row + 1]
        b = lo
        at_ms = first_ms
        for k in range(out.shape[1]):
            b = seek_after(t_ms, b, hi, at_ms)
            out_bits[row, k] = ABSENT_U64
            if b > lo and t_ms[b - 1] > at_ms - lookback_ms:
                if t_ms[b - 1] == at_ms or b == hi or t_ms[b] > at_ms + lookback_ms:
                    out[row, k] = v[b - 1]
                else:
                    out[row, k] = _between(t_ms, v, b - 1, at_ms, 0)
                present += 1
            at_ms += step_ms
    return present
