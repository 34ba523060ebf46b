"""Slow twin of touching rows: which words are read, and their sum modulo 2**64."""

from __future__ import annotations

from collections.abc import Sequence

from tsdb.kernels.append import SLAB_SHIFT, SLABS, SLOT_MASK, TAIL_VALUES

WORD = 2**64


def touched(
    refs: Sequence[int],
    hot: Sequence[Sequence[int]],
    cold: Sequence[Sequence[int]] = (),
    slabs: Sequence[int] = (),
    slab_next: Sequence[int] = (),
) -> int:
    """Two words of each series' hot row; and with `cold` rows the word that names its slabs, the first byte
    of the last one and that one's successor. Refs of no series are left out."""
    slots = [ref & SLOT_MASK for ref in refs if ref & SLOT_MASK < len(hot)]
    seen = sum(hot[slot][0] + hot[slot][TAIL_VALUES] for slot in slots)
    if cold:
        last = [cold[slot][SLABS] >> 32 for slot in slots]
        seen += sum(cold[slot][SLABS] for slot in slots)
        seen += sum(slabs[slab << SLAB_SHIFT] + slab_next[slab] for slab in last)
    return seen % WORD
