"""Remote-write requests to columns in one pass over the decompressed protobuf.

In: the message, and the series table (open addressing, `tsdb/kernels/table.py`). Out: a row a TimeSeries
(where its labels are, two hashes of them, its ref or MISSING, its first sample) and a column entry a sample.
Everything that is rare (exemplars, native histograms, metadata) leaves as a list of byte spans for slower
code. Values travel as bits, so that a stale marker survives.

Capacities: a kernel counts what it finds and stores what fits. When a count in `state` exceeds a capacity,
the caller grows its arrays and decodes again.

Measured with 10 labels, one sample a series, 5,000 series a request, one core (2026-11-23): 69 ns a sample,
3.9 GB/s; version 2 with the same series 56 ns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.kernels.wire import (
    TRUNCATED,
    WIRE_BYTES,
    WIRE_FIXED64,
    WIRE_VARINT,
    WRONG_WIRE_TYPE,
    read_field,
    read_key,
    read_varint,
    skip_value,
)
from tsdb.kernels.bits import Word, load64
from tsdb.kernels.compile import inline, kernel
from tsdb.kernels.hashing import hash_region
from tsdb.kernels.table import check_of, lookup

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

MISSING = 0xFFFFFFFF
"""Ref of a row whose series is not in the table (yet)."""

ROW_FAST = 0
"""The row's span is its label region, and the hashes are of it."""
ROW_SLOW = 1
"""The labels need slow code: not contiguous, none at all, or bad symbol references. The span is the whole
TimeSeries, and the row has no hashes."""

STATE_ROWS, STATE_SAMPLES, STATE_SPANS, STATE_SYMBOLS, STATE_OFFSET, STATE_MISSING, STATE_SINGLE = range(7)
"""MISSING counts the rows without a ref; SINGLE is 1 where every row has exactly one sample."""
STATE_LENGTH = 7

SPAN_EXEMPLAR = 1
SPAN_HISTOGRAM = 2
SPAN_METADATA = 3

_TAG_FIELD_1_FIXED64 = 0x09
_TAG_SERIES, _TAG_SAMPLE = 0x0A, 0x12
_VALUED_SAMPLE_BYTES, _BARE_SAMPLE_BYTES = 18, 9
"""A Sample in its TimeSeries: tag, length, value (absent where it is zero), time of six bytes."""
_LOW7 = 0x7F
_U1, _U2, _U3, _U4, _U5, _U8 = (np.uint64(n) for n in (1, 2, 3, 4, 5, 8))
_SAMPLE_MASK, _VALUED_SAMPLE = np.uint64(0xFFFFFF), np.uint64(0x091012)
_TIME_MASK, _TIME_MARKS = np.uint64(0x808080808080FF), np.uint64(0x00808080808010)
_LOW7_WORD, _SECOND7, _THIRD7, _FOURTH7, _FIFTH7, _SIXTH7 = (np.uint64(_LOW7 << 7 * n) for n in range(6))
_MISSING_REF = np.uint32(MISSING)


@inline
def add_span(
    kind: int,
    row: int,
    start: int,
    end: int,
    span_kind: U8Array,
    span_row: I64Array,
    span_start: I64Array,
    span_end: I64Array,
    state: I64Array,
) -> None:
    index = state[STATE_SPANS]
    if index < len(span_kind):
        span_kind[index] = kind
        span_row[index] = row
        span_start[index] = start
        span_end[index] = end
    state[STATE_SPANS] = index + 1


