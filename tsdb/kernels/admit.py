"""Judge samples by Prometheus's rules before they are logged and stored, and take that back.

In bounds and order, and no other value for a time; see `Head.rules` for what the bounds are. A series' newest
time and value move on at once, so that a batch is judged as if its samples came one by one.
"""

from __future__ import annotations

import numpy as np

from tsdb.kernels.append import (
    ACCEPTED,
    AHEAD,
    COMPARE,
    DUPLICATE,
    HAS_SAMPLE,
    LAST_IS_HISTOGRAM,
    LAST_T,
    LAST_V,
    LATE,
    META,
    OUT_OF_BOUNDS,
    OUT_OF_ORDER,
    REPEATED,
    ROW_SHIFT,
    RULE_FUTURE,
    RULE_HEAD_MAX,
    RULE_HISTOGRAM,
    RULE_LATE_WINDOW,
    RULE_MIN_VALID,
    RULE_SLOTS,
    SLOT_MASK,
    TOO_OLD,
    UNKNOWN_SERIES,
    I64Array,
    U8Array,
    U32Array,
    U64Array,
)
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.prefetch import prefetch

_ZERO = np.uint64(0)
_HAS_SAMPLE = np.uint64(HAS_SAMPLE)
_LAST_IS_HISTOGRAM = np.uint64(LAST_IS_HISTOGRAM)
_SLOT_MASK = np.uint32(SLOT_MASK)
_GENERATION_SHIFT = np.uint32(24)


@inline
def _judge(t: Word, value: Word, row: U64Array, rules: I64Array) -> Word:
    """The code of one sample of a known series."""
    if t > rules[RULE_FUTURE]:
        return OUT_OF_BOUNDS
    window, newest = rules[RULE_LATE_WINDOW], rules[RULE_HEAD_MAX]
    if t >= rules[RULE_MIN_VALID]:
        meta = row[META]
        last = np.int64(row[LAST_T])
        if meta & _HAS_SAMPLE == _ZERO or t > last:
            return ACCEPTED
        if t == last:
            if rules[RULE_HISTOGRAM] != 0:
                return COMPARE if meta & _LAST_IS_HISTOGRAM != _ZERO else DUPLICATE
            if meta & _LAST_IS_HISTOGRAM != _ZERO or row[LAST_V] != value:
                return DUPLICATE
            return REPEATED
    if window > 0:
        # Times are subtracted as unsigned: a signed difference of far times overflows, which is undefined.
        return LATE if t >= newest or np.uint64(newest) - np.uint64(t) <= np.uint64(window) else TOO_OLD
    return OUT_OF_BOUNDS if t < rules[RULE_MIN_VALID] else OUT_OF_ORDER


@device
def admit_all(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    alive: U8Array,
    generation: U8Array,
    rows: U64Array,
    rules: I64Array,
    codes: U8Array,
    undo: U64Array,
) -> Word:
    """Judge each sample in turn and move the newest time and value of its series on.

    `codes[i]` becomes a code of `tsdb.kernels.append`; `undo` u64[N, 3] remembers what `retract` puts back.
    Returns the number of samples refused.
    """
    refused = 0
    mark = _HAS_SAMPLE | _LAST_IS_HISTOGRAM if rules[RULE_HISTOGRAM] != 0 else _HAS_SAMPLE
    for i in range(len(refs)):
        if i + AHEAD < len(refs):
            prefetch(rows, np.int64(refs[i + AHEAD] & _SLOT_MASK) << ROW_SHIFT)
        slot = refs[i] & _SLOT_MASK
        if (
            slot >= rules[RULE_SLOTS]
            or alive[slot] == 0
            or generation[slot] != np.uint8(refs[i] >> _GENERATION_SHIFT)
        ):
            codes[i] = UNKNOWN_SERIES
            refused += 1
            continue
        row = rows[slot]
        code = _judge(t_ms[i], values[i], row, rules)
        codes[i] = code
        if code == ACCEPTED:
            undo[i, 0] = row[LAST_T]
            undo[i, 1] = row[LAST_V]
            undo[i, 2] = row[META]
            row[LAST_T] = np.uint64(t_ms[i])
            row[LAST_V] = values[i]
            row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | mark
        elif code < COMPARE:
            refused += 1
    return refused


@kernel(
    "int64(uint32[::1], int64[::1], uint64[::1], uint8[::1], uint8[::1], uint64[:,::1], int64[::1],"
    " uint8[::1], uint64[:,::1])",
    group="write",
)
def admit(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    alive: U8Array,
    generation: U8Array,
    rows: U64Array,
    rules: I64Array,
    codes: U8Array,
    undo: U64Array,
) -> Word:
    """`admit_all` by itself."""
    return admit_all(refs, t_ms, values, alive, generation, rows, rules, codes, undo)


@kernel("void(uint32[::1], uint8[::1], uint64[:,::1], uint64[:,::1])", group="write")
def retract(refs: U32Array, codes: U8Array, undo: U64Array, rows: U64Array) -> None:
    """Undo what `admit` did for accepted samples, newest first."""
    for i in range(len(refs) - 1, -1, -1):
        if codes[i] == ACCEPTED:
            row = rows[refs[i] & _SLOT_MASK]
            row[LAST_T] = undo[i, 0]
            row[LAST_V] = undo[i, 1]
            row[META] = undo[i, 2]
