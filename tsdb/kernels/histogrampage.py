"""Histogram samples between sample order and page order (docs/formats/block.md).

A layout run is a run of samples of one stream with equal buckets; in page order the counts of one bucket over
a run are neighbours, because a bucket resembles itself a sample ago and not the bucket beside it.
"""

from __future__ import annotations

from typing import Any

from tsdb.kernels.compile import inline, kernel

_I64 = "Array(int64, 1, 'C', readonly=True)"
_I32 = "Array(int32, 1, 'C', readonly=True)"


@inline
def same_list(offsets: Any, values: Any, a: Any, b: Any) -> Any:
    """Whether samples a and b have equal lists."""
    first, other = offsets[a], offsets[b]
    count = offsets[a + 1] - first
    if offsets[b + 1] - other != count:
        return False
    k = 0
    while k < count and values[first + k] == values[other + k]:
        k += 1
    return k == count


@kernel(f"void({_I64}, {_I64}, {_I32}, {_I64}, {_I32}, {_I64}, {_I64}, int64[::1])", group="write")
def mark_layouts(
    streams: Any, pos_offsets: Any, pos_index: Any, neg_offsets: Any, neg_index: Any, custom_offsets: Any,
    custom_bits: Any, out: Any,
) -> None:  # fmt: skip
    """out[h] = 1 where sample h begins a layout run: first of its stream, or other buckets than before."""
    for s in range(len(streams) - 1):
        for h in range(streams[s], streams[s + 1]):
            same = (
                h > streams[s]
                and same_list(pos_offsets, pos_index, h - 1, h)
                and same_list(neg_offsets, neg_index, h - 1, h)
                and same_list(custom_offsets, custom_bits, h - 1, h)
            )
            out[h] = 0 if same else 1


@kernel(f"int64({_I64}, {_I64}, {_I64}, boolean, int64[::1])", group="read")
def turn_runs(run_starts: Any, run_widths: Any, source: Any, to_page: Any, out: Any) -> Any:
    """Transpose the counts of each run: sample by sample to bucket by bucket (`to_page`) or back.

    Run r has samples run_starts[r]..run_starts[r+1] of run_widths[r] buckets. -1 where sizes do not fit.
    """
    at = 0
    for r in range(len(run_widths)):
        samples, buckets = run_starts[r + 1] - run_starts[r], run_widths[r]
        if samples < 0 or buckets < 0 or at + samples * buckets > len(source):
            return -1
        for h in range(samples):
            for b in range(buckets):
                if to_page:
                    out[at + b * samples + h] = source[at + h * buckets + b]
                else:
                    out[at + h * buckets + b] = source[at + b * samples + h]
        at += samples * buckets
    return 0 if at == len(source) else -1
