"""Native histograms of query results to JSON bytes, the text that `promql.kernels.render` puts into rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, custom_bound, exponential_bound
from promql.kernels.decimal import VALUE_BYTES_MAX, Real, write_value
from promql.kernels.render import copy
from tsdb.kernels.bits import float_bits
from tsdb.kernels.compile import device, inline, kernel

U8Array = npt.NDArray[np.uint8]
I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

BUCKET_BYTES_MAX = 3 * VALUE_BYTES_MAX + 16
"""Room for `,[b,"lo","hi","n"]`."""

HISTOGRAM_BYTES_MAX = 2 * VALUE_BYTES_MAX + BUCKET_BYTES_MAX + 64
"""Room for a histogram without its buckets, the zero bucket included."""

COUNT_KEY = np.frombuffer(b'{"count":', dtype=np.uint8).copy()
SUM_KEY = np.frombuffer(b',"sum":', dtype=np.uint8).copy()
BUCKETS_KEY = np.frombuffer(b',"buckets":[', dtype=np.uint8).copy()
CLOSED_RIGHT, CLOSED_LEFT, CLOSED = 0, 1, 3


@inline
def write_quoted(out: U8Array, at: int, value: Real) -> int:
    """A value in double quotes."""
    out[at] = 34
    at = write_value(out, at + 1, float_bits(value), value)
    out[at] = 34
    return at + 1


@inline
def write_bucket(out: U8Array, at: int, first: bool, kind: int, lo: Real, hi: Real, count: Real) -> int:
    """`[kind,"lo","hi","count"]`, a comma in front unless it is the first."""
    if not first:
        out[at] = 44
        at += 1
    out[at] = 91
    out[at + 1] = 48 + kind
    out[at + 2] = 44
    at = write_quoted(out, at + 3, lo)
    out[at] = 44
    at = write_quoted(out, at + 1, hi)
    out[at] = 44
    at = write_quoted(out, at + 1, count)
    out[at] = 93
    return at + 1


@device
def write_buckets(
    schema: int,
    zero: Real,
    zero_count: Real,
    positive: I32Array,
    positive_counts: F64Array,
    negative: I32Array,
    negative_counts: F64Array,
    custom: F64Array,
    out: U8Array,
    at: int,
) -> int:
    """Buckets that are not empty, from the lowest values to the highest; 0 if there is none. As in Prometheus
    a bucket that the zero bucket reaches into begins where that ends, and the zero bucket of a negated
    histogram is not shown.

    Kinds: 0 open left, 1 open right, 2 open both, 3 closed both.
    """
    first = True
    for i in range(len(negative) - 1, -1, -1):
        if negative_counts[i] != 0.0:
            hi, lo = exponential_bound(negative[i] - 1, schema), exponential_bound(negative[i], schema)
            hi = max(hi, zero)
            at = write_bucket(out, at, first, CLOSED_LEFT, -lo, -hi, negative_counts[i])
            first = False
    if zero_count > 0.0:
        at = write_bucket(out, at, first, CLOSED, -zero, zero, zero_count)
        first = False
    for i in range(len(positive)):
        if positive_counts[i] == 0.0:
            continue
        kind = CLOSED_RIGHT
        if schema == CUSTOM_SCHEMA:
            lo = custom_bound(positive[i] - 1, custom, 0, len(custom))
            hi = custom_bound(positive[i], custom, 0, len(custom))
            if positive[i] == 0:
                kind = CLOSED
        else:
            lo, hi = exponential_bound(positive[i] - 1, schema), exponential_bound(positive[i], schema)
            lo = max(lo, zero)
        at = write_bucket(out, at, first, kind, lo, hi, positive_counts[i])
        first = False
    return at


@kernel(
    "int64(int64[::1], int32[::1], float64[::1], float64[::1], float64[::1], float64[::1],"
    " int64[::1], int32[::1], float64[::1], int64[::1], int32[::1], float64[::1], int64[::1], float64[::1],"
    " uint8[::1], int64[::1])",
    group="read",
)
def render_histograms(
    chosen: I64Array,
    schema: I32Array,
    zero_threshold: F64Array,
    zero_count: F64Array,
    count: F64Array,
    total: F64Array,
    pos_offsets: I64Array,
    pos_index: I32Array,
    pos_count: F64Array,
    neg_offsets: I64Array,
    neg_index: I32Array,
    neg_count: F64Array,
    custom_offsets: I64Array,
    custom_values: F64Array,
    out: U8Array,
    offsets: I64Array,
) -> int:
    """JSON of the chosen histograms of a pool (columns as in `tsdb.histogram.HistogramBatch`).

    `out` has HISTOGRAM_BYTES_MAX a histogram and BUCKET_BYTES_MAX a bucket. Returns the bytes used.
    """
    at = 0
    offsets[0] = 0
    for i in range(len(chosen)):
        h = chosen[i]
        at = copy(COUNT_KEY, 0, len(COUNT_KEY), out, at)
        at = write_quoted(out, at, count[h])
        at = copy(SUM_KEY, 0, len(SUM_KEY), out, at)
        at = write_quoted(out, at, total[h])
        start = at + len(BUCKETS_KEY)
        end = write_buckets(
            schema[h],
            zero_threshold[h],
            zero_count[h],
            pos_index[pos_offsets[h] : pos_offsets[h + 1]],
            pos_count[pos_offsets[h] : pos_offsets[h + 1]],
            neg_index[neg_offsets[h] : neg_offsets[h + 1]],
            neg_count[neg_offsets[h] : neg_offsets[h + 1]],
            custom_values[custom_offsets[h] : custom_offsets[h + 1]],
            out,
            start,
        )
        if end > start:
            copy(BUCKETS_KEY, 0, len(BUCKETS_KEY), out, at)
            out[end] = 93
            at = end + 1
        out[at] = 125
        at += 1
        offsets[i + 1] = at
    return at
