"""Histogram and float-histogram chunks of Prometheus's blocks, with and without start timestamps.

Enter: chunks in a buffer; leave: the columns of `HistogramBatch`. A chunk has one layout (spans, thresholds)
for all its samples; integers are deltas of deltas a bucket, floats xors a bucket (Prometheus's
tsdb/docs/format/chunks.md). A first kernel measures, a second fills. Everything is tested against the
chunk's end before the next field is read; no field is longer than `READ_PADDING`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, float_bits
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.promchunks import (
    ERROR_DATA,
    ERROR_FACTOR,
    FLOAT_HISTOGRAM,
    FLOAT_HISTOGRAM_ST,
    HISTOGRAM_ST,
    take_start,
    take_varbit_int,
    take_varbit_uint,
)
from tsdb.kernels.xor import NO_WINDOW, take, take_xor

U8Array = npt.NDArray[np.uint8]
I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

CUSTOM_SCHEMA = -53
SCHEMA_MIN, SCHEMA_MAX = -4, 8
SCRATCH_FIELDS = 3
"""Words of scratch for a bucket: value, delta or leading zeros, trailing zeros."""

_U0, _U1 = np.uint64(0), np.uint64(1)
_NO_WINDOW = np.uint64(NO_WINDOW)
_STALE = np.uint64(0x7FF0000000000002)
_INDEX_LIMIT = np.int64(1) << 31
_HEADER_BYTES = 3
_GAUGE, _NOT_RESET, _UNKNOWN = 3, 2, 0


@device
def _read_spans(buffer: U8Array, bit: Word, end: Word, index: I32Array, at: Word) -> tuple[Word, Word]:
    """Number of buckets of one side and the bit position after its spans, -1 for damage.

    Bucket indices go to `index[at:]` unless `index` is empty.
    """
    spans, bit = take_varbit_uint(buffer, bit)
    if bit > end or spans > np.uint64(end - bit):
        return np.int64(0), np.int64(-1)
    total = np.int64(0)
    next_index = np.int64(0)
    for span in range(np.int64(spans)):
        length, bit = take_varbit_uint(buffer, bit)
        if bit > end:
            return np.int64(0), np.int64(-1)
        offset, bit = take_varbit_int(buffer, bit)
        if bit > end or (span > 0 and offset < 0) or abs(offset) >= _INDEX_LIMIT:
            return np.int64(0), np.int64(-1)
        # Each bucket of the first sample takes a bit at least.
        if length > np.uint64(end - bit) or total + np.int64(length) > end - bit:
            return np.int64(0), np.int64(-1)
        next_index += offset
        if next_index + np.int64(length) >= _INDEX_LIMIT or next_index < -_INDEX_LIMIT:
            return np.int64(0), np.int64(-1)
        if len(index):
            for k in range(np.int64(length)):
                index[at + total + k] = next_index + k
        total += np.int64(length)
        next_index += np.int64(length)
    return total, np.int64(bit)


@device
def _read_customs(buffer: U8Array, bit: Word, end: Word, customs: U64Array) -> tuple[Word, Word]:
    """Number of custom bounds and the bit position after them, -1 for damage; bits go to `customs`."""
    total, bit = take_varbit_uint(buffer, bit)
    if bit > end or total > np.uint64(end - bit):
        return np.int64(0), np.int64(-1)
    for k in range(np.int64(total)):
        code, bit = take_varbit_uint(buffer, bit)
        if bit > end:
            return np.int64(0), np.int64(-1)
        if code == _U0:
            bits = take(buffer, bit, 64)
            bit += 64
        else:
            bits = float_bits(np.float64(np.int64(code - _U1)) / 1000.0)
        if bit > end:
            return np.int64(0), np.int64(-1)
        if len(customs):
            customs[k] = bits
    return np.int64(total), np.int64(bit)


@device
def _read_layout(
    buffer: U8Array, start: Word, length: Word, index: I32Array, customs: U64Array
) -> tuple[Word, ...]:
    """Schema, bits of the zero threshold, buckets of both sides, custom bounds, bit position (-1: damage)."""
    zero = np.int64(0)
    damage = (zero, _U0, zero, zero, zero, np.int64(-1))
    if length <= _HEADER_BYTES:
        return damage
    end = np.int64(start + length) << 3
    bit = np.int64(start + _HEADER_BYTES) << 3
    code = take(buffer, bit, 8)
    bit += 8
    threshold = _U0
    if code == np.uint64(255):
        threshold = take(buffer, bit, 64)
        bit += 64
    elif code != _U0:
        # 2^(code - 244).
        threshold = (code + np.uint64(1023 - 244)) << np.uint64(52)
    if bit > end:
        return damage
    schema, bit = take_varbit_int(buffer, bit)
    if bit > end or (schema != CUSTOM_SCHEMA and (schema < SCHEMA_MIN or schema > SCHEMA_MAX)):
        return damage
    pos, bit = _read_spans(buffer, bit, end, index, zero)
    if bit < 0:
        return damage
    neg, bit = _read_spans(buffer, bit, end, index, pos)
    if bit < 0:
        return damage
    custom = zero
    if schema == CUSTOM_SCHEMA:
        custom, bit = _read_customs(buffer, bit, end, customs)
        if bit < 0:
            return damage
    return schema, threshold, pos, neg, custom, bit


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])",
    group="import",
)
def measure_histograms(
    buffer: U8Array,
    starts: I64Array,
    lengths: I64Array,
    positive: I64Array,
    negative: I64Array,
    customs: I64Array,
) -> Word:
    """Buckets of both sides and custom bounds that each chunk's samples have. 0 or an error."""
    no_index = np.empty(0, dtype=np.int32)
    no_customs = np.empty(0, dtype=np.uint64)
    for i in range(len(starts)):
        _, _, pos, neg, custom, bit = _read_layout(buffer, starts[i], lengths[i], no_index, no_customs)
        if bit < 0:
            return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
        positive[i], negative[i], customs[i] = pos, neg, custom
    return np.int64(0)