@inline
def read_sample(
    buf: U8Array,
    pos: int,
    end: int,
    t: I64Array,
    v: U64Array,
    start_t: I64Array,
    state: I64Array,
) -> int:
    """Append one Sample message; `start_t` may be empty (version 1 has none). 0 or an error code."""
    value = np.uint64(0)
    time = np.uint64(0)
    start_time = np.uint64(0)
    while pos < end:
        tag = buf[pos]
        if tag == _TAG_FIELD_1_FIXED64 and end - pos >= 9:
            value = load64(buf, pos + 1)
            pos += 9
            continue
        field, wire, after = read_key(buf, pos, end)
        if after >= 0:
            if field == 1:
                if wire != WIRE_FIXED64:
                    after = WRONG_WIRE_TYPE
                elif end - after < 8:
                    after = TRUNCATED
                else:
                    value = load64(buf, after)
                    after += 8
            elif field == 2 or (field == 3 and len(start_t) > 0):
                if wire != WIRE_VARINT:
                    after = WRONG_WIRE_TYPE
                elif field == 2:
                    time, after = read_varint(buf, after, end)
                else:
                    start_time, after = read_varint(buf, after, end)
            else:
                after = skip_value(buf, after, end, wire)
        if after < 0:
            state[STATE_OFFSET] = pos
            return after
        pos = after
    index = state[STATE_SAMPLES]
    if index < len(t):
        t[index] = np.int64(time)
        v[index] = value
        if len(start_t) > 0:
            start_t[index] = np.int64(start_time)
    state[STATE_SAMPLES] = index + 1
    return 0


