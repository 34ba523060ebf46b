"""Chunks of Prometheus's blocks: frames with checksums, and floats in XOR and XOR2 form.

Enter: bytes of a segment file and offsets of chunks; leave: timestamps, value bits, start timestamps.
Layout: prometheus-surface.md 5.6 and Prometheus's tsdb/docs/format/chunks.md. Everything read is untrusted:
frames are tested against the file's end, and decoders after each field, of which none is longer than
`READ_PADDING`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, leading_zeros64, load64
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.xor import (
    NO_WINDOW,
    decode_xor_chunk,
    peek,
    take,
    take_uvarint,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

XOR, HISTOGRAM, FLOAT_HISTOGRAM, XOR2, HISTOGRAM_ST, FLOAT_HISTOGRAM_ST = 1, 2, 3, 4, 5, 6
"""Encodings of chunks; the numbers are on disk."""

ERROR_TRUNCATED, ERROR_CHECKSUM, ERROR_ENCODING, ERROR_DATA = 1, 2, 3, 4
"""What is wrong with the chunk or series that a kernel stopped at."""

ERROR_FACTOR = 8
"""A kernel that stops at item i because of error e returns -(i * ERROR_FACTOR + e)."""

MIN_T, MAX_T = -(1 << 63), (1 << 63) - 1

_RAW = "Array(uint8, 1, 'C', readonly=True)"
_CRC_START = np.uint64(0xFFFFFFFF)
_BYTE = np.uint64(0xFF)
_U0, _U1, _U7, _U8, _U63, _U64 = (np.uint64(n) for n in (0, 1, 7, 8, 63, 64))
_NO_WINDOW = np.uint64(NO_WINDOW)
_STALE = np.uint64(0x7FF0000000000002)
_UVARINT_BYTES = 10


@device
def crc32c(buffer: U8Array, start: Word, length: Word, table: U32Array) -> Word:
    """CRC-32C of bytes; `table` is u32[8 * 256], slice by slice."""
    crc = _CRC_START
    at = np.int64(start)
    end = np.int64(start + length)
    while at + 8 <= end:
        word = load64(buffer, at) ^ crc
        crc = _U0
        for part in range(8):
            byte = np.int64((word >> np.uint64(8 * part)) & _BYTE)
            crc ^= np.uint64(table[(7 - part) * 256 + byte])
        at += 8
    while at < end:
        crc = np.uint64(table[np.int64((crc ^ np.uint64(buffer[at])) & _BYTE)]) ^ (crc >> _U8)
        at += 1
    return crc ^ _CRC_START


@device
def big_endian32(buffer: U8Array, at: Word) -> Word:
    """Four bytes, most significant first."""
    value = _U0
    for k in range(4):
        value = (value << _U8) | np.uint64(buffer[at + k])
    return value


@device
def byte_uvarint(buffer: U8Array, at: Word, end: Word) -> tuple[Word, Word]:
    """A varint at a byte position and the position after it, or -1 where it reaches beyond `end`."""
    value = _U0
    shift = _U0
    for k in range(_UVARINT_BYTES):
        if at + k >= end:
            break
        byte = np.uint64(buffer[at + k])
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, np.int64(at + k + 1)
        shift += _U7
    return _U0, np.int64(-1)


@inline
def zigzag(raw: Word) -> Word:
    """The signed number of a zigzag-coded word."""
    return np.int64(raw >> _U1) ^ -np.int64(raw & _U1)


@kernel(
    f"int64({_RAW}, int64[::1], uint32[::1], boolean, int64[::1], int64[::1], uint8[::1], int64[::1])",
    group="import",
)
def read_frames(
    segment: U8Array,
    offsets: I64Array,
    table: U32Array,
    verify: bool,
    starts: I64Array,
    lengths: I64Array,
    encodings: U8Array,
    counts: I64Array,
) -> Word:
    """Where the data of the chunks at `offsets` lies, its encoding and number of samples.

    `verify` looks at the checksums. Returns 0 or an error (see ERROR_FACTOR).
    """
    size = np.int64(len(segment))
    for i in range(len(offsets)):
        at = offsets[i]
        if at < 8 or at >= size:
            return -np.int64(i * ERROR_FACTOR + ERROR_TRUNCATED)
        raw, at = byte_uvarint(segment, at, size)
        if at < 0 or raw > np.uint64(size):
            return -np.int64(i * ERROR_FACTOR + ERROR_TRUNCATED)
        length = np.int64(raw)
        if length < 2 or at + 1 + length + 4 > size:
            return -np.int64(i * ERROR_FACTOR + ERROR_TRUNCATED)
        if verify:
            stored = big_endian32(segment, at + 1 + length)
            if crc32c(segment, at, length + 1, table) != stored:
                return -np.int64(i * ERROR_FACTOR + ERROR_CHECKSUM)
        encoding = segment[at]
        if encoding < XOR or encoding > FLOAT_HISTOGRAM_ST:
            return -np.int64(i * ERROR_FACTOR + ERROR_ENCODING)
        count = np.int64(segment[at + 1]) << 8 | np.int64(segment[at + 2])
        if encoding in (HISTOGRAM_ST, FLOAT_HISTOGRAM_ST):
            count &= 0x3FFF
        starts[i], lengths[i], encodings[i], counts[i] = at + 1, length, encoding, count
    return np.int64(0)


@kernel(f"void({_RAW}, int64[::1], int64[::1], uint8[::1], int64[::1])", group="import")
def copy_frames(
    segment: U8Array, starts: I64Array, lengths: I64Array, out: U8Array, out_starts: I64Array
) -> None:
    """Copy the data of chunks to their places in `out`."""
    for i in range(len(starts)):
        source, target = starts[i], out_starts[i]
        for k in range(lengths[i]):
            out[target + k] = segment[source + k]


@inline
def varbit_size(ones: Word) -> Word:
    """Bits that follow a prefix of so many ones."""
    if ones < 5:
        return ones * 3
    if ones == 5:
        return 18
    if ones == 6:
        return 25
    return 56 if ones == 7 else 64


@inline
def take_varbit_uint(buffer: U8Array, bit: Word) -> tuple[Word, Word]:
    """An unsigned number of variable width and the bit position after it."""
    word = peek(buffer, bit)
    if word >> _U63 == _U0:
        return _U0, np.int64(bit + 1)
    ones: Word = min(np.int64(leading_zeros64(~word)), 8)
    bit += ones + (1 if ones < 8 else 0)
    size = varbit_size(ones)
    return take(buffer, bit, size), np.int64(bit + size)


@inline
def take_varbit_int(buffer: U8Array, bit: Word) -> tuple[Word, Word]:
    """A signed number of variable width and the bit position after it."""
    word = peek(buffer, bit)
    if word >> _U63 == _U0:
        return np.int64(0), np.int64(bit + 1)
    ones: Word = min(np.int64(leading_zeros64(~word)), 8)
    bit += ones + (1 if ones < 8 else 0)
    size = varbit_size(ones)
    value = np.int64(take(buffer, bit, size))
    if size < 64 and value > (np.int64(1) << (size - 1)):
        value -= np.int64(1) << size
    return value, np.int64(bit + size)


@inline
def _new_window(buffer: U8Array, bit: Word, value: Word) -> tuple[Word, ...]:
    """5 bits of leading zeros, 6 of length, the bits themselves; -1 for a window of more than 64 bits."""
    lead = take(buffer, bit, 5)
    size = take(buffer, bit + 5, 6)
    if size == _U0:
        size = _U64
    if lead + size > _U64:
        return value, np.int64(-1), lead, _U0
    trail = _U64 - lead - size
    xor = take(buffer, bit + 11, size) << trail
    return value ^ xor, np.int64(bit + 11) + np.int64(size), lead, trail


@inline
def _old_window(buffer: U8Array, bit: Word, value: Word, lead: Word, trail: Word) -> tuple[Word, ...]:
    if lead == _NO_WINDOW:
        return value, np.int64(-1), lead, trail
    size = _U64 - lead - trail
    return value ^ (take(buffer, bit, size) << trail), np.int64(bit) + np.int64(size), lead, trail


@device
def _take_xor2(buffer: U8Array, bit: Word, base: Word, lead: Word, trail: Word) -> tuple[Word, ...]:
    """The next value, the base of the one after it (a stale marker is none), bit, window."""
    head = take(buffer, bit, 3)
    if head < np.uint64(4):
        return base, base, np.int64(bit + 1), lead, trail
    if head < np.uint64(6):
        value, bit, lead, trail = _old_window(buffer, bit + 2, base, lead, trail)
        return value, value, bit, lead, trail
    if head == np.uint64(6):
        value, bit, lead, trail = _new_window(buffer, bit + 3, base)
        return value, value, bit, lead, trail
    return _STALE, base, np.int64(bit + 3), lead, trail


@device
def _take_xor2_joint(
    buffer: U8Array, bit: Word, delta: Word, base: Word, lead: Word, trail: Word
) -> tuple[Word, ...]:
    """As `_take_xor2` for the third sample and later, with the new delta of time in front."""
    ones: Word = min(np.int64(leading_zeros64(~peek(buffer, bit))), 5)
    if ones == 0:
        return delta, base, base, np.int64(bit + 1), lead, trail
    if ones == 1:
        bit += 2
        if take(buffer, bit, 1) == _U0:
            value, bit, lead, trail = _old_window(buffer, bit + 1, base, lead, trail)
        else:
            value, bit, lead, trail = _new_window(buffer, bit + 1, base)
        return delta, value, value, bit, lead, trail
    if ones == 5:
        return delta, _STALE, base, np.int64(bit + 5), lead, trail
    size = 13 if ones == 2 else (20 if ones == 3 else 64)
    bit += ones + 1
    change = np.int64(take(buffer, bit, size))
    if size < 64 and change >= (np.int64(1) << (size - 1)):
        change -= np.int64(1) << size
    value, base, bit, lead, trail = _take_xor2(buffer, bit + size, base, lead, trail)
    return delta + change, value, base, bit, lead, trail


@device
def take_start(
    buffer: U8Array, bit: Word, st_header: Word, i: Word, t: Word, t_before: Word, start: Word, diff: Word
) -> tuple[Word, ...]:
    """Start timestamp of sample i, the difference kept for the next one, and the bit position after it."""
    changed_on = st_header & 0x7F
    if i == 0:
        if st_header & 0x80:
            raw, bit = take_uvarint(buffer, bit)
            diff = zigzag(raw)
            start = t - diff
    elif changed_on > 0 and i >= changed_on:
        change, bit = take_varbit_int(buffer, bit)
        diff = change if i == changed_on else diff + change
        start = t_before - diff
    return start, diff, np.int64(bit)


@device
def decode_xor2_chunk(
    buffer: U8Array,
    start: Word,
    length: Word,
    out_t: I64Array,
    out_v: U64Array,
    out_start: I64Array,
    out: Word,
) -> Word:
    """Decode a XOR2 chunk to `out_*[out:]`; returns the position after it, or -1 for a damaged chunk."""
    if length < 3:
        return np.int64(-1)
    count = np.int64(buffer[start]) << 8 | np.int64(buffer[start + 1])
    st_header = np.int64(buffer[start + 2])
    bit = np.int64(start + 3) << 3
    end = np.int64(start + length) << 3
    t = before = delta = start_t = diff = np.int64(0)
    value = base = trail = _U0
    lead = _NO_WINDOW
    for i in range(count):
        if bit >= end:
            return np.int64(-1)
        before = t
        if i > 1:
            delta, value, base, bit, lead, trail = _take_xor2_joint(buffer, bit, delta, base, lead, trail)
            t += delta
        elif i == 0:
            raw, bit = take_uvarint(buffer, bit)
            t = zigzag(raw)
            value = take(buffer, bit, 64)
            base = _U0 if value == _STALE else value
            bit += 64
        else:
            raw, bit = take_uvarint(buffer, bit)
            delta = np.int64(raw)
            t += delta
            if bit >= end:
                return np.int64(-1)
            value, base, bit, lead, trail = _take_xor2(buffer, bit, base, lead, trail)
        if bit < 0 or bit > end:
            return np.int64(-1)
        start_t, diff, bit = take_start(buffer, bit, st_header, i, t, before, start_t, diff)
        if bit > end:
            return np.int64(-1)
        out_t[out], out_v[out], out_start[out] = t, value, start_t
        out += 1
    return np.int64(out)


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], uint8[::1], int64[::1], uint64[::1], int64[::1])",
    group="import",
)
def decode_floats(
    buffer: U8Array,
    starts: I64Array,
    lengths: I64Array,
    encodings: U8Array,
    out_t: I64Array,
    out_v: U64Array,
    out_start: I64Array,
) -> Word:
    """Decode XOR and XOR2 chunks one after the other; `out_start` must be zeros.

    `buffer` has READ_PADDING bytes after the last chunk, the outputs room for all announced samples.
    Returns the number of samples, or an error (see ERROR_FACTOR).
    """
    out = np.int64(0)
    for i in range(len(starts)):
        if encodings[i] == XOR:
            out = decode_xor_chunk(buffer, starts[i], lengths[i], MIN_T, MAX_T, out_t, out_v, out)
        else:
            out = decode_xor2_chunk(buffer, starts[i], lengths[i], out_t, out_v, out_start, out)
        if out < 0:
            return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
    return out
