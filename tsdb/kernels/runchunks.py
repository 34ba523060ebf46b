"""Runs of samples of one series each, encoded to chunks at once, and the chunks put where `append.store` has
them.

A run becomes the same chunks, open chunk and tail as its samples one by one. Encoding needs nothing that
series share, so that several threads may do it for different series; placing takes slabs and room in the
segment, and is a matter of copying.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHAINS,
    CHUNK,
    ENCODED_T,
    ENCODED_V,
    HAS_SAMPLE,
    LAST_IS_HISTOGRAM,
    LAST_T,
    MAX_T,
    META,
    MIN_T,
    POSITION_REACH,
    SEALED_END,
    SEALED_LINK,
    SEALED_MINT,
    SEALED_PLACE,
    SEGMENT_BASE,
    SEGMENT_USED,
    SLAB_BYTES,
    SLAB_END,
    SLAB_FREE,
    SLAB_SHIFT,
    SLABS,
    SPAN_LIMIT_MS,
    SPANS,
    STORED,
    TAIL_BASE,
    TAIL_MASK,
    TAIL_OFFSETS,
    TAIL_SLOTS,
    TAIL_VALUES,
    first_chunk_samples,
    range_end,
    tail_time,
)
from tsdb.kernels.bits import Word, leading_zeros64, load64, store64, swap64, trailing_zeros64
from tsdb.kernels.bundletimes import LENGTH, TIMES_AT, VALUES_AT
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.xor import CHUNK_BYTES_LIMIT, CHUNK_SAMPLES, NO_WINDOW, SAMPLE_BYTES_LIMIT

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Columns of `chunks` u64[C, 6]: slot, place in the bytes, bits, oldest time, span, samples << 8 and flags.
SLOT, PLACE, BITS, MINT, SPAN, COUNT_FLAGS = range(6)
CHUNK_WORDS = 6
FIRST, CLOSED = 1, 2
"""Flags: the first chunk of its series, whose open chunk it goes on with; no more samples come."""

# Columns of `pen` u64[12]: the open chunk while it is written.
_ACC, _FILL, _AT, _BEGIN, _COUNT, _LEAD, _TRAIL, _LIMIT, _MINT, _T, _V, _DELTA = range(12)
PEN_WORDS = 12
RUN_BYTES_LIMIT = CHUNK_BYTES_LIMIT + 128
"""Bytes of a run beside `RUN_SAMPLE_BYTES_LIMIT` a sample: of the chunk that was open and the tail."""
RUN_SAMPLE_BYTES_LIMIT = SAMPLE_BYTES_LIMIT + 2
"""A chunk of ten samples begins with 2 + 10 + 8 bytes."""

_U0, _U1, _U2, _U3, _U7, _U8, _U16 = (np.uint64(n) for n in (0, 1, 2, 3, 7, 8, 16))
_U31, _U32, _U40, _U48, _U56, _U63, _U64 = (np.uint64(n) for n in (31, 32, 40, 48, 56, 63, 64))
_LOW8, _LOW32 = np.uint64(0xFF), np.uint64(0xFFFFFFFF)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_WHOLE = np.uint64(0x38)
_SPAN_LIMIT = np.uint64(SPAN_LIMIT_MS)
_NO_WINDOW = np.uint64(NO_WINDOW)
_TAIL_MASK, _HAS_SAMPLE = np.uint64(TAIL_MASK), np.uint64(HAS_SAMPLE)
_LAST_IS_HISTOGRAM = np.uint64(LAST_IS_HISTOGRAM)
_POSITION_MASK = np.uint64(POSITION_REACH - 1)


@inline
def _put(out: U8Array, acc: Word, fill: Word, at: Word, value: Word, bits: Word) -> tuple[Word, ...]:
    """Append 1 to 56 bits. `acc` holds in its top `fill` (at most 7) bits what does not fill a byte; all
    before, and it, is written each time, so that there is nothing to decide."""
    acc |= value << (_U64 - fill - bits)
    store64(out, at, swap64(acc))
    fill += bits
    return acc << (fill & _WHOLE), fill & _U7, at + np.int64(fill >> _U3)


@device
def _put_long(out: U8Array, acc: Word, fill: Word, at: Word, value: Word, bits: Word) -> tuple[Word, ...]:
    """Append 33 to 64 bits."""
    acc, fill, at = _put(out, acc, fill, at, value >> _U32, bits - _U32)
    return _put(out, acc, fill, at, value & _LOW32, _U32)


@device
def _put_uvarint(out: U8Array, acc: Word, fill: Word, at: Word, value: Word) -> tuple[Word, ...]:
    while value >= np.uint64(0x80):
        acc, fill, at = _put(out, acc, fill, at, (value & np.uint64(0x7F)) | np.uint64(0x80), _U8)
        value >>= _U7
    return _put(out, acc, fill, at, value, _U8)


@device
def _put_step(out: U8Array, acc: Word, fill: Word, at: Word, dod: Word) -> tuple[Word, ...]:
    """Append a delta of delta that is not 0."""
    raw = np.uint64(dod)
    if -8191 <= dod <= 8192:
        word = (np.uint64(0b10) << np.uint64(14)) | (raw & np.uint64(0x3FFF))
        return _put(out, acc, fill, at, word, np.uint64(16))
    if -65535 <= dod <= 65536:
        word = (np.uint64(0b110) << np.uint64(17)) | (raw & np.uint64(0x1FFFF))
        return _put(out, acc, fill, at, word, np.uint64(20))
    if -524287 <= dod <= 524288:
        word = (np.uint64(0b1110) << np.uint64(20)) | (raw & np.uint64(0xFFFFF))
        return _put(out, acc, fill, at, word, np.uint64(24))
    acc, fill, at = _put(out, acc, fill, at, np.uint64(0b1111), np.uint64(4))
    return _put_long(out, acc, fill, at, raw, _U64)


@inline
def _put_xor(
    out: U8Array, acc: Word, fill: Word, at: Word, xor: Word, lead: Word, trail: Word, ahead: Word
) -> tuple[Word, ...]:
    """Append `ahead` (0 or 1) zero bits and the xor of two values."""
    if xor == _U0:
        acc, fill, at = _put(out, acc, fill, at, _U0, ahead + _U1)
        return acc, fill, at, lead, trail
    new_lead = min(leading_zeros64(xor), _U31)
    new_trail = trailing_zeros64(xor)
    # No window is wider than any number of zeros.
    inside = new_lead >= lead and new_trail >= trail
    lead = lead if inside else new_lead
    trail = trail if inside else new_trail
    size = _U64 - lead - trail
    told = (np.uint64(0b11) << np.uint64(11)) | (lead << np.uint64(6)) | (size & _U63)
    prefix = _U2 if inside else told
    prefix_bits = ahead + (_U2 if inside else np.uint64(13))
    number = xor >> trail
    if prefix_bits + size <= _U56:
        acc, fill, at = _put(out, acc, fill, at, (prefix << size) | number, prefix_bits + size)
    else:
        acc, fill, at = _put(out, acc, fill, at, prefix, prefix_bits)
        if size <= _U56:
            acc, fill, at = _put(out, acc, fill, at, number, size)
        else:
            acc, fill, at = _put_long(out, acc, fill, at, number, size)
    return acc, fill, at, lead, trail


@device
def _note_chunk(slot: Word, pen: U64Array, flags: Word, chunks: U64Array, noted: Word) -> Word:
    """List the chunk that was written as number `noted`; the number after that."""
    entry = chunks[noted]
    entry[SLOT] = np.uint64(slot)
    entry[PLACE] = pen[_BEGIN]
    entry[BITS] = ((pen[_AT] - pen[_BEGIN]) << _U3) + pen[_FILL]
    entry[MINT] = pen[_MINT]
    entry[SPAN] = pen[_T] - pen[_MINT]
    entry[COUNT_FLAGS] = (pen[_COUNT] << _U8) | np.uint64(flags)
    return noted + 1


@device
def _encode(
    slot: Word,
    t_ms: I64Array,
    t_at: Word,
    values: U64Array,
    v_at: Word,
    n: Word,
    pen: U64Array,
    out: U8Array,
    chunks: U64Array,
    noted: Word,
    first: Word,
    counters: I64Array,
) -> Word:
    """Go on with n samples where the pen is; returns the number of chunks listed, `first` of them before
    this series."""
    acc, fill, at = pen[_ACC], pen[_FILL], np.int64(pen[_AT])
    count, lead, trail, limit = pen[_COUNT], pen[_LEAD], pen[_TRAIL], pen[_LIMIT]
    mint, before_t, before_v, delta = np.int64(pen[_MINT]), pen[_T], pen[_V], pen[_DELTA]
    chunk_end = range_end(mint, counters)
    i = np.int64(0)
    while i < n:
        t, value = t_ms[t_at + i], values[v_at + i]
        full = count >= limit or t >= chunk_end or np.uint64(t) - np.uint64(mint) > _SPAN_LIMIT
        if count > _U0 and full:
            pen[_FILL], pen[_AT], pen[_COUNT], pen[_T] = fill, np.uint64(at), count, before_t
            flags = CLOSED | (FIRST if noted == first else 0)
            noted = _note_chunk(slot, pen, flags, chunks, noted)
            at += np.int64((fill + _U7) >> _U3)
            pen[_BEGIN] = np.uint64(at)
            acc, fill, count = _U0, _U0, _U0
            limit = np.uint64(CHUNK_SAMPLES) if t < chunk_end else _U0
        if count == _U0:
            if limit == _U0:
                limit = first_chunk_samples(slot)
            mint = t
            pen[_MINT] = np.uint64(t)
            chunk_end = range_end(mint, counters)
            lead, trail, delta = _NO_WINDOW, _U0, _U0
            acc, fill, at = _put(out, acc, fill, at, _U0, _U16)
            zigzag = (np.uint64(t) << _U1) ^ np.uint64(t >> 63)
            acc, fill, at = _put_uvarint(out, acc, fill, at, zigzag)
            acc, fill, at = _put_long(out, acc, fill, at, value, _U64)
            before_t, before_v = np.uint64(t), value
            count = _U1
            i += 1
            continue
        if count == _U1:
            delta = np.uint64(t) - before_t
            acc, fill, at = _put_uvarint(out, acc, fill, at, delta)
            xor = value ^ before_v
            acc, fill, at, lead, trail = _put_xor(out, acc, fill, at, xor, lead, trail, _U0)
            before_t, before_v = np.uint64(t), value
            count += _U1
            i += 1
            continue
        stop: Word = min(i + np.int64(limit - count), n)
        newest = t_ms[t_at + stop - 1]
        while newest >= chunk_end or np.uint64(newest) - np.uint64(mint) > _SPAN_LIMIT:
            stop -= 1
            newest = t_ms[t_at + stop - 1]
        count += np.uint64(stop - i)
        while i < stop:
            now = np.uint64(t_ms[t_at + i])
            step = now - before_t
            ahead = _U1
            if step != delta:
                acc, fill, at = _put_step(out, acc, fill, at, np.int64(step - delta))
                ahead = _U0
            value = values[v_at + i]
            xor = value ^ before_v
            acc, fill, at, lead, trail = _put_xor(out, acc, fill, at, xor, lead, trail, ahead)
            before_t, before_v, delta = now, value, step
            i += 1
    pen[_ACC], pen[_FILL], pen[_AT] = acc, fill, np.uint64(at)
    pen[_COUNT], pen[_LEAD], pen[_TRAIL], pen[_LIMIT] = count, lead, trail, limit
    pen[_T], pen[_V], pen[_DELTA] = before_t, before_v, delta
    return noted


@device
def _take_pen(
    row: U64Array, slabs: U8Array, slab_next: U32Array, out: U8Array, at: Word, pen: U64Array
) -> None:
    """Copy the open chunk of a series to `out[at:]` and put the pen at its end."""
    bits = row[CHUNK] & _LOW32
    size = np.int64((bits + _U7) >> _U3)
    slab = row[SLABS] & _LOW32
    done = np.int64(0)
    while done < size:
        base = np.int64(slab) << SLAB_SHIFT
        part: Word = min(SLAB_BYTES, size - done)
        for j in range(0, part, 8):
            store64(out, at + done + j, load64(slabs, base + j))
        done += SLAB_BYTES
        slab = np.uint64(slab_next[slab])
    pen[_BEGIN] = np.uint64(at)
    at += np.int64(bits >> _U3)
    pen[_FILL], pen[_AT] = bits & _U7, np.uint64(at)
    pen[_ACC] = np.uint64(out[at]) << _U56 if bits & _U7 != _U0 else _U0
    pen[_COUNT] = (row[CHUNK] >> _U32) & _LOW8
    pen[_LEAD] = (row[CHUNK] >> _U40) & _LOW8
    pen[_TRAIL] = (row[CHUNK] >> _U48) & _LOW8
    pen[_LIMIT] = row[CHUNK] >> _U56
    pen[_MINT] = row[ENCODED_T] - (row[SPANS] >> _U32)
    pen[_T], pen[_V], pen[_DELTA] = row[ENCODED_T], row[ENCODED_V], row[SPANS] & _LOW32


@device
def _put_pen(row: U64Array, pen: U64Array) -> None:
    """Note in the row of a series where the pen is."""
    row[ENCODED_T], row[ENCODED_V] = pen[_T], pen[_V]
    row[SPANS] = pen[_DELTA] | ((pen[_T] - pen[_MINT]) << _U32)
    bits = ((pen[_AT] - pen[_BEGIN]) << _U3) + pen[_FILL]
    shape = (pen[_COUNT] << _U32) | (pen[_LEAD] << _U40) | (pen[_TRAIL] << _U48) | (pen[_LIMIT] << _U56)
    row[CHUNK] = bits | shape


@device
def _add_to_tail(row: U64Array, length: Word, t: Word, value: Word) -> Word:
    """Write a sample to a tail of `length`, beginning anew where it is full; its length after that."""
    if length == TAIL_SLOTS or (length > 0 and np.uint64(t) - row[TAIL_BASE] > _SPAN_LIMIT):
        length = np.int64(0)
    if length == 0:
        row[TAIL_BASE] = np.uint64(t)
    word = TAIL_OFFSETS + (length >> 1)
    offset = np.uint64(t) - row[TAIL_BASE]
    row[word] = (row[word] & _LOW32) | (offset << _U32) if length & 1 else offset
    row[TAIL_VALUES + length] = value
    return length + 1


@device
def _judge(
    row: U64Array,
    t_ms: I64Array,
    t_at: Word,
    values: U64Array,
    v_at: Word,
    n: Word,
    oldest: Word,
    kept_t: I64Array,
) -> Word:
    """Move a row on over a run. The number of samples to store, n where that is all of them; else they are
    moved to the front of the run, their times to `kept_t`."""
    has = row[META] & _HAS_SAMPLE != _U0
    last = np.int64(row[LAST_T])
    usual = t_ms[t_at] >= oldest and (not has or t_ms[t_at] > last)
    for i in range(t_at + 1, t_at + n):
        usual = usual and t_ms[i] > t_ms[i - 1]
    if usual:
        row[LAST_T] = np.uint64(t_ms[t_at + n - 1])
        row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
        return n
    kept: Word = np.int64(0)
    for i in range(n):
        t = t_ms[t_at + i]
        if has and t <= last:
            continue
        has, last = True, t
        row[LAST_T] = np.uint64(t)
        row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
        if t >= oldest:
            kept_t[kept] = t
            values[v_at + kept] = values[v_at + i]
            kept += 1
    return kept


@kernel(
    "int64(uint32[::1], int64[:,::1], int64[::1], uint64[::1], int64, uint64[:,::1], uint8[::1],"
    " uint32[::1], int64[::1], int64[::1], uint64[::1], uint64[::1], uint8[::1], uint64[:,::1], int64[::1])",
    group="write",
)
def encode_runs(
    slots: U32Array,
    runs: I64Array,
    t_ms: I64Array,
    values: U64Array,
    oldest: int,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    kept_t: I64Array,
    tail_t: I64Array,
    tail_v: U64Array,
    pen: U64Array,
    out: U8Array,
    chunks: U64Array,
    counters: I64Array,
) -> Word:
    """Store runs in the rows of their series, as far as those are nobody else's.

    Samples not newer than the newest of their series, and those before `oldest`, are left out. `runs`
    (kernels.bundletimes), `t_ms` and `values` are the samples of `slots` u32[S], which all differ. `chunks`
    u64[C, 6] lists the chunks made in `out` u8[], for `place_chunks`; the rows name their slabs after that
    only. `kept_t` i64[longest run], `tail_t` i64[4], `tail_v` u64[4] and `pen` u64[12] are scratch. Of
    `counters` BLOCK_RANGE is read; MIN_T, MAX_T and STORED are moved on. Returns the number of chunks.
    """
    noted = np.int64(0)
    at = np.int64(0)
    oldest_t, newest_t, stored = counters[MIN_T], counters[MAX_T], np.int64(0)
    for s in range(len(slots)):
        row = rows[slots[s]]
        v_at, t_at, n = runs[s, VALUES_AT], runs[s, TIMES_AT], runs[s, LENGTH]
        if n == 0:
            continue
        kept = _judge(row, t_ms, t_at, values, v_at, n, np.int64(oldest), kept_t)
        if kept == 0:
            continue
        if kept < n:
            times, t_at = kept_t, np.int64(0)
        else:
            times = t_ms
        stored += kept
        oldest_t = min(oldest_t, times[t_at])
        newest_t = max(newest_t, times[t_at + kept - 1])
        length = np.int64(row[META] & _TAIL_MASK)
        origin = np.uint64(times[t_at]) if length == 0 else row[TAIL_BASE]
        if np.uint64(times[t_at + kept - 1]) - origin <= _SPAN_LIMIT:
            left: Word = ((length + kept - 1) & (TAIL_SLOTS - 1)) + 1
            # What is written to the tail and over again leaves nothing, but for the last full one.
            silent: Word = max(kept - left - TAIL_SLOTS, np.int64(0))
        else:
            left, base = length, origin
            for i in range(kept):
                t = np.uint64(times[t_at + i])
                if left == TAIL_SLOTS or (left > 0 and t - base > _SPAN_LIMIT):
                    left = np.int64(0)
                base = t if left == 0 else base
                left += 1
            silent = np.int64(0)
        flushed = length + kept - left
        if flushed > 0:
            first = noted
            _take_pen(row, slabs, slab_next, out, at, pen)
            for k in range(length):
                tail_t[k] = tail_time(row, k)
                tail_v[k] = row[TAIL_VALUES + k]
            slot, rest = np.int64(slots[s]), flushed - length
            noted = _encode(
                slot,
                tail_t,
                np.int64(0),
                tail_v,
                np.int64(0),
                length,
                pen,
                out,
                chunks,
                noted,
                first,
                counters,
            )
            noted = _encode(slot, times, t_at, values, v_at, rest, pen, out, chunks, noted, first, counters)
            _put_pen(row, pen)
            noted = _note_chunk(slot, pen, FIRST if noted == first else 0, chunks, noted)
            at = np.int64(pen[_AT]) + 8
        if silent > 0:
            length = np.int64(0)
        for i in range(silent, kept):
            length = _add_to_tail(row, length, times[t_at + i], values[v_at + i])
        row[META] = (row[META] & ~_TAIL_MASK) | np.uint64(length)
    counters[MIN_T], counters[MAX_T] = oldest_t, newest_t
    counters[STORED] += stored
    return noted


@device
def _place_open(
    row: U64Array,
    size: Word,
    place: Word,
    data: U8Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    counters: I64Array,
) -> None:
    """Copy an open chunk to a chain of slabs, for which there is room."""
    first, last = _U0, _U0
    for done in range(0, size, SLAB_BYTES):
        if counters[SLAB_FREE] > 0:
            counters[SLAB_FREE] -= 1
            slab = np.uint64(slab_free[counters[SLAB_FREE]])
        else:
            slab = np.uint64(counters[SLAB_END])
            counters[SLAB_END] += 1
        if first == _U0:
            first = slab
        else:
            slab_next[last] = np.uint32(slab)
        last = slab
        base = np.int64(slab) << SLAB_SHIFT
        for j in range(0, SLAB_BYTES, 8):
            store64(slabs, base + j, load64(data, place + done + j))
    row[SLABS] = first | (last << _U32)


@device
def _free_slabs(row: U64Array, slab_next: U32Array, slab_free: U32Array, counters: I64Array) -> None:
    """Give back the slabs of a series."""
    slab, last = row[SLABS] & _LOW32, row[SLABS] >> _U32
    while slab != _U0:
        slab_free[counters[SLAB_FREE]] = np.uint32(slab)
        counters[SLAB_FREE] += 1
        if slab == last:
            break
        slab = np.uint64(slab_next[slab])
    row[SLABS] = _U0


@kernel(
    "int64(uint64[:,::1], int64, int64, uint8[::1], uint64[:,::1], uint8[::1], uint32[::1], uint32[::1],"
    " uint64[:,::1], uint8[::1], int64[::1])",
    group="write",
)
def place_chunks(
    chunks: U64Array,
    start: int,
    count: int,
    data: U8Array,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    counters: I64Array,
) -> Word:
    """Put chunks `start` to `count` of `encode_runs`, whose bytes are `data`, where readers find them: closed
    ones in the segment of sealed chunks, open ones in slabs. 64 bytes must follow the last one.

    Returns the first chunk not placed: `count` when done, less when the segment or an arena is full and the
    caller must make room first.
    """
    for c in range(start, count):
        entry = chunks[c]
        row = rows[entry[SLOT]]
        place = np.int64(entry[PLACE])
        size = np.int64((entry[BITS] + _U7) >> _U3)
        if entry[COUNT_FLAGS] & np.uint64(FIRST) != _U0:
            _free_slabs(row, slab_next, slab_free, counters)
        if entry[COUNT_FLAGS] & np.uint64(CLOSED) == _U0:
            free = counters[SLAB_FREE] + len(slab_next) - counters[SLAB_END]
            if free < (size + SLAB_BYTES - 1) >> SLAB_SHIFT:
                return np.int64(c)
            _place_open(row, size, place, data, slabs, slab_next, slab_free, counters)
            continue
        used = counters[SEGMENT_USED]
        if used + size + 8 > len(segment) or counters[SEALED_END] >= len(sealed):
            return np.int64(c)
        for j in range(0, size, 8):
            store64(segment, used + j, load64(data, place + j))
        samples = entry[COUNT_FLAGS] >> _U8
        segment[used] = np.uint8(0)
        segment[used + 1] = np.uint8(samples)
        closed = sealed[counters[SEALED_END]]
        closed[SEALED_MINT] = entry[MINT]
        closed[SEALED_LINK] = entry[SPAN] | (row[CHAINS] << _U32)
        position = np.uint64(counters[SEGMENT_BASE] + used) & _POSITION_MASK
        closed[SEALED_PLACE] = position | (np.uint64(size) << _U40) | (samples << _U56)
        row[CHAINS] = (row[CHAINS] & _HIGH32) | np.uint64(counters[SEALED_END])
        counters[SEALED_END] += 1
        counters[SEGMENT_USED] = used + size
    return np.int64(count)