@device
def _integer_sample(
    buffer: U8Array, bit: Word, end: Word, i: Word, state: I64Array, words: U64Array, deltas: I64Array
) -> Word:
    """Read an integer sample's time, count, zero count and sum; returns the bit position, -1 for damage.

    `state`: t, its delta, count, its delta, zero count, its delta. `words`: sum, leading, trailing.
    """
    change, bit = take_varbit_int(buffer, bit)
    if bit > end:
        return np.int64(-1)
    if i == 0:
        state[0] = change
    else:
        state[1] += change
        state[0] += state[1]
    for k in range(2, 6, 2):
        if i == 0:
            first, bit = take_varbit_uint(buffer, bit)
            state[k] = np.int64(first)
        else:
            change, bit = take_varbit_int(buffer, bit)
            state[k + 1] += change
            state[k] += state[k + 1]
        if bit > end:
            return np.int64(-1)
    if i == 0:
        words[0] = take(buffer, bit, 64)
        bit += 64
    elif bit < end:
        words[0], bit, words[1], words[2] = take_xor(buffer, bit, words[0], words[1], words[2])
    else:
        return np.int64(-1)
    if bit < 0 or bit > end:
        return np.int64(-1)
    if i > 0 and words[0] == _STALE:
        return np.int64(bit)
    for k in range(len(deltas) // 2):
        change, bit = take_varbit_int(buffer, bit)
        if bit > end:
            return np.int64(-1)
        if i == 0:
            deltas[2 * k] = change
        else:
            deltas[2 * k + 1] += change
            deltas[2 * k] += deltas[2 * k + 1]
    return np.int64(bit)


@device
def _float_sample(
    buffer: U8Array, bit: Word, end: Word, i: Word, state: I64Array, words: U64Array, buckets: U64Array
) -> Word:
    """As `_integer_sample` for floats: `words` and `buckets` hold value, leading, trailing of each field.

    `words`: sum, count, zero count.
    """
    change, bit = take_varbit_int(buffer, bit)
    if bit > end:
        return np.int64(-1)
    if i == 0:
        state[0] = change
    else:
        state[1] += change
        state[0] += state[1]
    for field in range(3):
        at = 3 * ((field + 1) % 3)
        if i == 0:
            words[at] = take(buffer, bit, 64)
            bit += 64
        else:
            words[at], bit, words[at + 1], words[at + 2] = take_xor(
                buffer, bit, words[at], words[at + 1], words[at + 2]
            )
        if bit < 0 or bit > end:
            return np.int64(-1)
    if i > 0 and words[0] == _STALE:
        return np.int64(bit)
    for k in range(len(buckets) // 3):
        at = 3 * k
        if i == 0:
            buckets[at] = take(buffer, bit, 64)
            bit += 64
        else:
            buckets[at], bit, buckets[at + 1], buckets[at + 2] = take_xor(
                buffer, bit, buckets[at], buckets[at + 1], buckets[at + 2]
            )
        if bit < 0 or bit > end:
            return np.int64(-1)
    return np.int64(bit)


@device
def _write_integer_buckets(
    deltas: I64Array, lo: Word, hi: Word, index: I32Array, out: Word, out_index: I32Array, out_count: U64Array
) -> Word:
    current = np.int64(0)
    for k in range(lo, hi):
        current += deltas[2 * k]
        out_index[out] = index[k]
        out_count[out] = float_bits(np.float64(current))
        out += 1
    return np.int64(out)


@device
def _write_float_buckets(
    buckets: U64Array,
    lo: Word,
    hi: Word,
    index: I32Array,
    out: Word,
    out_index: I32Array,
    out_count: U64Array,
) -> Word:
    for k in range(lo, hi):
        out_index[out] = index[k]
        out_count[out] = buckets[3 * k]
        out += 1
    return np.int64(out)


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], uint8[::1], int64[::1], int64[::1], int32[::1], uint64[::1],"
    " int64[::1], int64[::1], int32[::1], uint8[::1], uint64[:, ::1], int64[:, ::1], int32[::1], uint64[::1],"
    " int32[::1], uint64[::1], uint64[::1], uint8[::1])",
    group="import",
)
def decode_histograms(
    buffer: U8Array,
    starts: I64Array,
    lengths: I64Array,
    encodings: U8Array,
    counts: I64Array,
    scratch: I64Array,
    index: I32Array,
    customs: U64Array,
    out_t: I64Array,
    out_start: I64Array,
    out_schema: I32Array,
    out_hint: U8Array,
    out_numbers: U64Array,
    out_offsets: I64Array,
    pos_index: I32Array,
    pos_count: U64Array,
    neg_index: I32Array,
    neg_count: U64Array,
    custom_values: U64Array,
    out_is_float: U8Array,
) -> Word:
    """Fill the columns of all samples of the chunks, in order.

    `out_numbers` u64[4, H]: bits of zero threshold, zero count, count, sum. `out_offsets` i64[3, H + 1]: ends
    of the positive, negative and custom parts. `scratch`, `index`, `customs` hold SCRATCH_FIELDS words, one
    number and one bound of the longest layout. Returns the number of samples or an error.
    """
    h = p = n = c = np.int64(0)
    state = np.zeros(6, dtype=np.int64)
    words = np.zeros(9, dtype=np.uint64)
    out_offsets[0, 0] = out_offsets[1, 0] = out_offsets[2, 0] = 0
    for i in range(len(starts)):
        start, encoding = starts[i], encodings[i]
        end = np.int64(start + lengths[i]) << 3
        schema, threshold, pos, neg, custom, bit = _read_layout(buffer, start, lengths[i], index, customs)
        if bit < 0:
            return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
        is_float = encoding in (FLOAT_HISTOGRAM, FLOAT_HISTOGRAM_ST)
        with_start = encoding in (HISTOGRAM_ST, FLOAT_HISTOGRAM_ST)
        st_header = np.int64(buffer[start + 2]) if with_start else np.int64(0)
        gauge = (buffer[start if with_start else start + 2] >> 6) == _GAUGE
        state[:] = 0
        words[:] = 0
        scratch[:] = 0
        deltas = scratch[: 2 * (pos + neg)]
        buckets = scratch[: 3 * (pos + neg)].view(np.uint64)
        for k in range(1, 9, 3):
            words[k] = _NO_WINDOW
        if is_float:
            for k in range(pos + neg):
                buckets[3 * k + 1] = _NO_WINDOW
        start_t = diff = np.int64(0)
        for sample in range(counts[i]):
            before = state[0]
            if bit >= end:
                bit = np.int64(-1)
            elif is_float:
                bit = _float_sample(buffer, bit, end, sample, state, words, buckets)
            else:
                bit = _integer_sample(buffer, bit, end, sample, state, words, deltas)
            if bit >= 0 and with_start:
                start_t, diff, bit = take_start(
                    buffer, bit, st_header, sample, state[0], before, start_t, diff
                )
            if bit < 0 or bit > end:
                return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
            out_t[h], out_start[h] = state[0], start_t
            out_is_float[h] = is_float
            out_numbers[3, h] = words[0]
            if words[0] == _STALE:
                out_schema[h], out_hint[h] = 0, _UNKNOWN
                out_numbers[0, h] = out_numbers[1, h] = out_numbers[2, h] = _U0
            else:
                out_schema[h] = schema
                out_hint[h] = _GAUGE if gauge else (_NOT_RESET if sample > 0 else _UNKNOWN)
                out_numbers[0, h] = threshold
                if is_float:
                    out_numbers[1, h], out_numbers[2, h] = words[6], words[3]
                    p = _write_float_buckets(buckets, 0, pos, index, p, pos_index, pos_count)
                    n = _write_float_buckets(buckets, pos, pos + neg, index, n, neg_index, neg_count)
                else:
                    out_numbers[1, h] = float_bits(np.float64(np.uint64(state[4])))
                    out_numbers[2, h] = float_bits(np.float64(np.uint64(state[2])))
                    p = _write_integer_buckets(deltas, 0, pos, index, p, pos_index, pos_count)
                    n = _write_integer_buckets(deltas, pos, pos + neg, index, n, neg_index, neg_count)
                for k in range(custom):
                    custom_values[c] = customs[k]
                    c += 1
            h += 1
            out_offsets[0, h], out_offsets[1, h], out_offsets[2, h] = p, n, c
    return h
