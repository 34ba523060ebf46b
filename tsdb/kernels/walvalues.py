"""Values of samples as bits in a WAL record: what is left after a prediction from the series' own past.

A value is a whole number of units: 10^-exponent times 2^shift. The difference to the value before, less the
running mean of such differences, is written in a Golomb-Rice code whose parameter follows the series (as in
Malvar's run-length/Golomb-Rice coder). What does not fit the units or the parameter is escaped and chooses
new units; a value that is no short decimal is written as the xor of its bits.

The state of a series is one word beside the flags in META of its row (docs/formats/wal.md). Writer and reader
move it on alike; it begins anew with each segment. Bits are filled from the lowest up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import (
    Word,
    bits_float,
    float_bits,
    leading_zeros64,
    load64,
    store64,
    trailing_zeros64,
)
from tsdb.kernels.compile import device, inline

U8Array = npt.NDArray[np.uint8]

FLAGS_MASK = 0xFF
"""Bits of META that are not the coder's."""
STAMPS = 0xFFFF
"""Segments are told apart by their number modulo this, plus one; 0 is none."""
PARAMETER_SHIFT, EXPONENT_SHIFT, SHIFT_SHIFT, STAMP_SHIFT, MEAN_SHIFT = 8, 16, 20, 26, 42
PARAMETER_LIMIT = 224
"""Four times the largest number of low bits that are written as they are."""
QUOTIENT_LIMIT = 16
"""So many ones are an escape."""
EXPONENT_LIMIT = 6
RAW = 7
"""In place of an exponent: the xor of the bits."""
VALUE_BITS_LIMIT = QUOTIENT_LIMIT + 4 + 6 + 7 + 64

_POWERS = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6)
_EXACT = 4503599627370496.0
LOW_IN_WORD = 57 - QUOTIENT_LIMIT
"""Low bits that are in the same word as the quotient, wherever that begins in its byte."""
_PROBE_LIMITS = (4.0e9, 4.0e13)

_U0, _U1, _U7, _U64 = (np.uint64(n) for n in (0, 1, 7, 64))
_FLAGS = np.uint64(FLAGS_MASK)
_PARAMETER, _EXPONENT = np.uint64(PARAMETER_SHIFT), np.uint64(EXPONENT_SHIFT)
_SHIFT, _STAMP, _MEAN = np.uint64(SHIFT_SHIFT), np.uint64(STAMP_SHIFT), np.uint64(MEAN_SHIFT)
_BYTE, _NIBBLE, _SIX, _STAMP_MASK = (np.uint64(n) for n in (0xFF, 0xF, 0x3F, 0xFFFF))
_MEAN_KEPT = np.uint64(37)
_MEAN_MASK, _SIGN = np.uint64(0x1FFFFF), np.uint64(63)
_MEAN_BIAS = np.uint64((1023 - 11) << 15)
_MEAN_LOW = 2.0**-10


@inline
def stamp_of(segment: Word) -> Word:
    """What marks a series' state as belonging to a segment."""
    return np.uint64(segment % STAMPS + 1)


@inline
def state_in(meta: Word, stamp: Word) -> Word:
    """The coder's state in META as of this segment: that of a new series unless the stamp is right."""
    return meta & ~_FLAGS if (meta >> _STAMP) & _STAMP_MASK == stamp else stamp << _STAMP


@inline
def mean_of(state: Word) -> Word:
    """Running mean: sign, 6 bits of exponent, 15 of fraction."""
    packed = state >> _MEAN
    size = packed & _MEAN_MASK
    if size == _U0:
        return 0.0
    return bits_float(((packed >> np.uint64(21)) << _SIGN) | ((size + _MEAN_BIAS) << _MEAN_KEPT))


@inline
def packed_mean(mean: Word) -> Word:
    bits = float_bits(mean)
    if abs(mean) < _MEAN_LOW:
        return _U0
    size = ((bits & ~(_U1 << _SIGN)) >> _MEAN_KEPT) - _MEAN_BIAS
    return ((bits >> _SIGN) << np.uint64(21)) | size


@inline
def _state(stamp_and_units: Word, parameter: Word, mean: Word) -> Word:
    return stamp_and_units | (np.uint64(parameter) << _PARAMETER) | (packed_mean(mean) << _MEAN)


@inline
def units_of(bits: Word, exponent: Word) -> Word:
    """The value in units of 10^-exponent, rounded; 0 for what is too large or not finite."""
    scaled = bits_float(bits) * _POWERS[exponent]
    return np.int64(np.rint(scaled)) if abs(scaled) < _EXACT else np.int64(0)


