"""Pages of streams back to numbers: what docs/formats/block.md calls the page codec, second half.

Enters: the decompressed bytes of one page, which streams are wanted and where they go. Leaves: float bits or
integers. The bytes are not trusted: every position is tested before it is read, and a page that does not add
up gives a negative code. Speeds: docs/blocks.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.bits import float_bits, load32, load64
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.pageencode import EXPONENT_LIMIT, MODE_INTEGER, MODE_XOR, NEAR

U64 = np.uint64
I64 = np.int64

PREFIX_BYTES = 8
HEADER_BYTES = 35
"""Of a stream: count 4, form 1, width 1, exponent 1, base 8, slope 8, divisor 8, patch count 4."""
PATCH_BYTES = 12

LOW_PADDING = 8
"""Bytes behind the low bits, so that any of them can be read as part of a word."""

TRUNCATED = -1
BAD_HEADER = -2
BAD_LENGTH = -3
BAD_PATCH = -4
BAD_STREAM = -5

CONSTANT_FORM = MODE_INTEGER | 1 << 1
"""First differences, no low bits."""

TABLE_FROM = 128
"""Numbers of a stream from which the table of `add_up_bytes` is less work than the bytes one by one."""

_POWERS = np.array([10.0**e for e in range(EXPONENT_LIMIT + 1)])

_RAW = "Array(uint8, 1, 'C', readonly=True)"
_OFF = "Array(int64, 1, 'C', readonly=True)"


@inline
def plane_word(raw: Any, at: Any, stride: Any, index: Any, size: Any) -> Any:
    """Little-endian number `index` of an array of numbers stored as byte planes."""
    word = U64(0)
    for plane in range(size):
        word |= U64(raw[at + plane * stride + index]) << U64(8 * plane)
    return word


@inline
def unzigzag(word: Any) -> Any:
    """A zigzag word to two's complement."""
    return (word >> U64(1)) ^ (U64(0) - (word & U64(1)))


@device
def load_words(raw: Any, at: Any, stride: Any, width: Any, count: Any, words: Any, start: Any) -> None:
    """`count` words of `width` byte planes into words[start:].

    Here and below loops go over parts counted from zero: of positions that may be negative, as far as LLVM
    knows, it makes no vectors.
    """
    out = words[start : start + count]
    first = raw[at : at + count]
    if width == 1:
        for i in range(count):
            out[i] = U64(first[i])
    elif width == 2:
        second = raw[at + stride : at + stride + count]
        for i in range(count):
            out[i] = U64(first[i]) | (U64(second[i]) << U64(8))
    elif width == 3:
        second = raw[at + stride : at + stride + count]
        third = raw[at + 2 * stride : at + 2 * stride + count]
        for i in range(count):
            out[i] = U64(first[i]) | (U64(second[i]) << U64(8)) | (U64(third[i]) << U64(16))
    else:
        for i in range(count):
            out[i] = U64(0)
        for plane in range(width):
            shift = U64(8 * plane)
            source = raw[at + plane * stride : at + plane * stride + count]
            for i in range(count):
                out[i] |= U64(source[i]) << shift


@device
def add_low_bits(raw: Any, at: Any, low: Any, count: Any, words: Any, start: Any) -> None:
    """Append to each word its low bits, packed from byte `at` on; eight bytes from any of them exist."""
    cut = U64(low)
    mask = (U64(1) << cut) - U64(1)
    out = words[start : start + count]
    for i in range(count):
        position = i * low
        bits = load64(raw, at + (position >> 3)) >> U64(position & 7)
        out[i] = (out[i] << cut) | (bits & mask)


@device
def integrate(words: Any, lo: Any, count: Any, order: Any, base: Any, slope: Any, divisor: Any) -> None:
    """Words in words[lo+1:lo+count] to integers, beginning with the base.

    Unsigned throughout: integers wrap modulo 2^64, which LLVM leaves undefined for signed ones.
    """
    words[lo] = base
    part = words[lo + 1 : lo + count]
    if order == 1:
        total = base
        for i in range(count - 1):
            total += divisor * (slope + unzigzag(part[i]))
            part[i] = total
    elif order == 0:
        for i in range(count - 1):
            part[i] = base + divisor * (slope + unzigzag(part[i]))
    else:
        total, step = base, slope
        for i in range(count - 1):
            step += unzigzag(part[i])
            total += divisor * step
            part[i] = total


