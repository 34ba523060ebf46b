"""Rows of query results to JSON bytes.

In: values f64 with row offsets, texts made beforehand (labels of each row, one text a timestamp, one a
histogram) as byte arrays with offsets. Out: bytes in `out`, which the caller sends and hands in again: the
kernel stops when the buffer is full and goes on from `state`.
What a point costs is in docs/http-api.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels.decimal import TIME_BYTES_MAX, VALUE_BYTES_MAX, write_time, write_value
from promql.kernels.digits import ABSENT_WORD, STALE_WORD, write_coded
from tsdb.kernels.bits import float_bits, load64, store64
from tsdb.kernels.compile import device, inline, kernel

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

HEAD_BYTES_MAX = TIME_BYTES_MAX + 8
"""Room for what stands before the value of a point, `,[t,"`, and for the bytes that word loads touch."""

POINT_BYTES_MAX = HEAD_BYTES_MAX + VALUE_BYTES_MAX + 8
"""Room for `,[t,"v"]`."""

KEY_BYTES_MAX = 32
"""Room for the key that opens a list of points, or for what closes a row."""

ENTRY_BYTES_MAX = TIME_BYTES_MAX + 2 * KEY_BYTES_MAX
"""Room for a histogram entry besides the histogram's own text."""

ROOM_BYTES_MIN = 4 * KEY_BYTES_MAX
"""Less room than this at the start of a row, or of the rest of a row, ends a buffer."""

ROW_START = np.frombuffer(b'{"metric":', dtype=np.uint8).copy()
POINT_END = np.uint64(int.from_bytes(b'"]', "little"))

ROW, PHASE, CURSOR, WRITTEN_ROWS = 0, 1, 2, 3
STATE_LENGTH = 4
"""i64 cells that carry a rendering from one buffer to the next, zero at the start."""

NO_CODE = np.uint64(0)
IN_HEAD, IN_VALUES, IN_HISTOGRAMS = 0, 1, 2


@inline
def copy(source: U8Array, lo: int, hi: int, out: U8Array, at: int) -> int:
    """source[lo:hi] to out[at:], in words where there is one: the last overlaps the one before."""
    size = hi - lo
    if size < 8:
        for i in range(size):
            out[at + i] = source[lo + i]
        return at + size
    for i in range(0, size - 8, 8):
        store64(out, at + i, load64(source, lo + i))
    store64(out, at + size - 8, load64(source, hi - 8))
    return at + size


@kernel("int64(int64[::1], uint8[::1], int64[::1])", group="read")
def render_times(t_ms: I64Array, out: U8Array, offsets: I64Array) -> int:
    """Text of each timestamp in seconds: i is out[offsets[i]:offsets[i+1]]. `out` has TIME_BYTES_MAX bytes a
    timestamp. Returns the bytes used."""
    at = 0
    offsets[0] = 0
    for i in range(len(t_ms)):
        at = write_time(out, at, t_ms[i])
        offsets[i + 1] = at
    return at


@kernel("int64(int64[::1], uint8[::1], int64[::1])", group="read")
def render_heads(t_ms: I64Array, out: U8Array, offsets: I64Array) -> int:
    """What stands before the value of a point at each timestamp, `,[t,"`, as `render_times` gives texts.
    `out` has HEAD_BYTES_MAX bytes a timestamp and as many at its end. Returns the bytes used."""
    at = 0
    offsets[0] = 0
    for i in range(len(t_ms)):
        out[at], out[at + 1] = 44, 91
        at = write_time(out, at + 2, t_ms[i])
        out[at], out[at + 1] = 44, 34
        at += 2
        offsets[i + 1] = at
    return at


