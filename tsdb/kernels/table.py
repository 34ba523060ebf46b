"""Open-addressing hash table from a 64-bit hash and a 32-bit check to a series ref.

Layout: three arrays of one power-of-two length: `keys` u64 (0 = free), `checks` u32, `refs` u32 (`NO_REF`
until written). Linear probing, at most 0.6 full, nothing is ever removed in place. One writer, many readers
without a lock: a reader that overtakes a half-written slot sees `NO_REF` there and reports a miss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel

NO_REF = 0xFFFFFFFF
"""Never a series ref."""

_NO_REF = np.uint32(NO_REF)
_FREE = np.uint64(0)
_ONE = np.uint64(1)
_HALF = np.uint64(32)

U64Array = npt.NDArray[np.uint64]
U32Array = npt.NDArray[np.uint32]


@device
def check_of(second: Word) -> Word:
    """The 32-bit check of a region's second hash."""
    return np.uint32(np.uint64(second) >> _HALF)


@device
def lookup(keys: U64Array, checks: U32Array, refs: U32Array, key: Word, check: Word) -> Word:
    """Series ref of a hash and check as int64, or -1. The table always has a free slot."""
    mask = np.uint64(len(keys)) - _ONE
    slot: Word = np.uint64(key) & mask
    while True:
        found = keys[slot]
        if found == _FREE:
            return np.int64(-1)
        if found == np.uint64(key) and checks[slot] == np.uint32(check):
            ref = refs[slot]
            return np.int64(-1) if ref == _NO_REF else np.int64(ref)
        slot = (slot + _ONE) & mask


@device
def insert(keys: U64Array, checks: U32Array, refs: U32Array, key: Word, check: Word, ref: Word) -> Word:
    """Set the ref of a hash and check; return 1 if that took a free slot, 0 if it replaced a ref."""
    mask = np.uint64(len(keys)) - _ONE
    slot: Word = np.uint64(key) & mask
    while True:
        found = keys[slot]
        if found == _FREE:
            refs[slot] = np.uint32(ref)
            checks[slot] = np.uint32(check)
            keys[slot] = np.uint64(key)
            return np.int64(1)
        if found == np.uint64(key) and checks[slot] == np.uint32(check):
            refs[slot] = np.uint32(ref)
            return np.int64(0)
        slot = (slot + _ONE) & mask


@kernel(
    "int64(uint64[::1], uint32[::1], uint32[::1], uint64[::1], uint32[::1], uint32[::1])",
    group="write",
)
def insert_many(
    new_keys: U64Array,
    new_checks: U32Array,
    new_refs: U32Array,
    keys: U64Array,
    checks: U32Array,
    refs: U32Array,
) -> int:
    """Insert all pairs whose ref is not `NO_REF` into a table with room; return how many slots that took."""
    taken = 0
    for i in range(len(new_keys)):
        if new_keys[i] != _FREE and new_refs[i] != _NO_REF:
            taken += insert(keys, checks, refs, new_keys[i], new_checks[i], new_refs[i])
    return taken


@kernel(
    "int64(uint64[::1], uint32[::1], uint64[::1], uint32[::1], uint32[::1], int64[::1])",
    group="write",
)
def lookup_many(
    wanted_keys: U64Array,
    wanted_checks: U32Array,
    keys: U64Array,
    checks: U32Array,
    refs: U32Array,
    found: npt.NDArray[np.int64],
) -> int:
    """Refs (or -1) of many hashes into `found`; return the number of misses."""
    misses = 0
    for i in range(len(wanted_keys)):
        ref = lookup(keys, checks, refs, wanted_keys[i], wanted_checks[i])
        found[i] = ref
        if ref < 0:
            misses += 1
    return misses
