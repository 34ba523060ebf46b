"""A selection in which roll-ups stand in for samples (`tsdb.select.Rollup`).

Head, blocks and roll-ups become sources with the same labels for every column, so that merging any column
gives the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tsdb.blockset import StoredBlock
from tsdb.errors import CorruptionError
from tsdb.labels import Matcher, MatchType
from tsdb.mergeselect import merge_selections
from tsdb.rollup import (
    COLUMNS,
    HISTOGRAM,
    ROLLUP_LABEL,
    STALE,
    I64Array,
    Windows,
    column_of_samples,
    floor_borders,
    stale_samples,
    windows_of_samples,
    without_stale,
)
from tsdb.samplerows import clip_samples, empty_samples, read_rows
from tsdb.select import SampleBatch, SelectHints, Selection
from tsdb.serieslabels import SeriesLabels

_NO_HINTS = SelectHints()


class DerivedRows:
    """Rows computed of one or two parallel selections, under other labels."""

    def __init__(
        self,
        labels: SeriesLabels,
        selections: Sequence[Selection],
        derive: Callable[..., SampleBatch],
    ) -> None:
        self._labels, self._selections, self._derive = labels, selections, derive

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: those of the first selection."""
        return self._selections[0].sample_bounds()

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Derived samples of rows lo to hi (exclusive)."""
        return self._derive(*(selection.read(lo, hi) for selection in self._selections))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Derived samples of any rows in the given order."""
        return self._derive(*(read_rows(selection, rows) for selection in self._selections))


class NoRows:
    """Series without samples, to keep rows of several columns parallel."""

    def __init__(self, labels: SeriesLabels) -> None:
        self._labels = labels

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """Zeros."""
        return np.zeros(len(self._labels), dtype=np.int64)

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Nothing."""
        return empty_samples(hi - lo)

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Nothing."""
        return empty_samples(len(rows))


@dataclass(frozen=True, slots=True)
class Source:
    """One source: its samples, and how to get a column of its windows."""

    samples: Selection
    column: Callable[[str], Selection]


def _same(batch: SampleBatch) -> SampleBatch:
    return batch


def _last_samples(last: SampleBatch, age: SampleBatch) -> SampleBatch:
    return SampleBatch(last.offsets, last.t_ms - age.values.astype(np.int64), last.values)


def _markers(batch: SampleBatch) -> SampleBatch:
    return stale_samples(batch.offsets, batch.t_ms)


def source_of_samples(selection: Selection) -> Source:
    """Samples, each a window of its own."""

    def column(name: str) -> Selection:
        def derive(batch: SampleBatch) -> SampleBatch:
            plain = without_stale(batch)
            return SampleBatch(plain.offsets, plain.t_ms, column_of_samples(plain, name))

        return DerivedRows(selection.labels, [selection], derive)

    return Source(selection, column)


def sources_of_block(stored: StoredBlock, matchers: Sequence[Matcher], mint: int, maxt: int) -> list[Source]:
    """Windows that end in [mint, maxt], stale ends, and histograms of a roll-up block."""

    def select(kind: str) -> Selection:
        hidden = Matcher(MatchType.EQUAL, ROLLUP_LABEL, kind)
        return stored.select([*matchers, hidden], mint, maxt, _NO_HINTS)

    return sources_of_windows(select, str(stored.path))


def sources_of_windows(select: Callable[[str], Selection], where: str) -> list[Source]:
    """Windows, stale ends and histograms; `select` gives the series of one kind with their hidden label.

    `where` names them in a CorruptionError when columns do not fit each other.
    """

    def shown(selection: Selection) -> SeriesLabels:
        return selection.labels.filter_names([ROLLUP_LABEL], keep=False)

    first = select("last")
    labels = shown(first)

    def column(name: str) -> Selection:
        selection = first if name == "last" else select(name)
        if len(selection.labels) != len(labels):
            raise CorruptionError(
                f"{where}: {len(selection.labels)} series have a {name}, {len(labels)} a last value"
            )
        return DerivedRows(labels, [selection], _same)

    found = [Source(DerivedRows(labels, [first, column("last_age")], _last_samples), column)]
    for kind, derive in ((STALE, _markers), (HISTOGRAM, _same)):
        extra = select(kind)
        if len(extra.labels):
            found.append(_without_windows(DerivedRows(shown(extra), [extra], derive)))
    return found


def _without_windows(samples: Selection) -> Source:
    nothing = NoRows(samples.labels)
    return Source(samples, lambda _: nothing)


class RollupSelection:
    """A `select.Selection` that is its own `select.Rollup`. Immutable but for a memo; any thread may read."""

    def __init__(
        self,
        sources: Sequence[Source],
        ranges: Sequence[tuple[int, int, int]],
        mint: int,
        maxt: int,
        has_histograms: bool,
    ) -> None:
        """`sources` begin early enough for a lookback from a moved border; `ranges` are (lo, hi, resolution)
        of the roll-ups, disjoint and ascending."""
        self._sources, self._ranges = sources, ranges
        self._mint, self._maxt = mint, maxt
        self._has_histograms = has_histograms
        self._samples = merge_selections([source.samples for source in sources])
        self._columns: dict[str, Selection] = {}

    @property
    def rollup(self) -> RollupSelection:
        """The roll-ups behind this selection."""
        return self

    @property
    def has_histograms(self) -> bool:
        """Whether rows may have histograms."""
        return self._has_histograms

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        return self._samples.labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: an upper bound of each row's samples and of its windows."""
        return self._samples.sample_bounds()

    def borders(self, t_ms: I64Array) -> I64Array:
        """Times inside of roll-ups moved back to a window's end."""
        return floor_borders(t_ms, self._ranges)

    def samples(self, lo: int, hi: int) -> SampleBatch:
        """Samples, and last samples of windows, of rows lo to hi (exclusive), with a lead."""
        return self._samples.read(lo, hi)

    def read(self, lo: int, hi: int) -> SampleBatch:
        """As `samples`, within the bounds of the select."""
        return clip_samples(self.samples(lo, hi), self._mint, self._maxt)

    def windows(self, column: str, lo: int, hi: int) -> SampleBatch:
        """One column of the windows of rows lo to hi (exclusive)."""
        return self._column(column).read(lo, hi)

    def _column(self, column: str) -> Selection:
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = merge_selections([s.column(column) for s in self._sources])
        return found

    def windows_of_rows(self, rows: I64Array) -> Windows:
        """All columns of any rows in the given order."""
        batches = {column: read_rows(self._column(column), rows) for column in COLUMNS}
        samples = read_rows(self._samples, rows)
        ends = windows_of_samples(samples)
        some = batches["count"]
        return Windows(
            np.ascontiguousarray(some.offsets),
            np.ascontiguousarray(some.t_ms),
            {column: np.ascontiguousarray(batch.values) for column, batch in batches.items()},
            ends.stale_offsets,
            ends.stale_t_ms,
            samples.histograms,
        )


def windows_of_rows(selection: Selection, rows: I64Array) -> Windows:
    """All columns of any rows of any selection."""
    if isinstance(selection, RollupSelection):
        return selection.windows_of_rows(rows)
    return windows_of_samples(read_rows(selection, rows))
