"""Hash table from (64-bit hash, 32-bit check) to a series ref: the Python side of kernels/table.py.

One writer at a time (the caller's lock), many readers without a lock: `snapshot` is one tuple, swapped as a
whole when the table doubles. A stale snapshot may only miss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.table import NO_REF, insert_many, lookup_many

U64Array = npt.NDArray[np.uint64]
U32Array = npt.NDArray[np.uint32]
TableArrays = tuple[U64Array, U32Array, U32Array]

_LOAD_LIMIT = 0.6
_SLOTS_INITIAL = 1024


def _allocate(slot_count: int) -> TableArrays:
    return (
        np.zeros(slot_count, dtype=np.uint64),
        np.zeros(slot_count, dtype=np.uint32),
        np.full(slot_count, NO_REF, dtype=np.uint32),
    )


class RefTable:
    """Open addressing, power of two, load at most 0.6."""

    def __init__(self) -> None:
        self._arrays = _allocate(_SLOTS_INITIAL)
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def snapshot(self) -> TableArrays:
        """`(keys u64[], checks u32[], refs u32[])` for `kernels.table.lookup`."""
        return self._arrays

    def insert(self, hashes: U64Array, checks: U32Array, refs: U32Array) -> None:
        """Insert or replace many entries; the caller holds the writer's lock."""
        slot_count = len(self._arrays[0])
        while self._taken + len(hashes) > slot_count * _LOAD_LIMIT:
            slot_count *= 2
        if slot_count != len(self._arrays[0]):
            grown = _allocate(slot_count)
            insert_many(*self._arrays, *grown)
            self._arrays = grown
        self._taken += insert_many(hashes, checks, refs, *self._arrays)

    def lookup(self, hashes: U64Array, checks: U32Array) -> npt.NDArray[np.int64]:
        """Refs of many hashes, -1 where unknown."""
        found = np.empty(len(hashes), dtype=np.int64)
        lookup_many(hashes, checks, *self._arrays, found)
        return found

    def rebuild(self, keep: npt.NDArray[np.bool_]) -> None:
        """Drop the entries whose slot is not in the mask (one flag a slot of the snapshot)."""
        arrays = self._arrays
        keys, checks, refs = arrays[0][keep], arrays[1][keep], arrays[2][keep]
        slot_count = _SLOTS_INITIAL
        while len(keys) > slot_count * _LOAD_LIMIT:
            slot_count *= 2
        fresh = _allocate(slot_count)
        self._taken = insert_many(keys, checks, refs, *fresh)
        self._arrays = fresh
