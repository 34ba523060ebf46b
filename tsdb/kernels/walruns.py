"""Values of a bundle of WAL records, written out series by series.

What the coder knows of a series is unpacked for the length of the bundle, whose records then cost no look at
its row; the number of units that the newest value has is kept instead of being made from the value again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import LAST_V, META
from tsdb.kernels.bits import Word, bits_float, float_bits, load64, trailing_zeros64
from tsdb.kernels.bundletimes import CODED_SIZE, LENGTH, LIST, VALUES_AT
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.walvalues import (
    EXPONENT_SHIFT,
    FLAGS_MASK,
    LOW_IN_WORD,
    MEAN_SHIFT,
    PARAMETER_LIMIT,
    PARAMETER_SHIFT,
    QUOTIENT_LIMIT,
    RAW,
    SHIFT_SHIFT,
    low_bits,
    mean_of,
    packed_mean,
    stamp_of,
    state_in,
    take_bits,
    take_escape,
    units_of,
    unzigzag,
    value_of,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

STATE_WORDS = 4
"""Columns of `states` u64[S, 4]: the state without its mean, bits of the mean, the newest value (its number
of units, or its bits where those are xored), the place of the next value."""
CODED_PADDING = 32
"""Bytes that must follow the coded values: one value takes at most 13, and words are read whole."""

_U0, _U1 = np.uint64(0), np.uint64(1)
_FLAGS = np.uint64(FLAGS_MASK)
_PARAMETER, _EXPONENT = np.uint64(PARAMETER_SHIFT), np.uint64(EXPONENT_SHIFT)
_SHIFT, _MEAN = np.uint64(SHIFT_SHIFT), np.uint64(MEAN_SHIFT)
_BYTE, _NIBBLE, _SIX = (np.uint64(n) for n in (0xFF, 0xF, 0x3F))
_BELOW_MEAN = (_U1 << _MEAN) - _U1
_NOT_PARAMETER = ~(_BYTE << _PARAMETER)
_MEAN_CUT = ~((_U1 << np.uint64(37)) - _U1)
_MEAN_LOW = 2.0**-10


@device
def _unpack(state: Word, before: Word, out: U64Array) -> None:
    """A series' state as a row of `states` has it."""
    exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
    out[0] = state & _BELOW_MEAN
    out[1] = float_bits(mean_of(state))
    out[2] = before if exponent == RAW else np.uint64(units_of(before, exponent))


@inline
def _packed(known: U64Array) -> Word:
    return known[0] | (packed_mean(bits_float(known[1])) << _MEAN)


@device
def _after_escape(coded: U8Array, at: Word, known: U64Array) -> tuple[Word, Word]:
    """Bits of a value behind the ones of an escape, and the position after it, -1 for a bad one."""
    exponent = np.int64((known[0] >> _EXPONENT) & _NIBBLE)
    before = known[2] if exponent == RAW else value_of(np.int64(known[2]), exponent)
    bits, state, at = take_escape(coded, at, before, _packed(known))
    _unpack(state, bits, known)
    return bits, at


@kernel(
    "int64(uint8[::1], int64[:,::1], int64[::1], uint32[::1], int64[:,::1], int64, uint64[:,::1],"
    " uint64[:,::1], uint64[::1])",
    group="write",
)
def decode_runs(
    coded: U8Array,
    parts: I64Array,
    ends: I64Array,
    slots: U32Array,
    runs: I64Array,
    segment: int,
    states: U64Array,
    rows: U64Array,
    values: U64Array,
) -> Word:
    """Decode the values of a bundle to the runs of their series, and move the rows' coders on.

    `coded` are those of the records in `parts` (kernels.bundletimes) side by side, and `CODED_PADDING` bytes;
    list k has the series up to `ends[k]`, whose `slots` u32[S] all differ; `runs` are those of `read_times`.
    `states` u64[S, 4] is scratch. Returns 0, or -1 for bits that do not decode.
    """
    stamp = stamp_of(segment)
    for s in range(len(slots)):
        row = rows[slots[s]]
        state = state_in(row[META], stamp)
        before = row[LAST_V] if state == row[META] & ~_FLAGS else _U0
        _unpack(state, before, states[s])
        states[s, 3] = np.uint64(runs[s, VALUES_AT])
    origin = np.int64(0)
    for p in range(len(parts)):
        k = parts[p, LIST]
        begin = ends[k - 1] if k > 0 else np.int64(0)
        at = origin << 3
        origin += parts[p, CODED_SIZE]
        limit = origin << 3
        for s in range(begin, ends[k]):
            known = states[s]
            head = load64(coded, at >> 3) >> np.uint64(at & 7)
            quotient = trailing_zeros64(~head)
            if quotient >= np.uint64(QUOTIENT_LIMIT):
                bits, at = _after_escape(coded, at + QUOTIENT_LIMIT, known)
                if at < 0:
                    return np.int64(-1)
            else:
                state = known[0]
                parameter = np.int64((state >> _PARAMETER) & _BYTE)
                shift = (state >> _SHIFT) & _SIX
                exponent = np.int64((state >> _EXPONENT) & _NIBBLE)
                low = parameter >> 2
                at += np.int64(quotient) + 1
                number = low_bits(head >> (quotient + _U1), low)
                if low > LOW_IN_WORD:
                    number = take_bits(coded, at, low)
                at += low
                number |= quotient << np.uint64(low)
                # Whether a quotient is 0 is a coin's throw: it must not be a branch.
                more = np.int64(quotient) - 2 * np.int64(quotient == _U0) - np.int64(quotient == _U1)
                parameter = min(max(parameter + more, np.int64(0)), np.int64(PARAMETER_LIMIT))
                known[0] = (state & _NOT_PARAMETER) | (np.uint64(parameter) << _PARAMETER)
                if exponent == RAW:
                    bits = known[2] ^ (number << shift)
                    known[1] = _U0
                    known[2] = bits
                else:
                    mean = bits_float(known[1])
                    steps = np.uint64(unzigzag(number)) + np.uint64(np.int64(np.rint(mean)))
                    whole = known[2] + (steps << shift)
                    mean += (np.float64(np.int64(steps)) - mean) * 0.25
                    known[1] = float_bits(mean) & _MEAN_CUT if abs(mean) >= _MEAN_LOW else _U0
                    known[2] = whole
                    bits = value_of(np.int64(whole), exponent)
            if at > limit:
                return np.int64(-1)
            values[np.int64(known[3])] = bits
            known[3] += _U1
    for s in range(len(slots)):
        row = rows[slots[s]]
        if runs[s, LENGTH] > 0:
            row[LAST_V] = values[runs[s, VALUES_AT] + runs[s, LENGTH] - 1]
            row[META] = (row[META] & _FLAGS) | _packed(states[s])
    return np.int64(0)