@device
def add_up_bytes(
    raw: Any, at: Any, words: Any, lo: Any, count: Any, base: Any, slope: Any, divisor: Any, table: Any
) -> None:
    """`integrate` of first differences that are one byte each, raw[at:], straight from the page.

    What each of the 256 bytes adds is in `table`, so a number takes one load, one addition and one store."""
    for byte in range(256):
        table[byte] = divisor * (slope + unzigzag(U64(byte)))
    total = base
    words[lo] = total
    source, out = raw[at : at + count - 1], words[lo + 1 : lo + count]
    for i in range(count - 1):
        total += table[source[i]]
        out[i] = total


@device
def fill(words: Any, values: Any, lo: Any, count: Any, base: Any, exponent: Any, floats: Any) -> None:
    """A stream whose words are all nothing: most series of a fleet do not change in two hours."""
    words[lo] = base
    if floats:
        values[lo] = np.float64(I64(base)) / _POWERS[exponent]
    word, part = words[lo], words[lo : lo + count]
    for i in range(count):
        part[i] = word


@device
def to_floats(words: Any, values: Any, lo: Any, count: Any, exponent: Any) -> None:
    """Integers to floats in the same memory."""
    if exponent >= NEAR:
        power = _POWERS[exponent - NEAR]
        numbers = words[lo : lo + count]
        for i in range(count):
            m = I64(numbers[i]) // I64(3)
            off = I64(numbers[i]) - I64(3) * m - I64(1)
            numbers[i] = float_bits(np.float64(m) / power) + U64(off)
        return
    # Through one view: of two that overlap LLVM makes no vectors.
    part = values[lo : lo + count]
    if exponent == 0:
        for i in range(count):
            part[i] = np.float64(I64(float_bits(part[i])))
    else:
        power = _POWERS[exponent]
        for i in range(count):
            part[i] = np.float64(I64(float_bits(part[i]))) / power


@device
def undo_xor(words: Any, lo: Any, count: Any, base: Any, shift: Any) -> None:
    """XOR words in words[lo+1:lo+count] to bit patterns."""
    last = U64(base)
    words[lo] = last
    part = words[lo + 1 : lo + count]
    for i in range(count - 1):
        last ^= part[i] << shift
        part[i] = last


@device
def survey(raw: Any, streams: Any, patches: Any, totals: Any) -> Any:
    """Test the headers against the length; words of each width into `totals`. 0 or an error code."""
    patched, lows = I64(0), I64(0)
    forms = PREFIX_BYTES + 4 * streams
    for row in range(streams):
        count = I64(plane_word(raw, PREFIX_BYTES, streams, row, 4))
        form, width = I64(raw[forms + row]), I64(raw[forms + streams + row])
        exponent = I64(raw[forms + 2 * streams + row])
        mode, order = form & 1, (form >> 1) & 3
        if width > 8 or order > 2 or form > 63:
            return BAD_HEADER
        if (mode == MODE_INTEGER and exponent & ~NEAR > EXPONENT_LIMIT) or exponent > 63:
            return BAD_HEADER
        totals[width] += max(I64(0), count - 1)
        lows += (max(I64(0), count - 1) * (form >> 3) + 7) >> 3
        patched += I64(plane_word(raw, PREFIX_BYTES + 31 * streams, streams, row, 4))
    if patched != patches:
        return BAD_PATCH
    size = PREFIX_BYTES + HEADER_BYTES * streams + PATCH_BYTES * patches
    for w in range(1, 9):
        size += w * totals[w]
    size += lows + LOW_PADDING
    return 0 if size == len(raw) else TRUNCATED


@device
def apply_patches(raw: Any, streams: Any, patches: Any, first: Any, last: Any, count: Any, words: Any,
                  lo: Any) -> Any:  # fmt: skip
    """Put the raw bits of patches first..last into words[lo:lo+count]. 0 or an error code."""
    indices = PREFIX_BYTES + HEADER_BYTES * streams
    for k in range(first, last):
        index = I64(plane_word(raw, indices, patches, k, 4))
        if index >= count:
            return BAD_PATCH
        words[lo + index] = plane_word(raw, indices + 4 * patches, patches, k, 8)
    return 0


