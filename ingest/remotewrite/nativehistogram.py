"""Native histograms of remote write (the same message in both versions) to a `HistogramBatch`.

Checks are those of Prometheus's `Histogram.Validate`: prometheus-surface.md 4 and 5.2.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingest.remotewrite.wire import (
    as_bytes,
    as_double,
    as_varint,
    packed_doubles,
    packed_varints,
    read_fields,
    signed,
    zigzag,
)
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch

SCHEMA_MIN = -4
SCHEMA_MAX = 8
_INDEX_LIMIT = 1 << 31

Span = tuple[int, int]


class InvalidHistogramError(ValueError):
    """A histogram that contradicts itself; the text is Prometheus's."""


@dataclass(slots=True)
class NativeHistogram:
    """One Histogram message. Counts are absolute; `sum_bits` keeps a stale marker intact."""

    count: float = 0
    is_float: bool = False
    sum_bits: int = 0
    schema: int = 0
    zero_threshold: float = 0.0
    zero_count: float = 0
    reset_hint: int = 0
    t_ms: int = 0
    start_t_ms: int = 0
    negative_spans: list[Span] = field(default_factory=list)
    negative_counts: list[float] = field(default_factory=list)
    positive_spans: list[Span] = field(default_factory=list)
    positive_counts: list[float] = field(default_factory=list)
    custom_values: list[float] = field(default_factory=list)

    @property
    def sum(self) -> float:
        """Sum of observations."""
        return float(struct.unpack("<d", struct.pack("<Q", self.sum_bits))[0])


def read_histogram(data: memoryview, base: int) -> NativeHistogram:
    """Read a Histogram message. Raises MalformedMessageError."""
    found = NativeHistogram()
    deltas: dict[int, list[int]] = {9: [], 12: []}
    counts: dict[int, list[float]] = {10: [], 13: []}
    for number, wire, content, at in read_fields(data, base):
        if number in (1, 2):
            found.is_float = number == 2
            found.count = as_double(wire, content, at) if found.is_float else as_varint(wire, content, at)
        elif number == 3:
            as_double(wire, content, at)
            found.sum_bits = int(content)
        elif number == 4:
            found.schema = signed(zigzag(as_varint(wire, content, at)), 32)
        elif number == 5:
            found.zero_threshold = as_double(wire, content, at)
        elif number in (6, 7):
            read = as_varint if number == 6 else as_double
            found.zero_count = read(wire, content, at)
        elif number in (8, 11):
            spans = found.negative_spans if number == 8 else found.positive_spans
            spans.append(_read_span(as_bytes(content, at), at))
        elif number in deltas:
            deltas[number] += map(zigzag, packed_varints(wire, content, at))
        elif number in counts:
            counts[number] += packed_doubles(wire, content, at)
        elif number == 14:
            found.reset_hint = as_varint(wire, content, at) & 3
        elif number == 15:
            found.t_ms = signed(as_varint(wire, content, at))
        elif number == 16:
            found.custom_values += packed_doubles(wire, content, at)
        elif number == 17:
            found.start_t_ms = signed(as_varint(wire, content, at))
    if found.is_float:
        found.negative_counts, found.positive_counts = counts[10], counts[13]
    else:
        found.negative_counts = list(itertools.accumulate(deltas[9]))
        found.positive_counts = list(itertools.accumulate(deltas[12]))
    return found


def _read_span(data: memoryview, base: int) -> Span:
    offset = length = 0
    for number, wire, content, at in read_fields(data, base):
        if number == 1:
            offset = signed(zigzag(as_varint(wire, content, at)), 32)
        elif number == 2:
            length = as_varint(wire, content, at) & 0xFFFF_FFFF
    return offset, length


def validate(histogram: NativeHistogram) -> None:
    """Raise InvalidHistogramError where the parts of a histogram do not agree."""
    custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA
    if custom:
        _check_custom(histogram)
    elif not SCHEMA_MIN <= histogram.schema <= SCHEMA_MAX:
        raise InvalidHistogramError(
            f"histogram has an invalid schema, which must be between {SCHEMA_MIN} and {SCHEMA_MAX} for"
            f" exponential buckets, or {CUSTOM_BUCKETS_SCHEMA} for custom buckets, got schema"
            f" {histogram.schema}"
        )
    elif histogram.custom_values:
        raise InvalidHistogramError("histogram with exponential schema must not have custom bounds")
    _check_side("negative", histogram.negative_spans, histogram.negative_counts)
    _check_side("positive", histogram.positive_spans, histogram.positive_counts)
    if histogram.is_float:
        return
    total = sum(histogram.negative_counts) + sum(histogram.positive_counts) + histogram.zero_count
    found = f"{total} observations found in buckets, but the Count field is {histogram.count}: "
    if math.isnan(histogram.sum):
        if total > histogram.count:
            raise InvalidHistogramError(
                found + "histogram's observation count should be at least the number of observations"
                " found in the buckets"
            )
    elif total != histogram.count:
        raise InvalidHistogramError(
            found + "histogram's observation count should equal the number of observations found in the"
            " buckets (in absence of NaN)"
        )


