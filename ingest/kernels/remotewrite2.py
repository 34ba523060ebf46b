"""Remote write 2.0 to columns: as `remotewrite`, with labels as references to a symbol table.

The symbols are hashed once a request; a series' key is folded from the hashes of its symbols, so that it does
not depend on their numbers, which differ from request to request.
"""

from __future__ import annotations

import numpy as np

from ingest.kernels.remotewrite import (
    ROW_FAST,
    ROW_SLOW,
    SPAN_EXEMPLAR,
    SPAN_HISTOGRAM,
    SPAN_METADATA,
    STATE_LENGTH,
    STATE_OFFSET,
    STATE_ROWS,
    STATE_SAMPLES,
    STATE_SYMBOLS,
    I64Array,
    U8Array,
    U32Array,
    U64Array,
    add_span,
    find_refs,
    read_sample,
)
from ingest.kernels.wire import (
    WIRE_BYTES,
    WIRE_VARINT,
    WRONG_WIRE_TYPE,
    read_field,
    read_varint,
)
from tsdb.kernels.bits import fold_multiply
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.hashing import hash_region

_MIX_0 = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xD6E8FEB86659FD93)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@inline
def _fold_symbol(
    running: np.uint64, check: np.uint64, symbol_hash: np.uint64, symbol_check: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Both lanes of a running hash over symbols; depends on their order."""
    left = fold_multiply(running ^ symbol_hash, _MIX_0 ^ symbol_check)
    right = fold_multiply(check ^ symbol_check, _MIX_1 ^ symbol_hash)
    return left, right


@inline
def _read_series_v2(
    buf: U8Array,
    start: int,
    end: int,
    seed0: np.uint64,
    seed1: np.uint64,
    symbol_count: int,
    symbol_hash: U64Array,
    symbol_check: U64Array,
    row_start: I64Array,
    row_end: I64Array,
    row_slow: U8Array,
    row_hash: U64Array,
    row_check: U64Array,
    row_first: I64Array,
    t: I64Array,
    v: U64Array,
    start_t: I64Array,
    span_kind: U8Array,
    span_row: I64Array,
    span_start: I64Array,
    span_end: I64Array,
    state: I64Array,
) -> int:
    """One TimeSeries of version 2; its key is folded from the hashes of its symbols. 0 or an error code."""
    row = state[STATE_ROWS]
    first = state[STATE_SAMPLES]
    left = ~seed0
    right = ~seed1
    label_refs = 0
    slow = ROW_FAST
    pos = start
    while pos < end:
        field, wire, begin, stop = read_field(buf, pos, end)
        if 1 <= field <= 5 and wire != WIRE_BYTES and (field > 1 or wire != WIRE_VARINT):
            stop = WRONG_WIRE_TYPE
        if stop < 0:
            state[STATE_OFFSET] = pos
            return stop
        if field == 1:
            # Packed, or a reference by itself, whose value is read once more.
            while begin < stop:
                symbol, begin = read_varint(buf, begin, stop)
                if begin < 0:
                    state[STATE_OFFSET] = pos
                    return begin
                symbol &= np.uint64(0xFFFFFFFF)
                label_refs += 1
                if symbol < np.uint64(symbol_count):
                    index = np.int64(symbol)
                    left, right = _fold_symbol(left, right, symbol_hash[index], symbol_check[index])
                else:
                    slow = ROW_SLOW
        elif field == 2:
            code = read_sample(buf, begin, stop, t, v, start_t, state)
            if code < 0:
                return code
        elif field <= 5:
            kind = SPAN_METADATA
            if field == 3:
                kind = SPAN_HISTOGRAM
            elif field == 4:
                kind = SPAN_EXEMPLAR
            add_span(kind, row, begin, stop, span_kind, span_row, span_start, span_end, state)
        pos = stop
    if label_refs == 0 or label_refs % 2 == 1:
        slow = ROW_SLOW
    if row < len(row_start):
        row_start[row] = start
        row_end[row] = end
        row_slow[row] = slow
        row_hash[row] = _ONE if left == _ZERO else left
        row_check[row] = right
        row_first[row] = first
    state[STATE_ROWS] = row + 1
    return 0


@device
def _read_symbols(
    buf: U8Array,
    size: int,
    seed0: np.uint64,
    seed1: np.uint64,
    symbol_start: I64Array,
    symbol_end: I64Array,
    symbol_hash: U64Array,
    symbol_check: U64Array,
    state: I64Array,
) -> int:
    """Spans and hashes of the symbol table, wherever in the message it is. 0 or an error code."""
    pos = 0
    while pos < size:
        field, wire, begin, stop = read_field(buf, pos, size)
        if (field == 4 or field == 5) and wire != WIRE_BYTES:
            stop = WRONG_WIRE_TYPE
        if stop < 0:
            state[STATE_OFFSET] = pos
            return stop
        if field == 4:
            index = state[STATE_SYMBOLS]
            if index < len(symbol_start):
                symbol_start[index] = begin
                symbol_end[index] = stop
                symbol_hash[index], symbol_check[index] = hash_region(buf, begin, stop, seed0, seed1)
            state[STATE_SYMBOLS] = index + 1
        pos = stop
    return 0


@kernel(
    "int64(uint8[::1], int64, uint64[::1], uint32[::1], uint32[::1], uint64, uint64,"
    " int64[::1], int64[::1], uint64[::1], uint64[::1],"
    " int64[::1], int64[::1], uint8[::1], uint64[::1], uint64[::1], uint32[::1], int64[::1],"
    " int64[::1], uint64[::1], int64[::1],"
    " uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1])",
    group="write",
)
def decode_v2(
    buf: U8Array,
    size: int,
    keys: U64Array,
    checks: U32Array,
    refs: U32Array,
    seed0: np.uint64,
    seed1: np.uint64,
    symbol_start: I64Array,
    symbol_end: I64Array,
    symbol_hash: U64Array,
    symbol_check: U64Array,
    row_start: I64Array,
    row_end: I64Array,
    row_slow: U8Array,
    row_hash: U64Array,
    row_check: U64Array,
    row_ref: U32Array,
    row_first: I64Array,
    t: I64Array,
    v: U64Array,
    start_t: I64Array,
    span_kind: U8Array,
    span_row: I64Array,
    span_start: I64Array,
    span_end: I64Array,
    state: I64Array,
) -> int:
    """Decode `buf[:size]`, an io.prometheus.write.v2.Request. A row's span is always the whole TimeSeries.

    0, or an error code with the offset in `state`. Stops after the symbol table when that does not fit.
    """
    for index in range(STATE_LENGTH):
        state[index] = 0
    code = _read_symbols(buf, size, seed0, seed1, symbol_start, symbol_end, symbol_hash, symbol_check, state)
    if code < 0 or state[STATE_SYMBOLS] > len(symbol_start):
        return code
    pos = 0
    while pos < size:
        # `_read_symbols` has walked the same fields, so that none of them is malformed.
        field, _, begin, stop = read_field(buf, pos, size)
        if field == 5:
            code = _read_series_v2(
                buf,
                begin,
                stop,
                seed0,
                seed1,
                state[STATE_SYMBOLS],
                symbol_hash,
                symbol_check,
                row_start,
                row_end,
                row_slow,
                row_hash,
                row_check,
                row_first,
                t,
                v,
                start_t,
                span_kind,
                span_row,
                span_start,
                span_end,
                state,
            )
            if code < 0:
                return code
        pos = stop
    find_refs(keys, checks, refs, row_slow, row_hash, row_check, row_ref, row_first, state)
    return 0
