"""One native histogram as a value, for the edges: test files, results, and stores in memory.

Inside queries histograms are columns (`tsdb.histogram.HistogramBatch`); this is how a single one is written,
compared and shown. Semantics: prometheus-surface.md section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from promql.numberformat import format_g
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch, ResetHint
from tsdb.select import STALE_BITS

Buckets = tuple[tuple[int, float], ...]
I64Array = npt.NDArray[np.int64]

_HINTS = {
    ResetHint.UNKNOWN: "",
    ResetHint.RESET: "reset",
    ResetHint.NOT_RESET: "not_reset",
    ResetHint.GAUGE: "gauge",
}


@dataclass(frozen=True, slots=True)
class Histogram:
    """`positive` and `negative` are (bucket index, absolute count) in ascending order of the index; custom
    buckets use `positive` from index 0. A stale marker is a histogram whose sum is the stale marker
    (`stale`)."""

    schema: int = 0
    count: float = 0.0
    sum: float = 0.0
    zero_threshold: float = 0.0
    zero_count: float = 0.0
    positive: Buckets = ()
    negative: Buckets = ()
    custom_values: tuple[float, ...] = ()
    hint: ResetHint = ResetHint.UNKNOWN
    is_float: bool = True
    stale: bool = False

    @property
    def has_custom_buckets(self) -> bool:
        """Whether bucket bounds are listed rather than exponential."""
        return self.schema == CUSTOM_BUCKETS_SCHEMA

    def compact(self) -> Histogram:
        """Without empty buckets."""
        if all(n for _, n in self.positive) and all(n for _, n in self.negative):
            return self
        positive = tuple(pair for pair in self.positive if pair[1] != 0)
        return replace(self, positive=positive, negative=tuple(p for p in self.negative if p[1] != 0))

    def at_schema(self, schema: int) -> Histogram:
        """The same observations at a lower resolution."""
        steps = self.schema - schema
        if steps == 0:
            return self
        if steps < 0 or self.has_custom_buckets:
            raise ValueError(f"cannot merge from schema {self.schema} to {schema}")
        return replace(
            self,
            schema=schema,
            positive=_coarser(self.positive, steps),
            negative=_coarser(self.negative, steps),
        )

    def plus(self, other: Histogram, sign: int = 1) -> Histogram:
        """Sum (or difference, with `sign` -1) of two of the same kind with equal zero thresholds and bounds.

        The slow and plain form for series notation; queries add in kernels. Raises ValueError for layouts
        that do not fit.
        """
        if self.zero_threshold != other.zero_threshold or self.custom_values != other.custom_values:
            raise ValueError(
                "histograms with different zero buckets or bounds cannot be combined in a series"
            )
        if self.has_custom_buckets != other.has_custom_buckets:
            raise ValueError("histograms with exponential and custom buckets cannot be combined")
        other = other.at_schema(self.schema)
        return replace(
            self,
            count=self.count + sign * other.count,
            sum=self.sum + sign * other.sum,
            zero_count=self.zero_count + sign * other.zero_count,
            positive=_combined(self.positive, other.positive, sign),
            negative=_combined(self.negative, other.negative, sign),
            hint=ResetHint.GAUGE if sign < 0 else _combined_hint(self.hint, other.hint),
        )

    def notation(self) -> str:
        """The `{{...}}` form of test files."""
        parts = [f"schema:{self.schema}"] if self.schema else []
        if self.custom_values:
            parts.append(f"custom_values:[{_numbers(self.custom_values)}]")
        numbers = (("count", self.count), ("sum", self.sum), ("z_bucket", self.zero_count))
        parts += [f"{key}:{format_g(value)}" for key, value in numbers if value != 0]
        if self.zero_threshold:
            parts.append(f"z_bucket_w:{format_g(self.zero_threshold)}")
        if _HINTS[self.hint]:
            parts.append(f"counter_reset_hint:{_HINTS[self.hint]}")
        for offset, buckets, side in (
            ("offset", "buckets", self.positive),
            ("n_offset", "n_buckets", self.negative),
        ):
            if side:
                counts = dict(side)
                first, last = side[0][0], side[-1][0]
                parts += [f"{offset}:{first}"] if first else []
                dense = [counts.get(index, 0.0) for index in range(first, last + 1)]
                parts.append(f"{buckets}:[{_numbers(dense)}]")
        return "{{" + " ".join(parts) + "}}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(format_g(value) for value in values)


def _coarser(side: Buckets, steps: int) -> Buckets:
    merged: dict[int, float] = {}
    for index, count in side:
        target = ((index - 1) >> steps) + 1
        merged[target] = merged.get(target, 0.0) + count
    return tuple(sorted(merged.items()))


def _combined(mine: Buckets, theirs: Buckets, sign: int) -> Buckets:
    merged = dict(mine)
    for index, count in theirs:
        merged[index] = merged.get(index, 0.0) + sign * count
    return tuple(sorted(merged.items()))


def _combined_hint(left: ResetHint, right: ResetHint) -> ResetHint:
    if left == right:
        return left
    return ResetHint.GAUGE if ResetHint.GAUGE in (left, right) else ResetHint.UNKNOWN


def _offsets(lengths: Sequence[int]) -> I64Array:
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def histogram_batch(
    rows: Sequence[Sequence[tuple[int, Histogram, int]]],
) -> HistogramBatch:
    """Columns of (time ms, histogram, start time ms) rows."""
    flat = [sample for row in rows for sample in row]
    values = [histogram for _, histogram, _ in flat]
    starts = np.array([start for _, _, start in flat], dtype=np.int64)
    sums = np.array([h.sum for h in values], dtype=np.float64)
    sums.view(np.uint64)[[h.stale for h in values]] = STALE_BITS
    positive = [pair for h in values for pair in h.positive]
    negative = [pair for h in values for pair in h.negative]
    return HistogramBatch(
        row_offsets=_offsets([len(row) for row in rows]),
        t_ms=np.array([t for t, _, _ in flat], dtype=np.int64),
        start_t_ms=starts if starts.any() else None,
        schema=np.array([h.schema for h in values], dtype=np.int32),
        reset_hint=np.array([h.hint for h in values], dtype=np.uint8),
        zero_threshold=np.array([h.zero_threshold for h in values], dtype=np.float64),
        zero_count=np.array([h.zero_count for h in values], dtype=np.float64),
        count=np.array([h.count for h in values], dtype=np.float64),
        sum=sums,
        pos_offsets=_offsets([len(h.positive) for h in values]),
        pos_index=np.array([index for index, _ in positive], dtype=np.int32),
        pos_count=np.array([count for _, count in positive], dtype=np.float64),
        neg_offsets=_offsets([len(h.negative) for h in values]),
        neg_index=np.array([index for index, _ in negative], dtype=np.int32),
        neg_count=np.array([count for _, count in negative], dtype=np.float64),
        custom_offsets=_offsets([len(h.custom_values) for h in values]),
        custom_values=np.array([bound for h in values for bound in h.custom_values], dtype=np.float64),
        is_float=np.array([h.is_float for h in values], dtype=np.uint8),
    )


def histogram_at(batch: HistogramBatch, index: int) -> Histogram:
    """One sample of a batch or pool."""
    sides = []
    for offsets, indexes, counts in (
        (batch.pos_offsets, batch.pos_index, batch.pos_count),
        (batch.neg_offsets, batch.neg_index, batch.neg_count),
    ):
        lo, hi = int(offsets[index]), int(offsets[index + 1])
        sides.append(tuple(zip(indexes[lo:hi].tolist(), counts[lo:hi].tolist(), strict=True)))
    lo, hi = int(batch.custom_offsets[index]), int(batch.custom_offsets[index + 1])
    return Histogram(
        schema=int(batch.schema[index]),
        count=float(batch.count[index]),
        sum=float(batch.sum[index]),
        zero_threshold=float(batch.zero_threshold[index]),
        zero_count=float(batch.zero_count[index]),
        positive=sides[0],
        negative=sides[1],
        custom_values=tuple(batch.custom_values[lo:hi].tolist()),
        hint=ResetHint(int(batch.reset_hint[index])),
        is_float=bool(batch.is_float[index]),
        stale=int(batch.sum.view(np.uint64)[index]) == STALE_BITS,
    )