@kernel(
    "int64(int64[::1], uint32[::1], uint32[::1], uint8[::1], int64[:,::1], uint8[::1], int64[::1])",
    group="read",
)
def render_labels(
    row_offsets: I64Array,
    names: U32Array,
    values: U32Array,
    texts: U8Array,
    spans: I64Array,
    out: U8Array,
    offsets: I64Array,
) -> int:
    """Label objects `{"a":"b",...}`: row i owns pairs row_offsets[i]..row_offsets[i+1], whose names and
    values index into `spans` i64[N, 2], begin and end of quoted JSON texts. Returns the bytes needed; rows
    are written as long as `out` has room for them."""
    at = 0
    offsets[0] = 0
    for i in range(len(row_offsets) - 1):
        size = 2 if row_offsets[i] == row_offsets[i + 1] else 1
        for pair in range(row_offsets[i], row_offsets[i + 1]):
            name, value = names[pair], values[pair]
            size += 2 + spans[name, 1] - spans[name, 0] + spans[value, 1] - spans[value, 0]
        if at + size > len(out):
            at += size
            offsets[i + 1] = at
            continue
        out[at] = 123
        at += 1
        for pair in range(row_offsets[i], row_offsets[i + 1]):
            if pair > row_offsets[i]:
                out[at] = 44
                at += 1
            at = copy(texts, spans[names[pair], 0], spans[names[pair], 1], out, at)
            out[at] = 58
            at = copy(texts, spans[values[pair], 0], spans[values[pair], 1], out, at + 1)
        out[at] = 125
        at += 1
        offsets[i + 1] = at
    return at


@kernel("int64(float64[::1], int64[::1], int64[::1], int64[::1])", group="read")
def count_points(values: F64Array, lows: I64Array, highs: I64Array, counts: I64Array) -> int:
    """Samples of each row that are neither absent nor stale, into `counts`. Returns their total."""
    total = 0
    for i in range(len(lows)):
        count = 0
        for p in range(lows[i], highs[i]):
            word = float_bits(values[p])
            if word != ABSENT_WORD and word != STALE_WORD:
                count += 1
        counts[i] = count
        total += count
    return total


@inline
def write_row_start(out: U8Array, at: int, first: bool) -> int:
    """A comma unless the row is the first, and the opening of the row's object."""
    if not first:
        out[at] = 44
        at += 1
    return copy(ROW_START, 0, len(ROW_START), out, at)


@inline
def copy_head(heads: U8Array, lo: int, size: int, out: U8Array, at: int) -> int:
    """What stands before a point's value, in words: `heads` has HEAD_BYTES_MAX spare bytes at its end."""
    store64(out, at, load64(heads, lo))
    store64(out, at + 8, load64(heads, lo + 8))
    store64(out, at + 16, load64(heads, lo + 16))
    if size > 24:
        store64(out, at + 24, load64(heads, lo + 24))
    return at + size


@device
def write_points(
    values: F64Array,
    point: int,
    high: int,
    origin: int,
    first: bool,
    heads: U8Array,
    head_offsets: I64Array,
    out: U8Array,
    at: int,
) -> tuple[int, int, bool]:
    """Points from `point` up to `high` or until the buffer is full: (at, next point, none written yet)."""
    last = len(out) - POINT_BYTES_MAX
    while point < high and at <= last:
        value = values[point]
        word = float_bits(value)
        if word != ABSENT_WORD and word != STALE_WORD:
            lo, hi = head_offsets[point - origin], head_offsets[point - origin + 1]
            if first:  # without the comma
                lo += 1
                first = False
            at = copy_head(heads, lo, hi - lo, out, at)
            at = write_value(out, at, word, value)
            store64(out, at, POINT_END)
            at += 2
        point += 1
    return at, point, first


@device
def write_coded_points(
    values: F64Array,
    codes: U64Array,
    point: int,
    high: int,
    origin: int,
    first: bool,
    heads: U8Array,
    head_offsets: I64Array,
    out: U8Array,
    at: int,
) -> tuple[int, int, bool]:
    """As `write_points`, from codes of the values."""
    last = len(out) - POINT_BYTES_MAX
    while point < high and at <= last:
        code = codes[point]
        if code != NO_CODE:
            lo, hi = head_offsets[point - origin], head_offsets[point - origin + 1]
            if first:  # without the comma
                lo += 1
                first = False
            at = copy_head(heads, lo, hi - lo, out, at)
            at = write_coded(out, at, code, float_bits(values[point]), values[point])
            store64(out, at, POINT_END)
            at += 2
        point += 1
    return at, point, first


@device
def write_entries(
    entry: int,
    stop: int,
    first: bool,
    key: U8Array,
    times: U8Array,
    time_offsets: I64Array,
    texts: U8Array,
    text_offsets: I64Array,
    out: U8Array,
    at: int,
) -> tuple[int, int]:
    """Histograms from `entry` up to `stop` or until the buffer is full: (at, next entry)."""
    while entry < stop:
        lo, hi = text_offsets[entry], text_offsets[entry + 1]
        if len(out) - at < hi - lo + ENTRY_BYTES_MAX:
            break
        if first:
            at = copy(key, 0, len(key), out, at)
            first = False
        else:
            out[at] = 44
            at += 1
        out[at] = 91
        at = copy(times, time_offsets[entry], time_offsets[entry + 1], out, at + 1)
        out[at] = 44
        at = copy(texts, lo, hi, out, at + 1)
        out[at] = 93
        at += 1
        entry += 1
    return at, entry


