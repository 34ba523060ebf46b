"""Columns of samples to and from the payload of a WAL record (docs/formats/wal.md).

Refs and times are differences to the sample before in the record. A value is coded against the value of the
same series that was logged before it in the same segment, which the head still holds: equal, an integer
difference, a difference of thousandths, or the bytes of the xor that are not zero. The first value of a
series in a segment is coded against zero bits, so that a segment can be read without the ones before it.
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
from tsdb.kernels.bits import Word, bits_float, float_bits, leading_zeros64, trailing_zeros64
from tsdb.kernels.compile import inline, kernel

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

KEY_BYTES_LIMIT = 15
"""Varints of a ref difference (5) and a time difference (10)."""
VALUE_BYTES_LIMIT = 9

# Tags of a value. INTEGER and THOUSANDTH carry their byte count (1 to 7), XOR leading and trailing zero
# bytes.
SAME, INTEGER, THOUSANDTH, XOR = 0x00, 0x10, 0x20, 0x80

BELOW_OLDEST = 6
"""Code of a replayed sample that is in a block already."""

_U0, _U1, _U3, _U6, _U7, _U8 = (np.uint64(n) for n in (0, 1, 3, 6, 7, 8))
_U32, _U63 = np.uint64(32), np.uint64(63)
_LOW32 = np.uint64(0xFFFFFFFF)
_SLOT_MASK = np.uint32(SLOT_MASK)
_GENERATION_SHIFT = np.uint32(24)
_EXACT = 9007199254740992.0
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


@inline
def _put_number(out: U8Array, at: Word, tag: Word, difference: Word) -> Word:
    value = (np.uint64(difference) << _U1) ^ np.uint64(difference >> 63)
    size = (np.int64(71) - np.int64(leading_zeros64(value))) >> 3
    out[at] = np.uint8(tag + size)
    for _ in range(size):
        at += 1
        out[at] = np.uint8(value)
        value >>= _U8
    return at + 1


@inline
def _put_value(out: U8Array, at: Word, bits: Word, before: Word) -> Word:
    """Code one value against the one before; returns the position after it."""
    if bits == before:
        out[at] = SAME
        return at + 1
    value, old = bits_float(bits), bits_float(before)
    if abs(value) < _EXACT and abs(old) < _EXACT:
        whole, old_whole = np.int64(value), np.int64(old)
        if float_bits(np.float64(whole)) == bits and np.float64(old_whole) == old:
            return _put_number(out, at, INTEGER, whole - old_whole)
        if abs(value) < 1e12 and abs(old) < 1e12:
            milli, old_milli = np.int64(np.rint(value * 1000.0)), np.int64(np.rint(old * 1000.0))
            if float_bits(milli / 1000.0) == bits:
                return _put_number(out, at, THOUSANDTH, milli - old_milli)
    xor = bits ^ before
    lead = leading_zeros64(xor) >> _U3
    trail = trailing_zeros64(xor) >> _U3
    out[at] = np.uint8(np.uint64(XOR) | (lead << _U3) | trail)
    xor >>= trail << _U3
    for _ in range(np.int64(_U8 - lead - trail)):
        at += 1
        out[at] = np.uint8(xor)
        xor >>= _U8
    return at + 1


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
    hot: U64Array,
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
    before_ref = np.int64(0)
    for i in range(len(refs)):
        if codes[i] == wanted:
            at = _put_varint(keys, at, np.int64(refs[i]) - before_ref)
            before_ref = np.int64(refs[i])
            count += 1
    sizes[0] = at
    before_t = np.int64(0)
    for i in range(len(refs)):
        if codes[i] == wanted:
            # Modulo 2^64: a signed difference of far times may overflow, which LLVM takes for impossible.
            at = _put_varint(keys, at, np.int64(np.uint64(t_ms[i]) - np.uint64(before_t)))
            before_t = t_ms[i]
    sizes[1] = at - sizes[0]
    at = np.int64(0)
    for i in range(len(refs)):
        if codes[i] != wanted:
            continue
        before = _U0
        if wanted == ACCEPTED:
            row = hot[refs[i] & _SLOT_MASK]
            if np.int64(row[META] >> _U32) == segment:
                before = undo[i, 1]
            row[META] = (row[META] & _LOW32) | (np.uint64(segment) << _U32)
        at = _put_value(coded, at, values[i], before)
    sizes[2] = at
    return np.int64(count)


@inline
def _take_varint(data: U8Array, at: Word, end: Word) -> tuple[Word, Word]:
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


@inline
def _take_coded(data: U8Array, at: Word, end: Word) -> tuple[Word, Word, Word]:
    """Tag and number of a coded value and the position after it; a position of -1 for a bad one."""
    if at >= end:
        return np.int64(SAME), _U0, np.int64(-1)
    tag = np.int64(data[at])
    at += 1
    size = tag & 0xF
    if tag == SAME:
        return tag, _U0, at
    if tag >= XOR:
        size = 8 - ((tag >> 3) & 7) - (tag & 7)
    elif (tag & 0xF0 != INTEGER and tag & 0xF0 != THOUSANDTH) or size > 8:
        return tag, _U0, np.int64(-1)
    if size < 0 or at + size > end:
        return tag, _U0, np.int64(-1)
    raw = _U0
    for i in range(size):
        raw |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return tag, raw, at + size


@inline
def _value_of(tag: Word, raw: Word, before: Word) -> Word:
    """Bits of a coded value, given those of the value before."""
    if tag == SAME:
        return before
    if tag >= XOR:
        return before ^ (raw << (np.uint64(tag & 7) << _U3))
    # Unsigned: a damaged difference must not overflow a signed sum.
    difference = (raw >> _U1) ^ (_U0 - (raw & _U1))
    old = bits_float(before)
    if tag & 0xF0 == INTEGER:
        return float_bits(np.float64(np.int64(np.uint64(np.int64(old)) + difference)))
    return float_bits(np.int64(np.uint64(np.int64(np.rint(old * 1000.0))) + difference) / 1000.0)


@kernel(
    "int64(Array(uint8, 1, 'C', True), int64, int64, int64, uint32[::1], int64[::1], uint64[::1],"
    " uint8[::1])",
    group="write",
)
def read_samples(
    data: U8Array,
    count: int,
    refs_size: int,
    times_size: int,
    refs: U32Array,
    t_ms: I64Array,
    numbers: U64Array,
    tags: U8Array,
) -> Word:
    """The part of decoding a samples record that needs no head: refs, times, values still coded.

    Returns 0, or -1 for a payload that does not decode.
    """
    at = np.int64(0)
    times = np.int64(refs_size)
    times_end = times + np.int64(times_size)
    coded = times_end
    end = np.int64(len(data))
    if coded > end or count > len(refs):
        return np.int64(-1)
    ref = _U0
    t = _U0
    for i in range(count):
        difference, at = _take_varint(data, at, refs_size)
        step, times = _take_varint(data, times, times_end)
        tag, raw, coded = _take_coded(data, coded, end)
        if at < 0 or times < 0 or coded < 0:
            return np.int64(-1)
        ref += np.uint64(difference)
        t += np.uint64(step)
        refs[i] = np.uint32(ref)
        t_ms[i] = np.int64(t)
        numbers[i] = raw
        tags[i] = np.uint8(tag)
    return np.int64(0)


@kernel(
    "int64(uint8[::1], int64, int64, int64, int64, uint8[::1], uint8[::1], uint64[:,::1], uint32[::1],"
    " int64[::1], uint64[::1], uint8[::1])",
    group="write",
)
def replay_samples(
    tags: U8Array,
    late: int,
    segment: int,
    oldest: int,
    slots_used: int,
    alive: U8Array,
    generation: U8Array,
    hot: U64Array,
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
) -> Word:
    """Turn what `read_samples` read into values and codes for `store`, moving series rows on as `admit` did.

    `values` holds the coded numbers and becomes the bits. Samples before `oldest`, which a block has, and
    those of unknown series are not stored. Returns the number of samples to store.
    """
    kept = 0
    for i in range(len(refs)):
        ref, t = refs[i], t_ms[i]
        slot = ref & _SLOT_MASK
        known = (
            slot < slots_used and alive[slot] != 0 and generation[slot] == np.uint8(ref >> _GENERATION_SHIFT)
        )
        row = hot[slot if known else np.uint32(0)]
        before = _U0
        if known and late == 0 and np.int64(row[META] >> _U32) == segment:
            before = row[LAST_V]
        bits = _value_of(np.int64(tags[i]), values[i], before)
        values[i] = bits
        if not known:
            codes[i] = UNKNOWN_SERIES
        elif late != 0:
            codes[i] = LATE if t >= oldest else BELOW_OLDEST
            kept += codes[i] == LATE
        elif row[META] & _HAS_SAMPLE != _U0 and t <= np.int64(row[LAST_T]):
            codes[i] = REPEATED
        else:
            row[LAST_T] = np.uint64(t)
            row[LAST_V] = bits
            flags = (row[META] & _LOW32 & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
            row[META] = flags | (np.uint64(segment) << _U32)
            codes[i] = ACCEPTED if t >= oldest else BELOW_OLDEST
            kept += codes[i] == ACCEPTED
    return np.int64(kept)
