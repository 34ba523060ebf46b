"""Type, help and unit of metric families that came in through remote write."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tsdb.columns import Metadata


class MetadataStore:
    """Newest entry a family; any thread. Entries beyond the limit are ignored and counted."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ignored_count = 0
        self._families: dict[str, Metadata] = {}
        self._lock = threading.Lock()

    def update(self, entries: Sequence[Metadata]) -> list[Metadata]:
        """Set entries; returns those that changed something."""
        changed = []
        with self._lock:
            for entry in entries:
                if self._families.get(entry.family) == entry:
                    continue
                if self.limit and entry.family not in self._families and len(self._families) >= self.limit:
                    self.ignored_count += 1
                    continue
                self._families[entry.family] = entry
                changed.append(entry)
        return changed

    def all(self) -> list[Metadata]:
        """All entries in order of family."""
        with self._lock:
            return [self._families[family] for family in sorted(self._families)]
