"""The samples that a look back from steps can find: the newest up to each step, as far as the lookback goes.

Of rows without the others such a query makes the same. Where steps are further apart than samples these are
few. Times are milliseconds, steps are first_ms + k * step_ms for k up to `steps` (exclusive), ascending.
"""

from __future__ import annotations

from typing import Any

from tsdb.kernels.compile import inline, kernel

_I64 = "Array(int64, 1, 'C', readonly=True)"


@inline
def _step_from(t: Any, first_ms: Any, step_ms: Any) -> Any:
    """Number of the first step that is not before `t`, at least 0."""
    behind = t - first_ms
    return 0 if behind <= 0 else (behind + step_ms - 1) // step_ms


@inline
def first_after(t_ms: Any, at: Any, hi: Any, bound_ms: Any) -> Any:
    """First index from `at` whose time is greater than `bound_ms`, at most `hi`: in doubling strides, since
    steps are often much longer than the interval of samples."""
    stride = 1
    while at + stride <= hi and t_ms[at + stride - 1] <= bound_ms:
        at += stride
        stride += stride
    end = min(at + stride, hi)
    while at < end:
        middle = (at + end) >> 1
        if t_ms[middle] <= bound_ms:
            at = middle + 1
        else:
            end = middle
    return at


@kernel(f"int64({_I64}, {_I64}, {_I64}, int64, int64, int64, int64, int64[::1], int64[::1])", group="read")
def pick_latest(
    t_ms: Any,
    lo: Any,
    hi: Any,
    first_ms: Any,
    step_ms: Any,
    steps: Any,
    lookback_ms: Any,
    offsets: Any,
    picks: Any,
) -> Any:
    """Of each vector t_ms[lo[v]:hi[v]] the places in `t_ms` of what steps find:
    picks[offsets[v]:offsets[v+1]], ascending. Returns how many, or -1 where `picks` has no room."""
    count = 0
    offsets[0] = 0
    for v in range(len(lo)):
        at, end, last = lo[v], hi[v], -1
        if at < end:
            k = _step_from(t_ms[at], first_ms, step_ms)
            while k < steps:
                end_ms = first_ms + k * step_ms
                at = first_after(t_ms, at, end, end_ms)
                if t_ms[at - 1] <= end_ms - lookback_ms and at == end:
                    break
                if at - 1 != last and t_ms[at - 1] > end_ms - lookback_ms:
                    if count == len(picks):
                        return -1
                    last = at - 1
                    picks[count] = last
                    count += 1
                k += 1
        offsets[v + 1] = count
    return count


@kernel(
    f"int64({_I64}, {_I64}, {_I64}, int64, int64, int64, int64, int64, int64[::1], int64[::1], int64[::1])",
    group="read",
)
def keep_latest(
    offsets: Any,
    t_ms: Any,
    bits: Any,
    first_ms: Any,
    step_ms: Any,
    steps: Any,
    lookback_ms: Any,
    last_ms: Any,
    out_offsets: Any,
    out_t: Any,
    out_bits: Any,
) -> Any:
    """Of rows of samples only what steps find. Returns how many samples, or -1 where a row has a time not
    after `last_ms`."""
    count = 0
    out_offsets[0] = 0
    for row in range(len(offsets) - 1):
        at, end, last = offsets[row], offsets[row + 1], -1
        if at < end:
            if t_ms[at] <= last_ms:
                return -1
            k = _step_from(t_ms[at], first_ms, step_ms)
            while k < steps:
                end_ms = first_ms + k * step_ms
                at = first_after(t_ms, at, end, end_ms)
                if t_ms[at - 1] <= end_ms - lookback_ms and at == end:
                    break
                if at - 1 != last and t_ms[at - 1] > end_ms - lookback_ms:
                    last = at - 1
                    out_t[count], out_bits[count] = t_ms[last], bits[last]
                    count += 1
                k += 1
        out_offsets[row + 1] = count
    return count


@kernel(
    f"void({_I64}, Array(int64, 2, 'C', readonly=True), {_I64}, int64, int64, {_I64}, {_I64}, {_I64}, "
    f"{_I64}, {_I64}, {_I64}, int64[:,::1], int64[:,::1], int64[::1])",
    group="read",
)
def list_picked(
    order: Any,
    page_rows: Any,
    rows: Any,
    first_row: Any,
    last_row: Any,
    stream: Any,
    vectors: Any,
    length: Any,
    pick_offsets: Any,
    places: Any,
    offsets: Any,
    pages: Any,
    runs: Any,
    listed: Any,
) -> None:
    """As `sharedrows.list_runs`, of runs of which pick_offsets[v]:pick_offsets[v+1] is wanted: `runs` has
    their streams, where they go, their samples, and the first and the number of what is picked of them."""
    page_count, run_count = 0, 0
    for p in range(page_rows.shape[1]):
        if page_rows[0, p] >= last_row or page_rows[1, p] < first_row:
            continue
        before = run_count
        for k in range(page_rows[2, p], page_rows[3, p]):
            run = order[k]
            row = rows[run]
            if row < first_row or row >= last_row:
                continue
            first = pick_offsets[vectors[run]]
            count = pick_offsets[vectors[run] + 1] - first
            if count == 0:
                continue
            runs[0, run_count], runs[1, run_count] = stream[run], offsets[row - first_row] + places[run]
            runs[2, run_count], runs[3, run_count], runs[4, run_count] = length[run], first, count
            run_count += 1
        if run_count > before:
            pages[0, page_count], pages[1, page_count] = p, before
            page_count += 1
    listed[0], listed[1] = page_count, run_count
