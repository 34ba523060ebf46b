"""Runs of samples of one series each, made chunks at once.

A run of some length is kept as the log has it (kernels.codedchunk), a chunk by itself; others become the same
chunks, open chunk and tail as their samples one by one. This needs nothing that series share, so that several
threads may do it for different series.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHUNK,
    HAS_SAMPLE,
    LAST_IS_HISTOGRAM,
    LAST_T,
    MAX_T,
    META,
    MIN_T,
    SPAN_LIMIT_MS,
    STORED,
    TAIL_BASE,
    TAIL_MASK,
    TAIL_OFFSETS,
    TAIL_SLOTS,
    TAIL_VALUES,
    range_end,
    tail_time,
)
from tsdb.kernels.bits import Word
from tsdb.kernels.bundletimes import CODES_AT, LENGTH, TIMES_AT
from tsdb.kernels.codedchunk import decode_values, times_fit, values_begin
from tsdb.kernels.compile import device
from tsdb.kernels.runpen import (
    BITS,
    CLOSED,
    CODED_FORM,
    COUNT_FLAGS,
    FIRST,
    MINT,
    PEN_AT,
    PLACE,
    SLOT,
    SPAN,
    encode,
    note_chunk,
    put_pen,
    take_pen,
)
from tsdb.kernels.walruns import CODES_END
from tsdb.kernels.xor import CHUNK_BYTES_LIMIT, SAMPLE_BYTES_LIMIT

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

CODED_RUN_SAMPLES = 24
"""A shorter run is not kept as the log has it: what such a chunk begins with would be most of it."""
RUN_BYTES_LIMIT = CHUNK_BYTES_LIMIT + 128
"""Bytes of a run beside `RUN_SAMPLE_BYTES_LIMIT` a sample: of the chunk that was open and the tail."""
RUN_SAMPLE_BYTES_LIMIT = SAMPLE_BYTES_LIMIT + 2
"""A chunk of ten samples begins with 2 + 10 + 8 bytes."""

_U0, _U3, _U7, _U8, _U32 = (np.uint64(n) for n in (0, 3, 7, 8, 32))
_LOW32 = np.uint64(0xFFFFFFFF)
_SPAN_LIMIT = np.uint64(SPAN_LIMIT_MS)
_TAIL_MASK, _HAS_SAMPLE = np.uint64(TAIL_MASK), np.uint64(HAS_SAMPLE)
_LAST_IS_HISTOGRAM = np.uint64(LAST_IS_HISTOGRAM)
_CODED_FLAGS = np.uint64(CLOSED | CODED_FORM)


@device
def _add_to_tail(row: U64Array, length: Word, t: Word, value: Word) -> Word:
    """Write a sample to a tail of `length`, beginning anew where it is full; its length after that."""
    if length == TAIL_SLOTS or (length > 0 and np.uint64(t) - row[TAIL_BASE] > _SPAN_LIMIT):
        length = np.int64(0)
    if length == 0:
        row[TAIL_BASE] = np.uint64(t)
    word = TAIL_OFFSETS + (length >> 1)
    offset = np.uint64(t) - row[TAIL_BASE]
    row[word] = (row[word] & _LOW32) | (offset << _U32) if length & 1 else offset
    row[TAIL_VALUES + length] = value
    return length + 1


@device
def _judge(
    row: U64Array,
    t_ms: I64Array,
    t_at: Word,
    values: U64Array,
    n: Word,
    oldest: Word,
    kept_t: I64Array,
) -> Word:
    """Move a row on over a run. The number of samples to store, n where that is all of them; else they are
    moved to the front of the run, their times to `kept_t`."""
    has = row[META] & _HAS_SAMPLE != _U0
    last = np.int64(row[LAST_T])
    usual = t_ms[t_at] >= oldest and (not has or t_ms[t_at] > last)
    for i in range(t_at + 1, t_at + n):
        usual = usual and t_ms[i] > t_ms[i - 1]
    if usual:
        row[LAST_T] = np.uint64(t_ms[t_at + n - 1])
        row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
        return n
    kept: Word = np.int64(0)
    for i in range(n):
        t = t_ms[t_at + i]
        if has and t <= last:
            continue
        has, last = True, t
        row[LAST_T] = np.uint64(t)
        row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
        if t >= oldest:
            kept_t[kept] = t
            values[kept] = values[i]
            kept += 1
    return kept


@device
def _store_run(
    slot: Word,
    row: U64Array,
    times: I64Array,
    t_at: Word,
    values: U64Array,
    kept: Word,
    slabs: U8Array,
    slab_next: U32Array,
    tail_t: I64Array,
    tail_v: U64Array,
    pen: U64Array,
    out: U8Array,
    at: Word,
    chunks: U64Array,
    noted: Word,
    counters: I64Array,
) -> tuple[Word, Word]:
    """Store `kept` samples as `append.store` does one by one; chunks listed and the bytes of `out` taken."""
    length = np.int64(row[META] & _TAIL_MASK)
    origin = np.uint64(times[t_at]) if length == 0 else row[TAIL_BASE]
    if np.uint64(times[t_at + kept - 1]) - origin <= _SPAN_LIMIT:
        left: Word = ((length + kept - 1) & (TAIL_SLOTS - 1)) + 1
        # What is written to the tail and over again leaves nothing, but for the last full one.
        silent: Word = max(kept - left - TAIL_SLOTS, np.int64(0))
    else:
        left, base = length, origin
        for i in range(kept):
            t = np.uint64(times[t_at + i])
            if left == TAIL_SLOTS or (left > 0 and t - base > _SPAN_LIMIT):
                left = np.int64(0)
            base = t if left == 0 else base
            left += 1
        silent = np.int64(0)
    flushed = length + kept - left
    if flushed > 0:
        first = noted
        take_pen(row, slabs, slab_next, out, at, pen)
        for k in range(length):
            tail_t[k] = tail_time(row, k)
            tail_v[k] = row[TAIL_VALUES + k]
        rest = flushed - length
        noted = encode(
            slot,
            tail_t,
            np.int64(0),
            tail_v,
            np.int64(0),
            length,
            pen,
            out,
            chunks,
            noted,
            first,
            counters,
        )
        noted = encode(slot, times, t_at, values, np.int64(0), rest, pen, out, chunks, noted, first, counters)
        put_pen(row, pen)
        noted = note_chunk(slot, pen, FIRST if noted == first else 0, chunks, noted)
        at = np.int64(pen[PEN_AT]) + 8
    if silent > 0:
        length = np.int64(0)
    for i in range(silent, kept):
        length = _add_to_tail(row, length, times[t_at + i], values[i])
    row[META] = (row[META] & ~_TAIL_MASK) | np.uint64(length)
    return noted, at


@device
def _close(
    slot: Word,
    row: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    tail_t: I64Array,
    tail_v: U64Array,
    pen: U64Array,
    out: U8Array,
    at: Word,
    chunks: U64Array,
    noted: Word,
    counters: I64Array,
) -> tuple[Word, Word]:
    """Close the open chunk of a series, with its tail; chunks listed and the bytes of `out` taken."""
    first, length = noted, np.int64(row[META] & _TAIL_MASK)
    take_pen(row, slabs, slab_next, out, at, pen)
    for k in range(length):
        tail_t[k] = tail_time(row, k)
        tail_v[k] = row[TAIL_VALUES + k]
    none = np.int64(0)
    noted = encode(slot, tail_t, none, tail_v, none, length, pen, out, chunks, noted, first, counters)
    put_pen(row, pen)
    noted = note_chunk(slot, pen, CLOSED | (FIRST if noted == first else 0), chunks, noted)
    row[CHUNK] = _U0
    row[META] &= ~_TAIL_MASK
    return noted, np.int64(pen[PEN_AT]) + 8


@device
def _note_coded(
    slot: Word, out: U8Array, place: Word, end: Word, mint: Word, maxt: Word, n: Word, entry: U64Array
) -> None:
    """List a run that is a chunk as it is, from byte `place` to bit `end`."""
    entry[SLOT] = np.uint64(slot)
    entry[PLACE] = np.uint64(place)
    entry[BITS] = np.uint64(end) - (np.uint64(place) << _U3)
    entry[MINT] = np.uint64(mint)
    entry[SPAN] = np.uint64(maxt) - np.uint64(mint)
    entry[COUNT_FLAGS] = (np.uint64(n) << _U8) | _CODED_FLAGS


@device
def store_runs(
    slots: U32Array,
    runs: I64Array,
    t_ms: I64Array,
    states: U64Array,
    taken: int,
    coded_samples: int,
    oldest: int,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    kept_t: I64Array,
    values: U64Array,
    tail_t: I64Array,
    tail_v: U64Array,
    pen: U64Array,
    out: U8Array,
    chunks: U64Array,
    counters: I64Array,
) -> Word:
    """Store runs in the rows of their series, as far as those are nobody else's.

    Samples not newer than the newest of their series, and those before `oldest`, are left out. `runs`
    (kernels.bundletimes), `t_ms`, `states` and the first `taken` bytes of `out` are what `walruns.part_runs`
    gave for `slots` u32[S], which all differ. A run of `coded_samples` or more within one block range that is
    kept whole stays as it is. `chunks` u64[C, 6] lists the chunks made in `out` u8[], for
    `placechunks.place_chunks`; the rows name their slabs after that only. `kept_t` i64[longest run], `values`
    u64[longest run], `tail_t` i64[4], `tail_v` u64[4] and `pen` u64[12] are scratch. Of `counters`
    BLOCK_RANGE is read; MIN_T, MAX_T and STORED are moved on. Returns the number of chunks, -1 for
    values that do not decode.
    """
    noted = np.int64(0)
    at = np.int64(taken)
    oldest_t, newest_t, stored = counters[MIN_T], counters[MAX_T], np.int64(0)
    for s in range(len(slots)):
        slot = np.int64(slots[s])
        row = rows[slot]
        place, t_at, n = runs[s, CODES_AT], runs[s, TIMES_AT], runs[s, LENGTH]
        if n == 0:
            continue
        first_t, last_t = t_ms[t_at], t_ms[t_at + n - 1]
        has = row[META] & _HAS_SAMPLE != _U0
        whole = times_fit(out, place) and first_t >= oldest and (not has or first_t > np.int64(row[LAST_T]))
        if whole and n >= coded_samples and last_t < range_end(first_t, counters):
            if row[META] & _TAIL_MASK != _U0 or row[CHUNK] & _LOW32 != _U0:
                noted, at = _close(
                    slot, row, slabs, slab_next, tail_t, tail_v, pen, out, at, chunks, noted, counters
                )
            row[LAST_T] = np.uint64(last_t)
            row[META] = (row[META] & ~_LAST_IS_HISTOGRAM) | _HAS_SAMPLE
            _note_coded(slot, out, place, np.int64(states[CODES_END, s]), first_t, last_t, n, chunks[noted])
            noted += 1
            stored += n
            oldest_t, newest_t = min(oldest_t, first_t), max(newest_t, last_t)
            continue
        begin = values_begin(out, place)
        if decode_values(out, place, begin, np.int64(states[CODES_END, s]), values, np.int64(0)) < 0:
            return np.int64(-1)
        kept = _judge(row, t_ms, t_at, values, n, np.int64(oldest), kept_t)
        if kept == 0:
            continue
        if kept < n:
            times, t_at = kept_t, np.int64(0)
        else:
            times = t_ms
        stored += kept
        oldest_t = min(oldest_t, times[t_at])
        newest_t = max(newest_t, times[t_at + kept - 1])
        noted, at = _store_run(
            slot,
            row,
            times,
            t_at,
            values,
            kept,
            slabs,
            slab_next,
            tail_t,
            tail_v,
            pen,
            out,
            at,
            chunks,
            noted,
            counters,
        )
    counters[MIN_T], counters[MAX_T] = oldest_t, newest_t
    counters[STORED] += stored
    return noted
