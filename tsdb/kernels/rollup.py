"""Rolling up: the windows (T - r, T] of series, from samples or from finer windows.

Enters and leaves: CSR columns of one row a series, ascending in time. A sample is a window of its own at its
time: count 1, no resets, and its value in all other columns. The format is docs/formats/rollup.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.compile import inline, kernel

_I64 = "Array(int64, 1, 'C', readonly=True)"
_F64 = "Array(float64, 1, 'C', readonly=True)"


@inline
def _lower(a: Any, b: Any) -> Any:
    """The lesser number; a number before NaN."""
    return b if b < a or np.isnan(a) else a


@inline
def _higher(a: Any, b: Any) -> Any:
    """The greater number; a number before NaN."""
    return b if b > a or np.isnan(a) else a


@kernel(
    f"int64({_I64}, {_I64}, {', '.join([_F64] * 7)}, {_I64}, {_I64}, int64, int64[::1], int64[::1], "
    f"{', '.join(['float64[::1]'] * 9)})",
    group="write",
)
def roll_up(
    offsets: Any,
    t_ms: Any,
    count: Any,
    total: Any,
    low: Any,
    high: Any,
    first: Any,
    last: Any,
    resets: Any,
    first_ms: Any,
    last_ms: Any,
    resolution_ms: Any,
    out_offsets: Any,
    out_t: Any,
    out_count: Any,
    out_total: Any,
    out_low: Any,
    out_high: Any,
    out_first: Any,
    out_last: Any,
    out_resets: Any,
    out_first_age: Any,
    out_last_age: Any,
) -> Any:
    """Windows of each row into the out columns, which are as long as the input; returns their number."""
    at = -1
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        end = np.int64(0)
        carry = 0.0
        begun = False
        for i in range(offsets[row], offsets[row + 1]):
            mine = -(-t_ms[i] // resolution_ms) * resolution_ms
            if not begun or mine != end:
                if begun and np.isfinite(carry):
                    out_total[at] += carry
                at += 1
                begun, end, carry = True, mine, 0.0
                out_t[at] = mine
                out_count[at], out_total[at] = count[i], total[i]
                out_low[at], out_high[at] = low[i], high[i]
                out_first[at], out_last[at], out_resets[at] = first[i], last[i], resets[i]
                out_first_age[at] = float(mine - first_ms[i])
                out_last_age[at] = float(mine - last_ms[i])
                continue
            before, add = out_total[at], total[i]
            after = before + add
            # Neumaier: what the sum is too coarse for is added at the end.
            if abs(before) >= abs(add):
                carry += (before - after) + add
            else:
                carry += (add - after) + before
            out_total[at] = after
            out_count[at] += count[i]
            out_low[at] = _lower(out_low[at], low[i])
            out_high[at] = _higher(out_high[at], high[i])
            if first[i] < out_last[at]:
                out_resets[at] += out_last[at]
            out_resets[at] += resets[i]
            out_last[at] = last[i]
            out_last_age[at] = float(mine - last_ms[i])
        if begun and np.isfinite(carry):
            out_total[at] += carry
        out_offsets[row + 1] = at + 1
    return at + 1


@kernel(f"int64({_I64}, {_I64}, {_I64}, {_I64}, {_F64}, int64, int64[::1], int64[::1])", group="write")
def stale_ends(
    offsets: Any,
    t_ms: Any,
    window_offsets: Any,
    window_t: Any,
    last_age: Any,
    resolution_ms: Any,
    out_offsets: Any,
    out_t: Any,
) -> Any:
    """Ends of the windows whose last sample is a stale marker, from the markers' times and the windows of
    samples of the same rows; returns their number. `out_t` is as long as the markers."""
    at = 0
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        w = window_offsets[row]
        for i in range(offsets[row], offsets[row + 1]):
            end = -(-t_ms[i] // resolution_ms) * resolution_ms
            if i + 1 < offsets[row + 1] and t_ms[i + 1] <= end:
                continue
            while w < window_offsets[row + 1] and window_t[w] < end:
                w += 1
            newer = (
                w < window_offsets[row + 1] and window_t[w] == end and end - np.int64(last_age[w]) > t_ms[i]
            )
            if not newer:
                out_t[at] = end
                at += 1
        out_offsets[row + 1] = at
    return at
