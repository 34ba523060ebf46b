"""Series text to slot: the table that makes a steady scrape free of Python per sample.

Open addressing over slots; a slot owns the bytes of its series text in an arena, its ref in the store and
the scrape in which it was last seen. Equal hashes are confirmed by comparing bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.compile import device, kernel

ACTIVE = 0
DROPPED = 1
"""The series is removed by metric relabelling."""

EMPTY = -1


@device
def _same(body: Any, start: Any, arena: Any, arena_start: Any, length: Any) -> Any:
    # The bounds are re-checked because both sides come from outside of this kernel.
    if start + length > len(body) or arena_start + length > len(arena):
        return False
    for k in range(length):  # noqa: SIM110
        if body[start + k] != arena[arena_start + k]:
            return False
    return True


@kernel(
    "int64(uint8[::1], int32[::1], int32[::1], uint64[::1], int64, int32[::1], uint64[::1], int64[::1],"
    " int32[::1], uint8[::1], int32[::1])",
    group="write",
)
def lookup(
    body: Any,
    starts: Any,
    ends: Any,
    hashes: Any,
    count: Any,
    table: Any,
    slot_hash: Any,
    slot_start: Any,
    slot_length: Any,
    arena: Any,
    slots: Any,
) -> Any:
    """Slot of each of `count` series texts in `slots`, -1 where unknown; returns how many are unknown.

    `table` i32[power of two] holds slots or -1.
    """
    mask = np.uint64(len(table) - 1)
    misses = 0
    for i in range(count):
        length = ends[i] - starts[i]
        at = hashes[i] & mask
        found = EMPTY
        for _ in range(len(table)):
            slot = table[at]
            if slot == EMPTY:
                break
            if (
                slot_hash[slot] == hashes[i]
                and slot_length[slot] == length
                and _same(body, starts[i], arena, slot_start[slot], length)
            ):
                found = slot
                break
            at = (at + np.uint64(1)) & mask
        slots[i] = found
        if found == EMPTY:
            misses += 1
    return misses


@kernel("int64(int32[::1], uint64[::1], int64, int64)", group="write")
def insert(table: Any, slot_hash: Any, first: Any, last: Any) -> Any:
    """Put the slots `first .. last` into the table, which must have room; returns how many."""
    mask = np.uint64(len(table) - 1)
    for slot in range(first, last):
        at = slot_hash[slot] & mask
        while table[at] != EMPTY:
            at = (at + np.uint64(1)) & mask
        table[at] = slot
    return last - first


@kernel(
    "int64(int32[::1], uint8[::1], int64, uint8, int64, int64, uint8[::1], int64[::1], int64[::1],"
    " uint8[::1], int64[::1])",
    group="write",
)
def observe(
    slots: Any,
    timed: Any,
    count: Any,
    track_timed: Any,
    iteration: Any,
    previous: Any,
    slot_state: Any,
    slot_seen: Any,
    slot_tracked: Any,
    keep: Any,
    counts: Any,
) -> Any:
    """Mark the series of one scrape as seen; returns how many samples are kept.

    `timed` u8[N] is not 0 for samples with an own timestamp; those are tracked for staleness only with
    `track_timed`. `keep` u8[N]: 1 kept, 0 dropped by relabelling, 2 a repeated series without timestamp.
    `counts` i64[3]: after relabelling, repeated, and not seen in the `previous` successful scrape or since.
    """
    kept = 0
    counts[0], counts[1], counts[2] = 0, 0, 0
    for i in range(count):
        slot = slots[i]
        if slot_state[slot] == DROPPED:
            keep[i] = 0
            slot_seen[slot] = iteration
            continue
        counts[0] += 1
        if slot_seen[slot] == iteration and timed[i] == 0:
            keep[i] = 2
            counts[1] += 1
            continue
        if slot_seen[slot] < previous:
            counts[2] += 1
        slot_seen[slot] = iteration
        if timed[i] == 0 or track_timed != 0:
            slot_tracked[slot] = iteration
        keep[i] = 1
        kept += 1
    return kept
