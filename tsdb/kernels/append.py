"""Store samples that were admitted (`tsdb.kernels.admit`) into tails, chunks and chains; the layout of a row.

State of a series is a row of 128 bytes, two cache lines. Every other append touches only the first: newest
sample and the beginning of a tail of four raw samples. The second has the rest of the tail and what is needed
to encode a full tail onto the open XOR chunk. That lives in chained slabs of 64 bytes; a full chunk is copied
to the segment of sealed chunks. Out-of-order samples go to a chain of their own. The head passes all arrays;
their meaning is in the constants.

Measured on one core, November 2026: see docs/storage.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, load64, store64, swap64
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.prefetch import prefetch
from tsdb.kernels.xor import (
    CHUNK_BYTES_LIMIT,
    CHUNK_SAMPLES,
    NO_WINDOW,
    put,
    put_delta_of_delta,
    put_uvarint,
    put_xor,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Columns of `rows` u64[slots, 16]. SPANS: the last delta in ms, span of the open chunk << 32. SLABS: first,
# last << 32. CHUNK: bits, count << 32, lead << 40, trail << 48, samples at which it closes << 56. CHAINS:
# newest sealed chunk, newest out-of-order sample << 32.
LAST_T, TAIL_BASE, META, LAST_V, TAIL_OFFSETS, TAIL_VALUES = 0, 1, 2, 3, 4, 6
ENCODED_T, ENCODED_V, SPANS, SLABS, CHUNK, CHAINS = range(10, 16)
ROW_WORDS, ROW_SHIFT = 16, 7
# Bits of META: tail length in the low four, then flags.
TAIL_MASK, HAS_SAMPLE, LAST_IS_HISTOGRAM = 0xF, 0x10, 0x20
TAIL_SLOTS = 4

# Columns of `sealed` u64[chunks, 3]. LINK: span in ms (u32), previous chunk << 32. PLACE: the low 40 bits of
# the position (`sealed_position`), bytes << 40 (u16), samples << 56 (u8).
SEALED_MINT, SEALED_LINK, SEALED_PLACE = range(3)
SEALED_WORDS = 3

# Columns of `late` u64[samples, 3]: the chain of out-of-order samples.
LATE_T, LATE_V, LATE_PREVIOUS = range(3)
LATE_WORDS = 3

# Entries of `counters` i64[16].
SLAB_END, SLAB_FREE, SEALED_END, SEGMENT_USED, LATE_END, MIN_T, MAX_T = range(7)
STORED, STORED_LATE, SEGMENT_BASE, BLOCK_RANGE, MIN_LATE_T, RANGE_END = 7, 8, 9, 10, 11, 12
COUNTER_WORDS = 16

# Entries of `rules` i64[8].
RULE_SLOTS, RULE_MIN_VALID, RULE_LATE_WINDOW, RULE_HEAD_MAX, RULE_FUTURE, RULE_HISTOGRAM = range(6)
RULE_WORDS = 8

# Codes beside those of columns.Rejected: what the head decided for an accepted sample.
ACCEPTED, OUT_OF_ORDER, OUT_OF_BOUNDS, TOO_OLD, DUPLICATE, UNKNOWN_SERIES = range(6)
COMPARE, REPEATED, LATE = 253, 254, 255

AHEAD = 8
"""Samples between asking for a line and needing it."""
SLAB_BYTES = 64
SLAB_SHIFT = 6
SCRATCH_BYTES = 512
FLUSH_BYTES_LIMIT = TAIL_SLOTS * CHUNK_BYTES_LIMIT
"""Sealed bytes one flush can make: at worst every sample of the tail closes a chunk."""
FLUSH_SLABS_LIMIT = 2 * TAIL_SLOTS
FIRST_CHUNK_SAMPLES = 10
"""The first chunk of a series in a block range closes at these up to `CHUNK_SAMPLES`, by its slot: else the
open chunks of targets that began together are all full, and close, at the same moment."""
SLOT_MASK = 0xFFFFFF
SPAN_LIMIT_MS = 0xFFFFFFFF
POSITION_REACH = 1 << 40
"""Bytes of sealed chunks behind the newest that a position can name; the log of chunks refuses far less."""
END_OF_TIME = (1 << 63) - 1

_U1, _U3, _U7, _U8, _U16 = (np.uint64(n) for n in (1, 3, 7, 8, 16))
_U32 = np.uint64(32)
_U40 = np.uint64(40)
_U48 = np.uint64(48)
_U56 = np.uint64(56)
_POSITION_MASK = np.uint64(POSITION_REACH - 1)
_LOW32 = np.uint64(0xFFFFFFFF)
_SPAN_LIMIT = np.uint64(SPAN_LIMIT_MS)
_LOW8 = np.uint64(0xFF)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_ZERO = np.uint64(0)
_TAIL_MASK = np.uint64(TAIL_MASK)
_SLOT_MASK = np.uint32(SLOT_MASK)
_FIRST_CHUNK_SAMPLES = np.uint64(FIRST_CHUNK_SAMPLES)
_FIRST_CHUNK_CHOICES = np.uint64(CHUNK_SAMPLES - FIRST_CHUNK_SAMPLES + 1)
_SPREAD = np.uint64(0x9E3779B1)


@inline
def _take_slab(slab_free: U32Array, counters: I64Array) -> Word:
    if counters[SLAB_FREE] > 0:
        counters[SLAB_FREE] -= 1
        return np.uint64(slab_free[counters[SLAB_FREE]])
    counters[SLAB_END] += 1
    return np.uint64(counters[SLAB_END] - 1)


@device
def _drain(
    scratch: U8Array,
    size: Word,
    bits: Word,
    first: Word,
    last: Word,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    counters: I64Array,
) -> tuple[Word, Word]:
    """Copy `size` bytes of scratch to the chain at bit `bits`; byte 0 completes the byte there. Returns
    the first and last slab."""
    offset = np.int64(bits >> _U3)
    inside = offset & (SLAB_BYTES - 1)
    if (inside != 0 or bits & _U7 != _ZERO) and inside + size <= SLAB_BYTES - 7:
        # Whole words: what they have beyond the end is written again by the next samples.
        base = (np.int64(last) << SLAB_SHIFT) + inside
        for j in range(0, size, 8):
            store64(slabs, base + j, load64(scratch, j))
        return first, last
    for j in range(size):
        at = (offset + j) & (SLAB_BYTES - 1)
        if at == 0 and (j > 0 or bits & _U7 == _ZERO):
            fresh = _take_slab(slab_free, counters)
            if first == _ZERO:
                first = fresh
            else:
                slab_next[last] = np.uint32(fresh)
            last = fresh
        slabs[(np.int64(last) << SLAB_SHIFT) + at] = scratch[j]
    return first, last


@inline
def sealed_position(place: Word, end: Word) -> Word:
    """Position of a sealed chunk: the newest one before `end` that has the low bits in PLACE.

    Positions count up as long as the process runs, so they outgrow 40 bits; what is still there does not."""
    back = (np.uint64(end) - place) & _POSITION_MASK
    return np.int64(end) - np.int64(back)


@device
def _seal(
    row: U64Array,
    mint: Word,
    span: Word,
    bits: Word,
    count: Word,
    first: Word,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    counters: I64Array,
) -> None:
    """Move the open chunk of a series to the segment of sealed chunks and free its slabs."""
    size = np.int64((bits + _U7) >> _U3)
    used = counters[SEGMENT_USED]
    slab = first
    done = 0
    while done < size:
        base = np.int64(slab) << SLAB_SHIFT
        # Whole words: the segment has room for more than one chunk (FLUSH_BYTES_LIMIT).
        part: Word = min(SLAB_BYTES, size - done)
        for j in range(0, part, 8):
            store64(segment, used + done + j, load64(slabs, base + j))
        done += SLAB_BYTES
        slab_free[counters[SLAB_FREE]] = np.uint32(slab)
        counters[SLAB_FREE] += 1
        slab = np.uint64(slab_next[slab])
    segment[used] = np.uint8(0)
    segment[used + 1] = np.uint8(count)
    entry = sealed[counters[SEALED_END]]
    entry[SEALED_MINT] = np.uint64(mint)
    entry[SEALED_LINK] = span | (row[CHAINS] << _U32)
    position = np.uint64(counters[SEGMENT_BASE] + used) & _POSITION_MASK
    entry[SEALED_PLACE] = position | (np.uint64(size) << _U40) | (count << _U56)
    row[CHAINS] = (row[CHAINS] & _HIGH32) | np.uint64(counters[SEALED_END])
    counters[SEALED_END] += 1
    counters[SEGMENT_USED] = used + size


@inline
def range_end(t: Word, counters: I64Array) -> Word:
    """Where the block range of a time ends, at most the last time there is.

    RANGE_END is the last answer: nearly always this one too, without a division."""
    block_range, known = np.uint64(counters[BLOCK_RANGE]), counters[RANGE_END]
    if t < known and np.uint64(t) - (np.uint64(known) - block_range) < block_range:
        return known
    end = np.int64(np.uint64(t // counters[BLOCK_RANGE] + 1) * block_range)
    if end <= t:
        return np.int64(END_OF_TIME)
    counters[RANGE_END] = end
    return end


@inline
def first_chunk_samples(slot: Word) -> Word:
    """Samples at which the first chunk of a slot in a block range closes."""
    spread = (np.uint64(slot) * _SPREAD) & _LOW32
    return _FIRST_CHUNK_SAMPLES + ((spread * _FIRST_CHUNK_CHOICES) >> _U32)


@device
def flush_tail(
    slot: Word,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    counters: I64Array,
    scratch: U8Array,
) -> None:
    """Encode the tail of a series onto its open chunk, sealing chunks that are full or leave the block."""
    row = rows[slot]
    length = np.int64(row[META] & _TAIL_MASK)
    bits = row[CHUNK] & _LOW32
    count = (row[CHUNK] >> _U32) & _LOW8
    lead = (row[CHUNK] >> _U40) & _LOW8
    trail = (row[CHUNK] >> _U48) & _LOW8
    limit = row[CHUNK] >> _U56
    first = row[SLABS] & _LOW32
    last = row[SLABS] >> _U32
    fill = bits & _U7
    acc = _ZERO
    if fill != _ZERO:
        at = np.int64(bits >> _U3) & (SLAB_BYTES - 1)
        acc = np.uint64(slabs[(np.int64(last) << SLAB_SHIFT) + at]) << np.uint64(56)
    position = np.int64(0)
    encoded_t, encoded_v = np.int64(row[ENCODED_T]), row[ENCODED_V]
    delta = np.int64(row[SPANS] & _LOW32)
    mint = np.int64(row[ENCODED_T] - (row[SPANS] >> _U32))
    chunk_end = range_end(mint, counters)
    for k in range(length):
        t = tail_time(row, k)
        value = row[TAIL_VALUES + k]
        full = count >= limit or t >= chunk_end or np.uint64(t) - np.uint64(mint) > _SPAN_LIMIT
        if count > _ZERO and full:
            store64(scratch, position, swap64(acc))
            size = position + np.int64((fill + _U7) >> _U3)
            first, last = _drain(scratch, size, bits, first, last, slabs, slab_next, slab_free, counters)
            bits = (((bits >> _U3) + np.uint64(position)) << _U3) + fill
            span = np.uint64(encoded_t) - np.uint64(mint)
            _seal(row, mint, span, bits, count, first, slabs, slab_next, slab_free, sealed, segment, counters)
            bits, count, first, last, fill, acc = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            position = np.int64(0)
            limit = np.uint64(CHUNK_SAMPLES) if t < chunk_end else _ZERO
        if count == _ZERO:
            if limit == _ZERO:
                limit = first_chunk_samples(slot)
            mint = t
            chunk_end = range_end(mint, counters)
            lead, trail = np.uint64(NO_WINDOW), _ZERO
            acc, fill, position = put(scratch, acc, fill, position, _ZERO, _U16)
            zigzag = (np.uint64(t) << _U1) ^ np.uint64(t >> 63)
            acc, fill, position = put_uvarint(scratch, acc, fill, position, zigzag)
            acc, fill, position = put(scratch, acc, fill, position, value, np.uint64(64))
            delta = np.int64(0)
        else:
            step = t - encoded_t
            if count == _U1:
                acc, fill, position = put_uvarint(scratch, acc, fill, position, np.uint64(step))
            else:
                acc, fill, position = put_delta_of_delta(scratch, acc, fill, position, step - delta)
            delta = step
            xor = value ^ encoded_v
            acc, fill, position, lead, trail = put_xor(scratch, acc, fill, position, xor, lead, trail)
        encoded_t, encoded_v = t, value
        count += _U1
    store64(scratch, position, swap64(acc))
    size = position + np.int64((fill + _U7) >> _U3)
    first, last = _drain(scratch, size, bits, first, last, slabs, slab_next, slab_free, counters)
    bits = (((bits >> _U3) + np.uint64(position)) << _U3) + fill
    row[ENCODED_T] = np.uint64(encoded_t)
    row[ENCODED_V] = encoded_v
    row[SPANS] = np.uint64(delta) | ((np.uint64(encoded_t) - np.uint64(mint)) << _U32)
    row[SLABS] = first | (last << _U32)
    row[CHUNK] = bits | (count << _U32) | (lead << _U40) | (trail << _U48) | (limit << _U56)
    row[META] &= ~_TAIL_MASK


@inline
def tail_time(row: U64Array, k: Word) -> Word:
    """Time of sample k of a tail."""
    offset = (row[TAIL_OFFSETS + (k >> 1)] >> np.uint64((k & 1) << 5)) & _LOW32
    return np.int64(row[TAIL_BASE] + offset)


@inline
def _has_room(slab_next: U32Array, sealed: U64Array, segment: U8Array, counters: I64Array) -> bool:
    """Whether one more tail fits whatever it does."""
    return bool(
        counters[SEGMENT_USED] + FLUSH_BYTES_LIMIT <= len(segment)
        and counters[SEALED_END] + TAIL_SLOTS <= len(sealed)
        and counters[SLAB_FREE] + len(slab_next) - counters[SLAB_END] >= FLUSH_SLABS_LIMIT
    )


@inline
def _ask_ahead(ref: Word, later: Word, rows: U64Array, slabs: U8Array) -> None:
    """Have the open chunk of a series that will flush on its way, and the second line of a later row."""
    slot, limit = np.int64(ref & _SLOT_MASK), np.int64(len(rows))
    if slot < limit:
        row = rows[slot]
        if row[META] & _TAIL_MASK == np.uint64(TAIL_SLOTS):
            prefetch(slabs, np.int64(row[SLABS] >> _U32) << SLAB_SHIFT)
    prefetch(rows, (np.int64(later & _SLOT_MASK) << ROW_SHIFT) + SLAB_BYTES)


@device
def _store_late(t: Word, value: Word, row: U64Array, late: U64Array, counters: I64Array) -> None:
    """Chain a late sample, for which there is room."""
    entry = late[counters[LATE_END]]
    entry[LATE_T] = np.uint64(t)
    entry[LATE_V] = value
    entry[LATE_PREVIOUS] = row[CHAINS] >> _U32
    row[CHAINS] = (row[CHAINS] & _LOW32) | (np.uint64(counters[LATE_END]) << _U32)
    counters[LATE_END] += 1
    counters[STORED_LATE] += 1
    counters[MIN_LATE_T] = min(counters[MIN_LATE_T], t)


@device
def store_all(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
    start: int,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    late: U64Array,
    counters: I64Array,
    scratch: U8Array,
) -> Word:
    """Store the samples that `admit` accepted, from `start` on.

    Returns the index of the first sample not looked at: N when done, less when the segment of sealed chunks
    or an arena is full and the caller must make room first.
    """
    oldest, newest = counters[MIN_T], counters[MAX_T]
    stored = np.int64(0)
    done: Word = np.int64(len(refs))
    for i in range(start, len(refs)):
        if i + 2 * AHEAD < len(refs):
            _ask_ahead(refs[i + AHEAD], refs[i + 2 * AHEAD], rows, slabs)
        code = codes[i]
        if code != ACCEPTED and code != LATE:
            continue
        row = rows[refs[i] & _SLOT_MASK]
        t = t_ms[i]
        if code == LATE:
            if counters[LATE_END] >= len(late):
                done = np.int64(i)
                break
            _store_late(t, values[i], row, late, counters)
        else:
            length: Word = np.int64(row[META] & _TAIL_MASK)
            if length > 0 and (length == TAIL_SLOTS or np.uint64(t) - row[TAIL_BASE] > _SPAN_LIMIT):
                if not _has_room(slab_next, sealed, segment, counters):
                    done = np.int64(i)
                    break
                slot = np.int64(refs[i] & _SLOT_MASK)
                flush_tail(slot, rows, slabs, slab_next, slab_free, sealed, segment, counters, scratch)
                length = 0
            if length == 0:
                row[TAIL_BASE] = np.uint64(t)
            word = TAIL_OFFSETS + (length >> 1)
            offset = np.uint64(t) - row[TAIL_BASE]
            if length & 1:
                row[word] = (row[word] & _LOW32) | (offset << _U32)
            else:
                row[word] = offset
            row[TAIL_VALUES + length] = values[i]
            row[META] += _U1
            stored += 1
        oldest = min(oldest, t)
        newest = max(newest, t)
    counters[MIN_T] = oldest
    counters[MAX_T] = newest
    counters[STORED] += stored
    return done


@kernel(
    "int64(uint32[::1], int64[::1], uint64[::1], uint8[::1], int64, uint64[:,::1],"
    " uint8[::1], uint32[::1], uint32[::1], uint64[:,::1], uint8[::1], uint64[:,::1], int64[::1],"
    " uint8[::1])",
    group="write",
)
def store(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
    start: int,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    late: U64Array,
    counters: I64Array,
    scratch: U8Array,
) -> Word:
    """`store_all` by itself."""
    return store_all(
        refs,
        t_ms,
        values,
        codes,
        start,
        rows,
        slabs,
        slab_next,
        slab_free,
        sealed,
        segment,
        late,
        counters,
        scratch,
    )