@inline
def value_of(number: Word, exponent: Word) -> Word:
    return float_bits(np.float64(number) / _POWERS[exponent])


@inline
def moved_parameter(parameter: Word, quotient: Word) -> Word:
    """The parameter after a quotient."""
    if quotient == _U0:
        return max(parameter - 2, np.int64(0))
    if quotient == _U1:
        return parameter
    return min(parameter + np.int64(quotient), np.int64(PARAMETER_LIMIT))


@inline
def _zigzag(value: Word) -> Word:
    return (np.uint64(value) << _U1) ^ np.uint64(value >> 63)


@inline
def unzigzag(value: Word) -> Word:
    return np.int64(value >> _U1) ^ -np.int64(value & _U1)


@inline
def _put(out: U8Array, acc: Word, fill: Word, at: Word, value: Word, size: Word) -> tuple[Word, Word, Word]:
    """Append the low `size` (at most 64) bits of `value`, which has no others."""
    acc |= value << fill
    if fill + size >= _U64:
        store64(out, at, acc)
        at += 8
        acc = value >> (_U64 - fill) if fill != _U0 else _U0
        return acc, fill + size - _U64, at
    return acc, fill + size, at


@device
def _put_escape(
    out: U8Array, acc: Word, fill: Word, at: Word, bits: Word, before: Word, state: Word
) -> tuple[Word, Word, Word, Word]:
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    shift = (state >> _SHIFT) & _SIX
    known = state & ~(_STAMP_MASK << _STAMP) != _U0
    chosen = np.int64(0) if exponent == RAW else exponent
    while chosen <= EXPONENT_LIMIT and value_of(units_of(bits, chosen), chosen) != bits:
        chosen += 1
    if chosen <= EXPONENT_LIMIT:
        difference = units_of(bits, chosen) - units_of(before, chosen)
        number = np.uint64(difference)
    else:
        chosen = np.int64(RAW)
        difference = np.int64(0)
        number = bits ^ before
    low = trailing_zeros64(number) & _SIX
    if not known or chosen != exponent or low < shift:
        shift = low
    if chosen == RAW:
        number >>= shift
    else:
        number = _zigzag(difference >> np.int64(shift))
    size = _U64 - leading_zeros64(number)
    ones = np.uint64((1 << QUOTIENT_LIMIT) - 1)
    head = ones | (np.uint64(chosen) << np.uint64(QUOTIENT_LIMIT)) | (shift << np.uint64(QUOTIENT_LIMIT + 4))
    acc, fill, at = _put(
        out, acc, fill, at, head | (size << np.uint64(QUOTIENT_LIMIT + 10)), np.uint64(QUOTIENT_LIMIT + 17)
    )
    acc, fill, at = _put(out, acc, fill, at, number, size)
    return acc, fill, at, _after_escape(state, chosen, shift, size)


@inline
def _after_escape(state: Word, chosen: Word, shift: Word, size: Word) -> Word:
    """The state after an escape: other units have another mean; the parameter grows towards the size."""
    parameter = np.int64((state >> _PARAMETER) & _BYTE)
    units = (np.uint64(chosen) << _EXPONENT) | (shift << _SHIFT)
    same = (state >> _EXPONENT) & np.uint64(0x3FF) == units >> _EXPONENT
    wanted = 4 * np.int64(size)
    parameter = wanted if chosen == RAW else min(parameter + 16, wanted)
    parameter = min(parameter, np.int64(PARAMETER_LIMIT))
    mean = state & (~_U0 << _MEAN) if same else _U0
    return (state & (_STAMP_MASK << _STAMP)) | units | (np.uint64(parameter) << _PARAMETER) | mean


