"""Windows over rows that share columns of timestamps (tsdb.sharedread.SharedSamples).

What depends on times alone, the samples of each window and the extrapolation of rate, is worked out once a
column; rows then cost a few instructions a step. Same order of float operations as `promql.kernels.scan` and
`promql.kernels.window`, so that results agree bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from promql.kernels.scan import EXPONENT, MAGNITUDE, NAN, cell_of
from promql.kernels.window import extrapolation_of, reset_sum
from tsdb.kernels.compile import inline, kernel
from tsdb.kernels.steplatest import first_after

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]


@kernel("void(int64[::1], int64[::1], int64, int64, int64, int32[:,::1], int32[:,::1])", group="read")
def window_bounds(
    offsets: I64, t_ms: I64, first_end_ms: int, step_ms: int, range_ms: int, begins: I32, ends: I32
) -> None:
    """Samples of each window (end - range, end] of each column, counted from the column's first."""
    for column in range(begins.shape[0]):
        lo, hi = offsets[column], offsets[column + 1]
        a, b = lo, lo
        end_ms = first_end_ms
        for k in range(begins.shape[1]):
            a = first_after(t_ms, a, hi, end_ms - range_ms)
            b = first_after(t_ms, max(a, b), hi, end_ms)
            begins[column, k] = a - lo
            ends[column, k] = b - lo
            end_ms += step_ms


@kernel("int64(int64[::1], uint64[::1], int64[::1], int32[:,::1], int32[:,::1], uint64[:,::1])", group="read")
def latest_value(offsets: I64, bits: U64, columns: I64, begins: I32, ends: I32, out: U64) -> int:
    """Latest sample of each window; absent if none or stale. Returns cells present."""
    present = 0
    for row in range(out.shape[0]):
        first, column = offsets[row], columns[row]
        for k in range(out.shape[1]):
            cell = ABSENT_U64
            if ends[column, k] > begins[column, k]:
                cell = cell_of(bits[first + ends[column, k] - 1])
            present += cell != ABSENT_U64
            out[row, k] = cell
    return present


@kernel(
    "void(int64[::1], int64[::1], int32[:,::1], int32[:,::1], int64, int64, int64, int64, float64[:,:,::1])",
    group="read",
)
def extrapolation(
    offsets: I64,
    t_ms: I64,
    begins: I32,
    ends: I32,
    first_end_ms: int,
    step_ms: int,
    range_ms: int,
    is_rate: int,
    out: F64,
) -> None:
    """Of each window of each column with two samples: seconds sampled, seconds to the window's start and to
    its end (as far as rate extrapolates), and the factor of a difference; f64[D, K, 4]."""
    range_s = range_ms / 1000.0
    for column in range(out.shape[0]):
        lo = offsets[column]
        for k in range(out.shape[1]):
            a, b = lo + begins[column, k], lo + ends[column, k]
            if b - a < 2:
                continue
            end_ms = first_end_ms + k * step_ms
            sampled, to_start, to_end, factor = extrapolation_of(
                t_ms[a] - (end_ms - range_ms), t_ms[b - 1] - t_ms[a], end_ms - t_ms[b - 1], b - a
            )
            if is_rate != 0:
                factor /= range_s
            out[column, k, 0] = sampled
            out[column, k, 1] = to_start
            out[column, k, 2] = to_end
            out[column, k, 3] = factor


@inline
def _falls(v: F64, bits: U64) -> int:
    """Samples of a row that are below the one before; -1 where there are stale markers, or NaNs without
    canonical bits."""
    found, odd = 0, 0
    for j in range(1, len(v)):
        found += v[j] < v[j - 1]
        odd += (bits[j] & MAGNITUDE) > EXPONENT and bits[j] != NAN
    if len(bits) > 0:
        odd += (bits[0] & MAGNITUDE) > EXPONENT and bits[0] != NAN
    return -1 if odd > 0 else found


@kernel(
    "int64(int64[::1], float64[::1], int64[::1], int32[:,::1], int32[:,::1], float64[:,:,::1],"
    " int64, int64, int64, float64[:,::1])",
    group="read",
)
def extrapolated(
    offsets: I64,
    v: F64,
    columns: I64,
    begins: I32,
    ends: I32,
    times: F64,
    range_ms: int,
    is_counter: int,
    is_rate: int,
    out: F64,
) -> int:
    """rate (counter, rate), increase (counter), delta (neither), `times` of `extrapolation`. Returns cells
    present; -1 where a row has stale markers or NaNs without canonical bits, and `out` is then undefined.

    Windows are gone through for counter resets only in rows that have any. A row is looked at as a whole
    right before its windows are, while it is in the cache."""
    out_bits, bits = out.view(np.uint64), v.view(np.uint64)
    range_s = range_ms / 1000.0
    present = 0
    for row in range(out.shape[0]):
        first, column = offsets[row], columns[row]
        falls = _falls(v[first : offsets[row + 1]], bits[first : offsets[row + 1]])
        if falls < 0:
            return -1
        seen, last_reset = first + 1, np.int64(-1)
        for k in range(out.shape[1]):
            a, b = first + begins[column, k], first + ends[column, k]
            if b - a < 2:
                out_bits[row, k] = ABSENT_U64
                continue
            start = v[a]
            result = v[b - 1] - start
            if is_counter != 0 and falls > 0:
                while seen < b:
                    if v[seen] < v[seen - 1]:
                        last_reset = seen
                    seen += 1
                if last_reset > a:
                    result = reset_sum(v, a, b, result)
            sampled, to_start = times[column, k, 0], times[column, k, 1]
            factor = times[column, k, 3]
            if is_counter != 0 and result > 0 and start >= 0 and start * sampled <= 1.01 * to_start * result:
                to_zero = sampled * (start / result)
                if to_zero < to_start:
                    factor = (sampled + to_zero + times[column, k, 2]) / sampled
                    if is_rate != 0:
                        factor /= range_s
            out[row, k] = result * factor
            present += 1
    return present
