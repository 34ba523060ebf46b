"""A memory store whose selections keep their label sets from query to query, as those of the head do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promql.memory import MemoryStore
from tsdb.labels import Matcher
from tsdb.select import SelectHints, Selection
from tsdb.serieslabels import SeriesLabels

NO_HINTS = SelectHints()


class _KeptSelection:
    def __init__(self, selection: Selection, labels: SeriesLabels) -> None:
        self._selection = selection
        self.labels = labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selection, name)


class KeptLabels:
    """A `select.Querier` for any number of queries, one after the other."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.used_again = 0
        """Selections whose label sets had been worked with before."""
        self._querier = store.querier()
        self._kept: dict[tuple[bytes, ...], SeriesLabels] = {}

    def select(self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS) -> Any:
        """The store's selection with the label sets that an earlier one had."""
        selection = self._querier.select(matchers, mint, maxt, hints)
        labels = selection.labels
        key = labels.offsets.tobytes(), labels.name_ids.tobytes(), labels.value_ids.tobytes()
        kept = self._kept.setdefault(key, labels.kept())
        self.used_again += bool(kept.memo)
        return _KeptSelection(selection, kept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._querier, name)
