"""XOR chunks (Gorilla, as Prometheus stores them) for float samples: encode a few samples, decode a chunk.

Layout (prometheus-surface.md 5.6): u16 big-endian sample count; first timestamp as zigzag varint and value as
64 bits; then timestamp delta (uvarint) and xor of the value; then delta of delta and xor. Most significant
bit first, zero padded. A bit writer is three words `(acc, fill, position)`: the top `fill` bits of `acc` are
not yet stored. A bit reader is a bit position; its input needs `READ_PADDING` bytes after the end. A decoder
tests the end before each sample and reads at most 24 bytes for one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, leading_zeros64, load64, store64, swap64, trailing_zeros64
from tsdb.kernels.compile import device, inline, kernel

READ_PADDING = 32
"""Bytes that must follow a chunk in its buffer."""

SAMPLE_BYTES_LIMIT = 19
"""One sample takes at most 4 + 64 bits of time and 2 + 5 + 6 + 64 bits of value; the first 10 + 8 bytes."""

CHUNK_SAMPLES = 120
"""Samples of a full chunk; the number Prometheus settled on for 1.3 bytes a sample and quick access."""

CHUNK_BYTES_LIMIT = 2 + CHUNK_SAMPLES * SAMPLE_BYTES_LIMIT

NO_WINDOW = 0xFF
"""`lead` before the first xor of a chunk."""

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

_U0, _U1, _U2, _U7, _U8 = (np.uint64(n) for n in (0, 1, 2, 7, 8))
_U3, _U13, _U56, _U62 = (np.uint64(n) for n in (3, 13, 56, 62))
_U31, _U63, _U64 = np.uint64(31), np.uint64(63), np.uint64(64)
_NO_WINDOW = np.uint64(NO_WINDOW)


@inline
def put(buffer: U8Array, acc: Word, fill: Word, position: Word, value: Word, bits: Word) -> tuple[Word, ...]:
    """Append the low `bits` (1 to 64) of a value that has no higher ones."""
    room = _U64 - fill
    if bits < room:
        return acc | (value << (room - bits)), fill + bits, position
    rest = bits - room
    store64(buffer, position, swap64(acc | (value >> rest)))
    if rest == _U0:
        return _U0, _U0, position + 8
    return value << (_U64 - rest), rest, position + 8


@inline
def put_uvarint(buffer: U8Array, acc: Word, fill: Word, position: Word, value: Word) -> tuple[Word, ...]:
    """Append a varint of 7-bit groups, lowest first."""
    while value >= np.uint64(0x80):
        low = (value & np.uint64(0x7F)) | np.uint64(0x80)
        acc, fill, position = put(buffer, acc, fill, position, low, _U8)
        value = value >> _U7
    return put(buffer, acc, fill, position, value, _U8)


@inline
def put_delta_of_delta(buffer: U8Array, acc: Word, fill: Word, position: Word, dod: Word) -> tuple[Word, ...]:
    """Append a delta of delta; the ranges are -(2^(n-1)-1) .. 2^(n-1)."""
    raw = np.uint64(dod)
    if dod == 0:
        return put(buffer, acc, fill, position, _U0, _U1)
    if -8191 <= dod <= 8192:
        word = (np.uint64(0b10) << np.uint64(14)) | (raw & np.uint64(0x3FFF))
        return put(buffer, acc, fill, position, word, np.uint64(16))
    if -65535 <= dod <= 65536:
        word = (np.uint64(0b110) << np.uint64(17)) | (raw & np.uint64(0x1FFFF))
        return put(buffer, acc, fill, position, word, np.uint64(20))
    if -524287 <= dod <= 524288:
        word = (np.uint64(0b1110) << np.uint64(20)) | (raw & np.uint64(0xFFFFF))
        return put(buffer, acc, fill, position, word, np.uint64(24))
    acc, fill, position = put(buffer, acc, fill, position, np.uint64(0b1111), np.uint64(4))
    return put(buffer, acc, fill, position, raw, _U64)


@inline
def put_xor(
    buffer: U8Array, acc: Word, fill: Word, position: Word, xor: Word, lead: Word, trail: Word
) -> tuple[Word, ...]:
    """Append the xor of two values; returns the writer and the new `lead` and `trail`."""
    if xor == _U0:
        acc, fill, position = put(buffer, acc, fill, position, _U0, _U1)
        return acc, fill, position, lead, trail
    new_lead = min(leading_zeros64(xor), _U31)
    new_trail = trailing_zeros64(xor)
    if lead != _NO_WINDOW and new_lead >= lead and new_trail >= trail:
        acc, fill, position = put(buffer, acc, fill, position, _U2, _U2)
        acc, fill, position = put(buffer, acc, fill, position, xor >> trail, _U64 - lead - trail)
        return acc, fill, position, lead, trail
    size = _U64 - new_lead - new_trail
    word = (np.uint64(0b11) << np.uint64(11)) | (new_lead << np.uint64(6)) | (size & _U63)
    acc, fill, position = put(buffer, acc, fill, position, word, np.uint64(13))
    acc, fill, position = put(buffer, acc, fill, position, xor >> new_trail, size)
    return acc, fill, position, new_lead, new_trail


@inline
def peek(buffer: U8Array, bit: Word) -> Word:
    """The next 56 or more bits at a bit position, left aligned in a word."""
    return swap64(load64(buffer, bit >> 3)) << np.uint64(bit & 7)


@inline
def take(buffer: U8Array, bit: Word, bits: Word) -> Word:
    """The next `bits` (1 to 64) bits at a bit position."""
    shift = np.uint64(bit & 7)
    word = swap64(load64(buffer, bit >> 3)) << shift
    if shift != _U0:
        word |= np.uint64(buffer[(bit >> 3) + 8]) >> (_U8 - shift)
    return word >> (_U64 - np.uint64(bits))


@inline
def take_uvarint(buffer: U8Array, bit: Word) -> tuple[Word, Word]:
    """A varint and the bit position after it; at most ten bytes are read."""
    value = _U0
    shift = _U0
    for _ in range(10):
        byte = take(buffer, bit, 8)
        bit += 8
        value |= (byte & np.uint64(0x7F)) << shift
        shift += _U7
        if byte < np.uint64(0x80):
            break
    return value, bit


@inline
def take_delta_of_delta(buffer: U8Array, bit: Word) -> tuple[Word, Word]:
    """A delta of delta as int64 and the bit position after it."""
    word = peek(buffer, bit)
    if word >> _U63 == _U0:
        return np.int64(0), bit + 1
    if word >> np.uint64(62) == np.uint64(0b10):
        size, prefix = 14, 2
    elif word >> np.uint64(61) == np.uint64(0b110):
        size, prefix = 17, 3
    elif word >> np.uint64(60) == np.uint64(0b1110):
        size, prefix = 20, 4
    else:
        return np.int64(take(buffer, bit + 4, 64)), bit + 68
    value = np.int64((word << np.uint64(prefix)) >> np.uint64(64 - size))
    if value > (np.int64(1) << (size - 1)):
        value -= np.int64(1) << size
    return value, bit + prefix + size


@inline
def take_xor(buffer: U8Array, bit: Word, value: Word, lead: Word, trail: Word) -> tuple[Word, ...]:
    """The next value from the one before, the bit position, `lead` and `trail`."""
    word = peek(buffer, bit)
    if word >> _U63 == _U0:
        return value, bit + 1, lead, trail
    if word >> np.uint64(62) == np.uint64(0b10):
        bit += 2
    else:
        lead = (word >> np.uint64(57)) & _U31
        size = (word >> np.uint64(51)) & _U63
        if size == _U0:
            size = _U64
        if lead + size > _U64:
            return value, np.int64(-1), lead, trail
        trail = _U64 - lead - size
        bit += 13
    if lead == _NO_WINDOW:
        return value, np.int64(-1), lead, trail
    size = _U64 - lead - trail
    xor = take(buffer, bit, size) << trail
    return value ^ xor, bit + np.int64(size), lead, trail


@inline
def take_sample(
    buffer: U8Array, bit: Word, delta: Word, value: Word, lead: Word, trail: Word
) -> tuple[Word, ...]:
    """`take_delta_of_delta` and `take_xor`: mostly both are within the 57 bits that one `peek` gives.

    Returns the next delta and value, the bit position (-1 for a damaged chunk), `lead` and `trail`."""
    word = peek(buffer, bit)
    if word >> _U63 == _U0:
        bit += 1
        word = word << _U1
    else:
        dod, bit = take_delta_of_delta(buffer, bit)
        delta += np.uint64(dod)
        word = peek(buffer, bit)
    if word >> _U63 == _U0:
        return delta, value, bit + 1, lead, trail
    skip = _U2
    if word >> _U62 == _U3:
        skip = _U13
        lead = (word >> np.uint64(57)) & _U31
        size = (word >> np.uint64(51)) & _U63
        if size == _U0:
            size = _U64
        if lead + size > _U64:
            return delta, value, np.int64(-1), lead, trail
        trail = _U64 - lead - size
    elif lead == _NO_WINDOW:
        return delta, value, np.int64(-1), lead, trail
    size = _U64 - lead - trail
    near = skip + size <= _U56
    xor = (word << skip) >> (_U64 - size) if near else take(buffer, bit + np.int64(skip), size)
    return delta, value ^ (xor << trail), bit + np.int64(skip + size), lead, trail


@device
def decode_xor_chunk(
    buffer: U8Array,
    start: Word,
    length: Word,
    mint: Word,
    maxt: Word,
    out_t: I64Array,
    out_v: U64Array,
    out: Word,
) -> Word:
    """Decode samples with mint <= t <= maxt of the chunk `buffer[start:start+length]` to `out_t[out:]`.

    Returns the position after the last one written, or -1 for a damaged chunk, which is also one that says to
    have more samples than the outputs have room for. `READ_PADDING` readable bytes must follow the chunk.
    """
    if length < 2:
        return np.int64(-1)
    count = np.int64(buffer[start]) << 8 | np.int64(buffer[start + 1])
    if count > len(out_t) - out:
        return np.int64(-1)
    bit = np.int64(start + 2) << 3
    end = np.int64(start + length) << 3
    # Sums modulo 2^64: damaged bytes must not overflow a signed one, which is undefined.
    total = _U0
    delta = _U0
    value = _U0
    lead = _NO_WINDOW
    trail = _U0
    for i in range(count):
        if bit >= end:
            return np.int64(-1)
        if i > 1:
            delta, value, bit, lead, trail = take_sample(buffer, bit, delta, value, lead, trail)
            total += delta
        elif i == 0:
            raw, bit = take_uvarint(buffer, bit)
            total = (raw >> _U1) ^ (_U0 - (raw & _U1))
            value = take(buffer, bit, 64)
            bit += 64
        else:
            raw, bit = take_uvarint(buffer, bit)
            delta = raw
            total += delta
            value, bit, lead, trail = take_xor(buffer, bit, value, lead, trail)
        if bit < 0 or bit > end:
            return np.int64(-1)
        t = np.int64(total)
        if t > maxt:
            return out
        if t >= mint:
            out_t[out] = t
            out_v[out] = value
            out += 1
    return out


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int64, int64, int64[::1], uint64[::1], int64[::1])",
    group="read",
)
def decode_xor_chunks(
    buffer: U8Array,
    starts: I64Array,
    lengths: I64Array,
    mint: int,
    maxt: int,
    out_t: I64Array,
    out_v: U64Array,
    out_offsets: I64Array,
) -> Word:
    """Decode many chunks one after the other; chunk i gives `out_offsets[i] .. out_offsets[i+1]`.

    Returns the number of samples, or -1 - i for the damaged chunk i.
    """
    out = np.int64(0)
    out_offsets[0] = 0
    for i in range(len(starts)):
        out = decode_xor_chunk(buffer, starts[i], lengths[i], mint, maxt, out_t, out_v, out)
        if out < 0:
            return np.int64(-1 - i)
        out_offsets[i + 1] = out
    return out


@kernel("int64(int64[::1], uint64[::1], uint8[::1])", group="read")
def encode_xor_chunk(t_ms: I64Array, values: U64Array, out: U8Array) -> Word:
    """Encode up to 65,535 samples as one chunk; `out` has 19 bytes a sample and 32. Returns its length."""
    count = np.uint64(len(t_ms))
    acc, fill, position = put(out, _U0, _U0, np.int64(0), count, np.uint64(16))
    lead = _NO_WINDOW
    trail = _U0
    delta = _U0
    for i in range(len(t_ms)):
        if i == 0:
            zigzag = (np.uint64(t_ms[0]) << _U1) ^ np.uint64(t_ms[0] >> 63)
            acc, fill, position = put_uvarint(out, acc, fill, position, zigzag)
            acc, fill, position = put(out, acc, fill, position, values[0], _U64)
            continue
        new_delta = np.uint64(t_ms[i]) - np.uint64(t_ms[i - 1])
        if i == 1:
            acc, fill, position = put_uvarint(out, acc, fill, position, new_delta)
        else:
            acc, fill, position = put_delta_of_delta(out, acc, fill, position, np.int64(new_delta - delta))
        delta = new_delta
        xor = values[i] ^ values[i - 1]
        acc, fill, position, lead, trail = put_xor(out, acc, fill, position, xor, lead, trail)
    store64(out, position, swap64(acc))
    return np.int64(position) + np.int64((fill + _U7) >> np.uint64(3))
