"""A pool of histograms as kernels see it: the columns of a HistogramBatch as one tuple of arrays.

Order of the tuple: schema i32[H], reset_hint u8[H], zero_threshold, zero_count, count, sum f64[H]; then
offsets i64[H+1], index i32[], count f64[] of the positive and of the negative side; then offsets i64[H+1] and
values f64[] of custom bounds. `promql.histogrampool` converts.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, custom_bound, exponential_bound
from tsdb.kernels.compile import device

I64: TypeAlias = npt.NDArray[np.int64]
I32: TypeAlias = npt.NDArray[np.int32]
U8: TypeAlias = npt.NDArray[np.uint8]
F64: TypeAlias = npt.NDArray[np.float64]
Pool: TypeAlias = tuple[I32, U8, F64, F64, F64, F64, I64, I32, F64, I64, I32, F64, I64, F64]

POOL = (
    "Tuple((int32[::1], uint8[::1], float64[::1], float64[::1], float64[::1], float64[::1],"
    " int64[::1], int32[::1], float64[::1], int64[::1], int32[::1], float64[::1], int64[::1], float64[::1]))"
)
"""The numba type of a pool, for signatures."""

SCHEMA = 0
HINT = 1
ZERO_THRESHOLD = 2
ZERO_COUNT = 3
COUNT = 4
SUM = 5
POS_OFFSETS = 6
POS_INDEX = 7
POS_COUNT = 8
NEG_OFFSETS = 9
NEG_INDEX = 10
NEG_COUNT = 11
CUSTOM_OFFSETS = 12
CUSTOM_VALUES = 13

HINT_UNKNOWN = 0
HINT_RESET = 1
HINT_NOT_RESET = 2
HINT_GAUGE = 3


@device
def bucket_total(pool: Pool, h: int) -> int:
    """Number of buckets of histogram `h`, the zero bucket counted where it has observations."""
    sides = pool[NEG_OFFSETS][h + 1] - pool[NEG_OFFSETS][h] + pool[POS_OFFSETS][h + 1] - pool[POS_OFFSETS][h]
    return sides + 1 if pool[ZERO_COUNT][h] > 0.0 else sides


@device
def positive_bucket(pool: Pool, h: int, i: int) -> tuple[float, float, float]:
    """(lower, upper, count) of entry `i` of the positive side's columns."""
    index = np.int64(pool[POS_INDEX][i])
    count = pool[POS_COUNT][i]
    schema = np.int64(pool[SCHEMA][h])
    if schema == CUSTOM_SCHEMA:
        custom = pool[CUSTOM_VALUES]
        lo, hi = pool[CUSTOM_OFFSETS][h], pool[CUSTOM_OFFSETS][h + 1]
        return custom_bound(index - 1, custom, lo, hi), custom_bound(index, custom, lo, hi), count
    return exponential_bound(index - 1, schema), exponential_bound(index, schema), count


@device
def negative_bucket(pool: Pool, h: int, i: int) -> tuple[float, float, float]:
    """(lower, upper, count) of entry `i` of the negative side's columns."""
    index = np.int64(pool[NEG_INDEX][i])
    schema = np.int64(pool[SCHEMA][h])
    return -exponential_bound(index, schema), -exponential_bound(index - 1, schema), pool[NEG_COUNT][i]


@device
def bucket_at(pool: Pool, h: int, j: int) -> tuple[float, float, float]:
    """(lower, upper, count) of the j-th bucket from below: negative side, zero bucket, positive side. Borders
    inside the zero bucket are moved to the zero threshold."""
    threshold = pool[ZERO_THRESHOLD][h]
    negatives = pool[NEG_OFFSETS][h + 1] - pool[NEG_OFFSETS][h]
    if j < negatives:
        lower, upper, count = negative_bucket(pool, h, pool[NEG_OFFSETS][h + 1] - 1 - j)
        if upper < 0.0 and upper > -threshold:
            upper = -threshold
        return lower, upper, count
    j -= negatives
    if pool[ZERO_COUNT][h] > 0.0:
        if j == 0:
            return -threshold, threshold, pool[ZERO_COUNT][h]
        j -= 1
    lower, upper, count = positive_bucket(pool, h, pool[POS_OFFSETS][h] + j)
    if lower > 0.0 and lower < threshold:
        lower = threshold
    return lower, upper, count


@device
def one_sided(pool: Pool, h: int) -> int:
    """1 if only the positive side has buckets, -1 if only the negative one, else 0."""
    positives = pool[POS_OFFSETS][h + 1] > pool[POS_OFFSETS][h]
    negatives = pool[NEG_OFFSETS][h + 1] > pool[NEG_OFFSETS][h]
    if positives and not negatives:
        return 1
    if negatives and not positives:
        return -1
    return 0


@device
def log_fraction(v: float, lower: float, upper: float) -> float:
    """How far `v` lies into an exponential bucket (lower, upper], on the logarithmic scale."""
    log_lower, log_upper, log_v = math.log2(abs(lower)), math.log2(abs(upper)), math.log2(abs(v))
    if v > 0.0:
        return (log_v - log_lower) / (log_upper - log_lower)
    return 1.0 - (log_v - log_upper) / (log_lower - log_upper)
