"""Sums of histograms that come piece by piece: each cell of the result keeps dense columns to add to.

What `promql.kernels.histogramsum` does once everything is there, with the same order of operations, so that
results agree bit for bit; but a piece is done with as soon as it was added. All histograms have one
exponential schema and one zero threshold, and no bucket inside of the zero bucket; `shape` tells whether they
have. Nothing here allocates, for the reason given in `promql.kernels.histogramplain`.

In: a pool and cells `index` i32[R, K] of rows whose groups are `groups` i64[R]; cell c of the sums is that of
group c // K at step c % K. The sums: `ints` i64[C, 3] hold the reset hint, bits of the hints seen, and the
first row (-1 for none); `heads` f64[C, 6] zero count, count and sum, each followed by its compensation;
`value` and `comp` f64[C, W] and `seen` u8[C, W] buckets of one side, from bucket index `base` on.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.bucketbounds import CUSTOM_SCHEMA, exponential_bound
from promql.kernels.cell import kahan
from promql.kernels.histogramcombine import COLLISION
from promql.kernels.histogrampool import (
    COUNT,
    CUSTOM_OFFSETS,
    F64,
    HINT,
    HINT_NOT_RESET,
    HINT_RESET,
    I32,
    I64,
    NEG_COUNT,
    NEG_INDEX,
    NEG_OFFSETS,
    POOL,
    POS_COUNT,
    POS_INDEX,
    POS_OFFSETS,
    SCHEMA,
    SUM,
    U8,
    ZERO_COUNT,
    ZERO_THRESHOLD,
    Pool,
)
from promql.kernels.histogramsum import add_side, folded, take_side
from promql.kernels.histogramwork import adjust_hint
from tsdb.kernels.compile import device, kernel

Bools = npt.NDArray[np.bool_]

FIRST_ROW = 2
"""Column of `ints`."""


@device
def _outside(index: I32, lo: int, hi: int, schema: int, threshold: float, side: I64) -> bool:
    """Whether buckets lo..hi lie outside of the zero bucket; `side` i64[2] is widened to their indexes."""
    if hi <= lo:
        return True
    first = np.int64(index[lo])
    side[0], side[1] = min(side[0], first), max(side[1], np.int64(index[hi - 1]) + 1)
    return exponential_bound(first, schema) > threshold


@kernel(f"int64({POOL}, int32[:, ::1], int64, float64, int64[:, ::1])", group="read")
def shape(pool: Pool, index: I32, schema: int, threshold: float, ranges: I64) -> int:
    """1 where all histograms of the cells have this schema and zero threshold and can be added here, else 0.
    `ranges` i64[2, 2], lowest bucket index and one past the highest of both sides, is widened to theirs."""
    for row in range(index.shape[0]):
        for k in range(index.shape[1]):
            h = np.int64(index[row, k])
            if h < 0:
                continue
            if schema == CUSTOM_SCHEMA or pool[SCHEMA][h] != schema or pool[ZERO_THRESHOLD][h] != threshold:
                return 0
            a, b = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
            if not _outside(pool[POS_INDEX], a, b, schema, threshold, ranges[0]):
                return 0
            a, b = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1]
            if not _outside(pool[NEG_INDEX], a, b, schema, threshold, ranges[1]):
                return 0
    return 1


@device
def _add_number(number: float, total: F64, at: int, is_first: bool) -> None:
    """Add to total[at], whose compensation is total[at + 1]."""
    if is_first:
        total[at], total[at + 1] = number, 0.0
    else:
        total[at], total[at + 1] = kahan(number, total[at], total[at + 1])


@kernel(
    f"void({POOL}, int32[:, ::1], int64[::1], int64, int64[:, ::1], float64[:, ::1], int64, float64[:, ::1],"
    " float64[:, ::1], uint8[:, ::1], int64, float64[:, ::1], float64[:, ::1], uint8[:, ::1])",
    group="read",
)
def add(
    pool: Pool,
    index: I32,
    groups: I64,
    first_row: int,
    ints: I64,
    heads: F64,
    pos_base: int,
    pos_value: F64,
    pos_comp: F64,
    pos_seen: U8,
    neg_base: int,
    neg_value: F64,
    neg_comp: F64,
    neg_seen: U8,
) -> None:
    """Add the cells of rows first_row, ..., in this order. The columns of both sides reach as far as `shape`
    said."""
    steps = index.shape[1]
    for row in range(index.shape[0]):
        for k in range(steps):
            h = np.int64(index[row, k])
            if h < 0:
                continue
            cell = groups[row] * steps + k
            mine, head = ints[cell], heads[cell]
            is_first = mine[FIRST_ROW] < 0
            hint = np.int64(pool[HINT][h])
            if is_first:
                mine[0], mine[1], mine[FIRST_ROW] = hint, 0, first_row + row
            else:
                mine[0] = np.int64(adjust_hint(mine[0], hint))
            if hint == HINT_RESET:
                mine[1] |= 1
            elif hint == HINT_NOT_RESET:
                mine[1] |= 2
            _add_number(pool[ZERO_COUNT][h], head, 0, is_first)
            _add_number(pool[COUNT][h], head, 2, is_first)
            _add_number(pool[SUM][h], head, 4, is_first)
            a, b = pool[POS_OFFSETS][h], pool[POS_OFFSETS][h + 1]
            if b > a:
                add_side(
                    pool[POS_INDEX], pool[POS_COUNT], a, b, pos_base, pos_value[cell], pos_comp[cell],
                    pos_seen[cell],
                )  # fmt: skip
            a, b = pool[NEG_OFFSETS][h], pool[NEG_OFFSETS][h + 1]
            if b > a:
                add_side(
                    pool[NEG_INDEX], pool[NEG_COUNT], a, b, neg_base, neg_value[cell], neg_comp[cell],
                    neg_seen[cell],
                )  # fmt: skip


@kernel(
    "void(boolean[::1], int64, float64, int64[:, ::1], float64[:, ::1], int64, float64[:, ::1],"
    " float64[:, ::1], uint8[:, ::1], int64, float64[:, ::1], float64[:, ::1], uint8[:, ::1],"
    f" {POOL}, int32[::1], uint8[::1], int64[::1])",
    group="read",
)
def take(
    allowed: Bools,
    schema: int,
    threshold: float,
    ints: I64,
    heads: F64,
    pos_base: int,
    pos_value: F64,
    pos_comp: F64,
    pos_seen: U8,
    neg_base: int,
    neg_value: F64,
    neg_comp: F64,
    neg_seen: U8,
    out: Pool,
    index: I32,
    flags: U8,
    fill: I64,
) -> None:
    """The sums of cells `allowed` bool[C] into `out`, without empty buckets; the columns are used up. `index`
    i32[C], -1 for none, and `flags` u8[C] as `histogramcombine.combine`; `fill` i64[4] gets histograms,
    positive and negative buckets and bounds written."""
    written, positives, negatives = 0, 0, 0
    out[POS_OFFSETS][0], out[NEG_OFFSETS][0], out[CUSTOM_OFFSETS][0] = 0, 0, 0
    for cell in range(len(allowed)):
        index[cell], flags[cell] = -1, 0
        if not allowed[cell] or ints[cell, FIRST_ROW] < 0:
            continue
        if ints[cell, 1] == 3:
            flags[cell] = COLLISION
        head = heads[cell]
        out[SCHEMA][written], out[HINT][written] = schema, ints[cell, 0]
        out[ZERO_THRESHOLD][written] = threshold
        out[ZERO_COUNT][written] = folded(head[0], head[1], 0.0)
        out[COUNT][written], out[SUM][written] = folded(head[2], head[3], 0.0), folded(head[4], head[5], 0.0)
        positives = take_side(
            pos_base, 0, pos_value.shape[1], pos_value[cell], pos_comp[cell], pos_seen[cell], 0.0, True,
            out[POS_INDEX], out[POS_COUNT], positives,
        )  # fmt: skip
        negatives = take_side(
            neg_base, 0, neg_value.shape[1], neg_value[cell], neg_comp[cell], neg_seen[cell], 0.0, True,
            out[NEG_INDEX], out[NEG_COUNT], negatives,
        )  # fmt: skip
        index[cell] = written
        written += 1
        out[POS_OFFSETS][written], out[NEG_OFFSETS][written] = positives, negatives
        out[CUSTOM_OFFSETS][written] = 0
    fill[0], fill[1], fill[2], fill[3] = written, positives, negatives, 0