@kernel(
    "int64(float64[::1], uint64[::1], int64[::1], int64[::1], int64[::1], int64[::1], uint8[::1],"
    " int64[::1], uint8[::1], int64[::1], uint8[::1], uint8[::1],"
    " int64[::1], uint8[::1], int64[::1], uint8[::1], int64[::1], uint8[::1], int64[::1], uint8[::1])",
    group="read",
)
def render_rows(
    values: F64Array,
    codes: U64Array,
    lows: I64Array,
    highs: I64Array,
    counts: I64Array,
    time_origins: I64Array,
    heads: U8Array,
    head_offsets: I64Array,
    labels: U8Array,
    label_offsets: I64Array,
    value_key: U8Array,
    close: U8Array,
    entry_rows: I64Array,
    entry_times: U8Array,
    entry_time_offsets: I64Array,
    entry_texts: U8Array,
    entry_text_offsets: I64Array,
    entry_key: U8Array,
    state: I64Array,
    out: U8Array,
) -> int:
    """Rows of a vector or a matrix, separated by commas, none for a row without samples.

    Row i has floats values[lows[i]:highs[i]], `counts[i]` of them present, the one at p with head
    p - time_origins[i] (`render_heads`); and histogram entries entry_rows[i]..entry_rows[i+1], each with a
    time text and a body text. `codes` are those of the values (`digits.measure_points`), or empty.
    `value_key` and `entry_key` open a list (`,"values":[`), `close` ends it (`]`).
    Returns the bytes written; `state[ROW]` reaches the number of rows when all are done. `out` must hold the
    longest histogram plus 1 KiB.
    """
    at, room = 0, len(out)
    row, phase, cursor = state[ROW], state[PHASE], state[CURSOR]
    while row < len(lows):
        entry, stop = entry_rows[row], entry_rows[row + 1]
        if counts[row] == 0 and entry == stop:
            row += 1
            continue
        if room - at < ROOM_BYTES_MIN:
            break
        if phase == IN_HEAD:
            if cursor == 0:
                at = write_row_start(out, at, state[WRITTEN_ROWS] == 0)
            lo, hi = label_offsets[row] + cursor, label_offsets[row + 1]
            part = min(hi - lo, room - at - KEY_BYTES_MAX)
            at = copy(labels, lo, lo + part, out, at)
            if lo + part < hi:
                cursor += part
                break
            phase, cursor = IN_VALUES, 0
            if counts[row] > 0:
                at = copy(value_key, 0, len(value_key), out, at)
        if phase == IN_VALUES and counts[row] > 0:
            low, high = lows[row], highs[row]
            # The cursor keeps the place and, in its lowest bit, whether the next point needs a comma.
            point, first = low + (cursor >> 1), cursor & 1 == 0
            origin = time_origins[row]
            if len(codes) > 0:
                at, point, first = write_coded_points(
                    values, codes, point, high, origin, first, heads, head_offsets, out, at
                )
            else:
                at, point, first = write_points(
                    values, point, high, origin, first, heads, head_offsets, out, at
                )
            if point < high or room - at < KEY_BYTES_MAX:
                cursor = ((point - low) << 1) | (0 if first else 1)
                break
            at = copy(close, 0, len(close), out, at)
        if phase == IN_VALUES:
            phase, cursor = IN_HISTOGRAMS, 0
        at, next_entry = write_entries(
            entry + cursor,
            stop,
            cursor == 0,
            entry_key,
            entry_times,
            entry_time_offsets,
            entry_texts,
            entry_text_offsets,
            out,
            at,
        )
        cursor = next_entry - entry
        if next_entry < stop or room - at < KEY_BYTES_MAX:
            break
        if stop > entry:
            at = copy(close, 0, len(close), out, at)
        out[at] = 125
        at += 1
        state[WRITTEN_ROWS] += 1
        row, phase, cursor = row + 1, IN_HEAD, 0
    state[ROW], state[PHASE], state[CURSOR] = row, phase, cursor
    return at
