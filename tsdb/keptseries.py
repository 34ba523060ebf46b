"""Which series a few selects found last: dashboards ask for the same again, and series seldom come or go.

With the label sets is kept what is worked out of them (`SeriesLabels.memo`): groups, orders, texts. The same
is done for the label sets of head and blocks together, which /series answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.labels import Matcher
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

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


class _United(NamedTuple):
    """The label sets that were put together, and the sorted whole."""

    parts: tuple[SeriesLabels, ...]
    labels: SeriesLabels

    @property
    def rows(self) -> int:
        """What it counts: the parts live as long."""
        return len(self.labels) + sum(map(len, self.parts))


def united(parts: Sequence[SeriesLabels], symbols: SymbolTable) -> SeriesLabels:
    """All label sets of the parts in order, each once. Ids of the parts are those of `symbols`."""
    labels = SeriesLabels.concat(parts, symbols)
    if len(parts) > 1:
        labels = labels.group_ids()[1]
    return labels.take(labels.sort_order())


class KeptUnions:
    """Sorted label sets of head and blocks for a few sets of matchers. Any thread.

    Head and blocks hand out the same object as long as the same series match, all with samples in the time
    range; only for those objects is what was worked out given again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[tuple[tuple[Matcher, ...], ...], _United] = {}
        self._rows = 0

    def of(
        self, matcher_sets: Sequence[Sequence[Matcher]], parts: Sequence[SeriesLabels], symbols: SymbolTable
    ) -> SeriesLabels:
        """What `united` makes of the parts that were found by these matchers."""
        key = tuple(map(tuple, matcher_sets))
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and _are_same(kept.parts, parts):
                self._kept[key] = self._kept.pop(key)  # the last to be dropped now
                return kept.labels
        found = _United(tuple(parts), united(parts, symbols).kept())
        if len(found.labels) <= ROWS_MAX and found.rows <= ROWS_KEPT_MAX:
            self._put(key, found)
        return found.labels

    def _put(self, key: tuple[tuple[Matcher, ...], ...], found: _United) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._rows += found.rows - (0 if before is None else before.rows)
            self._kept[key] = found
            while self._rows > ROWS_KEPT_MAX or len(self._kept) > SELECTS_MAX:
                self._rows -= self._kept.pop(next(iter(self._kept))).rows

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._rows = 0


def _are_same(left: Sequence[SeriesLabels], right: Sequence[SeriesLabels]) -> bool:
    return len(left) == len(right) and all(map(is_, left, right))
