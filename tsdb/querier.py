"""One consistent view over head and blocks for a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from tsdb.atonce import HeldAtOnce
from tsdb.block import Block
from tsdb.blockjoin import BlockJoins
from tsdb.blockset import BlockList, StoredBlock
from tsdb.decodedruns import DecodedRuns
from tsdb.errors import NotAtOnceError
from tsdb.head import NO_HINTS, Head
from tsdb.headselect import HeadSelection
from tsdb.joinedselect import JoinedSelection
from tsdb.labels import Matcher
from tsdb.mergeselect import merge_selections
from tsdb.metrics import StorageMetrics
from tsdb.postings import Postings
from tsdb.rollup import ROLLUP_LABEL
from tsdb.rollupplan import StandIn, spans_to_read, stand_ins
from tsdb.rollupselect import RollupSelection, Source, source_of_samples, sources_of_block
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
        blocks: Callable[[], BlockList],
        tombstones: Callable[[], Sequence[HeadTombstone]],
        joins: BlockJoins,
        decoded: DecodedRuns,
        metrics: StorageMetrics | None = None,
    ) -> None:
        """`blocks` is asked after the head was read: what the head has cut meanwhile is in a block then."""
        self._joins, self._decoded = joins, decoded
        self._metrics = metrics
        self._head = head
        self._blocks = blocks
        self._tombstones = tombstones
        self._label_hints = _LABELS_ONLY

    @property
    def symbols(self) -> SymbolTable:
        """The table the selections' label ids belong to."""
        return self._head.symbols

    def select_head(self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints) -> Selection:
        """The head's part alone, less what is deleted."""
        selection = self._head.select(matchers, mint, maxt, hints)
        known = self._tombstones()
        if not known:
            return selection
        stones = [s for s in known if s.mint <= maxt and s.maxt >= mint]
        if stones and hints.latest_only:
            # What is deleted may be newer than what is then the last sample.
            selection = self._head.select(matchers, mint, maxt, replace(hints, latest_only=False))
        return masked(
            selection, [Mask(np.isin(selection.refs, stone.refs), stone.mint, stone.maxt) for stone in stones]
        )

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS
    ) -> Selection:
        """Series with samples possible in [mint, maxt] that satisfy every matcher."""
        if hints.at_once:
            return self._select_at_once(matchers, mint, maxt, hints)
        lead = self._lead_ms(mint, maxt, hints.border_ms)
        newest = self.select_head(matchers, mint - lead, maxt, hints)
        hints.check()
        blocks = self._blocks()
        parts = self._stand_ins(blocks, mint - lead, maxt, hints.border_ms)
        if parts:
            return self._select_with_rollups(blocks, parts, newest, matchers, (mint, maxt, lead), hints)
        touched = [b for b in blocks.overlapping(mint, maxt) if not b.meta.resolution_ms]
        if not touched:
            return newest

        def merged() -> Selection:
            parts = [stored.select(matchers, mint, maxt, hints) for stored in touched]
            return merge_selections([*parts, newest])

        joined = self._joined(touched, newest, matchers, (mint, maxt), merged, hints)
        return merged() if joined is None else joined

    def _joined(
        self,
        stored: Sequence[StoredBlock],
        newest: Selection,
        matchers: Sequence[Matcher],
        span_ms: tuple[int, int],
        otherwise: Callable[[], Selection],
        hints: SelectHints,
    ) -> Selection | None:
        """Blocks of which nothing is deleted and the head as one; None where they cannot be joined."""
        if not isinstance(newest, HeadSelection):
            return None
        mint, maxt = span_ms
        if any(s.mint <= maxt and s.maxt >= mint for each in stored for s in each.tombstones):
            return None
        blocks = [each.block for each in stored]
        at_once = hints.at_once > 0
        runs = self._joins.runs(blocks, matchers, at_once, hints.check)
        if runs is None:
            return None
        if not len(runs.labels):
            return newest
        times = self._joins.times(blocks, runs, at_once)
        hints.check()
        head = newest if len(newest.labels) else None
        return JoinedSelection(blocks, (runs, times), head, span_ms, otherwise, at_once, self._decoded)

    def _select_at_once(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints
    ) -> Selection:
        """From the head and what is remembered of blocks. Raises NotAtOnceError where that is not all."""
        with HeldAtOnce(self._head, matchers):
            newest = self.select_head(matchers, mint, maxt, hints)
        blocks = self._blocks()
        touched = blocks.overlapping(mint, maxt)
        if not touched:
            return newest
        if blocks.coverage.rollups:
            raise NotAtOnceError("there are roll-ups")

        def refused() -> Selection:
            raise NotAtOnceError("blocks and head are to be merged")

        found = self._joined(touched, newest, matchers, (mint, maxt), refused, hints)
        if found is None or len(found.labels) > hints.at_once:
            raise NotAtOnceError("blocks have many series, deleted samples, histograms or start timestamps")
        return found

    # Roll-ups.

    def _stand_ins(self, blocks: BlockList, mint: int, maxt: int, border_ms: int) -> list[StandIn]:
        coverage = blocks.coverage
        if not coverage.rollups:
            return []
        head_from_ms = min(self._head.min_time, self._head.min_late_time)
        return stand_ins(coverage, head_from_ms, mint, maxt, border_ms)

    def _lead_ms(self, mint: int, maxt: int, border_ms: int) -> int:
        """How much earlier than asked a select begins, so that a lookback from a moved border is whole."""
        parts = self._stand_ins(self._blocks(), mint, maxt, border_ms)
        return max((part.meta.resolution_ms for part in parts), default=0)

    def _select_with_rollups(
        self,
        blocks: BlockList,
        parts: Sequence[StandIn],
        newest: Selection,
        matchers: Sequence[Matcher],
        bounds: tuple[int, int, int],
        hints: SelectHints,
    ) -> Selection:
        mint, maxt, lead = bounds
        by_ulid = {stored.meta.ulid: stored for stored in blocks}
        found: list[Source] = []
        for part in parts:
            first, last = max(mint - lead, part.lo + 1), min(maxt, part.hi)
            if first <= last:
                found += sources_of_block(by_ulid[part.meta.ulid], matchers, first, last)
        full = [stored for stored in blocks if not stored.meta.resolution_ms]
        for stored in full:
            for first, last in spans_to_read(stored.meta, parts, mint - lead, maxt):
                found.append(source_of_samples(stored.select(matchers, first, last, hints)))
        found.append(source_of_samples(newest))
        stats = [part.meta.stats for part in parts] + [stored.meta.stats for stored in full]
        histograms = any(s.num_histogram_samples for s in stats) or self._head.histogram_series_count() > 0
        if self._metrics is not None:
            self._metrics.rollup_selects.labels("exact" if hints.border_ms else "gone").inc()
        ranges = [(part.lo, part.hi, part.meta.resolution_ms) for part in parts]
        return RollupSelection(found, ranges, mint, maxt, histograms)

    @contextmanager
    def labels_at_once(self, matcher_sets: Sequence[Sequence[Matcher]], rows_max: int) -> Iterator[None]:
        """See `select.LabelsAtOnce`."""
        with HeldAtOnce(self._head, [m for matchers in matcher_sets for m in matchers], labels_only=True):
            self._label_hints = SelectHints(labels_only=True, at_once=rows_max)
            try:
                yield
            finally:
                self._label_hints = _LABELS_ONLY

    def _label_sets(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> Iterable[SeriesLabels]:
        for matchers in matcher_sets or [()]:
            yield self._head.select(matchers, mint, maxt, self._label_hints).labels
            for stored in self._blocks().overlapping(mint, maxt):
                labels = stored.block.select(matchers, mint, maxt, self._label_hints).labels
                if stored.meta.resolution_ms:
                    labels = labels.group_ids([ROLLUP_LABEL])[1]
                yield labels

    def _label_sources(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> Iterable[Postings | Block]:
        """Indexes to ask for label names and values; times count as coarsely as blocks, as in Prometheus."""
        if matcher_sets and self._label_hints.at_once:
            raise NotAtOnceError("indexes do not remember what matched")
        head = self._head
        if head.min_time <= maxt and head.max_time >= mint:
            yield head.postings
        for stored in self._blocks().overlapping(mint, maxt):
            if self._label_hints.at_once and not stored.block.index.is_loaded:
                raise NotAtOnceError("the index of a block is not loaded")
            yield stored.block

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted label names of the series that satisfy any of the sets (of all series for no sets)."""
        found: set[str] = set()
        for source in self._label_sources(matcher_sets, mint, maxt):
            for matchers in matcher_sets or [()]:
                if isinstance(source, Block):
                    found.update(source.label_names(matchers))
                else:
                    found.update(source.label_names(source.select_bitmap(matchers) if matchers else None))
        found.discard(ROLLUP_LABEL)
        return _limited(sorted(found), limit)

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted values of one label over the series that satisfy any of the sets."""
        found: set[str] = set()
        if name == ROLLUP_LABEL:
            return []
        for source in self._label_sources(matcher_sets, mint, maxt):
            for matchers in matcher_sets or [()]:
                if isinstance(source, Block):
                    found.update(source.label_values(name, matchers))
                else:
                    refs = source.select_bitmap(matchers) if matchers else None
                    found.update(source.label_values(name, refs))
        return _limited(sorted(found), limit)

    def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> SeriesLabels:
        """Sorted label sets of the series that satisfy any of the sets, each once."""
        parts = list(self._label_sets(matcher_sets, mint, maxt))
        labels = self._joins.unions.of(matcher_sets, parts, self.symbols)
        return labels.take(np.arange(limit)) if 0 < limit < len(labels) else labels

    def close(self) -> None:
        """Let go of blocks and head chunks."""
        self._blocks = BlockList


def _limited(rows: list[T], limit: int) -> list[T]:
    return rows[:limit] if limit > 0 else rows
