"""Counters of many keys in one array, bounded in number: what does not fit is counted under one key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

IDLE_SECONDS = 600.0
"""From then on a key that counted nothing gives way to a new one when the table is full."""
FORGET_SECONDS = 3600.0
"""From then on it is forgotten anyway; its series go stale."""

Key = TypeVar("Key")


class CountTable(Generic[Key]):
    """Rows of counters by key. One thread at a time.

    Row 0 belongs to `other`, which takes all keys beyond the limit.
    """

    def __init__(self, other: Key, limit: int, column_count: int) -> None:
        if limit < 1:
            raise ValueError(f"limit of {limit} keys is below 1")
        self.values: NDArray[np.float64] = np.zeros((limit + 1, column_count))
        """Shape (limit + 1, columns); callers add to the rows that `row` gives."""
        self.folded_count = 0
        """Look-ups of keys that had no place and were counted under `other`."""
        self._other = other
        self._rows: OrderedDict[Key, int] = OrderedDict()
        self._used: NDArray[np.float64] = np.zeros(limit + 1)
        self._free = list(range(limit, 0, -1))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, key: Key, now_seconds: float) -> int:
        """The row of a key, which is made when there is place; 0 otherwise."""
        row = self._rows.get(key)
        if row is None:
            row = self._new(key, now_seconds)
        if row:
            self._rows.move_to_end(key)
        self._used[row] = now_seconds
        return row

    def forget(self, now_seconds: float) -> int:
        """Drop keys that have not been looked up for `FORGET_SECONDS`. Returns how many."""
        count = 0
        while self._rows and self._drop_oldest(now_seconds - FORGET_SECONDS):
            count += 1
        return count

    def items(self) -> Iterator[tuple[Key, NDArray[np.float64]]]:
        """Keys with their rows, `other` last and only when it counted something."""
        for key, row in self._rows.items():
            yield key, self.values[row]
        if self.values[0].any():
            yield self._other, self.values[0]

    def _new(self, key: Key, now_seconds: float) -> int:
        if not self._free and not self._drop_oldest(now_seconds - IDLE_SECONDS):
            self.folded_count += 1
            return 0
        row = self._rows[key] = self._free.pop()
        return row

    def _drop_oldest(self, before_seconds: float) -> bool:
        key, row = next(iter(self._rows.items()))
        if self._used[row] > before_seconds:
            return False
        del self._rows[key]
        self.values[row] = 0
        self._free.append(row)
        return True
