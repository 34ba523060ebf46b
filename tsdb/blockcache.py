"""Decoded pieces of all blocks under one budget of bytes; what was unused for longest goes first.

Pages, series, strings and postings of a block are decoded when they are asked for. One block that is queried
all the time may take the whole budget, and a thousand that nobody looks at take nothing.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

CACHE_BYTES = 256 << 20
ENTRY_BYTES = 200
"""What an entry costs beside its content."""

NOT_KEPT = 1 << 62
"""Size of a value that is to be made anew each time."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BlockCache:
    """Any thread. `used` bytes never exceed `limit`, not even for a moment; the counters grow for ever."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        """`limit` in bytes; 0 keeps nothing."""
        self.limit = limit
        self.used = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._items: OrderedDict[tuple[int, Hashable], tuple[Any, int]] = OrderedDict()
        self._owners = itertools.count()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    def part(self, size_of: Callable[[V], int]) -> CachePart[Any, V]:
        """A name space of its own; `size_of` tells the bytes of a value."""
        return CachePart(self, next(self._owners), size_of)

    def get(self, key: tuple[int, Hashable], make: Callable[[], V], size_of: Callable[[V], int]) -> V:
        """The cached value, made if missing (perhaps by two threads at once; the last one is kept)."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
                self.hits += 1
                value: V = found[0]
                return value
            self.misses += 1
        value = make()
        size = size_of(value) + ENTRY_BYTES
        with self._lock:
            if size <= self.limit:
                before = self._items.pop(key, None)
                if before is not None:
                    self.used -= before[1]
                while self.used + size > self.limit:
                    _, (_, freed) = self._items.popitem(last=False)
                    self.used -= freed
                    self.evictions += 1
                self._items[key] = (value, size)
                self.used += size
        return value

    def drop(self, owner: int) -> None:
        """Forget everything of one part."""
        with self._lock:
            for key in [key for key in self._items if key[0] == owner]:
                self.used -= self._items.pop(key)[1]


class CachePart(Generic[K, V]):
    """The entries of one file of one block."""

    def __init__(self, cache: BlockCache, owner: int, size_of: Callable[[V], int]) -> None:
        """Use `BlockCache.part`."""
        self._cache, self._owner, self._size_of = cache, owner, size_of

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The cached value, made if missing."""
        return self._cache.get((self._owner, key), make, self._size_of)

    def clear(self) -> None:
        """Forget everything."""
        self._cache.drop(self._owner)
