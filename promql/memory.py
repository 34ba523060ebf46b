"""A small store in memory behind the Querier interface, for test files and rule tests.

Written by one thread; a querier sees what is there when it reads. Samples may come in any order of time; a
second sample at the same time of a series is an error unless equal.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from promql.histogramvalue import Histogram, histogram_batch
from tsdb.errors import DuplicateSampleError
from tsdb.labels import Labels, Matcher
from tsdb.select import STALE_BITS, SampleBatch, SelectHints
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]

_NO_HINTS = SelectHints()


@dataclass(slots=True)
class MemorySeries:
    """Floats as parallel lists in ascending time (values as bits), histograms as (time, value, start)."""

    labels: Labels
    times: list[int] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    histogram_times: list[int] = field(default_factory=list)
    histograms: list[tuple[int, Histogram, int]] = field(default_factory=list)

    def _check_free(self, t_ms: int) -> None:
        for times in (self.times, self.histogram_times):
            at = bisect.bisect_left(times, t_ms)
            if at < len(times) and times[at] == t_ms:
                raise DuplicateSampleError(f"series {self.labels} has a second sample at {t_ms}")


def float_bits(value: float) -> int:
    """Bits of a float64; Python may hold a signalling NaN, so stale markers go in as STALE_BITS instead."""
    return int(np.float64(value).view(np.uint64))


class MemoryStore:
    """Series by label set."""

    def __init__(self) -> None:
        self.symbols = SymbolTable()
        self._series: dict[Labels, MemorySeries] = {}

    @property
    def series(self) -> Iterable[MemorySeries]:
        """All series in order of creation."""
        return self._series.values()

    def get(self, labels: Labels) -> MemorySeries | None:
        """One series, if it exists."""
        return self._series.get(labels)

    def _at(self, labels: Labels) -> MemorySeries:
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = MemorySeries(labels)
        return found

    def add_float(self, labels: Labels, t_ms: int, value: float, start_t_ms: int = 0) -> None:
        """One float sample."""
        self.add_bits(labels, t_ms, float_bits(value), start_t_ms)

    def add_stale(self, labels: Labels, t_ms: int) -> None:
        """A stale marker."""
        self.add_bits(labels, t_ms, STALE_BITS)

    def add_bits(self, labels: Labels, t_ms: int, bits: int, start_t_ms: int = 0) -> None:
        """One float sample as its bit pattern. Raises DuplicateSampleError."""
        row = self._at(labels)
        at = bisect.bisect_left(row.times, t_ms)
        if at < len(row.times) and row.times[at] == t_ms and row.bits[at] == bits:
            return
        row._check_free(t_ms)
        row.times.insert(at, t_ms)
        row.bits.insert(at, bits)
        row.starts.insert(at, start_t_ms)

    def add_histogram(self, labels: Labels, t_ms: int, value: Histogram, start_t_ms: int = 0) -> None:
        """One histogram sample, its hint stored as it is. Raises DuplicateSampleError."""
        row = self._at(labels)
        row._check_free(t_ms)
        at = bisect.bisect_left(row.histogram_times, t_ms)
        row.histogram_times.insert(at, t_ms)
        row.histograms.insert(at, (t_ms, value, start_t_ms))

    def querier(self) -> MemoryQuerier:
        """A view for one query."""
        return MemoryQuerier(self)


class MemorySelection:
    """Rows of a select, cut to its time range."""

    def __init__(self, rows: Sequence[MemorySeries], symbols: SymbolTable, mint: int, maxt: int) -> None:
        self._rows = rows
        self._mint = mint
        self._maxt = maxt
        self._labels = SeriesLabels.from_labels([row.labels for row in rows], symbols)

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series."""
        return self._labels

    def _cut(self, times: list[int]) -> tuple[int, int]:
        return bisect.bisect_left(times, self._mint), bisect.bisect_right(times, self._maxt)

    def sample_bounds(self) -> I64Array:
        """i64[S]: samples a row."""
        counts = []
        for row in self._rows:
            lo, hi = self._cut(row.times)
            first, last = self._cut(row.histogram_times)
            counts.append(hi - lo + last - first)
        return np.array(counts, dtype=np.int64)

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive)."""
        offsets = np.zeros(hi - lo + 1, dtype=np.int64)
        times: list[int] = []
        bits: list[int] = []
        starts: list[int] = []
        histograms = []
        for index, row in enumerate(self._rows[lo:hi]):
            first, last = self._cut(row.times)
            times += row.times[first:last]
            bits += row.bits[first:last]
            starts += row.starts[first:last]
            offsets[index + 1] = len(times)
            first, last = self._cut(row.histogram_times)
            histograms.append(row.histograms[first:last])
        return SampleBatch(
            offsets=offsets,
            t_ms=np.array(times, dtype=np.int64),
            values=np.array(bits, dtype=np.uint64).view(np.float64),
            start_t_ms=np.array(starts, dtype=np.int64) if any(starts) else None,
            histograms=histogram_batch(histograms) if any(histograms) else None,
        )


class MemoryQuerier:
    """Implements `tsdb.select.Querier` over a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def symbols(self) -> SymbolTable:
        """The store's table."""
        return self._store.symbols

    def _matching(self, matchers: Sequence[Matcher], mint: int, maxt: int) -> list[MemorySeries]:
        return [
            row
            for row in self._store.series
            if all(matcher.matches(row.labels.get(matcher.name)) for matcher in matchers)
            and (_within(row.times, mint, maxt) or _within(row.histogram_times, mint, maxt))
        ]

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = _NO_HINTS
    ) -> MemorySelection:
        """Series with samples in [mint, maxt] that satisfy every matcher."""
        return MemorySelection(self._matching(matchers, mint, maxt), self.symbols, mint, maxt)

    def _any_of(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int
    ) -> dict[Labels, MemorySeries]:
        found: dict[Labels, MemorySeries] = {}
        for matchers in matcher_sets or [()]:
            found.update((row.labels, row) for row in self._matching(matchers, mint, maxt))
        return found

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted label names."""
        names = sorted({name for labels in self._any_of(matcher_sets, mint, maxt) for name, _ in labels})
        return names[: limit or None]

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted values of one label."""
        values = {labels.get(name) for labels in self._any_of(matcher_sets, mint, maxt)} - {""}
        return sorted(values)[: limit or None]

    def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> SeriesLabels:
        """Sorted label sets."""
        found = sorted(self._any_of(matcher_sets, mint, maxt))[: limit or None]
        return SeriesLabels.from_labels(found, self.symbols)

    def close(self) -> None:
        """Nothing to let go of."""


def _within(times: list[int], mint: int, maxt: int) -> bool:
    at = bisect.bisect_left(times, mint)
    return at < len(times) and times[at] <= maxt
