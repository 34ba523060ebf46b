"""Which records of samples have no series in common, so that their order among each other does not matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import SLOT_MASK
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import inline, kernel

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

_SLOT_MASK = np.uint32(SLOT_MASK)


@inline
def _root(parents: I64Array, record: Word) -> Word:
    """The first record of a record's group; shortens the way there."""
    while parents[record] != record:
        parents[record] = parents[parents[record]]
        record = parents[record]
    return record


@kernel(
    "int64(uint32[::1], int64[::1], int64, int64, uint32[::1], int64[::1], int64[::1], int64[::1])",
    group="write",
)
def group_records(
    refs: U32Array,
    ends: I64Array,
    base: int,
    series_limit: int,
    owners: U32Array,
    parents: I64Array,
    sizes: I64Array,
    bundles: I64Array,
) -> Word:
    """Group records that share a slot, directly or through others, and pack whole groups into bundles.

    Record p has the samples up to `ends[p]` i64[P] of `refs`. `owners` u32[slots] holds for each slot 1 +
    `base` + the record that had it first; marks up to `base` are those of earlier calls. Slots behind its end
    count as one. `bundles` i64[P] gets each record's bundle, in the order of their first records; one has at
    most `series_limit` series unless a group has more. `parents` and `sizes` i64[P] are scratch. Returns the
    number of bundles.
    """
    begin = np.int64(0)
    last_slot = np.uint32(len(owners) - 1)
    for p in range(len(ends)):
        parents[p] = p
        sizes[p] = 0
        group: Word = np.int64(p)
        mine = np.int64(base) + 1 + p
        known = mine
        fresh = np.int64(0)
        for i in range(begin, ends[p]):
            slot = min(refs[i] & _SLOT_MASK, last_slot)
            owner = np.int64(owners[slot])
            if owner == known:
                continue
            if owner <= base:
                owners[slot] = np.uint32(mine)
                fresh += 1
                continue
            known = owner
            other = _root(parents, owner - base - 1)
            if other != group:
                # The earlier record leads, so that bundles come in the order of the log.
                first: Word = min(other, group)
                later: Word = max(other, group)
                parents[later] = first
                sizes[first] += sizes[later]
                group = first
        sizes[group] += fresh
        begin = ends[p]
    bundle = np.int64(-1)
    fill = np.int64(0)
    for p in range(len(ends)):
        first = _root(parents, np.int64(p))
        if first == p:
            if bundle < 0 or fill + sizes[p] > series_limit:
                bundle += 1
                fill = np.int64(0)
            fill += sizes[p]
            bundles[p] = bundle
        else:
            bundles[p] = bundles[first]
    return bundle + 1
