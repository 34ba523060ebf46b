"""Interned strings as bytes in one arena, found by an open-addressing table of ids.

Symbol i is `arena[bounds[i]:bounds[i+1]]`; symbol 0 is the empty string and is in no slot. `slots` u32 (0 =
free) and `tags` u8 (high bits of the hash) have one power-of-two length. Linear probing; nothing is removed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.hashing import hash_region

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

_ONE = np.uint64(1)
_TAG_SHIFT = np.uint64(56)
_FREE = np.uint32(0)


@device
def _locate(
    text: U8Array,
    start: int,
    end: int,
    hashed: Word,
    arena: U8Array,
    bounds: I64Array,
    slots: U32Array,
    tags: U8Array,
) -> tuple[Word, Word]:
    """Symbol of a region (0 if it has none) and the slot where it is or belongs."""
    mask = np.uint64(len(slots)) - _ONE
    tag = np.uint8(hashed >> _TAG_SHIFT)
    slot: Word = hashed & mask
    while True:
        symbol = slots[slot]
        if symbol == _FREE:
            return np.int64(0), slot
        if tags[slot] == tag:
            base = bounds[symbol]
            if bounds[symbol + np.uint32(1)] - base == end - start:
                same = True
                for i in range(end - start):
                    if arena[base + i] != text[start + i]:
                        same = False
                        break
                if same:
                    return np.int64(symbol), slot
        slot = (slot + _ONE) & mask


@kernel(
    "int64(uint8[::1], int64[::1], uint64, uint64, uint8[::1], int64[::1], uint32[::1], uint8[::1], int64,"
    " int64[::1])",
    group="write",
)
def intern_regions(
    text: U8Array,
    offsets: I64Array,
    seed0: Word,
    seed1: Word,
    arena: U8Array,
    bounds: I64Array,
    slots: U32Array,
    tags: U8Array,
    count: int,
    symbols: I64Array,
) -> Word:
    """Symbols of regions `offsets[i] .. offsets[i+1]`, new ones from `count` on; returns the new count.

    The arrays have room for all regions as new ones.
    """
    used: Word = count
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        if start == end:
            symbols[i] = 0
            continue
        hashed, _ = hash_region(text, start, end, seed0, seed1)
        symbol, slot = _locate(text, start, end, hashed, arena, bounds, slots, tags)
        if symbol == 0:
            symbol = np.int64(used)
            base = bounds[symbol]
            for k in range(end - start):
                arena[base + k] = text[start + k]
            bounds[symbol + 1] = base + end - start
            tags[slot] = np.uint8(hashed >> _TAG_SHIFT)
            slots[slot] = np.uint32(symbol)
            used += 1
        symbols[i] = symbol
    return np.int64(used)


@kernel(
    "void(uint8[::1], int64[::1], uint64, uint64, uint8[::1], int64[::1], uint32[::1], uint8[::1],"
    " int64[::1])",
    group="write",
)
def find_regions(
    text: U8Array,
    offsets: I64Array,
    seed0: Word,
    seed1: Word,
    arena: U8Array,
    bounds: I64Array,
    slots: U32Array,
    tags: U8Array,
    symbols: I64Array,
) -> None:
    """Symbols of regions, -1 where unknown."""
    for i in range(len(offsets) - 1):
        start, end = offsets[i], offsets[i + 1]
        if start == end:
            symbols[i] = 0
            continue
        hashed, _ = hash_region(text, start, end, seed0, seed1)
        symbol, _ = _locate(text, start, end, hashed, arena, bounds, slots, tags)
        symbols[i] = symbol if symbol != 0 else np.int64(-1)


@kernel(
    "void(uint64, uint64, uint8[::1], int64[::1], int64, uint32[::1], uint8[::1])",
    group="write",
)
def fill_table(
    seed0: Word,
    seed1: Word,
    arena: U8Array,
    bounds: I64Array,
    count: int,
    slots: U32Array,
    tags: U8Array,
) -> None:
    """Put symbols 1 to `count` (exclusive) into an empty table with room for them."""
    mask = np.uint64(len(slots)) - _ONE
    for symbol in range(1, count):
        hashed, _ = hash_region(arena, bounds[symbol], bounds[symbol + 1], seed0, seed1)
        slot = hashed & mask
        while slots[slot] != _FREE:
            slot = (slot + _ONE) & mask
        slots[slot] = np.uint32(symbol)
        tags[slot] = np.uint8(hashed >> _TAG_SHIFT)


@kernel("void(uint8[::1], int64[::1], int64[::1], int64[::1], uint8[::1])", group="write")
def gather_texts(
    arena: U8Array, bounds: I64Array, symbols: I64Array, offsets: I64Array, out: U8Array
) -> None:
    """Copy the bytes of symbols side by side; `offsets` are their places in `out`."""
    for i in range(len(symbols)):
        base = bounds[symbols[i]]
        for k in range(offsets[i + 1] - offsets[i]):
            out[offsets[i] + k] = arena[base + k]