@inline
def _read_series_v1(
    buf: U8Array,
    start: int,
    end: int,
    seed0: np.uint64,
    seed1: np.uint64,
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
    """One TimeSeries of version 1. 0 or an error code."""
    row = state[STATE_ROWS]
    first = state[STATE_SAMPLES]
    labels_start = start
    labels_end = start
    slow = ROW_FAST
    pos = start
    while pos < end:
        field, wire, begin, stop = read_field(buf, pos, end)
        if 1 <= field <= 4 and wire != WIRE_BYTES:
            stop = WRONG_WIRE_TYPE
        if stop < 0:
            state[STATE_OFFSET] = pos
            return stop
        if field == 1:
            if labels_end == labels_start:
                labels_start = pos
            elif labels_end != pos:
                slow = ROW_SLOW
            labels_end = stop
        elif field == 2:
            code = read_sample(buf, begin, stop, t, v, start_t, state)
            if code < 0:
                return code
        elif field <= 4:
            kind = SPAN_EXEMPLAR if field == 3 else SPAN_HISTOGRAM
            add_span(kind, row, begin, stop, span_kind, span_row, span_start, span_end, state)
        pos = stop
    if labels_end == labels_start:
        slow = ROW_SLOW
    if row < len(row_start):
        row_slow[row] = slow
        row_first[row] = first
        if slow == ROW_FAST:
            row_start[row] = labels_start
            row_end[row] = labels_end
            row_hash[row], row_check[row] = hash_region(buf, labels_start, labels_end, seed0, seed1)
        else:
            row_start[row] = start
            row_end[row] = end
    state[STATE_ROWS] = row + 1
    return 0


@inline
def read_plain(
    buf: U8Array,
    size: int,
    seed0: np.uint64,
    seed1: np.uint64,
    row_start: I64Array,
    row_end: I64Array,
    row_slow: U8Array,
    row_hash: U64Array,
    row_check: U64Array,
    row_first: I64Array,
    t: I64Array,
    v: U64Array,
    state: I64Array,
) -> bool:
    """Read a message on the assumption that it is nothing but TimeSeries which end in their only sample, of
    this century: what is before that sample is hashed unread.

    That is right where the table knows all regions: it has label regions only, so the bytes of such a region
    are labels however they came here, and the sample begins where they end. False where a row looks different
    or there is no room; what was written is then worth nothing.
    """
    row: Word = np.int64(0)
    pos: Word = np.int64(0)
    room: Word = min(len(row_start), len(t))
    while pos < size:
        if row >= room or size - pos < 3 or buf[pos] != _TAG_SERIES:
            return False
        low, high = np.int64(buf[pos + 1]), np.int64(buf[pos + 2])
        begin, stop = pos + 2, pos + 2 + low
        if low > _LOW7:
            if high > _LOW7:
                return False
            begin, stop = pos + 3, pos + 3 + (low & _LOW7) + (high << 7)
        if stop > size or stop - begin <= _VALUED_SAMPLE_BYTES:
            return False
        # The time: its tag and six bytes, the last of which goes on no further.
        time = load64(buf, stop - 8) >> _U8
        if time & _TIME_MASK != _TIME_MARKS:
            return False
        labels_end = stop - _VALUED_SAMPLE_BYTES
        value = np.uint64(0)
        if load64(buf, labels_end) & _SAMPLE_MASK == _VALUED_SAMPLE:
            value = load64(buf, labels_end + 3)
        elif buf[stop - _BARE_SAMPLE_BYTES] == _TAG_SAMPLE and buf[stop - 8] == _BARE_SAMPLE_BYTES - 2:
            labels_end = stop - _BARE_SAMPLE_BYTES
        else:
            return False
        time >>= _U8
        early = (time & _LOW7_WORD) | ((time >> _U1) & _SECOND7) | ((time >> _U2) & _THIRD7)
        late = ((time >> _U3) & _FOURTH7) | ((time >> _U4) & _FIFTH7) | ((time >> _U5) & _SIXTH7)
        t[row] = np.int64(early | late)
        v[row] = value
        row_start[row] = begin
        row_end[row] = labels_end
        row_slow[row] = ROW_FAST
        row_first[row] = row
        row_hash[row], row_check[row] = hash_region(buf, begin, labels_end, seed0, seed1)
        row += 1
        pos = stop
    state[STATE_ROWS] = row
    state[STATE_SAMPLES] = row
    return True


@inline
def find_refs(
    keys: U64Array,
    checks: U32Array,
    refs: U32Array,
    row_slow: U8Array,
    row_hash: U64Array,
    row_check: U64Array,
    row_ref: U32Array,
    row_first: I64Array,
    state: I64Array,
) -> None:
    """Refs of all rows, and the end of their samples. A loop of its own: independent look-ups overlap their
    cache misses."""
    row_count = min(state[STATE_ROWS], len(row_ref))
    missing = 0
    single = state[STATE_SAMPLES] == state[STATE_ROWS]
    for row in range(row_count):
        single &= row_first[row] == row
        row_ref[row] = _MISSING_REF
        if row_slow[row] == ROW_FAST:
            ref = lookup(keys, checks, refs, row_hash[row], check_of(row_check[row]))
            if ref >= 0:
                row_ref[row] = np.uint32(ref)
                continue
        missing += 1
    row_first[row_count] = state[STATE_SAMPLES]
    state[STATE_MISSING] = missing
    state[STATE_SINGLE] = np.int64(single)


@kernel(
    "int64(uint8[::1], int64, uint64[::1], uint32[::1], uint32[::1], uint64, uint64,"
    " int64[::1], int64[::1], uint8[::1], uint64[::1], uint64[::1], uint32[::1], int64[::1],"
    " int64[::1], uint64[::1], int64[::1],"
    " uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1])",
    group="write",
)
def decode_v1(
    buf: U8Array,
    size: int,
    keys: U64Array,
    checks: U32Array,
    refs: U32Array,
    seed0: np.uint64,
    seed1: np.uint64,
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
    """Decode `buf[:size]`, a prometheus.WriteRequest. 0, or an error code with the offset in `state`."""
    for index in range(STATE_LENGTH):
        state[index] = 0
    if size > 0 and read_plain(
        buf,
        size,
        seed0,
        seed1,
        row_start,
        row_end,
        row_slow,
        row_hash,
        row_check,
        row_first,
        t,
        v,
        state,
    ):
        find_refs(keys, checks, refs, row_slow, row_hash, row_check, row_ref, row_first, state)
        if state[STATE_MISSING] == 0:
            return 0
    for index in range(STATE_LENGTH):
        state[index] = 0
    pos = 0
    while pos < size:
        field, wire, begin, stop = read_field(buf, pos, size)
        if (field == 1 or field == 3) and wire != WIRE_BYTES:
            stop = WRONG_WIRE_TYPE
        if stop < 0:
            state[STATE_OFFSET] = pos
            return stop
        if field == 3:
            add_span(SPAN_METADATA, -1, begin, stop, span_kind, span_row, span_start, span_end, state)
        elif field == 1:
            code = _read_series_v1(
                buf,
                begin,
                stop,
                seed0,
                seed1,
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
