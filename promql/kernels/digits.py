"""Digits of values in a pass of their own, which tells how long their text will be before any is written.

A code u64 holds what the text of a value is made from: the sign in bit 63, what kind of number it is in bits
57 to 62, and its digits below. A kind from 1 to 31 is the negated exponent of ten of the 16 or 17 digits
of `decimal.nearest_digits`. A code of 0 is a sample that is not there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.decimal import (
    TEN_8,
    TEN_16,
    VALUE_BYTES_MAX,
    Real,
    Whole,
    Word,
    count_digits,
    eight_bytes,
    nearest_digits,
    write_digits,
    write_plain,
    write_value,
)
from tsdb.kernels.bits import float_bits, leading_zeros64
from tsdb.kernels.compile import device, inline, kernel

U8Array = npt.NDArray[np.uint8]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

ABSENT_WORD = np.uint64(0x7FF8000000000AB5)
STALE_WORD = np.uint64(0x7FF0000000000002)

WHOLE_KIND = np.uint64(62)
"""An integer up to 2^53, which is its own digits."""
OTHER_KIND = np.uint64(63)
"""Anything else: `decimal.write_value` makes the text from the value itself."""
LARGEST_WHOLE = np.uint64(1 << 53)

U0, U1, U3, U10 = np.uint64(0), np.uint64(1), np.uint64(3), np.uint64(10)
KIND_BITS, KIND_MASK, SIGN_BIT = np.uint64(57), np.uint64(63), np.uint64(63)
DIGITS_MASK = np.uint64((1 << 57) - 1)
SIGN = np.uint64(1 << 63)
SCRATCH_BYTES = VALUE_BYTES_MAX
QUOTES_AND_BRACKET = 2
"""What stands behind a value: `"]`."""


@inline
def plain_length(digits: Word, exponent: Whole) -> Whole:
    """Bytes that `decimal.write_plain` will write."""
    short = digits < TEN_16
    digits *= U10 if short else U1
    power = exponent + (15 if short else 16)
    upper = digits // TEN_8
    lower = digits - upper * TEN_8
    if lower != U0:
        count = 17 - np.int64(leading_zeros64(eight_bytes(lower)) >> U3)
    else:
        upper -= upper // TEN_8 * TEN_8
        count = 9 - np.int64(leading_zeros64(eight_bytes(upper)) >> U3)
    return count + 1 - min(power, 0)


@inline
def encode(bits: Word, value: Real, scratch: U8Array) -> tuple[Word, Whole]:
    """(code, bytes of the text) of a value that is there. `scratch` has SCRATCH_BYTES."""
    sign = bits & SIGN
    length = np.int64(bits >> SIGN_BIT)
    magnitude = abs(value)
    if magnitude <= 9007199254740992.0 and magnitude == np.floor(magnitude):
        number = np.uint64(magnitude)
        return sign | (WHOLE_KIND << KIND_BITS) | number, length + count_digits(number)
    if 1e-6 <= magnitude < 1e15:
        digits, exponent = nearest_digits(bits)
        if digits != U0:
            code = sign | (np.uint64(-exponent) << KIND_BITS) | digits
            return code, length + plain_length(digits, exponent)
    return OTHER_KIND << KIND_BITS, write_value(scratch, 0, bits, value)


@inline
def write_coded(out: U8Array, at: Whole, code: Word, bits: Word, value: Real) -> Whole:
    """Text of a value from its code, as `decimal.write_value` writes it: the position behind it."""
    kind = (code >> KIND_BITS) & KIND_MASK
    if kind == OTHER_KIND:
        return write_value(out, at, bits, value)
    digits = code & DIGITS_MASK
    out[at] = 45
    at += np.int64(code >> SIGN_BIT)
    if kind == WHOLE_KIND:
        return write_digits(out, at, digits, count_digits(digits))
    return write_plain(out, at, digits, -np.int64(kind))


@device
def measure_row(
    values: F64Array,
    low: int,
    high: int,
    origin: int,
    head_offsets: I64Array,
    codes: U64Array,
    scratch: U8Array,
) -> int:
    """Bytes of the points of a row with the commas between them; 0 for no point."""
    size = 0
    for p in range(low, high):
        value = values[p]
        bits = float_bits(value)
        if bits in (ABSENT_WORD, STALE_WORD):
            codes[p] = U0
            continue
        codes[p], length = encode(bits, value, scratch)
        size += length + head_offsets[p - origin + 1] - head_offsets[p - origin] + QUOTES_AND_BRACKET
    return size - 1 if size > 0 else 0


@kernel(
    "int64(float64[::1], int64[::1], int64[::1], int64[::1], int64[::1], uint64[::1], uint8[::1])",
    group="read",
)
def measure_points(
    values: F64Array,
    lows: I64Array,
    highs: I64Array,
    time_origins: I64Array,
    head_offsets: I64Array,
    codes: U64Array,
    scratch: U8Array,
) -> int:
    """Bytes of the points of all rows as `render.render_rows` writes them (same arguments), each row without
    the comma in front of its first point; the codes of its values go to `codes` u64 beside `values`."""
    total = 0
    for row in range(len(lows)):
        total += measure_row(values, lows[row], highs[row], time_origins[row], head_offsets, codes, scratch)
    return total
