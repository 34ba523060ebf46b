"""Values of a bundle of WAL records, brought together series by series: not decoded to be encoded again, but
copied as they are.

What the coder knows of a series is unpacked for the length of the bundle, whose records then cost no look at
its row; the number of units that the newest value has is kept instead of being made from the value again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import LAST_V, META
from tsdb.kernels.bits import Word, bits_float, float_bits, load64, trailing_zeros64
from tsdb.kernels.bundletimes import CODED_SIZE, CODES_AT, LENGTH, LIST, TIMES_AT
from tsdb.kernels.codedchunk import (
    CODE_IN_WORD,
    CODED_BYTES_LIMIT,
    CODED_SAMPLE_BYTES_LIMIT,
    after_escape,
    after_plain,
    after_plain_values,
    copy_code,
    newest_bits,
    packed,
    put_code,
    put_header,
    time_steps,
    unpacked,
)
from tsdb.kernels.compile import device
from tsdb.kernels.walvalues import (
    FLAGS_MASK,
    PARAMETER_SHIFT,
    QUOTIENT_LIMIT,
    low_bits,
    stamp_of,
    state_in,
    take_bits,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Rows of `states` u64[8, S]: the state without its mean, bits of the mean, the newest value (its number of
# units, or its bits where those are xored), the bit of `out` where the next code goes, the number coded for a
# record, and the first three after a code that is not plain.
_STATE, _MEAN, _NEWEST, CODES_END, _NUMBER, _STATE_AFTER, _MEAN_AFTER, _NEWEST_AFTER = range(8)
STATE_ROWS = 8
CODED_PADDING = 32
"""Bytes that must follow the coded values: one value takes at most 13, and words are read whole."""

_U0, _U1, _U2 = np.uint64(0), np.uint64(1), np.uint64(2)
_FLAGS = np.uint64(FLAGS_MASK)
_PARAMETER, _BYTE = np.uint64(PARAMETER_SHIFT), np.uint64(0xFF)


@device
def _begin(
    slots: U32Array,
    runs: I64Array,
    t_ms: I64Array,
    segment: Word,
    states: U64Array,
    rows: U64Array,
    out: U8Array,
) -> Word:
    """Begin a chunk for each series and unpack what the coder knows of it; the bytes of `out` taken."""
    stamp = stamp_of(segment)
    end, column = np.int64(0), np.int64(-1)
    least, width = _U0, np.int64(0)
    for s in range(len(slots)):
        row, count = rows[slots[s]], runs[s, LENGTH]
        if count == 0:
            continue
        if runs[s, TIMES_AT] != column:
            column = runs[s, TIMES_AT]
            least, width = time_steps(t_ms, column, count)
        state = state_in(row[META], stamp)
        before = row[LAST_V] if state == row[META] & ~_FLAGS else _U0
        runs[s, CODES_AT] = end
        size = put_header(out, end, t_ms, column, count, least, width, state, before)
        state, mean, newest = unpacked(state, before)
        states[_STATE, s], states[_MEAN, s], states[_NEWEST, s] = state, float_bits(mean), newest
        states[CODES_END, s] = np.uint64(end + size) << np.uint64(3)
        end += CODED_BYTES_LIMIT + count * CODED_SAMPLE_BYTES_LIMIT
    return end


@device
def _long_code(coded: U8Array, at: Word, states: U64Array, s: Word, out: U8Array) -> Word:
    """Take an escape, or a value of more bits than a word read anywhere has; the bit after it, -1 for bad
    bits."""
    state, mean, newest = states[_STATE, s], bits_float(states[_MEAN, s]), states[_NEWEST, s]
    head = load64(coded, at >> 3) >> np.uint64(at & 7)
    quotient = trailing_zeros64(~head)
    if quotient >= np.uint64(QUOTIENT_LIMIT):
        state, mean, newest, end = after_escape(coded, at + QUOTIENT_LIMIT, state, mean, newest)
        if end < 0:
            return np.int64(-1)
    else:
        low = np.int64((state >> _PARAMETER) & _BYTE) >> 2
        end = at + np.int64(quotient) + 1 + low
        number = take_bits(coded, end - low, low) | (quotient << np.uint64(low))
        state, mean, newest = after_plain(state, mean, newest, quotient, number)
    states[_STATE_AFTER, s], states[_MEAN_AFTER, s] = state, float_bits(mean)
    states[_NEWEST_AFTER, s] = newest
    states[CODES_END, s] = np.uint64(copy_code(coded, at, end - at, out, np.int64(states[CODES_END, s])))
    return end


@device
def _take_record(
    coded: U8Array,
    at: Word,
    limit: Word,
    states: U64Array,
    begin: Word,
    end: Word,
    long: I64Array,
    out: U8Array,
) -> Word:
    """Take a record's codes, one of each series from `begin` to `end`; the bit after it, -1 for bad ones."""
    state, bits, numbers = states[_STATE][begin:end], states[CODES_END][begin:end], states[_NUMBER][begin:end]
    count = np.int64(0)
    for i in range(len(numbers)):
        head = load64(coded, at >> 3) >> np.uint64(at & 7)
        quotient = trailing_zeros64(~head)
        low = ((state[i] >> _PARAMETER) & _BYTE) >> _U2
        size = quotient + _U1 + low
        if quotient >= np.uint64(QUOTIENT_LIMIT) or size > np.uint64(CODE_IN_WORD):
            at = _long_code(coded, at, states, begin + i, out)
            if at < 0:
                return np.int64(-1)
            long[count] = begin + i
            count += 1
            numbers[i] = _U0
        else:
            numbers[i] = low_bits(head >> (quotient + _U1), low) | (quotient << low)
            bits[i] = np.uint64(put_code(out, np.int64(bits[i]), low_bits(head, size), size))
            at += np.int64(size)
        if at > limit:
            return np.int64(-1)
    after_plain_values(state, states[_MEAN][begin:end], states[_NEWEST][begin:end], numbers)
    for j in range(count):
        s = long[j]
        states[_STATE, s], states[_MEAN, s] = states[_STATE_AFTER, s], states[_MEAN_AFTER, s]
        states[_NEWEST, s] = states[_NEWEST_AFTER, s]
    return at


