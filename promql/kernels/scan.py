"""Kernels of the scan: samples in CSR rows to the latest sample per step, and to clean range vectors.

Values enter as uint64 bits because the stale marker is a signalling NaN that arithmetic may destroy. Other
NaNs leave with canonical bits, so that no stored payload can look like the absent cell. Both kernels are one
pass with monotone pointers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64, seek_after
from promql.kernels.windowborders import next_window
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_STALE = np.uint64(0x7FF0000000000002)
NAN = np.uint64(0x7FF8000000000001)
EXPONENT = np.uint64(0x7FF0000000000000)
MAGNITUDE = np.uint64(0x7FFFFFFFFFFFFFFF)


@inline
def cell_of(raw: np.uint64) -> np.uint64:
    """The cell of a stored sample: absent for a stale marker, other NaNs canonical."""
    if (raw & MAGNITUDE) <= EXPONENT:
        return raw
    return ABSENT_U64 if raw == _STALE else NAN


@kernel(
    "int64(int64[::1], int64[::1], uint64[::1], int64, int64, int64, uint64[:,::1])",
    group="read",
)
def latest_value(
    offsets: I64, t_ms: I64, bits: U64, first_ms: int, step_ms: int, lookback_ms: int, out: U64
) -> int:
    """Latest sample in (T - lookback, T] per row and step; absent if none or stale. Returns cells present."""
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        at = offsets[row]
        end_ms = first_ms
        for k in range(out.shape[1]):
            at = seek_after(t_ms, at, hi, end_ms)
            cell = ABSENT_U64
            if at > offsets[row] and t_ms[at - 1] > end_ms - lookback_ms:
                cell = cell_of(bits[at - 1])
            present += cell != ABSENT_U64
            out[row, k] = cell
            end_ms += step_ms
    return present


@kernel(
    "int64(int64[::1], int64[::1], int64, int64, int64, int32[:,::1])",
    group="read",
)
def latest_index(offsets: I64, t_ms: I64, first_ms: int, step_ms: int, lookback_ms: int, out: I32) -> int:
    """Index of the latest sample in (T - lookback, T] per row and step, -1 if none (stale ones included)."""
    present = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        at = offsets[row]
        end_ms = first_ms
        for k in range(out.shape[1]):
            at = seek_after(t_ms, at, hi, end_ms)
            if at > offsets[row] and t_ms[at - 1] > end_ms - lookback_ms:
                out[row, k] = at - 1
                present += 1
            else:
                out[row, k] = -1
            end_ms += step_ms
    return present


@kernel(
    "void(int64[::1], int64[::1], uint64[::1], int64[::1], int64[::1], uint64[::1], int64, int64, int64,"
    " uint64[:,::1], int32[:,::1])",
    group="read",
)
def latest_of_both(
    offsets: I64,
    t_ms: I64,
    bits: U64,
    histogram_offsets: I64,
    histogram_t_ms: I64,
    sums: U64,
    first_ms: int,
    step_ms: int,
    lookback_ms: int,
    out: U64,
    index: I32,
) -> None:
    """As `latest_value` of rows with floats and histograms (`sums` are their sums' bits): `out` gets the cell
    of the float, or `index` the histogram (-1 for none), whichever is newer; of equal times the float."""
    for row in range(out.shape[0]):
        at, hi = offsets[row], offsets[row + 1]
        other, end = histogram_offsets[row], histogram_offsets[row + 1]
        end_ms = first_ms
        for k in range(out.shape[1]):
            at = seek_after(t_ms, at, hi, end_ms)
            other = seek_after(histogram_t_ms, other, end, end_ms)
            newest = np.int64(end_ms - lookback_ms)
            cell = ABSENT_U64
            index[row, k] = -1
            if at > offsets[row] and t_ms[at - 1] > newest:
                newest = t_ms[at - 1]
                cell = cell_of(bits[at - 1])
            if other > histogram_offsets[row] and histogram_t_ms[other - 1] > newest:
                cell = ABSENT_U64
                if sums[other - 1] != _STALE:
                    index[row, k] = other - 1
            out[row, k] = cell
            end_ms += step_ms


@kernel("int64(uint64[::1])", group="read")
def count_odd_nans(bits: U64) -> int:
    """Samples that are stale markers or NaNs without canonical bits; 0 means a range vector needs no pass."""
    odd = 0
    for i in range(len(bits)):
        odd += (bits[i] & MAGNITUDE) > EXPONENT and bits[i] != NAN
    return odd


@kernel(
    "int64(int64[::1], int64[::1], uint64[::1], int64[::1], int64[::1], uint64[::1], int64[::1])",
    group="read",
)
def strip_stale(
    offsets: I64, t_ms: I64, bits: U64, out_offsets: I64, out_t_ms: I64, out_bits: U64, kept: I64
) -> int:
    """Copy rows without stale markers, other NaNs made canonical; `kept` gets source indexes. Returns the
    samples kept."""
    at = 0
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        for i in range(offsets[row], offsets[row + 1]):
            raw = bits[i]
            if raw == _STALE:
                continue
            if (raw & MAGNITUDE) > EXPONENT:
                raw = NAN
            out_t_ms[at] = t_ms[i]
            out_bits[at] = raw
            kept[at] = i
            at += 1
        out_offsets[row + 1] = at
    return at


@kernel("int64(int64[::1], int64[::1], int64, int64, int64, int32[:,::1])", group="read")
def window_counts(offsets: I64, t_ms: I64, first_end_ms: int, step_ms: int, range_ms: int, out: I32) -> int:
    """Samples per window (end - range, end]. Returns the largest."""
    largest = 0
    for row in range(out.shape[0]):
        hi = offsets[row + 1]
        a = offsets[row]
        b = a
        end_ms = first_end_ms
        for k in range(out.shape[1]):
            a, b = next_window(t_ms, a, b, hi, end_ms - range_ms, end_ms)
            out[row, k] = b - a
            largest = max(largest, b - a)
            end_ms += step_ms
    return largest
