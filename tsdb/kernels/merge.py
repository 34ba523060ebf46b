"""Merging the samples of several sources, row by row, as indices into their concatenated columns.

Enters: per output row the segments `lo..hi` of the flat time column that hold its samples, most trusted
source first, each ascending in time. Leaves: which samples to take, ascending, one a timestamp. Values,
start timestamps and histograms are then gathered by index, so one kernel serves them all.
"""

from __future__ import annotations

from typing import Any

from tsdb.kernels.compile import inline, kernel

_I64 = "Array(int64, 1, 'C', readonly=True)"


@inline
def order_segments(first: Any, last: Any, seg_lo: Any, seg_hi: Any, t_ms: Any, order: Any) -> Any:
    """Non-empty segments first..last by first time into `order`; whether none overlaps the next.

    Returns the number of segments, negated where some overlap.
    """
    count = 0
    for s in range(first, last):
        if seg_lo[s] >= seg_hi[s]:
            continue
        k = count
        while k > 0 and t_ms[seg_lo[order[k - 1]]] > t_ms[seg_lo[s]]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = s
        count += 1
    for k in range(1, count):
        if t_ms[seg_hi[order[k - 1]] - 1] >= t_ms[seg_lo[order[k]]]:
            return -count
    return count


@kernel(
    f"int64({_I64}, {_I64}, {_I64}, {_I64}, int64[::1], int64[::1], int64[::1], int64[::1])", group="read"
)
def merge_rows(
    seg_offsets: Any, seg_lo: Any, seg_hi: Any, t_ms: Any, order: Any, heads: Any, out_offsets: Any, out: Any
) -> Any:
    """Fill `out` with sample indices of every row and `out_offsets` i64[R+1]; returns the total.

    Row r owns the segments seg_offsets[r]..seg_offsets[r+1]. Of samples with equal time the one of the
    earliest segment is taken. `order` and `heads` are scratch for the segments of one row.
    """
    at = 0
    for r in range(len(seg_offsets) - 1):
        count = order_segments(seg_offsets[r], seg_offsets[r + 1], seg_lo, seg_hi, t_ms, order)
        if count >= 0:
            for k in range(count):
                for i in range(seg_lo[order[k]], seg_hi[order[k]]):
                    out[at] = i
                    at += 1
        else:
            count = -count
            for k in range(count):
                heads[k] = seg_lo[order[k]]
            while count > 0:
                best = 0
                for k in range(1, count):
                    t, t_best = t_ms[heads[k]], t_ms[heads[best]]
                    if t < t_best or (t == t_best and order[k] < order[best]):
                        best = k
                chosen = heads[best]
                out[at] = chosen
                at += 1
                k = 0
                while k < count:
                    if (t_ms[heads[k]] == t_ms[chosen] and heads[k] != chosen) or heads[k] == chosen:
                        heads[k] += 1
                    if heads[k] >= seg_hi[order[k]]:
                        count -= 1
                        heads[k] = heads[count]
                        order[k] = order[count]
                    else:
                        k += 1
        out_offsets[r + 1] = at
    return at


@kernel(f"int64({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, boolean[::1], boolean[::1])", group="read")
def mark_conflicts(
    a_offsets: Any, a_t: Any, a_source: Any, b_offsets: Any, b_t: Any, b_source: Any, keep_a: Any, keep_b: Any
) -> Any:
    """Where a row has both kinds of samples at one time, drop the one of the later source.

    keep_a and keep_b come filled with true. Returns the number of dropped samples.
    """
    dropped = 0
    for r in range(len(a_offsets) - 1):
        i, j = a_offsets[r], b_offsets[r]
        while i < a_offsets[r + 1] and j < b_offsets[r + 1]:
            if a_t[i] < b_t[j]:
                i += 1
            elif a_t[i] > b_t[j]:
                j += 1
            else:
                if a_source[i] <= b_source[j]:
                    keep_b[j] = False
                else:
                    keep_a[i] = False
                dropped += 1
                i += 1
                j += 1
    return dropped


@kernel(f"int64({_I64}, {_I64}, {_I64}, int64[::1], int64[::1])", group="read")
def spread_rows(lo: Any, hi: Any, rows: Any, out_offsets: Any, out: Any) -> Any:
    """out = the indices lo[rows[k]]..hi[rows[k]] one row after the other; returns the total."""
    at = 0
    for k in range(len(rows)):
        for i in range(lo[rows[k]], hi[rows[k]]):
            out[at] = i
            at += 1
        out_offsets[k + 1] = at
    return at


@kernel(f"void({_I64}, {_I64}, {_I64}, int64, int64, int64[::1], int64[::1])", group="read")
def clip_rows(offsets: Any, t_ms: Any, rows: Any, mint: Any, maxt: Any, out_lo: Any, out_hi: Any) -> None:
    """Of each row the samples with mint <= t <= maxt, as index bounds, by bisection."""
    for k in range(len(rows)):
        first, last = offsets[rows[k]], offsets[rows[k] + 1]
        lo, hi = first, last
        while lo < hi:
            mid = (lo + hi) >> 1
            if t_ms[mid] < mint:
                lo = mid + 1
            else:
                hi = mid
        out_lo[k] = lo
        hi = last
        while lo < hi:
            mid = (lo + hi) >> 1
            if t_ms[mid] <= maxt:
                lo = mid + 1
            else:
                hi = mid
        out_hi[k] = hi
