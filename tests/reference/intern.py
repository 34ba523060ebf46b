"""Slow twin of the numbering of distinct byte strings."""

from __future__ import annotations

from collections.abc import Sequence

Key = tuple[tuple[int, ...], tuple[bytes | None, ...]]


def intern(known: dict[Key, int], keys: Sequence[Key]) -> list[int]:
    """The number of each key, new keys being added to `known` in order."""
    return [known.setdefault(key, len(known)) for key in keys]
