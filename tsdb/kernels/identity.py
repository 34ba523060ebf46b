"""The table that finds a series by its interned pairs: open addressing over slots of the head.

`slots` u32 (0 = free) and `tags` u8 (high bits of the hash) have one power-of-two length, at most three
quarters full. The label names of slot s are `names[name_start[s] :]`, which many series share, the values
`values[start[s] :]`, `count[s]` of each; equality is tested on them, so two label sets are never taken for
one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.hashing import hash_region

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

_ONE = np.uint64(1)
_TAG_SHIFT = np.uint64(56)
_FREE = np.uint32(0)


@device
def _locate(
    ids: U32Array,
    begin: Word,
    words: Word,
    hashed: Word,
    slots: U32Array,
    tags: U8Array,
    start: U64Array,
    count: U32Array,
    values: U32Array,
    name_start: U32Array,
    names: U32Array,
) -> Word:
    """Place in the table of the pairs `ids[begin : begin + words]`, or the free place where they belong."""
    mask = np.uint64(len(slots)) - _ONE
    tag = np.uint8(hashed >> _TAG_SHIFT)
    place: Word = hashed & mask
    while True:
        slot = slots[place]
        if slot == _FREE:
            return place
        if tags[place] == tag and 2 * np.int64(count[slot]) == words:
            base, name_base = np.int64(start[slot]), np.int64(name_start[slot])
            same = True
            for i in range(words >> 1):
                if values[base + i] != ids[begin + 2 * i + 1] or names[name_base + i] != ids[begin + 2 * i]:
                    same = False
                    break
            if same:
                return place
        place = (place + _ONE) & mask


@kernel(
    "void(uint32[::1], uint8[::1], int64[::1], uint64, uint64, uint32[::1], uint8[::1], uint64[::1],"
    " uint32[::1], uint32[::1], uint32[::1], uint32[::1], int64[::1])",
    group="write",
)
def find_slots(
    ids: U32Array,
    id_bytes: U8Array,
    offsets: I64Array,
    seed0: Word,
    seed1: Word,
    slots: U32Array,
    tags: U8Array,
    start: U64Array,
    count: U32Array,
    values: U32Array,
    name_start: U32Array,
    names: U32Array,
    found: I64Array,
) -> None:
    """Slot of each label set (`offsets` count pairs; `id_bytes` are the bytes of `ids`), -1 where unknown."""
    for i in range(len(offsets) - 1):
        hashed, _ = hash_region(id_bytes, 8 * offsets[i], 8 * offsets[i + 1], seed0, seed1)
        words = 2 * (offsets[i + 1] - offsets[i])
        place = _locate(
            ids, 2 * offsets[i], words, hashed, slots, tags, start, count, values, name_start, names
        )
        found[i] = np.int64(slots[place]) if slots[place] != _FREE else np.int64(-1)


@kernel(
    "int64(uint32[::1], uint64, uint64, uint32[::1], uint8[::1], uint64[::1], uint32[::1], uint32[::1],"
    " uint32[::1], uint32[::1], uint32[::1], uint8[::1])",
    group="write",
)
def insert_slots(
    fresh: U32Array,
    seed0: Word,
    seed1: Word,
    slots: U32Array,
    tags: U8Array,
    start: U64Array,
    count: U32Array,
    values: U32Array,
    name_start: U32Array,
    names: U32Array,
    ids: U32Array,
    id_bytes: U8Array,
) -> Word:
    """Put slots, whose pairs are in place, into a table with room; one of equal pairs replaces the elder.

    `ids` is scratch for the pairs of one of them, `id_bytes` its bytes; slots of 0 are left out. Returns how
    many free places that took.
    """
    taken = 0
    for i in range(len(fresh)):
        slot = fresh[i]
        if slot == _FREE:
            continue
        base, name_base = np.int64(start[slot]), np.int64(name_start[slot])
        words: Word = 2 * np.int64(count[slot])
        for j in range(count[slot]):
            ids[2 * j] = names[name_base + j]
            ids[2 * j + 1] = values[base + j]
        hashed, _ = hash_region(id_bytes, 0, 4 * words, seed0, seed1)
        place = _locate(ids, 0, words, hashed, slots, tags, start, count, values, name_start, names)
        taken += slots[place] == _FREE
        slots[place] = slot
        tags[place] = np.uint8(hashed >> _TAG_SHIFT)
    return np.int64(taken)