def _check_custom(histogram: NativeHistogram) -> None:
    for previous, current in itertools.pairwise([-math.inf, *histogram.custom_values]):
        if not current > previous:
            raise InvalidHistogramError(
                f"custom buckets: previous bound is {previous:f} and current is {current:f}: histogram"
                " custom bounds must be in strictly increasing order"
            )
    if histogram.custom_values and histogram.custom_values[-1] == math.inf:
        raise InvalidHistogramError(
            "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must"
            " be finite"
        )
    covered = sum(max(offset, 0) + length for offset, length in histogram.positive_spans)
    if covered > len(histogram.custom_values) + 1:
        raise InvalidHistogramError(
            f"custom buckets: only {len(histogram.custom_values)} custom bounds defined which is"
            f" insufficient to cover total span length of {covered}: histogram custom bounds are too few"
        )
    if histogram.zero_count or histogram.zero_threshold:
        raise InvalidHistogramError("custom buckets: must have zero count and threshold of 0")
    if histogram.negative_spans or histogram.negative_counts:
        raise InvalidHistogramError("custom buckets: must not have negative buckets")


def _check_side(side: str, spans: Sequence[Span], counts: Sequence[float]) -> None:
    index = 0
    for number, (offset, length) in enumerate(spans, 1):
        if number > 1 and offset < 0:
            raise InvalidHistogramError(
                f"{side} side: span number {number} with offset {offset}: histogram has a span whose"
                " offset is negative"
            )
        index += offset + length
    needed = sum(length for _, length in spans)
    if needed != len(counts):
        raise InvalidHistogramError(
            f"{side} side: spans need {needed} buckets, have {len(counts)} buckets: histogram spans"
            " specify different number of buckets than provided"
        )
    if not -_INDEX_LIMIT <= index < _INDEX_LIMIT:
        raise InvalidHistogramError(f"{side} side: bucket index {index} is outside 32 bits")
    for number, count in enumerate(counts, 1):
        if count < 0:
            raise InvalidHistogramError(
                f"{side} side: bucket number {number} has observation count of {count}: histogram has a"
                " bucket whose observation count is negative"
            )


def _expand(spans: Sequence[Span]) -> list[int]:
    found: list[int] = []
    index = 0
    for offset, length in spans:
        index += offset
        found.extend(range(index, index + length))
        index += length
    return found


def _offsets(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return offsets


def _pool(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    return np.array([value for row in rows for value in row], dtype=np.float64)


def to_batch(rows: Sequence[NativeHistogram], with_start_t: bool) -> HistogramBatch:
    """Columns of validated histograms, in their order; `row_offsets` is one row that holds all."""
    positive = [row.positive_counts for row in rows]
    negative = [row.negative_counts for row in rows]
    custom = [row.custom_values for row in rows]
    positive_index = [index for row in rows for index in _expand(row.positive_spans)]
    negative_index = [index for row in rows for index in _expand(row.negative_spans)]
    return HistogramBatch(
        row_offsets=np.array([0, len(rows)], dtype=np.int64),
        t_ms=np.array([row.t_ms for row in rows], dtype=np.int64),
        start_t_ms=np.array([row.start_t_ms for row in rows], dtype=np.int64) if with_start_t else None,
        schema=np.array([row.schema for row in rows], dtype=np.int32),
        reset_hint=np.array([row.reset_hint for row in rows], dtype=np.uint8),
        zero_threshold=np.array([row.zero_threshold for row in rows], dtype=np.float64),
        zero_count=np.array([row.zero_count for row in rows], dtype=np.float64),
        count=np.array([row.count for row in rows], dtype=np.float64),
        sum=np.array([row.sum_bits for row in rows], dtype=np.uint64).view(np.float64),
        pos_offsets=_offsets(positive),
        pos_index=np.array(positive_index, dtype=np.int32),
        pos_count=_pool(positive),
        neg_offsets=_offsets(negative),
        neg_index=np.array(negative_index, dtype=np.int32),
        neg_count=_pool(negative),
        custom_offsets=_offsets(custom),
        custom_values=_pool(custom),
        is_float=np.array([row.is_float for row in rows], dtype=np.uint8),
    )
