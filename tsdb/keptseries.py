"""Which series a few selects found last: dashboards ask for the same again, and series seldom come or go.

With the label sets is kept what is worked out of them (`SeriesLabels.memo`): groups, orders, texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.labels import Matcher
from tsdb.serieslabels import SeriesLabels

U32Array = npt.NDArray[np.uint32]

ROWS_MAX = 2048
"""Series of a select that is kept: below that what is done once a series weighs little, and the rest of a
query is as long."""

ROWS_KEPT_MAX = 8192
"""Series of all kept selects: half a KiB each with what a query works out of them, some 3 KiB at most."""

SELECTS_MAX = 1024
"""Kept selects: many find nothing."""


class FoundSeries(NamedTuple):
    """Slots and refs u32[S] of series, and their label sets."""

    slots: U32Array
    refs: U32Array
    labels: SeriesLabels


class KeptSeries:
    """Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[tuple[Matcher, ...], tuple[int, FoundSeries]] = {}
        self._rows = 0

    def get(self, matchers: Sequence[Matcher], generation: int) -> FoundSeries | None:
        """What was found by the matchers, None where series have come or gone since."""
        key = tuple(matchers)
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None:
                return None
            if kept[0] != generation:
                self._rows -= len(kept[1].slots)
                return None
            self._kept[key] = kept  # the last to be dropped now
            return kept[1]

    def put(self, matchers: Sequence[Matcher], generation: int, found: FoundSeries) -> None:
        """Keep what was found by the matchers; `generation` is that of before it was looked for."""
        key = tuple(matchers)
        with self._lock:
            before = self._kept.pop(key, None)
            if before is not None:
                self._rows -= len(before[1].slots)
            self._kept[key] = generation, found
            self._rows += len(found.slots)
            while self._rows > ROWS_KEPT_MAX or len(self._kept) > SELECTS_MAX:
                _, dropped = self._kept.pop(next(iter(self._kept)))
                self._rows -= len(dropped.slots)
