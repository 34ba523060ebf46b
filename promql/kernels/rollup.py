"""Windows over roll-ups (docs/rollups.md): counters from the columns of windows, lookback from given ends.

CSR columns of one row a series, timed by the ends of the windows; borders are given a step, ascending,
because those inside of roll-ups are moved back to a window's end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, seek_after
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import kernel

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int32[:,::1])", group="read")
def latest_index_at(offsets: I64, t_ms: I64, ends_ms: I64, lookback_ms: int, out: I32) -> int:
    """Index of the latest sample in (end - lookback, end] per row and step, -1 if none (stale ones
    included). Returns cells with an index."""
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        at = offsets[row]
        for k in range(out.shape[1]):
            at = seek_after(t_ms, at, hi, ends_ms[k])
            out[row, k] = -1
            if at > offsets[row] and t_ms[at - 1] > ends_ms[k] - lookback_ms:
                out[row, k] = at - 1
                present += 1
    return present


@kernel(
    "int64(int64[::1], int64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], "
    "float64[::1], int64[::1], int64[::1], int64, int64, int64, float64[:,::1])",
    group="read",
)
def extrapolated(
    offsets: I64,
    t_ms: I64,
    count: F64,
    first: F64,
    last: F64,
    resets: F64,
    first_age: F64,
    last_age: F64,
    starts_ms: I64,
    ends_ms: I64,
    range_ms: int,
    is_counter: int,
    is_rate: int,
    out: F64,
) -> int:
    """rate (counter, rate), increase (counter), delta (neither) over the windows that end in (start, end].

    The operations and their order are those of `promql.kernels.window.extrapolated`, so that whole windows
    give the bits of their samples where no window holds two resets. A range that moving its borders made
    longer or shorter is scaled. Returns cells present."""
    out_bits = out.view(np.uint64)
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        for k in range(out.shape[1]):
            start_ms, end_ms = starts_ms[k], ends_ms[k]
            a, b = next_window(t_ms, a, b, hi, start_ms, end_ms)
            samples = 0.0
            for j in range(a, b):
                samples += count[j]
            if samples < 2:
                out_bits[row, k] = ABSENT_U64
                continue
            first_ms = t_ms[a] - np.int64(first_age[a])
            last_ms = t_ms[b - 1] - np.int64(last_age[b - 1])
            begin = first[a]
            result = last[b - 1] - begin
            if is_counter != 0:
                for j in range(a, b):
                    if j > a and first[j] < last[j - 1]:
                        result += last[j - 1]
                    if resets[j] != 0:
                        result += resets[j]
            to_start, to_end = (first_ms - start_ms) / 1000.0, (end_ms - last_ms) / 1000.0
            sampled = (last_ms - first_ms) / 1000.0
            average = sampled / (samples - 1)
            threshold = average * 1.1
            if to_start >= threshold:
                to_start = average / 2
            if to_end >= threshold:
                to_end = average / 2
            if is_counter != 0 and result > 0 and begin >= 0:
                to_zero = sampled * (begin / result)
                if to_zero < to_start:
                    to_start = to_zero
            factor = (sampled + to_start + to_end) / sampled
            span_ms = end_ms - start_ms
            if is_rate != 0:
                factor /= span_ms / 1000.0
            elif span_ms != range_ms:
                factor *= range_ms / span_ms
            out[row, k] = result * factor
            present += 1
    return present
