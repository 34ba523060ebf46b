"""Slow twins of tsdb/kernels/blockrows.py and tsdb/kernels/histogrampage.py over lists."""

from __future__ import annotations

from collections.abc import Sequence


def row_steps(rows: Sequence[Sequence[int]]) -> list[int]:
    """Each id less the one above it, modulo 2^32."""
    out, above = [], list[int]()
    for row in rows:
        out += [(n - (above[j] if j < len(above) else 0)) % (1 << 32) for j, n in enumerate(row)]
        above = list(row)
    return out


def copy_runs(
    source: Sequence[int], lo: Sequence[int], hi: Sequence[int], starts: Sequence[int], size: int
) -> list[int] | None:
    """The output of `copy_runs` begun with zeros, None where a run does not fit."""
    out = [0] * size
    for a, b, at in zip(lo, hi, starts, strict=True):
        if a < 0 or b > len(source) or at < 0 or at + b - a > size:
            return None
        out[at : at + b - a] = source[a:b]
    return out


def mark_layouts(streams: Sequence[Sequence[object]]) -> list[int]:
    """1 for the first layout of a stream and for each that differs from the one before."""
    return [int(k == 0 or layout != s[k - 1]) for s in streams for k, layout in enumerate(s)]


def turn_runs(runs: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Of runs of samples of counts: bucket after bucket."""
    return [n for run in runs for bucket in zip(*run, strict=True) for n in bucket]


def place_buckets(
    streams: Sequence[Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]], cuts: Sequence[Sequence[int]]
) -> list[list[list[tuple[int, int]]]]:
    """Of samples cuts[s][0] to cuts[s][1] of each stream of layout runs the (index, count) of each bucket."""
    return [
        [list(zip(index, sample, strict=True)) for index, samples in stream for sample in samples][lo:hi]
        for stream, (lo, hi) in zip(streams, cuts, strict=True)
    ]
