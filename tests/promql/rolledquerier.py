"""A querier over a store in memory, of which some time ranges are there as roll-ups only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promql.memory import MemoryQuerier, MemoryStore
from tsdb.labels import Matcher
from tsdb.rollup import KINDS, I64Array, floor_borders
from tsdb.rollupselect import RollupSelection, Source, source_of_samples, sources_of_windows
from tsdb.rollupwrite import RolledUp
from tsdb.select import SampleBatch, SelectHints, Selection
from tsdb.serieslabels import SeriesLabels
from tsdb.tombstone import Mask, masked

_NO_HINTS = SelectHints()
Range = tuple[int, int, int]
"""(lo, hi], resolution."""


class _Kind:
    """The series of one column."""

    def __init__(self, rolled: RolledUp, kind: str, count: int) -> None:
        self._rolled, self._first = rolled, KINDS.index(kind) * count
        self._rows = np.arange(self._first, self._first + count, dtype=np.int64)

    @property
    def labels(self) -> SeriesLabels:
        return self._rolled.labels.take(self._rows)

    def sample_bounds(self) -> I64Array:
        return self._rolled.sample_bounds()[self._rows]

    def read(self, lo: int, hi: int) -> SampleBatch:
        return self._rolled.read(self._first + lo, self._first + hi)


class RolledQuerier(MemoryQuerier):
    """`ranges` are disjoint and ascending."""

    def __init__(self, store: MemoryStore, ranges: Sequence[Range]) -> None:
        super().__init__(store)
        self.ranges = list(ranges)

    def border(self, t_ms: int) -> int:
        return int(floor_borders(np.array([t_ms], dtype=np.int64), self.ranges)[0])

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = _NO_HINTS
    ) -> Selection:
        lead = max((resolution for _, _, resolution in self.ranges), default=0)
        found: list[Source] = []
        for lo, hi, resolution in self.ranges:
            part = super().select(matchers, lo + 1, hi, hints)
            if len(part.labels):
                found += self._windows(RolledUp(part, resolution, lo, hi), len(part.labels))
        full = super().select(matchers, mint - lead, maxt, hints)
        everyone = np.ones(len(full.labels), dtype=np.bool_)
        found.append(
            source_of_samples(masked(full, [Mask(everyone, lo + 1, hi) for lo, hi, _ in self.ranges]))
        )
        return RollupSelection(found, self.ranges, mint, maxt, has_histograms=True)

    @staticmethod
    def _windows(rolled: RolledUp, count: int) -> list[Source]:
        return sources_of_windows(lambda kind: _Kind(rolled, kind, count), "memory")
