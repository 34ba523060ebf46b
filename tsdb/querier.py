"""One consistent view over head and blocks for a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from tsdb.block import Block
from tsdb.blockset import StoredBlock
from tsdb.head import NO_HINTS, Head
from tsdb.labels import Labels, Matcher
from tsdb.mergeselect import merge_selections
from tsdb.postings import Postings
from tsdb.select import SelectHints, Selection
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from tsdb.tombstone import HeadTombstone, Mask, masked

T = TypeVar("T")

_LABELS_ONLY = SelectHints(labels_only=True)


class StoreQuerier:
    """`select.Querier`; used by one query, its selections by several threads."""

    def __init__(
        self,
        head: Head,
        blocks: Callable[[], Sequence[StoredBlock]],
        tombstones: Callable[[], Sequence[HeadTombstone]],
    ) -> None:
        """`blocks` is asked after the head was read: what the head has cut meanwhile is in a block then."""
        self._head = head
        self._blocks = blocks
        self._tombstones = tombstones

    @property
    def symbols(self) -> SymbolTable:
        """The table the selections' label ids belong to."""
        return self._head.symbols

    def select_head(self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints) -> Selection:
        """The head's part alone, less what is deleted."""
        selection = self._head.select(matchers, mint, maxt, hints)
        stones = [s for s in self._tombstones() if s.mint <= maxt and s.maxt >= mint]
        return masked(
            selection, [Mask(np.isin(selection.refs, stone.refs), stone.mint, stone.maxt) for stone in stones]
        )

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS
    ) -> Selection:
        """Series with samples possible in [mint, maxt] that satisfy every matcher."""
        newest = self.select_head(matchers, mint, maxt, hints)
        parts = [
            stored.select(matchers, mint, maxt, hints)
            for stored in self._blocks()
            if stored.overlaps(mint, maxt)
        ]
        parts.append(newest)
        return parts[0] if len(parts) == 1 else merge_selections(parts)

    def _label_sets(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> Iterable[SeriesLabels]:
        for matchers in matcher_sets or [()]:
            yield self._head.select(matchers, mint, maxt, _LABELS_ONLY).labels
            for stored in self._blocks():
                if stored.overlaps(mint, maxt):
                    yield stored.block.select(matchers, mint, maxt, _LABELS_ONLY).labels

    def _label_sources(self, mint: int, maxt: int) -> Iterable[Postings | Block]:
        """Indexes to ask for label names and values; times count as coarsely as blocks, as in Prometheus."""
        head = self._head
        if head.min_time <= maxt and head.max_time >= mint:
            yield head.postings
        for stored in self._blocks():
            if stored.overlaps(mint, maxt):
                yield stored.block

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted label names of the series that satisfy any of the sets (of all series for no sets)."""
        found: set[str] = set()
        for source in self._label_sources(mint, maxt):
            for matchers in matcher_sets or [()]:
                if isinstance(source, Block):
                    found.update(source.label_names(matchers))
                else:
                    found.update(source.label_names(source.select_bitmap(matchers) if matchers else None))
        return _limited(sorted(found), limit)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted values of one label over the series that satisfy any of the sets."""
        found: set[str] = set()
        for source in self._label_sources(mint, maxt):
            for matchers in matcher_sets or [()]:
                if isinstance(source, Block):
                    found.update(source.label_values(name, matchers))
                else:
                    refs = source.select_bitmap(matchers) if matchers else None
                    found.update(source.label_values(name, refs))
        return _limited(sorted(found), limit)

    def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[Labels]:
        """Sorted label sets of the series that satisfy any of the sets, each once."""
        found: set[Labels] = set()
        for labels in self._label_sets(matcher_sets, mint, maxt):
            found.update(labels.rows())
        return _limited(sorted(found), limit)

    def close(self) -> None:
        """Let go of blocks and head chunks."""
        self._blocks = tuple


def _limited(rows: list[T], limit: int) -> list[T]:
    return rows[:limit] if limit > 0 else rows
