"""Exemplars in memory: one ring for all series, oldest arrival dropped first."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
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


def _time(exemplar: Exemplar) -> int:
    return exemplar.t_ms


class ExemplarStore:
    """Any thread. A limit of 0 or less stores nothing."""

    def __init__(self, limit: int, late_window_ms: int = 0) -> None:
        """`late_window_ms`: how much older than its series' newest an exemplar may be."""
        self.limit = max(limit, 0)
        self.late_window_ms = late_window_ms
        self._ring: deque[Exemplar] = deque()
        self._of_series: dict[int, list[Exemplar]] = {}
        """Those of a ref, ascending in time."""
        self._lock = threading.Lock()
        self.appended_count = 0

    def __len__(self) -> int:
        return len(self._ring)

    def configure(self, limit: int, late_window_ms: int) -> None:
        """New limits; with a smaller ring the oldest are dropped."""
        with self._lock:
            self.limit = max(limit, 0)
            self.late_window_ms = late_window_ms
            self._shrink()

    def add(self, exemplars: Sequence[Exemplar]) -> tuple[list[Exemplar], list[int]]:
        """Store exemplars; returns those stored, and the indexes of those refused as out of order.

        As Prometheus's ring does (tsdb/exemplar.go), one is out of order that is older than its series'
        newest by the window, or of the same time and smaller in value, then in labels. Repetitions, and all
        of them without a ring, are ignored in silence.
        """
        stored: list[Exemplar] = []
        refused: list[int] = []
        if not self.limit:
            return stored, refused
        with self._lock:
            for index, exemplar in enumerate(exemplars):
                of_series = self._of_series.get(exemplar.ref, [])
                end = bisect_right(of_series, exemplar.t_ms, key=_time)
                if of_series and (end < len(of_series) or of_series[-1].t_ms == exemplar.t_ms):
                    if exemplar in of_series[bisect_left(of_series, exemplar.t_ms, key=_time) : end]:
                        continue
                    if self._is_out_of_order(exemplar, of_series[-1]):
                        refused.append(index)
                        continue
                of_series.insert(end, exemplar)
                self._of_series[exemplar.ref] = of_series
                self._ring.append(exemplar)
                stored.append(exemplar)
                self._shrink()
            self.appended_count += len(stored)
        return stored, refused

    def _is_out_of_order(self, exemplar: Exemplar, newest: Exemplar) -> bool:
        if exemplar.t_ms < newest.t_ms:
            return exemplar.t_ms <= newest.t_ms - self.late_window_ms
        return (exemplar.value, exemplar.labels) < (newest.value, newest.labels)

    def _shrink(self) -> None:
        while len(self._ring) > self.limit:
            dropped = self._ring.popleft()
            of_series = self._of_series[dropped.ref]
            at = bisect_left(of_series, dropped.t_ms, key=_time)
            while of_series[at] is not dropped:
                at += 1
            del of_series[at]
            if not of_series:
                del self._of_series[dropped.ref]

    def select(self, refs: set[int], mint: int, maxt: int) -> dict[int, list[Exemplar]]:
        """Exemplars of some series in [mint, maxt], by ref and ascending in time."""
        found: dict[int, list[Exemplar]] = {}
        with self._lock:
            for ref in refs & self._of_series.keys():
                held = self._of_series[ref]
                fitting = held[bisect_left(held, mint, key=_time) : bisect_right(held, maxt, key=_time)]
                if fitting:
                    found[ref] = fitting
        return found

    def all(self) -> list[Exemplar]:
        """Everything in the ring, oldest arrival first."""
        with self._lock:
            return list(self._ring)
