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


@kernel(f"int64({_I64}, {_I64}, {_I64}, int64[::1])", group="write")
def turn_runs(run_starts: Any, run_widths: Any, source: Any, out: Any) -> Any:
    """Transpose the counts of each run from sample by sample to bucket by bucket.

    Run r has samples run_starts[r]..run_starts[r+1] of run_widths[r] buckets. -1 where sizes do not fit.
    """
    at = 0
    for r in range(len(run_widths)):
        samples, buckets = run_starts[r + 1] - run_starts[r], run_widths[r]
        if samples < 0 or buckets < 0 or at + samples * buckets > len(source):
            return -1
        for h in range(samples):
            for b in range(buckets):
                out[at + b * samples + h] = source[at + h * buckets + b]
        at += samples * buckets
    return 0 if at == len(source) else -1


TILE = 8
"""Samples that are turned at once: a bucket's counts of so many are one cache line."""


@kernel(f"void({_I64}, {_I64}, {_I64}, {_I64}, int64, {_I64}, {_I64}, int64[::1])", group="read")
def run_sizes(
    streams: Any, layouts: Any, runs: Any, starts: Any, stream: Any, lo: Any, hi: Any, out: Any
) -> None:
    """Buckets of samples lo[k]..hi[k] of stream `stream` + k.

    Stream e has samples streams[e]..streams[e+1] in layout runs layouts[e]..layouts[e+1]; run r has samples
    runs[r]..runs[r+1] of starts[r+1] - starts[r] buckets.
    """
    for k in range(len(lo)):
        e = stream + k
        a, b, total = streams[e] + lo[k], streams[e] + hi[k], 0
        for r in range(layouts[e], layouts[e + 1]):
            here = min(b, runs[r + 1]) - max(a, runs[r])
            if here > 0:
                total += here * (starts[r + 1] - starts[r])
        out[k] = total


@kernel(
    f"void({_I64}, {_I64}, {_I64}, {_I64}, {_I32}, {_I64}, int64, {_I64}, {_I64}, {_I64}, {_I64},"
    " int64[::1], int32[::1], int64[::1])",
    group="read",
)
def place_buckets(
    streams: Any, layouts: Any, runs: Any, starts: Any, index: Any, source: Any, stream: Any, lo: Any,
    hi: Any, samples: Any, buckets: Any, out_offsets: Any, out_index: Any, out: Any,
) -> None:  # fmt: skip
    """Turn back samples lo[k]..hi[k] of stream `stream` + k (see `run_sizes`): sample by sample from
    out[buckets[k]] on, with the indexes of their buckets and where each ends, out_offsets[samples[k] + 1 ..].

    Layout run r has the buckets index[starts[r]:starts[r+1]]; `source` has the counts of all streams from
    `stream` on, run after run, bucket by bucket.
    """
    begin = 0
    for k in range(len(lo)):
        e = stream + k
        a, b, at, sample = streams[e] + lo[k], streams[e] + hi[k], buckets[k], samples[k] + 1
        for r in range(layouts[e], layouts[e + 1]):
            length, width = runs[r + 1] - runs[r], starts[r + 1] - starts[r]
            names = index[starts[r] : starts[r + 1]]
            first, last = max(a, runs[r]) - runs[r], min(b, runs[r + 1]) - runs[r]
            for tile in range(first, last, TILE):
                here = min(TILE, last - tile)
                for i in range(width):
                    from_at = begin + i * length + tile
                    counts = source[from_at : from_at + here]
                    for h in range(here):
                        out[at + h * width + i] = counts[h]
                for _ in range(here):
                    part = out_index[at : at + width]
                    for i in range(width):
                        part[i] = names[i]
                    at += width
                    out_offsets[sample] = at
                    sample += 1
            begin += length * width


@kernel(
    f"void({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, int64, {_I64}, {_I64}, {_I64}, {_I64}, int64[::1],"
    " int64[::1])",
    group="read",
)
def place_bounds(
    streams: Any, layouts: Any, runs: Any, starts: Any, bounds: Any, stream: Any, lo: Any, hi: Any,
    samples: Any, places: Any, out_offsets: Any, out: Any,
) -> None:  # fmt: skip
    """As `place_buckets` for custom bounds, which every sample of a layout run has alike."""
    for k in range(len(lo)):
        e = stream + k
        a, b, at, sample = streams[e] + lo[k], streams[e] + hi[k], places[k], samples[k] + 1
        for r in range(layouts[e], layouts[e + 1]):
            for _ in range(max(a, runs[r]), min(b, runs[r + 1])):
                for i in range(starts[r], starts[r + 1]):
                    out[at] = bounds[i]
                    at += 1
                out_offsets[sample] = at
                sample += 1
