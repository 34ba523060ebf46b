"""Chunks that were made of runs (kernels.runchunks), put where `append.store` has them: closed ones in the
segment of sealed chunks, open ones in slabs.

Placing takes slabs and room in the segment, which all series share, and is a matter of copying.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHAINS,
    POSITION_REACH,
    SEALED_END,
    SEALED_LINK,
    SEALED_MINT,
    SEALED_PLACE,
    SEGMENT_BASE,
    SEGMENT_USED,
    SLAB_BYTES,
    SLAB_END,
    SLAB_FREE,
    SLAB_SHIFT,
    SLABS,
)
from tsdb.kernels.bits import Word, load64, store64
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.runpen import BITS, CLOSED, CODED_FORM, COUNT_FLAGS, FIRST, MINT, PLACE, SLOT, SPAN

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

_U0, _U3, _U7, _U8, _U32, _U40, _U56 = (np.uint64(n) for n in (0, 3, 7, 8, 32, 40, 56))
_LOW32, _HIGH32 = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000)
_POSITION_MASK = np.uint64(POSITION_REACH - 1)
_CODED_FORM = np.uint64(CODED_FORM)


@device
def _place_open(
    row: U64Array,
    size: Word,
    place: Word,
    data: U8Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    counters: I64Array,
) -> None:
    """Copy an open chunk to a chain of slabs, for which there is room."""
    first, last = _U0, _U0
    for done in range(0, size, SLAB_BYTES):
        if counters[SLAB_FREE] > 0:
            counters[SLAB_FREE] -= 1
            slab = np.uint64(slab_free[counters[SLAB_FREE]])
        else:
            slab = np.uint64(counters[SLAB_END])
            counters[SLAB_END] += 1
        if first == _U0:
            first = slab
        else:
            slab_next[last] = np.uint32(slab)
        last = slab
        base = np.int64(slab) << SLAB_SHIFT
        for j in range(0, SLAB_BYTES, 8):
            store64(slabs, base + j, load64(data, place + done + j))
    row[SLABS] = first | (last << _U32)


@device
def _free_slabs(row: U64Array, slab_next: U32Array, slab_free: U32Array, counters: I64Array) -> None:
    """Give back the slabs of a series."""
    slab, last = row[SLABS] & _LOW32, row[SLABS] >> _U32
    while slab != _U0:
        slab_free[counters[SLAB_FREE]] = np.uint32(slab)
        counters[SLAB_FREE] += 1
        if slab == last:
            break
        slab = np.uint64(slab_next[slab])
    row[SLABS] = _U0


@kernel(
    "int64(uint64[:,::1], int64, int64, uint8[::1], uint64[:,::1], uint8[::1], uint32[::1], uint32[::1],"
    " uint64[:,::1], uint8[::1], int64[::1])",
    group="write",
)
def place_chunks(
    chunks: U64Array,
    start: int,
    count: int,
    data: U8Array,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    segment: U8Array,
    counters: I64Array,
) -> Word:
    """Put chunks `start` to `count` of `runchunks.store_runs`, whose bytes are `data`, where readers find
    them: closed ones in the segment of sealed chunks, open ones in slabs. 64 bytes must follow the last one.

    Returns the first chunk not placed: `count` when done, less when the segment or an arena is full and the
    caller must make room first.
    """
    for c in range(start, count):
        entry = chunks[c]
        row = rows[entry[SLOT]]
        place = np.int64(entry[PLACE])
        size = np.int64((entry[BITS] + _U7) >> _U3)
        if entry[COUNT_FLAGS] & np.uint64(FIRST) != _U0:
            _free_slabs(row, slab_next, slab_free, counters)
        if entry[COUNT_FLAGS] & np.uint64(CLOSED) == _U0:
            free = counters[SLAB_FREE] + len(slab_next) - counters[SLAB_END]
            if free < (size + SLAB_BYTES - 1) >> SLAB_SHIFT:
                return np.int64(c)
            _place_open(row, size, place, data, slabs, slab_next, slab_free, counters)
            continue
        used = counters[SEGMENT_USED]
        if used + size + 8 > len(segment) or counters[SEALED_END] >= len(sealed):
            return np.int64(c)
        for j in range(0, size, 8):
            store64(segment, used + j, load64(data, place + j))
        samples = entry[COUNT_FLAGS] >> _U8
        if entry[COUNT_FLAGS] & _CODED_FORM == _U0:
            segment[used] = np.uint8(0)
            segment[used + 1] = np.uint8(samples)
        closed = sealed[counters[SEALED_END]]
        closed[SEALED_MINT] = entry[MINT]
        closed[SEALED_LINK] = entry[SPAN] | (row[CHAINS] << _U32)
        position = np.uint64(counters[SEGMENT_BASE] + used) & _POSITION_MASK
        closed[SEALED_PLACE] = position | (np.uint64(size) << _U40) | (samples << _U56)
        row[CHAINS] = (row[CHAINS] & _HIGH32) | np.uint64(counters[SEALED_END])
        counters[SEALED_END] += 1
        counters[SEGMENT_USED] = used + size
    return np.int64(count)
