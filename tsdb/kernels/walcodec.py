"""Columns of samples to and from the payload of a WAL record (docs/formats/wal.md).

Refs and times are differences to the sample before in the record, repetitions counted. A value is coded
against what the series had before it in the same segment (kernels.walvalues), which the head still holds: a
segment can be read without the ones before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    ACCEPTED,
    HAS_SAMPLE,
    LAST_IS_HISTOGRAM,
    LAST_T,
    LAST_V,
    LATE,
    META,
    REPEATED,
    SLOT_MASK,
    UNKNOWN_SERIES,
)
from tsdb.kernels.bits import Word, store64
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.walvalues import (
    FLAGS_MASK,
    VALUE_BITS_LIMIT,
    put_value,
    stamp_of,
    state_in,
    take_value,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

KEY_BYTES_LIMIT = 17
"""Varints of a ref difference (5), a time difference (10), and of how often they repeat (1 each)."""
VALUE_BYTES_LIMIT = (VALUE_BITS_LIMIT + 7) // 8
CODED_PADDING = 8
"""The last word is stored whole."""

BELOW_OLDEST = 6
"""Code of a replayed sample that is in a block already."""

_U0, _U1, _U7, _U63 = (np.uint64(n) for n in (0, 1, 7, 63))
_FLAGS = np.uint64(FLAGS_MASK)
_SLOT_MASK = np.uint32(SLOT_MASK)
_GENERATION_SHIFT = np.uint32(24)
_LAST_IS_HISTOGRAM = np.uint64(LAST_IS_HISTOGRAM)
_HAS_SAMPLE = np.uint64(HAS_SAMPLE)


@inline
def _put_varint(out: U8Array, at: Word, difference: Word) -> Word:
    """Zigzag varint of an int64; returns the position after it."""
    value = (np.uint64(difference) << _U1) ^ np.uint64(difference >> 63)
    while value >= np.uint64(0x80):
        out[at] = np.uint8(value | np.uint64(0x80))
        value >>= _U7
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@device
def _put_run(out: U8Array, at: Word, difference: Word, before: Word, run: Word) -> tuple[Word, Word]:
    """Append a difference, or count it: what comes twice is followed by how often it comes again.

    `run` is how often `before` came; returns the position and the run of this difference.
    """
    if run > 0 and difference == before:
        if run == 1:
            at = _put_varint(out, at, difference)
        return at, run + 1
    return _put_varint(out, _end_run(out, at, run), difference), np.int64(1)


@inline
def _end_run(out: U8Array, at: Word, run: Word) -> Word:
    return _put_varint(out, at, run - 2) if run > 1 else at


@device
def encode_all(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
    wanted: int,
    segment: int,
    undo: U64Array,
    rows: U64Array,
    keys: U8Array,
    coded: U8Array,
    sizes: I64Array,
) -> Word:
    """Code the samples whose code is `wanted`: ACCEPTED ones against their series, LATE ones against zero.

    `undo` is that of `admit`; META of a series' row notes the segment. `keys` gets the refs, then the times;
    `coded` the values; `sizes` i64[3] their lengths. Returns the number of samples.
    """
    count = 0
    at = np.int64(0)
    last = np.int64(0)
    before, run = np.int64(0), np.int64(0)
    for i in range(len(refs)):
        if codes[i] == wanted:
            difference = np.int64(refs[i]) - last
            at, run = _put_run(keys, at, difference, before, run)
            last, before = np.int64(refs[i]), difference
            count += 1
    at = _end_run(keys, at, run)
    sizes[0] = at
    last, before, run = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(refs)):
        if codes[i] == wanted:
            # Modulo 2^64: a signed difference of far times may overflow, which LLVM takes for impossible.
            difference = np.int64(np.uint64(t_ms[i]) - np.uint64(last))
            at, run = _put_run(keys, at, difference, before, run)
            last, before = t_ms[i], difference
    at = _end_run(keys, at, run)
    sizes[1] = at - sizes[0]
    sizes[2] = _put_values(refs, values, codes, wanted, stamp_of(segment), undo, rows, coded)
    return np.int64(count)


@kernel(
    "int64(uint32[::1], int64[::1], uint64[::1], uint8[::1], int64, int64, uint64[:,::1], uint64[:,::1],"
    " uint8[::1], uint8[::1], int64[::1])",
    group="write",
)
def encode_samples(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
    wanted: int,
    segment: int,
    undo: U64Array,
    rows: U64Array,
    keys: U8Array,
    coded: U8Array,
    sizes: I64Array,
) -> Word:
    """`encode_all` by itself."""
    return encode_all(refs, t_ms, values, codes, wanted, segment, undo, rows, keys, coded, sizes)


@device
def _put_values(
    refs: U32Array,
    values: U64Array,
    codes: U8Array,
    wanted: Word,
    stamp: Word,
    undo: U64Array,
    rows: U64Array,
    coded: U8Array,
) -> Word:
    """Code the values of `encode_samples`; returns the bytes used."""
    at = np.int64(0)
    acc, fill = _U0, _U0
    fresh = state_in(_U0, stamp)
    state, before, ref = fresh, _U0, np.uint32(0)
    for i in range(len(refs)):
        if codes[i] != wanted:
            continue
        if wanted == ACCEPTED:
            row = rows[refs[i] & _SLOT_MASK]
            state = state_in(row[META], stamp)
            before = undo[i, 1] if state == row[META] & ~_FLAGS else _U0
            acc, fill, at, state = put_value(coded, acc, fill, at, values[i], before, state)
            row[META] = (row[META] & _FLAGS) | state
        else:
            if refs[i] != ref:
                state, before, ref = fresh, _U0, refs[i]
            acc, fill, at, state = put_value(coded, acc, fill, at, values[i], before, state)
            before = values[i]
    store64(coded, at, acc)
    return at + np.int64((fill + _U7) >> np.uint64(3))


@inline
def take_varint(data: U8Array, at: Word, end: Word) -> tuple[Word, Word]:
    """Zigzag varint as int64 and the position after it; a position of -1 for a bad one."""
    value = _U0
    shift = _U0
    while True:
        if at >= end or shift > _U63:
            return np.int64(0), np.int64(-1)
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> _U1) ^ -np.int64(value & _U1), at
        shift += _U7


@device
def _take_run(data: U8Array, at: Word, end: Word, before: Word, run: Word) -> tuple[Word, Word, Word]:
    """Undo `_put_run`: a difference, the position, and the run: 1, or less by how often it comes again."""
    if run < 0:
        return before, at, run + 1
    difference, at = take_varint(data, at, end)
    if at >= 0 and run > 0 and difference == before:
        more, at = take_varint(data, at, end)
        if more < 0:
            at = np.int64(-1)
        # A run of -n stands for n repetitions to come; none leaves 0, so that the next one begins anew.
        return difference, at, -more
    return difference, at, np.int64(1)


@kernel(
    "int64(Array(uint8, 1, 'C', True), int64, int64, int64, uint32[::1], int64[::1])",
    group="write",
)
def read_keys(
    data: U8Array, count: int, refs_size: int, times_size: int, refs: U32Array, t_ms: I64Array
) -> Word:
    """The part of decoding a samples record that needs no head: refs and times.

    Returns 0, or -1 for a payload that does not decode.
    """
    at = np.int64(0)
    times = np.int64(refs_size)
    end = times + np.int64(times_size)
    if end > len(data) or count > len(refs):
        return np.int64(-1)
    ref, t = _U0, _U0
    difference, run, step, time_run = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for i in range(count):
        difference, at, run = _take_run(data, at, refs_size, difference, run)
        step, times, time_run = _take_run(data, times, end, step, time_run)
        if at < 0 or times < 0:
            return np.int64(-1)
        ref += np.uint64(difference)
        t += np.uint64(step)
        refs[i] = np.uint32(ref)
        t_ms[i] = np.int64(t)
    return np.int64(0)


@kernel(
    "int64(Array(uint8, 1, 'C', True), int64[:,::1], int64, int64, int64, int64, uint8[::1], uint8[::1],"
    " uint64[:,::1], uint64[:,::1], uint32[::1], int64[::1], uint64[::1], uint8[::1])",
    group="write",
)
def replay_samples(
    coded: U8Array,
    parts: I64Array,
    late: int,
    segment: int,
    oldest: int,
    slots_used: int,
    alive: U8Array,
    generation: U8Array,
    rows: U64Array,
    orphans: U64Array,
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
) -> Word:
    """Decode values and make codes for `store`, moving series rows on as `admit` did.

    `parts` i64[P, 2] are the samples and coded bytes of records side by side. Samples before `oldest`, which
    a block has, and those of unknown series are not stored; `orphans` u64[slots, 2] (value, state) stands for
    the rows of the latter. Returns the number of samples to store, or -1 for bits that do not decode.
    """
    kept = 0
    stamp = stamp_of(segment)
    fresh = state_in(_U0, stamp)
    i = 0
    origin = np.int64(0)
    for part in range(len(parts)):
        at = origin << 3
        origin += parts[part, 1]
        state, before, ref = fresh, _U0, np.uint32(0)
        for _ in range(parts[part, 0]):
            slot = refs[i] & _SLOT_MASK
            young = np.uint8(refs[i] >> _GENERATION_SHIFT)
            known = slot < slots_used and alive[slot] != 0 and generation[slot] == young
            if not known and slot >= len(orphans):
                return np.int64(-1)
            row = rows[slot if known else np.uint32(0)]
            orphan = orphans[np.uint32(0) if known else slot]
            if late != 0:
                if refs[i] != ref:
                    state, before, ref = fresh, _U0, refs[i]
            elif known:
                state = state_in(row[META], stamp)
                before = row[LAST_V] if state == row[META] & ~_FLAGS else _U0
            else:
                same = np.uint8(orphan[1] & _FLAGS) == young
                state = state_in(orphan[1], stamp) if same else fresh
                before = orphan[0] if same and state == orphan[1] & ~_FLAGS else _U0
            bits, state, at = take_value(coded, at, before, state)
            if at < 0 or at > origin << 3:
                return np.int64(-1)
            values[i] = bits
            before = bits
            if late != 0:
                code = LATE if t_ms[i] >= oldest else BELOW_OLDEST
                codes[i] = code if known else UNKNOWN_SERIES
            elif known:
                codes[i] = _move_row(row, t_ms[i], bits, state, oldest)
            else:
                orphan[0] = bits
                orphan[1] = state | np.uint64(young)
                codes[i] = UNKNOWN_SERIES
            kept += codes[i] == LATE or codes[i] == ACCEPTED
            i += 1
    return np.int64(kept)


@inline
def _move_row(row: U64Array, t: Word, bits: Word, state: Word, oldest: Word) -> Word:
    """Note a replayed sample in the row of its series; returns its code."""
    flags = row[META] & _FLAGS
    row[LAST_V] = bits
    if flags & _HAS_SAMPLE != _U0 and t <= np.int64(row[LAST_T]):
        row[META] = flags | state
        return REPEATED
    row[LAST_T] = np.uint64(t)
    row[META] = (flags & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE | state
    return ACCEPTED if t >= oldest else BELOW_OLDEST
