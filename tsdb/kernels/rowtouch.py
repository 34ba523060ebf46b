"""Fetching what the next samples need into the cache: many reads at once that do not wait for each other.

Storing a sample reads the row of its series, then the open chunk where that says; one after the other they
cost a trip to memory each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import SLAB_SHIFT, SLABS, SLOT_MASK
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import kernel

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]

_SLOT_MASK = np.uint32(SLOT_MASK)
_U32 = np.uint64(32)


@kernel("uint64(uint32[::1], uint64[:,::1])", group="write")
def touch_rows(refs: U32Array, rows: U64Array) -> Word:
    """Read the rows of some series; the result means nothing. Refs of no series are left out."""
    seen = np.uint64(0)
    for i in range(len(refs)):
        slot = np.int64(refs[i] & _SLOT_MASK)
        if slot < len(rows):
            seen += rows[slot, 0] + rows[slot, SLABS]
    return seen


@kernel("uint64(uint32[::1], uint64[:,::1], uint8[::1], uint32[::1])", group="write")
def touch_series(refs: U32Array, rows: U64Array, slabs: U8Array, slab_next: U32Array) -> Word:
    """Read the rows and the ends of the open chunks of some series; the result means nothing."""
    seen = np.uint64(0)
    for i in range(len(refs)):
        slot = np.int64(refs[i] & _SLOT_MASK)
        if slot < len(rows):
            seen += rows[slot, 0] + rows[slot, SLABS]
    for i in range(len(refs)):
        slot = np.int64(refs[i] & _SLOT_MASK)
        if slot < len(rows):
            last = np.int64(rows[slot, SLABS] >> _U32)
            seen += np.uint64(slabs[last << SLAB_SHIFT]) + np.uint64(slab_next[last])
    return seen
