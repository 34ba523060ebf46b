"""Streams of numbers to words of a few bytes: what docs/formats/block.md calls the page codec, first half.

Enters: streams end to end, `offsets` i64[E+1] over flat float bits or integers. Leaves: one word a sample
(but the first of each stream) in as few bytes as the stream needs, and a header a stream. Floats that are
decimals become integers; integers lose their common divisor and are differenced once, twice or not at all,
whichever gives the fewest bits; other floats are XORed with the one before. Specials and odd ones out go to a
patch list with their raw bits. Speeds: docs/blocks.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.bits import float_bits, leading_zeros64, trailing_zeros64
from tsdb.kernels.compile import device, inline, kernel

U64 = np.uint64
I64 = np.int64

MODE_INTEGER = 0
"""Words are zigzag integers: value = (base + gcd * k) / 10^exponent."""
MODE_XOR = 1
"""Words are the XOR of neighbouring bit patterns, shifted right by `exponent` bits."""

NEAR = 16
"""Added to the exponent where integers are 3 m + r + 1: m / 10^exponent moved by r units in the last
place."""

EXPONENT_LIMIT = 14
"""Largest decimal exponent; above it XOR takes no more room (docs/blocks.md)."""

_POWERS = np.array([10.0**e for e in range(EXPONENT_LIMIT + 1)])
_NONE = EXPONENT_LIMIT + 1
_SAMPLE_COUNT = 32
_MEDIAN_COUNT = 33
_ROUNDING = 6755399441055744.0  # 1.5 * 2^52: adding and taking it away rounds to the nearest integer
_ROUNDING_LIMIT = 2251799813685248.0  # 2^51
_MANTISSA_LIMIT = 9007199254740992.0  # 2^53
_INTEGER_LIMIT = 4611686018427387904.0  # 2^62
_XOR_BYTES = 6.0
_DIGIT_BYTES = 0.42
_PATCH_BYTES = 11.0

_OFF = "Array(int64, 1, 'C', readonly=True)"


@inline
def wrapped(left: Any, right: Any) -> Any:
    """left - right modulo 2^64, as signed: signed arithmetic that overflows is undefined in LLVM."""
    return I64(U64(left) - U64(right))


@inline
def mantissa_at(value: Any, exponent: Any, near: Any) -> Any:
    """The integer m with m / 10^exponent == value to the bit, and whether there is one.

    With `near` the value may be one unit in the last place off, r = -1, 0 or 1: the integer is 3 m + r + 1.
    """
    scaled = value * _POWERS[exponent]
    size = abs(scaled)
    limit = _INTEGER_LIMIT if exponent == 0 else _MANTISSA_LIMIT
    if not size < limit:
        return I64(0), False
    rounded = (scaled + _ROUNDING) - _ROUNDING if size < _ROUNDING_LIMIT else scaled
    m = I64(rounded)
    off = wrapped(float_bits(value), float_bits(np.float64(m) / _POWERS[exponent]))
    if near:
        return I64(3) * m + off + I64(1), size < _MANTISSA_LIMIT and -1 <= off <= 1
    return m, off == 0


@device
def choose_exponent(values: Any, lo: Any, hi: Any, stride: Any, near: Any, counts: Any) -> Any:
    """Exponent that makes the looked-at values cheapest, or -1 for XOR. `counts` is scratch."""
    counts[:] = 0
    looked = 0
    start = 0
    for i in range(lo, hi, stride):
        looked += 1
        found = _NONE
        # Neighbours mostly have as many digits: begin there, then look for fewer.
        ok = mantissa_at(values[i], start, near)[1]
        if ok:
            found = start
            while found > 0 and mantissa_at(values[i], found - 1, near)[1]:
                found -= 1
        else:
            for e in range(start + 1, EXPONENT_LIMIT + 1):
                if mantissa_at(values[i], e, near)[1]:
                    found = e
                    break
            if found < _NONE:
                start = found
        counts[found] += 1
    best, best_cost, covered = -1, _XOR_BYTES * looked, 0
    for e in range(EXPONENT_LIMIT + 1):
        covered += counts[e]
        cost = _DIGIT_BYTES * e * looked + _PATCH_BYTES * (looked - covered)
        if cost < best_cost:
            best, best_cost = e, cost
    return best


@inline
def is_constant(bits: Any, lo: Any, hi: Any) -> Any:
    """Whether all values are one bit pattern."""
    i = lo + 1
    while i < hi and bits[i] == bits[lo]:
        i += 1
    return i >= hi


@device
def to_mantissas(
    bits: Any, values: Any, lo: Any, hi: Any, exponent: Any, near: Any, ints: Any, patches: Any,
    patch_index: Any, patch_bits: Any,
) -> Any:  # fmt: skip
    """Fill `ints` and the patch list from place `patches` on; the number of patches, -1 if over an eighth."""
    limit = ((hi - lo) >> 3) + 2
    count, last, first = 0, I64(0), hi
    for i in range(lo, hi):
        m, exact = mantissa_at(values[i], exponent, near)
        if exact:
            last = m
            if first == hi:
                first = i
        else:
            if count == limit:
                return -1
            patch_index[patches + count] = i - lo
            patch_bits[patches + count] = bits[i]
            count += 1
        ints[i] = last
    if first < hi:
        for i in range(lo, first):
            ints[i] = ints[first]
    return count


@inline
def bit_count(word: Any) -> Any:
    """Bits of a word without its leading zeros."""
    return I64(64) - I64(leading_zeros64(word))


@inline
def zigzag(value: Any) -> Any:
    """Signed to unsigned, small in both directions."""
    return (U64(value) << U64(1)) ^ U64(value >> I64(63))


@device
def common_divisor(ints: Any, lo: Any, hi: Any) -> Any:
    """Greatest common divisor of all differences, 1 where all are zero."""
    divisor = U64(0)
    for i in range(lo + 1, hi):
        step = wrapped(ints[i], ints[i - 1])
        a = U64(step) if step >= 0 else U64(0) - U64(step)
        if a == divisor or a == U64(0):
            continue
        while a != U64(0):
            divisor, a = a, divisor % a
        if divisor == U64(1):
            break
    # 2^63 does not fit the signed division that follows.
    return divisor if divisor != U64(0) and divisor < U64(1) << U64(63) else U64(1)


@device
def low_bits(words: Any, lo: Any, hi: Any, counts: Any) -> Any:
    """How many low bits of the words to store as they are, 0 to 7, so that the top fills a byte plane.

    Planes are entropy coded each by itself. A top byte of one to three bits and a byte below it depend on
    each other, which costs about 0.9 bits a word; with the low bits cut off the same bits share one plane.
    Words that have no more bits than are cut off pay for it.
    """
    counts[:65] = 0
    for i in range(lo + 1, hi):
        counts[bit_count(words[i])] += 1
    over, usual = (hi - lo) >> 5, 64
    while usual > 8 and over >= counts[usual]:
        over -= counts[usual]
        usual -= 1
    low = usual % 8 if usual > 8 else 0
    gain, loss = 0.0, counts[0] * low
    for b in range(9, 65):
        gain += 0.9 * counts[b]
    for b in range(1, low + 1):
        loss += counts[b] * (low - b + 1)
    return low if gain > loss else 0


@device
def median_distance(ints: Any, lo: Any, hi: Any, divisor: Any, sorted_part: Any) -> Any:
    """Median distance of some numbers from the first, in divisors. `sorted_part` is scratch."""
    stride = max(I64(1), (hi - lo) // _MEDIAN_COUNT)
    count = I64(0)
    for i in range(lo, hi, stride):
        if count == _MEDIAN_COUNT:
            break
        distance = wrapped(ints[i], ints[lo]) // divisor
        at = count
        while at > 0 and sorted_part[at - 1] > distance:
            sorted_part[at] = sorted_part[at - 1]
            at -= 1
        sorted_part[at] = distance
        count += 1
    return sorted_part[count >> 1]


@device
def pack_ints(ints: Any, words: Any, lo: Any, hi: Any, row: Any, order: Any, low: Any, base: Any,
              slope: Any, gcd: Any, counts: Any) -> Any:  # fmt: skip
    """Turn ints[lo:hi] into words[lo+1:hi] (the same memory); fill the header; the width in bytes."""
    base[row] = ints[lo]
    divisor = common_divisor(ints, lo, hi)
    gcd[row] = divisor
    signed = I64(divisor)
    # Noise is cheapest around its middle: differences of it are wider, and the first may be an outlier.
    middle = median_distance(ints, lo, hi, signed, counts)
    plain_bits, once_bits, twice_bits = I64(0), I64(0), I64(0)
    last, total, earlier = ints[lo], I64(0), I64(0)
    for i in range(lo + 1, hi):
        step = wrapped(ints[i], last)
        last = ints[i]
        if divisor > U64(1):
            step = step // signed
        ints[i] = step
        total = I64(U64(total) + U64(step))
        plain_bits += bit_count(zigzag(wrapped(total, middle)))
        once_bits += bit_count(zigzag(step))
        if i > lo + 1:
            twice_bits += bit_count(zigzag(wrapped(step, earlier)))
        earlier = step
    # Counters step upwards only: around their mean the steps are smaller.
    mean = total // max(I64(1), hi - lo - 1)
    centred_bits = I64(0)
    for i in range(lo + 1, hi):
        centred_bits += bit_count(zigzag(wrapped(ints[i], mean)))
    if centred_bits + 16 < once_bits:
        once_bits = centred_bits
    else:
        mean = I64(0)
    slope[row] = I64(0)
    widest = U64(0)
    if twice_bits + 16 < once_bits and twice_bits + 16 < plain_bits:
        order[row] = 2
        earlier = ints[lo + 1]
        slope[row] = earlier
        for i in range(lo + 1, hi):
            step = ints[i]
            words[i] = zigzag(wrapped(step, earlier))
            widest |= words[i]
            earlier = step
    elif plain_bits < once_bits:
        order[row] = 0
        slope[row] = middle
        total = I64(0)
        for i in range(lo + 1, hi):
            total = I64(U64(total) + U64(ints[i]))
            words[i] = zigzag(wrapped(total, middle))
            widest |= words[i]
    else:
        order[row] = 1
        slope[row] = mean
        for i in range(lo + 1, hi):
            words[i] = zigzag(wrapped(ints[i], mean))
            widest |= words[i]
    low[row] = low_bits(words, lo, hi, counts)
    return (bit_count(widest >> U64(low[row])) + 7) >> 3


@device
def pack_xor(bits: Any, words: Any, lo: Any, hi: Any, row: Any, exponent: Any, base: Any) -> Any:
    """XOR of neighbours into words[lo+1:hi], less the zero bits at the end common to all; the width."""
    base[row] = I64(bits[lo])
    union = U64(0)
    for i in range(lo + 1, hi):
        union |= bits[i] ^ bits[i - 1]
    if union == U64(0):
        exponent[row] = 0
        for i in range(lo + 1, hi):
            words[i] = U64(0)
        return 0
    shift = trailing_zeros64(union)
    exponent[row] = shift
    for i in range(lo + 1, hi):
        words[i] = (bits[i] ^ bits[i - 1]) >> shift
    return (bit_count(union >> shift) + 7) >> 3


@kernel(
    f"int64({_OFF}, Array(uint64, 1, 'C', readonly=True), Array(float64, 1, 'C', readonly=True), int64[::1], "
    "uint64[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], "
    "uint64[::1], uint32[::1], uint32[::1], uint64[::1])",
    group="write",
)
def pack_floats(
    offsets: Any, bits: Any, values: Any, ints: Any, words: Any, mode: Any, order: Any, low: Any,
    width: Any, exponent: Any, base: Any, slope: Any, gcd: Any, patch_counts: Any, patch_index: Any,
    patch_bits: Any,
) -> Any:  # fmt: skip
    """Encode E float streams; `bits`/`values` and `ints`/`words` are two views of one memory each.

    The patch arrays must hold N / 8 + 2 E entries. Returns the number of patches.
    """
    counts = np.zeros(65, dtype=np.int64)
    patches = I64(0)
    for row in range(len(offsets) - 1):
        lo, hi = offsets[row], offsets[row + 1]
        mode[row] = MODE_INTEGER
        order[row] = 1
        low[row] = 0
        width[row] = 0
        exponent[row] = 0
        base[row] = 0
        slope[row] = 0
        gcd[row] = U64(1)
        patch_counts[row] = 0
        if hi == lo:
            continue
        if is_constant(bits, lo, hi):
            # No word has a bit: the first number is all there is.
            chosen = choose_exponent(values, lo, lo + 1, 1, False, counts)
            if chosen < 0:
                mode[row] = MODE_XOR
                base[row] = I64(bits[lo])
            else:
                exponent[row] = chosen
                base[row] = mantissa_at(values[lo], chosen, False)[0]
            continue
        stride = max(1, (hi - lo) // _SAMPLE_COUNT)
        chosen = choose_exponent(values, lo, hi, stride, False, counts)
        patched, near = I64(-1), False
        if chosen >= 0:
            patched = to_mantissas(bits, values, lo, hi, chosen, near, ints, patches, patch_index, patch_bits)
        if patched < 0:
            # Looked at more closely: all values, then decimals that a computation has bent by one bit.
            for attempt in range(2):
                near = attempt == 1
                chosen = choose_exponent(values, lo, hi, 1, near, counts)
                if chosen >= 0:
                    patched = to_mantissas(
                        bits, values, lo, hi, chosen, near, ints, patches, patch_index, patch_bits
                    )
                if patched >= 0:
                    break
        if patched < 0:
            mode[row] = MODE_XOR
            width[row] = pack_xor(bits, words, lo, hi, row, exponent, base)
            continue
        exponent[row] = chosen + (NEAR if near else 0)
        patch_counts[row] = patched
        patches += patched
        width[row] = pack_ints(ints, words, lo, hi, row, order, low, base, slope, gcd, counts)
    return patches


@kernel(
    f"void({_OFF}, int64[::1], uint64[::1], uint8[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], "
    "uint64[::1])",
    group="write",
)
def pack_integers(
    offsets: Any, ints: Any, words: Any, order: Any, low: Any, width: Any, base: Any, slope: Any, gcd: Any
) -> None:
    """Encode E integer streams in place; `ints` and `words` are two views of one memory."""
    counts = np.zeros(65, dtype=np.int64)
    for row in range(len(offsets) - 1):
        lo, hi = offsets[row], offsets[row + 1]
        order[row] = 1
        low[row] = 0
        width[row] = 0
        base[row] = 0
        slope[row] = 0
        gcd[row] = U64(1)
        if hi > lo:
            width[row] = pack_ints(ints, words, lo, hi, row, order, low, base, slope, gcd, counts)


@kernel(
    f"int64({_OFF}, Array(uint64, 1, 'C', readonly=True), Array(uint8, 1, 'C', readonly=True), "
    "Array(uint8, 1, 'C', readonly=True), uint8[::1])",
    group="write",
)
def spread_planes(offsets: Any, words: Any, width: Any, low: Any, out: Any) -> Any:
    """Words to byte planes, streams of one width together and all lowest bytes first, then the low bits.

    Each stream's low bits begin at a byte. `out` comes zeroed. Returns the bytes written.
    """
    totals = np.zeros(9, dtype=np.int64)
    for row in range(len(width)):
        totals[width[row]] += max(I64(0), offsets[row + 1] - offsets[row] - 1)
    starts = np.zeros(10, dtype=np.int64)
    for w in range(1, 9):
        starts[w + 1] = starts[w] + w * totals[w]
    used = np.zeros(9, dtype=np.int64)
    low_at = starts[9]
    for row in range(len(width)):
        planes, cut = I64(width[row]), I64(low[row])
        count = offsets[row + 1] - offsets[row] - 1
        first = offsets[row] + 1
        for plane in range(planes):
            at = starts[planes] + plane * totals[planes] + used[planes]
            shift = U64(8 * plane + cut)
            for i in range(count):
                out[at + i] = np.uint8((words[first + i] >> shift) & U64(255))
        if cut > 0 and count > 0:
            mask = (U64(1) << U64(cut)) - U64(1)
            for i in range(count):
                bits = (words[first + i] & mask) << U64((i * cut) & 7)
                at = low_at + ((i * cut) >> 3)
                out[at] |= np.uint8(bits & U64(255))
                if bits > U64(255):
                    out[at + 1] |= np.uint8(bits >> U64(8))
            low_at += (count * cut + 7) >> 3
        used[planes] += max(I64(0), count)
    return low_at
