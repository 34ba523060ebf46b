"""Shortest decimal text of a float64, in the notation of the query API. Device functions only.

In: the value and its bits. Out: ASCII bytes at `out[at:]`; every writer returns the position behind them.
The caller leaves VALUE_BYTES_MAX (TIME_BYTES_MAX) bytes of room. Two ways lead to the digits: one
multiplication tells them for all but one value in 10^16, and says so where it cannot (`nearest_digits`);
the rest take Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import leading_zeros64, store64
from tsdb.kernels.compile import device, inline, instruction

U8Array = npt.NDArray[np.uint8]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]
Word = Any
"""A uint64 inside a kernel."""
Whole = Any
"""An int64 inside a kernel."""
Real = Any
"""A float64 inside a kernel."""

VALUE_BYTES_MAX = 40
"""Room for a value: sign, "0.00000" and 17 digits, or sign, 17 digits, point and "e-308"; and the seven bytes
behind the last digit that a word store may touch."""

TIME_BYTES_MAX = 32
"""Room for a timestamp: sign, 17 digits of seconds, point, 3 digits, and seven bytes."""

_POWER_LOW, _POWER_HIGH = -292, 324


def _powers() -> tuple[U64Array, U64Array]:
    """128-bit significands of 10^k for k in -292 .. 324, rounded up: high and low words, u64[617]."""
    words = []
    for k in range(_POWER_LOW, _POWER_HIGH + 1):
        if k >= 0:
            shift = (10**k).bit_length() - 128
            words.append((10**k) << -shift if shift <= 0 else -((-(10**k)) >> shift))
        else:
            divisor = 10**-k
            numerator = 1 << (divisor.bit_length() + 127)
            words.append(-(-numerator // divisor))
    mask = (1 << 64) - 1
    return (
        np.array([w >> 64 for w in words], dtype=np.uint64),
        np.array([w & mask for w in words], dtype=np.uint64),
    )


POWER_HIGH_WORDS, POWER_LOW_WORDS = _powers()
NEAR_FIRST, NEAR_MASK = np.uint64(1003), np.uint64(127)
"""Biased exponent of 1e-6; and what keeps a row of NEAR inside the table, whatever the value."""


def _near() -> tuple[U64Array, I64Array]:
    """What `nearest_digits` multiplies with, by biased exponent from NEAR_FIRST on: the power of ten (high
    and low word), the shift that puts the point at 64 bits, half the distance to the next value in units of
    2^-59, u64[128, 4]; and the exponent of ten that the digits have, i64[128]."""
    rows, powers = [], []
    for biased in range(int(NEAR_FIRST), int(NEAR_FIRST) + int(NEAR_MASK) + 1):
        q = biased - 1075
        k = (q * 1262611) >> 22
        high = int(POWER_HIGH_WORDS[-k - _POWER_LOW])
        shift = q + ((-k * 1741647) >> 19) + 1
        rows.append((high, int(POWER_LOW_WORDS[-k - _POWER_LOW]), shift, high >> (6 - shift)))
        powers.append(k)
    return np.array(rows, dtype=np.uint64), np.array(powers, dtype=np.int64)


NEAR, NEAR_POWERS = _near()
WHOLE_TENS = np.array([10**k for k in range(20)], dtype=np.uint64)

U0, U1, U2, U4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
U3, U5, U6, U8, U10, U16 = (np.uint64(n) for n in (3, 5, 6, 8, 10, 16))
U20, U32, U40, U52, U56, U59, U63, U64, U100 = (np.uint64(n) for n in (20, 32, 40, 52, 56, 59, 63, 64, 100))
U35, LOW_16, TENTH = np.uint64(35), np.uint64(0xFFFF), np.uint64(0xCCCCCCCD)
TEN_4, TEN_8, TEN_16 = np.uint64(10**4), np.uint64(10**8), np.uint64(10**16)
U1000 = np.uint64(1000)
THOUSANDTHS_MAX = 1e11
"""Below it eight digits at most stand before the point, which are one word. And no two decimals of at most 15
digits read back as the same number, so where such a quotient is the value, no other text is shorter."""
TEN_UNITS = np.int64(10 << 59)
HALF = np.uint64(1 << 63)
MARGIN = np.int64(8)
"""Twice what fixed-point numbers of `nearest_digits` may be off, in units of 2^-59."""
ASCII_ZEROS = np.uint64(0x3030303030303030)
ZERO_POINT_ZEROS = np.uint64(int.from_bytes(b"0.000000", "little"))
FRACTION = np.uint64((1 << 52) - 1)
HIDDEN = np.uint64(1 << 52)
EXPONENT_MASK = np.uint64(0x7FF)


multiply_high = cast(
    Callable[[Word, Word], Word], instruction("tsdb.machinecode.instructions", "multiply_high")
)
"""High word of the product of two u64: one machine instruction, which numba has no spelling for."""


@inline
def round_to_odd(high: Word, low: Word, factor: Word) -> Word:
    """Top word of (high:low * factor) >> 128, its last bit set when anything below was cut off."""
    carry = multiply_high(low, factor)
    top = multiply_high(high, factor)
    rest = high * factor + carry
    if rest < carry:
        top += U1
    if rest > U1:
        top |= U1
    return top


@device
def schubfach(bits: Word) -> tuple[Word, Whole]:
    """(digits u64, exponent i64) of a finite, non-zero, positive value: the shortest, then nearest, decimal
    digits * 10^exponent that reads back as the value."""
    fraction, biased = bits & FRACTION, (bits >> U52) & EXPONENT_MASK
    closer = np.int64(0)
    if biased != U0:
        c, q = fraction | HIDDEN, np.int64(biased) - 1075
        if fraction == U0 and biased > U1:
            closer = np.int64(1)
    else:
        c, q = fraction, np.int64(-1074)
    odd = c & U1
    k = (q * 1262611 - closer * 524031) >> 22
    h = np.uint64(q + ((-k * 1741647) >> 19) + 1)
    high, low = POWER_HIGH_WORDS[-k - _POWER_LOW], POWER_LOW_WORDS[-k - _POWER_LOW]
    centre = c * U4
    lower = round_to_odd(high, low, (centre - U2 + np.uint64(closer)) << h) + odd
    middle = round_to_odd(high, low, centre << h)
    upper = round_to_odd(high, low, (centre + U2) << h) - odd
    s = middle >> U2
    if s >= U10:
        tens = s // U10
        below, above = lower <= U40 * tens, U40 * tens + U40 <= upper
        if below != above:
            return tens + (U1 if above else U0), k + 1
    below, above = lower <= U4 * s, U4 * s + U4 <= upper
    if below != above:
        return s + (U1 if above else U0), k
    half = U4 * s + U2
    if middle > half or (middle == half and (s & U1) != U0):
        return s + U1, k
    return s, k


@inline
def nearest_digits(bits: Word) -> tuple[Word, Whole]:
    """(digits, exponent) as Schubfach gives them, of 16 or 17 digits with zeros at the end where fewer would
    do; digits 0 where this way cannot tell. For values from 1e-6 to 1e15.

    The value is x * 10^k, and half the distance to its neighbours d * 10^k with 0.5 <= d < 5. So at most one
    multiple of ten lies closer to x than d, and is the answer if there is one; else the integer nearest to
    x is. Both x and d are known to within 4 * 2^-59 from one 64 x 128 bit product: a comparison of values
    that lie further apart is right, and values that lie closer are left to Schubfach, as are powers of two,
    whose lower neighbour is nearer.
    """
    fraction = bits & FRACTION
    row = np.int64((((bits >> U52) & EXPONENT_MASK) - NEAR_FIRST) & NEAR_MASK)
    high, low = NEAR[row, 0], NEAR[row, 1]
    factor = (fraction | HIDDEN) << NEAR[row, 2]
    carry = multiply_high(low, factor)
    whole = multiply_high(high, factor)
    rest = high * factor + carry
    if rest < carry:
        whole += U1
    # The last digit: 2^16 and 2^32 leave 6 when divided by ten, and the sum is short enough for one product.
    folded = (whole & LOW_16) + (((whole >> U16) & LOW_16) + (whole >> U32)) * U6
    last = folded - ((folded * TENTH) >> U35) * U10
    above_ten = np.int64((last << U59) + (rest >> U5))
    reach = np.int64(NEAR[row, 3])
    lower, upper = above_ten - reach, TEN_UNITS - above_ten - reach
    unsure = np.uint64(lower + MARGIN) < U16
    unsure |= np.uint64(upper + MARGIN) < U16
    unsure |= (rest - HALF + U32) < U64
    unsure |= fraction == U0
    # One of five values has such a multiple, in no order: a branch would often be foretold wrongly.
    is_lower, is_upper = np.uint64(lower >> 63), np.uint64(upper >> 63)
    is_either = is_lower | is_upper
    digits = whole + ((rest >> U63) & ~is_either) - (last & is_either) + (U10 & is_upper)
    return (U0 if unsure else digits), NEAR_POWERS[row]


@inline
def strip_zeros(digits: Word, exponent: Whole) -> tuple[Word, Whole]:
    """The same decimal without trailing zeros in its digits (which are not 0)."""
    quotient = digits // U10
    if quotient * U10 != digits:
        return digits, exponent
    digits, exponent = quotient, exponent + 1
    quotient = digits // TEN_8
    if quotient * TEN_8 == digits:
        digits, exponent = quotient, exponent + 8
    quotient = digits // TEN_4
    if quotient * TEN_4 == digits:
        digits, exponent = quotient, exponent + 4
    while True:
        quotient = digits // U10
        if quotient * U10 != digits:
            return digits, exponent
        digits, exponent = quotient, exponent + 1


@inline
def count_digits(number: Word) -> Whole:
    """Number of decimal digits of a u64 below 10^19; 1 for 0."""
    guess = ((64 - np.int64(leading_zeros64(number | U1))) * 1233) >> 12
    return guess + 1 if number >= WHOLE_TENS[guess] else max(guess, 1)


@inline
def eight_digits(number: Word) -> Word:
    """Eight ASCII digits of a u64 below 10^8 as a word, the first digit in the lowest byte."""
    return eight_bytes(number) + ASCII_ZEROS


@inline
def eight_bytes(number: Word) -> Word:
    """Eight digits of a u64 below 10^8 as bytes 0 to 9 of a word, the first digit in the lowest byte."""
    high = number // TEN_4
    word = high | ((number - high * TEN_4) << U32)
    part = ((word * np.uint64(10486)) >> U20) & np.uint64(0x0000007F0000007F)
    word = part | ((word - part * U100) << U16)
    part = ((word * np.uint64(103)) >> U10) & np.uint64(0x000F000F000F000F)
    word = part | ((word - part * U10) << U8)
    return word


@inline
def write_digits(out: U8Array, at: Whole, number: Word, count: Whole) -> Whole:
    """`count` digits (1 to 24) of a u64, zeros in front where it has fewer. Stores whole words: up to seven
    bytes behind the last digit are overwritten."""
    if count <= 8:
        store64(out, at, eight_digits(number) >> np.uint64(8 * (8 - count)))
        return at + count
    rest = number // TEN_8
    last = eight_digits(number - rest * TEN_8)
    if count <= 16:
        store64(out, at, eight_digits(rest) >> np.uint64(8 * (16 - count)))
    else:
        first = rest // TEN_8
        store64(out, at, eight_digits(first) >> np.uint64(8 * (24 - count)))
        store64(out, at + count - 16, eight_digits(rest - first * TEN_8))
    store64(out, at + count - 8, last)
    return at + count


@inline
def write_zeros(out: U8Array, at: Whole, count: Whole) -> Whole:
    """`count` zeros."""
    for i in range(at, at + count):
        out[i] = 48
    return at + count


@device
def write_fraction(out: U8Array, at: Whole, whole: Word, digits: Word, exponent: Whole) -> Whole:
    """digits * 10^exponent, exponent < 0, whose integer part is `whole`."""
    if whole != U0:
        at = write_digits(out, at, whole, count_digits(whole))
        out[at] = 46
        return write_digits(out, at + 1, digits - whole * WHOLE_TENS[-exponent], -exponent)
    out[at] = 48
    out[at + 1] = 46
    count = count_digits(digits)
    at = write_zeros(out, at + 2, -exponent - count)
    return write_digits(out, at, digits, count)


@inline
def write_plain(out: U8Array, at: Whole, digits: Word, exponent: Whole) -> Whole:
    """digits * 10^exponent of a value from 1e-6 to 1e15 that is no integer, from 16 or 17 digits, without the
    zeros at their end. Stores whole words, at most 33 bytes from `at` on."""
    if digits < TEN_16:
        digits, exponent = digits * U10, exponent - 1
    first = digits // TEN_16
    digits -= first * TEN_16
    upper = digits // TEN_8
    left, right = eight_bytes(upper), eight_bytes(digits - upper * TEN_8)
    if right != U0:
        count = 17 - np.int64(leading_zeros64(right) >> U3)
    else:
        count = 9 - np.int64(leading_zeros64(left) >> U3)
    left, right = left + ASCII_ZEROS, right + ASCII_ZEROS
    power = exponent + 16
    if power < 0:
        store64(out, at, ZERO_POINT_ZEROS)
        at += 1 - power
        store64(out, at, first + ASCII_ZEROS)
        store64(out, at + 1, left)
        store64(out, at + 9, right)
        return at + count
    store64(out, at, first + ASCII_ZEROS)
    store64(out, at + 1, left)
    store64(out, at + 9, right)
    # What stands behind the point once more, one byte further.
    skip = np.uint64(power) << U3
    if power >= 8:
        left, right = right >> (skip - U8 * U8), U0
    else:
        left, right = (left >> skip) | ((right << U8) << (U56 - skip)), right >> skip
    store64(out, at + power + 2, left)
    store64(out, at + power + 10, right)
    out[at + power + 1] = 46
    return at + count + 1


@inline
def write_thousandths(out: U8Array, at: Whole, number: Word) -> Whole:
    """A number of thousandths below THOUSANDTHS_MAX that is no multiple of 1000, without the zeros at its
    end. Stores whole words, at most 17 bytes from `at` on."""
    whole = number // U1000
    count = count_digits(whole)
    store64(out, at, eight_digits(whole) >> (U64 - (np.uint64(count) << U3)))
    out[at + count] = 46
    rest = eight_bytes(number - whole * U1000)
    store64(out, at + count + 1, (rest + ASCII_ZEROS) >> U40)
    return at + count + 4 - np.int64(leading_zeros64(rest) >> U3)


@device
def write_scientific(out: U8Array, at: Whole, digits: Word, count: Whole, exponent: Whole) -> Whole:
    """digits * 10^exponent as d.ddde+XX, with at least two exponent digits."""
    write_digits(out, at + 1, digits, count)
    out[at] = out[at + 1]
    power = exponent + count - 1
    if count > 1:
        out[at + 1] = 46
        at += count + 1
    else:
        at += 1
    out[at] = 101
    out[at + 1] = 45 if power < 0 else 43
    return write_digits(out, at + 2, np.uint64(abs(power)), 3 if abs(power) >= 100 else 2)


@inline
def write_not_finite(out: U8Array, at: Whole, bits: Word) -> Whole:
    """NaN, +Inf or -Inf."""
    if bits & FRACTION != U0:
        out[at], out[at + 1], out[at + 2] = 78, 97, 78
        return at + 3
    out[at] = 43 if bits >> U63 == U0 else 45
    out[at + 1], out[at + 2], out[at + 3] = 73, 110, 102
    return at + 4


@device
def write_value(out: U8Array, at: Whole, bits: Word, value: Real) -> Whole:
    """Text of a sample value: fixed notation, with an exponent only below 1e-6 and from 1e21 on."""
    biased = (bits >> U52) & EXPONENT_MASK
    if biased == EXPONENT_MASK:
        return write_not_finite(out, at, bits)
    if bits >> U63 != U0:
        out[at] = 45
        at += 1
        value = -value
        bits &= ~(U1 << U63)
    if value <= 9007199254740992.0 and value == np.floor(value):
        number = np.uint64(value)
        return write_digits(out, at, number, count_digits(number))
    if 1e-6 <= value < 1e15:
        thousandths = np.floor(value * 1000.0 + 0.5)
        if thousandths / 1000.0 == value and thousandths < THOUSANDTHS_MAX:
            return write_thousandths(out, at, np.uint64(thousandths))
        digits, exponent = nearest_digits(bits)
        if digits != U0:
            return write_plain(out, at, digits, exponent)
    digits, exponent = schubfach(bits)
    digits, exponent = strip_zeros(digits, exponent)
    count = count_digits(digits)
    if value < 1e-6 or value >= 1e21:
        return write_scientific(out, at, digits, count, exponent)
    if exponent < 0:
        return write_fraction(out, at, np.uint64(value), digits, exponent)
    at = write_digits(out, at, digits, count)
    return write_zeros(out, at, exponent)


@device
def write_time(out: U8Array, at: Whole, t_ms: Whole) -> Whole:
    """Seconds of a millisecond timestamp, with exactly three decimals unless it is whole."""
    magnitude = np.uint64(t_ms)
    if t_ms < 0:
        out[at] = 45
        at += 1
        magnitude = ~magnitude + U1
    seconds = magnitude // np.uint64(1000)
    rest = magnitude - seconds * np.uint64(1000)
    at = write_digits(out, at, seconds, count_digits(seconds))
    if rest != U0:
        out[at] = 46
        at = write_digits(out, at + 1, rest, 3)
    return at
