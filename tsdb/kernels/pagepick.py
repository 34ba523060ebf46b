"""Some numbers of each stream of a page: what a query that looks back from steps far apart needs.

Enters: the decompressed bytes of one page, which streams are wanted, and which numbers of them. Leaves: float
bits of those. Integers between them are added up and never written, and only what is wanted becomes a float.
As in `kernels.page`, whose rules are kept, the bytes are not trusted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.bits import load32, load64
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.page import (
    BAD_LENGTH,
    BAD_PATCH,
    BAD_STREAM,
    CONSTANT_FORM,
    HEADER_BYTES,
    PATCH_BYTES,
    PREFIX_BYTES,
    TRUNCATED,
    add_low_bits,
    fill,
    integrate,
    load_words,
    plane_word,
    survey,
    to_floats,
    undo_xor,
    unzigzag,
)
from tsdb.kernels.pageencode import MODE_XOR, NEAR

U64 = np.uint64
I64 = np.int64

_RAW = "Array(uint8, 1, 'C', readonly=True)"
_I64 = "Array(int64, 1, 'C', readonly=True)"

_ONES = U64(0x0101010101010101)
_SEVENS = U64(0x7F7F7F7F7F7F7F7F)
_SIGNS = U64(0x8080808080808080)
_EVEN = U64(0x00FF00FF00FF00FF)
_LANES = U64(0x0001000100010001)


@inline
def _sum_of_eight(word: Any) -> Any:
    """The sum of eight zigzag bytes, each 128 too many: of zero bytes 1,024.

    All eight at once: halves, those of odd bytes inverted, are their numbers as signed bytes; with the sign
    turned they are the numbers and 128, which are added as lanes of 16 bits."""
    odd = (word & _ONES) * U64(0xFF)
    moved = ((word >> U64(1)) & _SEVENS) ^ odd ^ _SIGNS
    pairs = (moved & _EVEN) + ((moved >> U64(8)) & _EVEN)
    return (pairs * _LANES) >> U64(48)


@inline
def _sum_of_bytes(raw: Any, at: Any, count: Any) -> Any:
    """The sum modulo 2^64 of the zigzag bytes raw[at:at+count]; seven bytes behind them can be read."""
    total, done = U64(0), 0
    while done + 8 <= count:
        total += _sum_of_eight(load64(raw, at + done)) - U64(1024)
        done += 8
    if done < count:
        cut = U64(8 * (8 - (count - done)))
        total += _sum_of_eight(load64(raw, at + done) << cut) - U64(1024)
    return total


@device
def _pick_bytes(raw: Any, at: Any, base: Any, slope: Any, divisor: Any, picks: Any, out: Any) -> None:
    """First differences that are one byte each, raw[at:], to the integers number `picks` (ascending)."""
    total, done = base, 0
    for k in range(len(picks)):
        step = picks[k] - done
        total += divisor * (slope * U64(step) + _sum_of_bytes(raw, at + done, step))
        done = picks[k]
        out[k] = total


@device
def _pick_words(
    raw: Any, at: Any, stride: Any, width: Any, low_at: Any, low: Any,
    base: Any, slope: Any, divisor: Any, picks: Any, out: Any,
) -> None:  # fmt: skip
    """Numbers that do not follow each other (order 0): only the words of `picks` are looked at."""
    mask = (U64(1) << U64(low)) - U64(1)
    for k in range(len(picks)):
        i = picks[k] - 1
        if i < 0:
            out[k] = base
            continue
        word = plane_word(raw, at, stride, i, width)
        if low > 0:
            position = i * low
            bits = load64(raw, low_at + (position >> 3)) >> U64(position & 7)
            word = (word << U64(low)) | (bits & mask)
        out[k] = base + divisor * (slope + unzigzag(word))


@device
def _patch_picks(
    raw: Any, streams: Any, patches: Any, first: Any, last: Any, count: Any, picks: Any, out: Any
) -> Any:
    """Put the raw bits of those patches first..last in that are picked. 0 or an error code."""
    indices = PREFIX_BYTES + HEADER_BYTES * streams
    for k in range(first, last):
        index = I64(plane_word(raw, indices, patches, k, 4))
        if index >= count:
            return BAD_PATCH
        lo, hi = 0, len(picks)
        while lo < hi:
            middle = (lo + hi) >> 1
            if picks[middle] < index:
                lo = middle + 1
            else:
                hi = middle
        if lo < len(picks) and picks[lo] == index:
            out[lo] = plane_word(raw, indices + 4 * patches, patches, k, 8)
    return 0


@kernel(
    f"int64({_RAW}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, uint64[::1], uint64[::1], float64[::1])",
    group="read",
)
def decode_picked(
    raw: Any,
    wanted: Any,
    starts: Any,
    lengths: Any,
    firsts: Any,
    counts: Any,
    picks: Any,
    work: Any,
    words: Any,
    values: Any,
) -> Any:
    """Of streams `wanted` (ascending), of `lengths` numbers each, those that picks[firsts[k]:][:counts[k]]
    say (ascending), to starts[k] and on.

    `words` and `values` are two views of the output; `work` has room for the longest stream. Returns 0 or an
    error code; the output is then undefined.
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
    low_at = first_word[9]
    for row in range(streams):
        if k == len(wanted):
            break
        count = I64(plane_word(raw, PREFIX_BYTES, streams, row, 4))
        form, width = I64(raw[forms + row]), I64(raw[forms + streams + row])
        own = I64(plane_word(raw, PREFIX_BYTES + 31 * streams, streams, row, 4))
        if wanted[k] == row:
            lo, first, size = starts[k], firsts[k], counts[k]
            if lengths[k] != count or lo < 0 or lo + size > len(words) or count > len(work):
                return I64(BAD_LENGTH)
            if first < 0 or size < 0 or first + size > len(picks):
                return I64(BAD_LENGTH)
            if size > 0:
                chosen, out = picks[first : first + size], words[lo : lo + size]
                if chosen[0] < 0 or chosen[size - 1] >= count:
                    return I64(BAD_LENGTH)
                exponent = I64(raw[forms + 2 * streams + row])
                base = plane_word(raw, bases, streams, row, 8)
                slope = plane_word(raw, bases + 8 * streams, streams, row, 8)
                divisor = plane_word(raw, bases + 16 * streams, streams, row, 8)
                order, low = (form >> 1) & 3, form >> 3
                at = first_word[width] + used[width]
                if width == 0 and form == CONSTANT_FORM and slope == U64(0) and exponent < NEAR:
                    fill(words, values, lo, size, base, exponent, True)
                else:
                    is_xor = form & 1 == MODE_XOR
                    if width == 1 and form == CONSTANT_FORM:
                        _pick_bytes(raw, at, base, slope, divisor, chosen, out)
                    elif not is_xor and order == 0:
                        _pick_words(
                            raw, at, totals[width], width, low_at, low, base, slope, divisor, chosen, out
                        )
                    else:
                        load_words(raw, at, totals[width], width, count - 1, work, 1)
                        if low > 0:
                            add_low_bits(raw, low_at, low, count - 1, work, 1)
                        if is_xor:
                            undo_xor(work, 0, count, base, U64(exponent))
                        else:
                            integrate(work, 0, count, order, base, slope, divisor)
                        for i in range(size):
                            out[i] = work[chosen[i]]
                    if not is_xor:
                        to_floats(words, values, lo, size, exponent)
                if _patch_picks(raw, streams, patches, patched, patched + own, count, chosen, out) != 0:
                    return I64(BAD_PATCH)
            k += 1
        used[width] += max(I64(0), count - 1)
        low_at += (max(I64(0), count - 1) * (form >> 3) + 7) >> 3
        patched += own
    return I64(0) if k == len(wanted) else I64(BAD_STREAM)
