"""Slow twin of touching rows: which words are read, and their sum modulo 2**64."""

from __future__ import annotations

from collections.abc import Sequence

from tsdb.kernels.append import SLAB_SHIFT, SLABS, SLOT_MASK

WORD = 2**64


def touched(
    refs: Sequence[int],
    rows: Sequence[Sequence[int]],
    slabs: Sequence[int] = (),
    slab_next: Sequence[int] = (),
) -> int:
    """A word of each line of each series' row; and with `slabs` the first byte of its last one and that
    one's successor. Refs of no series are left out."""
    slots = [ref & SLOT_MASK for ref in refs if ref & SLOT_MASK < len(rows)]
    seen = sum(rows[slot][0] + rows[slot][SLABS] for slot in slots)
    if slabs:
        last = [rows[slot][SLABS] >> 32 for slot in slots]
        seen += sum(slabs[slab << SLAB_SHIFT] + slab_next[slab] for slab in last)
    return seen % WORD
