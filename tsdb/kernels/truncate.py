"""Drop what is older than a time from the head's chains and find the series that are then empty.

Chains are compacted in place: entries only point to earlier ones, so one ascending pass can move and relink.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHAINS,
    CHUNK,
    ENCODED_T,
    HAS_SAMPLE,
    LAST_T,
    LATE_END,
    LATE_PREVIOUS,
    LATE_T,
    LATE_V,
    META,
    MIN_LATE_T,
    MIN_T,
    SEALED_END,
    SEALED_LINK,
    SEALED_MINT,
    SEALED_PLACE,
    SEGMENT_BASE,
    SEGMENT_USED,
    SLAB_FREE,
    SLABS,
    SPANS,
    TAIL_BASE,
    TAIL_MASK,
    TAIL_OFFSETS,
    TAIL_VALUES,
    sealed_position,
    tail_time,
)
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.walvalues import FLAGS_MASK

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

JUST_CREATED = 0x40
"""Flag of META: no truncation has seen the series yet, so it stays although it has no sample."""

_U1 = np.uint64(1)
_U32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)
_TAIL_MASK = np.uint64(TAIL_MASK)
_HAS_SAMPLE = np.uint64(HAS_SAMPLE)
_JUST_CREATED = np.uint64(JUST_CREATED)
_FLAGS = np.uint64(FLAGS_MASK)
_NO_TIME = np.int64(0x7FFFFFFFFFFFFFFF)


@kernel("int64(int64, uint64[:,::1], int64[::1], uint32[::1])", group="write")
def compact_sealed(oldest: int, sealed: U64Array, counters: I64Array, moved: U32Array) -> Word:
    """Keep sealed chunks with a sample at `oldest` or later; `moved` maps old entries to new ones (0 = gone).

    Returns the smallest position kept, or the largest int64. Lowers counter MIN_T, as the other passes do.
    """
    kept = 1
    lowest = _NO_TIME
    end = counters[SEGMENT_BASE] + counters[SEGMENT_USED]
    moved[0] = 0
    for i in range(1, counters[SEALED_END]):
        span = sealed[i, SEALED_LINK] & _LOW32
        last = np.int64(sealed[i, SEALED_MINT]) + np.int64(span)
        if last < oldest:
            moved[i] = 0
            continue
        moved[i] = kept
        previous = np.uint64(moved[sealed[i, SEALED_LINK] >> _U32])
        sealed[kept, SEALED_MINT] = sealed[i, SEALED_MINT]
        sealed[kept, SEALED_LINK] = span | (previous << _U32)
        sealed[kept, SEALED_PLACE] = sealed[i, SEALED_PLACE]
        lowest = min(lowest, sealed_position(sealed[i, SEALED_PLACE], end))
        counters[MIN_T] = min(counters[MIN_T], np.int64(sealed[i, SEALED_MINT]))
        kept += 1
    counters[SEALED_END] = kept
    return lowest


@kernel("void(int64, uint64[:,::1], int64[::1], uint32[::1])", group="write")
def compact_late(oldest: int, late: U64Array, counters: I64Array, moved: U32Array) -> None:
    """Keep late samples at `oldest` or later; `moved` maps an old entry to the newest one kept up to it."""
    kept = 1
    moved[0] = 0
    counters[MIN_LATE_T] = _NO_TIME
    for i in range(1, counters[LATE_END]):
        previous = moved[late[i, LATE_PREVIOUS]]
        t = np.int64(late[i, LATE_T])
        if t < oldest:
            moved[i] = previous
            continue
        moved[i] = kept
        late[kept, LATE_T] = late[i, LATE_T]
        late[kept, LATE_V] = late[i, LATE_V]
        late[kept, LATE_PREVIOUS] = previous
        counters[MIN_LATE_T] = min(counters[MIN_LATE_T], t)
        counters[MIN_T] = min(counters[MIN_T], t)
        kept += 1
    counters[LATE_END] = kept


@device
def _free_slabs(row: U64Array, slab_next: U32Array, slab_free: U32Array, counters: I64Array) -> None:
    slab = row[SLABS] & _LOW32
    last = row[SLABS] >> _U32
    while slab != _ZERO:
        slab_free[counters[SLAB_FREE]] = np.uint32(slab)
        counters[SLAB_FREE] += 1
        if slab == last:
            break
        slab = np.uint64(slab_next[slab])
    row[SLABS] = _ZERO
    row[CHUNK] = _ZERO


@device
def _trim_tail(row: U64Array, oldest: Word) -> Word:
    """Drop the samples of a tail that are before `oldest`; return the time of the first one kept."""
    length = np.int64(row[META] & _TAIL_MASK)
    first = _NO_TIME
    kept = 0
    for k in range(length):
        t = tail_time(row, k)
        if t < oldest:
            continue
        first = min(first, t)
        offset = np.uint64(t) - row[TAIL_BASE]
        word = TAIL_OFFSETS + (kept >> 1)
        if kept & 1:
            row[word] = (row[word] & _LOW32) | (offset << _U32)
        else:
            row[word] = (row[word] & ~_LOW32) | offset
        row[TAIL_VALUES + kept] = row[TAIL_VALUES + k]
        kept += 1
    row[META] = (row[META] & ~_TAIL_MASK) | np.uint64(kept)
    return first


@kernel(
    "int64(int64, int64, uint8[::1], uint64[:,::1], uint32[::1], uint32[::1], uint32[::1], int64[::1],"
    " uint32[::1], uint32[::1], uint32[::1])",
    group="write",
)
def sweep_series(
    oldest: int,
    slots_used: int,
    alive: U8Array,
    rows: U64Array,
    newest_histogram: U32Array,
    slab_next: U32Array,
    slab_free: U32Array,
    counters: I64Array,
    moved_sealed: U32Array,
    moved_late: U32Array,
    dead: U32Array,
) -> Word:
    """Relink every series, free open chunks that ended before `oldest`, list the slots left without samples.

    Returns how many are in `dead`; their rows are zeroed. `newest_histogram` must be final by then.
    """
    found = 0
    for slot in range(1, slots_used):
        if alive[slot] == 0:
            continue
        row = rows[slot]
        sealed_entry = np.uint64(moved_sealed[row[CHAINS] & _LOW32])
        late_entry = np.uint64(moved_late[row[CHAINS] >> _U32])
        row[CHAINS] = sealed_entry | (late_entry << _U32)
        if row[CHUNK] != _ZERO and np.int64(row[ENCODED_T]) < oldest:
            _free_slabs(row, slab_next, slab_free, counters)
        first = _trim_tail(row, oldest)
        if row[CHUNK] != _ZERO:
            first = min(first, np.int64(row[ENCODED_T] - (row[SPANS] >> _U32)))
        counters[MIN_T] = min(counters[MIN_T], first)
        fresh = row[META] & _JUST_CREATED != _ZERO
        # The log begins a segment with the truncation: what it knew of values (kernels.walvalues) is void.
        row[META] &= _FLAGS & ~_JUST_CREATED
        empty = row[CHUNK] == _ZERO and row[META] & _TAIL_MASK == _ZERO
        if empty and row[CHAINS] == _ZERO and newest_histogram[slot] == 0:
            if fresh and row[META] & _HAS_SAMPLE == _ZERO:
                continue
            if row[META] & _HAS_SAMPLE != _ZERO and np.int64(row[LAST_T]) >= oldest:
                continue
            row[:] = _ZERO
            dead[found] = slot
            found += 1
    return np.int64(found)