@inline
def put_value(
    out: U8Array, acc: Word, fill: Word, at: Word, bits: Word, before: Word, state: Word
) -> tuple[Word, Word, Word, Word]:
    """Append one value. `acc` holds `fill` bits that are not in `out` yet, which is written up to `at`.

    Returns acc, fill, at and the series' new state.
    """
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    shift = (state >> _SHIFT) & _SIX
    parameter = np.int64((state >> _PARAMETER) & _BYTE)
    mean = 0.0
    steps = np.int64(0)
    if exponent == RAW:
        number = bits ^ before
        fits = low_bits(number, shift) == _U0
        number >>= shift
        if number != _U0:
            size = abs(bits_float(bits))
            probe = 6 if size < _PROBE_LIMITS[0] else (2 if size < _PROBE_LIMITS[1] else 0)
            fits = fits and value_of(units_of(bits, probe), probe) != bits
    else:
        whole = units_of(bits, exponent)
        difference = whole - units_of(before, exponent)
        fits = value_of(whole, exponent) == bits and low_bits(np.uint64(difference), shift) == _U0
        steps = difference >> np.int64(shift)
        mean = mean_of(state)
        number = _zigzag(steps - np.int64(np.rint(mean)))
    low = np.uint64(parameter >> 2)
    quotient = number >> low
    if not fits or quotient >= np.uint64(QUOTIENT_LIMIT):
        return _put_escape(out, acc, fill, at, bits, before, state)
    acc, fill, at = _put(out, acc, fill, at, (_U1 << quotient) - _U1, quotient + _U1)
    acc, fill, at = _put(out, acc, fill, at, low_bits(number, low), low)
    units = state & ((_STAMP_MASK << _STAMP) | (np.uint64(0x3FF) << _EXPONENT))
    mean += (np.float64(steps) - mean) * 0.25
    return acc, fill, at, _state(units, moved_parameter(parameter, quotient), mean)


@inline
def _peek(data: U8Array, at: Word) -> Word:
    """At least 57 bits from bit `at` on; zeros behind the end."""
    byte = np.int64(at >> 3)
    if byte + 8 <= len(data):
        word = load64(data, byte)
    else:
        word = _U0
        for i in range(byte, len(data)):
            word |= np.uint64(data[i]) << np.uint64(8 * (i - byte))
    return word >> np.uint64(at & 7)


@inline
def low_bits(word: Word, size: Word) -> Word:
    return word & ((_U1 << np.uint64(size)) - _U1)


@device
def take_bits(data: U8Array, at: Word, size: Word) -> Word:
    """`size` (at most 64) bits from bit `at` on."""
    if size > 32:
        high = low_bits(_peek(data, at + 32), size - 32)
        return (_peek(data, at) & np.uint64(0xFFFFFFFF)) | (high << np.uint64(32))
    return low_bits(_peek(data, at), size)


@device
def take_escape(data: U8Array, at: Word, before: Word, state: Word) -> tuple[Word, Word, Word]:
    head = _peek(data, at)
    chosen = np.int64(head & _NIBBLE)
    shift = (head >> np.uint64(4)) & _SIX
    size = np.int64((head >> np.uint64(10)) & np.uint64(0x7F))
    if chosen > RAW or size > 64:
        return _U0, state, np.int64(-1)
    at += 17
    number = take_bits(data, at, size)
    if chosen == RAW:
        bits = before ^ (number << shift)
    else:
        # Unsigned: a damaged difference must not overflow a signed sum.
        whole = np.uint64(units_of(before, chosen)) + (np.uint64(unzigzag(number)) << shift)
        bits = value_of(np.int64(whole), chosen)
    return bits, _after_escape(state, chosen, shift, np.uint64(size)), at + size


@inline
def take_value(data: U8Array, at: Word, before: Word, state: Word) -> tuple[Word, Word, Word]:
    """Bits of the value at bit `at`, the series' new state, and the position after it; -1 for a bad one.

    The position may lie behind the end of the data, which the caller tests.
    """
    head = _peek(data, at)
    quotient = trailing_zeros64(~head)
    if quotient >= np.uint64(QUOTIENT_LIMIT):
        return take_escape(data, at + QUOTIENT_LIMIT, before, state)
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    shift = (state >> _SHIFT) & _SIX
    parameter = np.int64((state >> _PARAMETER) & _BYTE)
    low = parameter >> 2
    at += np.int64(quotient) + 1
    near = low_bits(head >> (quotient + _U1), low)
    number = (near if low <= LOW_IN_WORD else take_bits(data, at, low)) | (quotient << np.uint64(low))
    units = state & ((_STAMP_MASK << _STAMP) | (np.uint64(0x3FF) << _EXPONENT))
    moved = moved_parameter(parameter, quotient)
    if exponent == RAW:
        return before ^ (number << shift), _state(units, moved, 0.0), at + low
    mean = mean_of(state)
    steps = np.int64(np.uint64(unzigzag(number)) + np.uint64(np.int64(np.rint(mean))))
    whole = np.uint64(units_of(before, exponent)) + (np.uint64(steps) << shift)
    mean += (np.float64(steps) - mean) * 0.25
    return value_of(np.int64(whole), exponent), _state(units, moved, mean), at + low
