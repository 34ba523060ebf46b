"""A table of interned strings as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference.hashing import hash_region


class ReferenceSymbols:
    """Ids in order of first appearance; 0 is the empty string."""

    def __init__(self) -> None:
        self.ids = {"": 0}

    def intern(self, text: str) -> int:
        return self.ids.setdefault(text, len(self.ids))

    def find(self, text: str) -> int | None:
        return self.ids.get(text)

    def text(self, symbol: int) -> str:
        return list(self.ids)[symbol]


def filled_table(texts: Sequence[bytes], seeds: tuple[int, int], size: int) -> tuple[list[int], list[int]]:
    """Slots and tags of a table of symbols 1 and on: each at the first free slot from its hash."""
    slots, tags = [0] * size, [0] * size
    for symbol, text in enumerate(texts, start=1):
        hashed = hash_region(text, *seeds)[0]
        slot = hashed % size
        while slots[slot]:
            slot = (slot + 1) % size
        slots[slot], tags[slot] = symbol, hashed >> 56
    return slots, tags
