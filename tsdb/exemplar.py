"""Exemplars in memory: one ring for all series, oldest dropped first, in time order within a series."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tsdb.columns import Exemplar
from tsdb.labels import Labels


@dataclass(frozen=True, slots=True)
class SeriesExemplars:
    """Exemplars of one series, ascending in time."""

    labels: Labels
    exemplars: Sequence[Exemplar]


class ExemplarStore:
    """Any thread. A limit of 0 stores nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._ring: deque[Exemplar] = deque()
        self._newest: dict[int, Exemplar] = {}
        self._lock = threading.Lock()
        self.out_of_order_count = 0
        self.appended_count = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, exemplars: Sequence[Exemplar]) -> list[Exemplar]:
        """Store exemplars; returns those stored. Older ones than the series' newest are counted and dropped,
        repetitions of the newest are ignored."""
        stored: list[Exemplar] = []
        if not self.limit:
            return stored
        with self._lock:
            for exemplar in exemplars:
                newest = self._newest.get(exemplar.ref)
                if newest is not None:
                    if exemplar.t_ms < newest.t_ms:
                        self.out_of_order_count += 1
                        continue
                    if (exemplar.t_ms, exemplar.labels) == (newest.t_ms, newest.labels):
                        continue
                self._newest[exemplar.ref] = exemplar
                self._ring.append(exemplar)
                stored.append(exemplar)
                while len(self._ring) > self.limit:
                    dropped = self._ring.popleft()
                    if self._newest.get(dropped.ref) is dropped:
                        del self._newest[dropped.ref]
            self.appended_count += len(stored)
        return stored

    def select(self, refs: set[int], mint: int, maxt: int) -> dict[int, list[Exemplar]]:
        """Exemplars of some series in [mint, maxt], by ref."""
        found: dict[int, list[Exemplar]] = {}
        with self._lock:
            for exemplar in self._ring:
                if exemplar.ref in refs and mint <= exemplar.t_ms <= maxt:
                    found.setdefault(exemplar.ref, []).append(exemplar)
        return found

    def all(self) -> list[Exemplar]:
        """Everything in the ring, oldest first."""
        with self._lock:
            return list(self._ring)
