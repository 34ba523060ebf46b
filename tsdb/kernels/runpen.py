"""The pen that writes runs of samples as XOR chunks (kernels.xor), going on where a series' open chunk ends.

Encoding needs nothing that series share: chunks are listed, and put where readers find them by others
(kernels.placechunks).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHUNK,
    ENCODED_T,
    ENCODED_V,
    SLAB_BYTES,
    SLAB_SHIFT,
    SLABS,
    SPAN_LIMIT_MS,
    SPANS,
    first_chunk_samples,
    range_end,
)
from tsdb.kernels.bits import Word, leading_zeros64, load64, store64, swap64, trailing_zeros64
from tsdb.kernels.compile import device, inline
from tsdb.kernels.xor import CHUNK_SAMPLES, NO_WINDOW

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Columns of `chunks` u64[C, 6]: slot, place in the bytes, bits, oldest time, span, samples << 8 and flags.
SLOT, PLACE, BITS, MINT, SPAN, COUNT_FLAGS = range(6)
CHUNK_WORDS = 6
FIRST, CLOSED, CODED_FORM = 1, 2, 4
"""Flags: the first chunk of its series, whose open chunk it goes on with; no more samples come; its bytes are
those of kernels.codedchunk."""

# Columns of `pen` u64[12]: the open chunk while it is written.
PEN_ACC, PEN_FILL, PEN_AT, PEN_BEGIN, PEN_COUNT, PEN_LEAD = range(6)
PEN_TRAIL, PEN_LIMIT, PEN_MINT, PEN_T, PEN_V, PEN_DELTA = range(6, 12)
PEN_WORDS = 12

_U0, _U1, _U2, _U3, _U7, _U8, _U16 = (np.uint64(n) for n in (0, 1, 2, 3, 7, 8, 16))
_U31, _U32, _U40, _U48, _U56, _U63, _U64 = (np.uint64(n) for n in (31, 32, 40, 48, 56, 63, 64))
_LOW8, _LOW32 = np.uint64(0xFF), np.uint64(0xFFFFFFFF)
_WHOLE = np.uint64(0x38)
_SPAN_LIMIT = np.uint64(SPAN_LIMIT_MS)
_NO_WINDOW = np.uint64(NO_WINDOW)


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
def note_chunk(slot: Word, pen: U64Array, flags: Word, chunks: U64Array, noted: Word) -> Word:
    """List the chunk that was written as number `noted`; the number after that."""
    entry = chunks[noted]
    entry[SLOT] = np.uint64(slot)
    entry[PLACE] = pen[PEN_BEGIN]
    entry[BITS] = ((pen[PEN_AT] - pen[PEN_BEGIN]) << _U3) + pen[PEN_FILL]
    entry[MINT] = pen[PEN_MINT]
    entry[SPAN] = pen[PEN_T] - pen[PEN_MINT]
    entry[COUNT_FLAGS] = (pen[PEN_COUNT] << _U8) | np.uint64(flags)
    return noted + 1


@device
def encode(
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
    acc, fill, at = pen[PEN_ACC], pen[PEN_FILL], np.int64(pen[PEN_AT])
    count, lead, trail, limit = pen[PEN_COUNT], pen[PEN_LEAD], pen[PEN_TRAIL], pen[PEN_LIMIT]
    mint, before_t, before_v, delta = np.int64(pen[PEN_MINT]), pen[PEN_T], pen[PEN_V], pen[PEN_DELTA]
    chunk_end = range_end(mint, counters)
    i = np.int64(0)
    while i < n:
        t, value = t_ms[t_at + i], values[v_at + i]
        full = count >= limit or t >= chunk_end or np.uint64(t) - np.uint64(mint) > _SPAN_LIMIT
        if count > _U0 and full:
            pen[PEN_FILL], pen[PEN_AT], pen[PEN_COUNT], pen[PEN_T] = fill, np.uint64(at), count, before_t
            flags = CLOSED | (FIRST if noted == first else 0)
            noted = note_chunk(slot, pen, flags, chunks, noted)
            at += np.int64((fill + _U7) >> _U3)
            pen[PEN_BEGIN] = np.uint64(at)
            acc, fill, count = _U0, _U0, _U0
            limit = np.uint64(CHUNK_SAMPLES) if t < chunk_end else _U0
        if count == _U0:
            if limit == _U0:
                limit = first_chunk_samples(slot)
            mint = t
            pen[PEN_MINT] = np.uint64(t)
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
    pen[PEN_ACC], pen[PEN_FILL], pen[PEN_AT] = acc, fill, np.uint64(at)
    pen[PEN_COUNT], pen[PEN_LEAD], pen[PEN_TRAIL], pen[PEN_LIMIT] = count, lead, trail, limit
    pen[PEN_T], pen[PEN_V], pen[PEN_DELTA] = before_t, before_v, delta
    return noted


@device
def take_pen(
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
    pen[PEN_BEGIN] = np.uint64(at)
    at += np.int64(bits >> _U3)
    pen[PEN_FILL], pen[PEN_AT] = bits & _U7, np.uint64(at)
    pen[PEN_ACC] = np.uint64(out[at]) << _U56 if bits & _U7 != _U0 else _U0
    pen[PEN_COUNT] = (row[CHUNK] >> _U32) & _LOW8
    pen[PEN_LEAD] = (row[CHUNK] >> _U40) & _LOW8
    pen[PEN_TRAIL] = (row[CHUNK] >> _U48) & _LOW8
    pen[PEN_LIMIT] = row[CHUNK] >> _U56
    pen[PEN_MINT] = row[ENCODED_T] - (row[SPANS] >> _U32)
    pen[PEN_T], pen[PEN_V], pen[PEN_DELTA] = row[ENCODED_T], row[ENCODED_V], row[SPANS] & _LOW32


@device
def put_pen(row: U64Array, pen: U64Array) -> None:
    """Note in the row of a series where the pen is."""
    row[ENCODED_T], row[ENCODED_V] = pen[PEN_T], pen[PEN_V]
    row[SPANS] = pen[PEN_DELTA] | ((pen[PEN_T] - pen[PEN_MINT]) << _U32)
    bits = ((pen[PEN_AT] - pen[PEN_BEGIN]) << _U3) + pen[PEN_FILL]
    window = (pen[PEN_LEAD] << _U40) | (pen[PEN_TRAIL] << _U48)
    row[CHUNK] = bits | (pen[PEN_COUNT] << _U32) | window | (pen[PEN_LIMIT] << _U56)