@kernel(f"int64({_RAW}, int64[::1])", group="read")
def stream_counts(raw: Any, out: Any) -> Any:
    """out[k] = numbers in stream k; returns the number of streams or an error code."""
    if len(raw) < PREFIX_BYTES:
        return I64(TRUNCATED)
    streams = I64(load32(raw, I64(0)))
    if len(raw) < PREFIX_BYTES + HEADER_BYTES * streams or len(out) < streams:
        return I64(TRUNCATED)
    for row in range(streams):
        out[row] = I64(plane_word(raw, PREFIX_BYTES, streams, row, 4))
    return streams


@kernel(f"int64({_RAW}, {_OFF}, {_OFF}, {_OFF}, boolean, uint64[::1], float64[::1])", group="read")
def decode_streams(
    raw: Any, wanted: Any, starts: Any, lengths: Any, floats: Any, words: Any, values: Any
) -> Any:
    """Decode the streams `wanted` (ascending) to places starts[k] .. starts[k] + lengths[k].

    `words` and `values` are two views of the output. Without `floats` the integers stay integers.
    Returns 0 or an error code; the output is then undefined.
    """
    if len(raw) < PREFIX_BYTES:
        return I64(TRUNCATED)
    streams, patches = I64(load32(raw, I64(0))), I64(load32(raw, I64(4)))
    if len(raw) < PREFIX_BYTES + HEADER_BYTES * streams + PATCH_BYTES * patches:
        return I64(TRUNCATED)
    totals, first_word = np.zeros(9, dtype=np.int64), np.zeros(10, dtype=np.int64)
    code = survey(raw, streams, patches, totals)
    if code != 0:
        return I64(code)
    first_word[1] = PREFIX_BYTES + HEADER_BYTES * streams + PATCH_BYTES * patches
    for w in range(1, 9):
        first_word[w + 1] = first_word[w] + w * totals[w]
    forms = PREFIX_BYTES + 4 * streams
    bases = forms + 3 * streams
    used, patched, k = np.zeros(9, dtype=np.int64), I64(0), 0
    table = np.empty(256, dtype=np.uint64)
    low_at = first_word[9]
    for row in range(streams):
        if k == len(wanted):
            break
        count = I64(plane_word(raw, PREFIX_BYTES, streams, row, 4))
        form, width = I64(raw[forms + row]), I64(raw[forms + streams + row])
        own = I64(plane_word(raw, PREFIX_BYTES + 31 * streams, streams, row, 4))
        if wanted[k] == row:
            lo = starts[k]
            if lengths[k] != count or lo < 0 or lo + count > len(words):
                return I64(BAD_LENGTH)
            if count > 0:
                exponent = I64(raw[forms + 2 * streams + row])
                base = plane_word(raw, bases, streams, row, 8)
                slope = plane_word(raw, bases + 8 * streams, streams, row, 8)
                constant = width == 0 and form == CONSTANT_FORM and slope == U64(0) and exponent < NEAR
                bytewise = width == 1 and form == CONSTANT_FORM and count > TABLE_FROM
                if bytewise:
                    divisor = plane_word(raw, bases + 16 * streams, streams, row, 8)
                    at = first_word[1] + used[1]
                    add_up_bytes(raw, at, words, lo, count, base, slope, divisor, table)
                    if floats:
                        to_floats(words, values, lo, count, exponent)
                elif constant:
                    fill(words, values, lo, count, base, exponent, floats)
                else:
                    at = first_word[width] + used[width]
                    load_words(raw, at, totals[width], width, count - 1, words, lo + 1)
                    if form >> 3:
                        add_low_bits(raw, low_at, form >> 3, count - 1, words, lo + 1)
                if form & 1 == MODE_XOR:
                    undo_xor(words, lo, count, base, U64(exponent))
                elif not constant and not bytewise:
                    divisor = plane_word(raw, bases + 16 * streams, streams, row, 8)
                    integrate(words, lo, count, (form >> 1) & 3, base, slope, divisor)
                    if floats:
                        to_floats(words, values, lo, count, exponent)
                if apply_patches(raw, streams, patches, patched, patched + own, count, words, lo) != 0:
                    return I64(BAD_PATCH)
            k += 1
        used[width] += max(I64(0), count - 1)
        low_at += (max(I64(0), count - 1) * (form >> 3) + 7) >> 3
        patched += own
    return I64(0) if k == len(wanted) else I64(BAD_STREAM)
