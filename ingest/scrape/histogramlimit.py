"""Keeping native histograms small: fewer, wider buckets (surface 4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ingest.remotewrite.nativehistogram import (
    SCHEMA_MAX,
    SCHEMA_MIN,
    InvalidHistogramError,
    NativeHistogram,
    Span,
)
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA


class BucketLimitError(InvalidHistogramError):
    """A histogram that no schema makes small enough."""


def limit_schema(histogram: NativeHistogram, bucket_limit: int, min_factor: float) -> NativeHistogram:
    """The histogram at a schema that fits `native_histogram_bucket_limit` and `..._min_bucket_factor`; 0 is
    no limit. Raises BucketLimitError."""
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA:
        if bucket_limit and len(histogram.positive_counts) > bucket_limit:
            raise BucketLimitError("histogram bucket limit exceeded")
        return histogram
    highest = SCHEMA_MAX
    while min_factor > 1 and highest > SCHEMA_MIN and 2 ** (2.0**-highest) < min_factor:
        highest -= 1
    while histogram.schema > highest:
        histogram = _halved(histogram)
    while bucket_limit and len(histogram.positive_counts) + len(histogram.negative_counts) > bucket_limit:
        if histogram.schema <= SCHEMA_MIN:
            raise BucketLimitError("histogram bucket limit exceeded")
        histogram = _halved(histogram)
    return histogram


def _halved(histogram: NativeHistogram) -> NativeHistogram:
    positive = _merged(histogram.positive_spans, histogram.positive_counts)
    negative = _merged(histogram.negative_spans, histogram.negative_counts)
    return replace(
        histogram,
        schema=histogram.schema - 1,
        positive_spans=positive[0],
        positive_counts=positive[1],
        negative_spans=negative[0],
        negative_counts=negative[1],
    )


def _merged(spans: Sequence[Span], counts: Sequence[float]) -> tuple[list[Span], list[float]]:
    """Buckets 2k-1 and 2k become bucket k."""
    merged: dict[int, float] = {}
    index, values = 0, iter(counts)
    for offset, length in spans:
        index += offset
        for _ in range(length):
            wide = ((index - 1) >> 1) + 1
            merged[wide] = merged.get(wide, 0) + next(values)
            index += 1
    found: list[Span] = []
    end = 0
    for _, run in itertools.groupby(enumerate(sorted(merged)), key=lambda pair: pair[1] - pair[0]):
        indexes = [index for _, index in run]
        found.append((indexes[0] - end, len(indexes)))
        end = indexes[-1] + 1
    return found, [merged[index] for index in sorted(merged)]