@device
def part_runs(
    coded: U8Array,
    parts: I64Array,
    ends: I64Array,
    slots: U32Array,
    runs: I64Array,
    t_ms: I64Array,
    segment: int,
    states: U64Array,
    rows: U64Array,
    long: I64Array,
    out: U8Array,
) -> Word:
    """Bring the codes of each series of a bundle together, as chunks (kernels.codedchunk) in `out`, and move
    the rows' coders on.

    `coded` are those of the records in `parts` (kernels.bundletimes) side by side, and `CODED_PADDING` bytes;
    list k has the series up to `ends[k]`, whose `slots` u32[S] all differ; `runs`, of at most 255 samples,
    and `t_ms` are those of `read_times`. `states` u64[8, S] and `long` i64[S] are scratch. Fills in
    `CODES_AT` of runs, and the bit after the last code in `states[CODES_END]`. Returns the bytes of `out`
    taken, or -1 for bits that do not decode.
    """
    taken = _begin(slots, runs, t_ms, segment, states, rows, out)
    origin = np.int64(0)
    for p in range(len(parts)):
        k = parts[p, LIST]
        begin = ends[k - 1] if k > 0 else np.int64(0)
        at = origin << 3
        origin += parts[p, CODED_SIZE]
        limit = origin << 3
        if _take_record(coded, at, limit, states, begin, ends[k], long, out) < 0:
            return np.int64(-1)
    for s in range(len(slots)):
        row, state = rows[slots[s]], states[_STATE, s]
        if runs[s, LENGTH] > 0:
            row[LAST_V] = newest_bits(state, states[_NEWEST, s])
            row[META] = (row[META] & _FLAGS) | packed(state, bits_float(states[_MEAN, s]))
    return taken
