"""Slow twin of the walk over a BTF type section."""

from __future__ import annotations

FIXED_WORDS = {1: 1, 3: 3, 14: 1, 17: 1}
MEMBER_WORDS = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}


def type_starts(words: list[int]) -> list[int] | None:
    """Word index of each record, or None for a section that is cut or has an unknown kind."""
    starts = []
    rest = words
    while rest:
        if len(rest) < 3:
            return None
        kind, members = (rest[1] >> 24) & 31, rest[1] & 0xFFFF
        length = 3 + FIXED_WORDS.get(kind, 0) + MEMBER_WORDS.get(kind, 0) * members
        if not 1 <= kind <= 19 or length > len(rest):
            return None
        starts.append(len(words) - len(rest))
        rest = rest[length:]
    return starts
