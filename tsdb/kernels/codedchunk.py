"""Sealed chunks whose values are as the log has them: the bits of a run of one series, side by side.

The replay would otherwise turn each value into bits of another code. A chunk begins with what the coder knew
of the series before (kernels.walvalues), so that it is read by itself; docs/formats/head.md has the bytes.
Times are the smallest step and what each step has beyond it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import (
    Word,
    bits_float,
    float_bits,
    leading_zeros64,
    load32,
    load64,
    store64,
    trailing_zeros64,
)
from tsdb.kernels.compile import device, inline
from tsdb.kernels.walvalues import (
    EXPONENT_SHIFT,
    LOW_IN_WORD,
    MEAN_SHIFT,
    PARAMETER_LIMIT,
    PARAMETER_SHIFT,
    QUOTIENT_LIMIT,
    RAW,
    SHIFT_SHIFT,
    STAMP_SHIFT,
    low_bits,
    mean_of,
    packed_mean,
    take_bits,
    take_escape,
    units_of,
    unzigzag,
    value_of,
)

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

CODED = 0x80
"""The first byte; that of an XOR chunk in the head is 0."""
TIMES_UNFIT = 0xFF
"""In place of the bits of a step: times that do not rise, or too far."""
HEADER_BYTES = 28
STEP_LIMIT = 0xFFFFFFFF
"""Of the time from the first sample to the last, in ms."""
CODED_SAMPLE_BYTES_LIMIT = 4 + 13
"""Of the time and the value of a sample."""
CODED_BYTES_LIMIT = HEADER_BYTES + 16
"""Of a chunk beside its samples, and words that are written whole."""

CODE_IN_WORD = 56
"""Bits of a code that is written at once: fewer than a word has behind a byte that is begun."""

_COUNT_AT, _WIDTH_AT, _TIME_AT, _BEFORE_AT, _STATE_AT, _STEP_AT = 1, 2, 3, 11, 19, 24
_U0, _U1, _U3, _U7, _U8, _U64 = (np.uint64(n) for n in (0, 1, 3, 7, 8, 64))
_PARAMETER, _EXPONENT = np.uint64(PARAMETER_SHIFT), np.uint64(EXPONENT_SHIFT)
_SHIFT, _MEAN = np.uint64(SHIFT_SHIFT), np.uint64(MEAN_SHIFT)
_UNITS = np.uint64(STAMP_SHIFT - PARAMETER_SHIFT)
_UNITS_MASK = (_U1 << _UNITS) - _U1
_BYTE, _NIBBLE, _SIX = (np.uint64(n) for n in (0xFF, 0xF, 0x3F))
_BELOW_MEAN = (_U1 << _MEAN) - _U1
_NOT_PARAMETER = ~(_BYTE << _PARAMETER)
_MEAN_CUT = ~((_U1 << np.uint64(37)) - _U1)
_MEAN_LOW = 2.0**-10
_EXPONENT_MASK, _RAW = _NIBBLE << _EXPONENT, np.uint64(RAW) << _EXPONENT


@inline
def unpacked(state: Word, before: Word) -> tuple[Word, Word, Word]:
    """A series' state without its mean, the mean, and the newest value: its number of units, or its bits
    where those are xored."""
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    newest = before if exponent == RAW else np.uint64(units_of(before, exponent))
    return state & _BELOW_MEAN, mean_of(state), newest


@inline
def packed(state: Word, mean: Word) -> Word:
    """The state with its mean."""
    return state | (packed_mean(mean) << _MEAN)


@inline
def newest_bits(state: Word, newest: Word) -> Word:
    """Bits of the newest value."""
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    return newest if exponent == RAW else value_of(np.int64(newest), exponent)


@inline
def after_plain(
    state: Word, mean: Word, newest: Word, quotient: Word, number: Word
) -> tuple[Word, Word, Word]:
    """What is known after a value that is no escape: its quotient and its whole number."""
    parameter = np.int64((state >> _PARAMETER) & _BYTE)
    shift = (state >> _SHIFT) & _SIX
    # Whether a quotient is 0 is a coin's throw: it must not be a branch.
    more = np.int64(quotient) - 2 * np.int64(quotient == _U0) - np.int64(quotient == _U1)
    parameter = min(max(parameter + more, np.int64(0)), np.int64(PARAMETER_LIMIT))
    moved = (state & _NOT_PARAMETER) | (np.uint64(parameter) << _PARAMETER)
    if np.int64((state >> _EXPONENT) & _NIBBLE) == RAW:
        return moved, 0.0, newest ^ (number << shift)
    steps = np.uint64(unzigzag(number)) + np.uint64(np.int64(np.rint(mean)))
    mean += (np.float64(np.int64(steps)) - mean) * 0.25
    kept = float_bits(mean) & _MEAN_CUT if abs(mean) >= _MEAN_LOW else _U0
    return moved, bits_float(kept), newest + (steps << shift)


@device
def after_plain_values(state: U64Array, mean: U64Array, newest: U64Array, numbers: U64Array) -> None:
    """`after_plain` for a value of each of many series, whose quotients are those of their numbers; means as
    bits. Without a branch, so that the compiler makes it several series at a time."""
    for i in range(len(numbers)):
        known, number, before = state[i], numbers[i], bits_float(mean[i])
        parameter = np.int64((known >> _PARAMETER) & _BYTE)
        quotient = number >> np.uint64(parameter >> 2)
        more = np.int64(quotient) - 2 * np.int64(quotient == _U0) - np.int64(quotient == _U1)
        parameter = min(max(parameter + more, np.int64(0)), np.int64(PARAMETER_LIMIT))
        state[i] = (known & _NOT_PARAMETER) | (np.uint64(parameter) << _PARAMETER)
        raw = known & _EXPONENT_MASK == _RAW
        shift = (known >> _SHIFT) & _SIX
        beyond = (number >> _U1) ^ (_U0 - (number & _U1))
        steps = beyond + np.uint64(np.int64(np.rint(before)))
        moved = before + (np.float64(np.int64(steps)) - before) * 0.25
        kept = float_bits(moved) & _MEAN_CUT
        mean[i] = _U0 if raw or abs(moved) < _MEAN_LOW else kept
        xored, added = newest[i] ^ (number << shift), newest[i] + (steps << shift)
        newest[i] = xored if raw else added


@device
def after_escape(
    codes: U8Array, at: Word, state: Word, mean: Word, newest: Word
) -> tuple[Word, Word, Word, Word]:
    """What is known after the escape whose ones end at bit `at`, and where it ends; -1 for a bad one."""
    bits, whole, at = take_escape(codes, at, newest_bits(state, newest), packed(state, mean))
    state, mean, newest = unpacked(whole, bits)
    return state, mean, newest, at


@device
def time_steps(t_ms: I64Array, at: Word, count: Word) -> tuple[Word, Word]:
    """The smallest step of some times, and the bits that steps have beyond it; TIMES_UNFIT where one is not
    above 0 or all are too long."""
    least, most = np.uint64(STEP_LIMIT), _U0
    rising = np.uint64(t_ms[at + count - 1]) - np.uint64(t_ms[at]) <= np.uint64(STEP_LIMIT)
    for i in range(at + 1, at + count):
        rising = rising and t_ms[i] > t_ms[i - 1]
        step = np.uint64(t_ms[i]) - np.uint64(t_ms[i - 1])
        least, most = min(least, step), max(most, step)
    if not rising:
        return _U0, np.int64(TIMES_UNFIT)
    if count == 1:
        return _U0, np.int64(0)
    return least, np.int64(_U64 - leading_zeros64(most - least))


@device
def put_header(
    out: U8Array,
    place: Word,
    t_ms: I64Array,
    at: Word,
    count: Word,
    least: Word,
    width: Word,
    state: Word,
    before: Word,
) -> Word:
    """Begin a chunk of `count` (at most 255) samples at out[place:], with their `time_steps`; the bytes
    before its values.

    Times that do not fit are left out, which the chunk says (`times_fit`): it cannot be read then."""
    known = ((state >> _PARAMETER) & _UNITS_MASK) | (state >> _MEAN << _UNITS)
    store64(out, place + _STATE_AT, known)
    store64(out, place + _STEP_AT, least)
    store64(out, place + _TIME_AT, np.uint64(t_ms[at]))
    store64(out, place + _BEFORE_AT, before)
    out[place] = np.uint8(CODED)
    out[place + _COUNT_AT] = np.uint8(count)
    out[place + _WIDTH_AT] = np.uint8(width)
    end = place + HEADER_BYTES
    if width > 0 and width != TIMES_UNFIT:
        fill, acc = _U0, _U0
        for i in range(at + 1, at + count):
            acc |= (np.uint64(t_ms[i]) - np.uint64(t_ms[i - 1]) - least) << fill
            store64(out, end, acc)
            fill += np.uint64(width)
            end += np.int64(fill >> _U3)
            acc >>= fill & ~_U7
            fill &= _U7
        end += np.int64(fill > _U0)
    store64(out, end, _U0)
    return end - place


@inline
def times_fit(out: U8Array, place: Word) -> bool:
    """Whether the chunk has its times."""
    return bool(out[place + _WIDTH_AT] != TIMES_UNFIT)


@inline
def values_begin(codes: U8Array, place: Word) -> Word:
    """The bit where the values of a chunk begin."""
    width = np.int64(codes[place + _WIDTH_AT])
    width = np.int64(0) if width == TIMES_UNFIT else width
    times = (np.int64(codes[place + _COUNT_AT]) - 1) * width
    return (np.int64(place + HEADER_BYTES) << 3) + ((times + 7) >> 3 << 3)


@inline
def put_code(out: U8Array, bit: Word, code: Word, size: Word) -> Word:
    """Append a code of at most `CODE_IN_WORD` bits; the bit after it. Seven bytes behind it become zeros, as
    the rest of its first one must be."""
    byte = bit >> 3
    store64(out, byte, np.uint64(out[byte]) | (code << np.uint64(bit & 7)))
    return bit + np.int64(size)


@device
def copy_code(codes: U8Array, at: Word, size: Word, out: U8Array, bit: Word) -> Word:
    """Append `size` (at most 128) bits from bit `at` of `codes`."""
    while size > 0:
        part: Word = min(size, np.int64(32))
        bit = put_code(out, bit, take_bits(codes, at, part), part)
        at += part
        size -= part
    return bit


@device
def decode_values(codes: U8Array, place: Word, begin: Word, end: Word, out_v: U64Array, out: Word) -> Word:
    """Values of the chunk at codes[place:], whose codes are bits `begin` to `end`, to `out_v[out:]`; how many
    they are, or -1 for bits that do not decode. `READ_PADDING` (kernels.xor) bytes must follow."""
    known = load64(codes, place + _STATE_AT)
    low40 = known & ((_U1 << np.uint64(40)) - _U1)
    state = ((low40 & _UNITS_MASK) << _PARAMETER) | (low40 >> _UNITS << _MEAN)
    if (state >> _EXPONENT) & _NIBBLE > np.uint64(RAW):
        return np.int64(-1)
    state, mean, newest = unpacked(state, load64(codes, place + _BEFORE_AT))
    at = begin
    count = np.int64(codes[place + _COUNT_AT])
    for i in range(count):
        if at >= end:
            return np.int64(-1)
        head = load64(codes, at >> 3) >> np.uint64(at & 7)
        quotient = trailing_zeros64(~head)
        if quotient >= np.uint64(QUOTIENT_LIMIT):
            state, mean, newest, at = after_escape(codes, at + QUOTIENT_LIMIT, state, mean, newest)
        else:
            low = np.int64((state >> _PARAMETER) & _BYTE) >> 2
            at += np.int64(quotient) + 1
            number = low_bits(head >> (quotient + _U1), low)
            if low > LOW_IN_WORD:
                number = take_bits(codes, at, low)
            at += low
            number |= quotient << np.uint64(low)
            state, mean, newest = after_plain(state, mean, newest, quotient, number)
        if at < 0 or at > end:
            return np.int64(-1)
        out_v[out + i] = newest_bits(state, newest)
    return count


@device
def decode_coded_chunk(
    buffer: U8Array,
    start: Word,
    length: Word,
    mint: Word,
    maxt: Word,
    out_t: I64Array,
    out_v: U64Array,
    out: Word,
) -> Word:
    """As `kernels.xor.decode_xor_chunk`, for a chunk of this form."""
    if length < HEADER_BYTES:
        return np.int64(-1)
    count, width = np.int64(buffer[start + _COUNT_AT]), np.int64(buffer[start + _WIDTH_AT])
    times = np.int64(start + HEADER_BYTES) << 3
    begin = values_begin(buffer, start)
    end = np.int64(start + length) << 3
    if width > 32 or begin > end or out + count > len(out_v):
        return np.int64(-1)
    if decode_values(buffer, start, begin, end, out_v, out) < 0:
        return np.int64(-1)
    t = load64(buffer, start + _TIME_AT)
    least = np.uint64(load32(buffer, start + _STEP_AT))
    kept = out
    for i in range(count):
        if np.int64(t) > maxt:
            break
        if np.int64(t) >= mint:
            out_t[kept] = np.int64(t)
            out_v[kept] = out_v[out + i]
            kept += 1
        word = load64(buffer, times >> 3) >> np.uint64(times & 7)
        t += least + low_bits(word, width)
        times += width
    return kept
