"""What a read of the store gives: series announced first, then samples in CSR buffers.

A `Selection` names its series as columns (`SeriesLabels`) before any sample is read; `read(lo, hi)` then
decodes a contiguous run of rows. Several threads may call `read` at the same time on different rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tsdb.columnnumbers import ColumnNumbers as ColumnNumbers
from tsdb.histogram import HistogramBatch
from tsdb.kernels.sharedrows import spread_columns
from tsdb.labels import Matcher
from tsdb.scratch import scratch
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

STALE_BITS = 0x7FF0000000000002
"""Bit pattern of the stale marker: a signalling NaN, which any arithmetic may destroy. Compare as uint64."""

NAN_BITS = 0x7FF8000000000001
"""Bit pattern that an ordinary NaN is canonicalised to."""

I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Samples of R rows. Row i owns `offsets[i] .. offsets[i+1]` of the flat columns, ascending in time.

    `values` hold raw bits (stale markers included): view as uint64 before testing. A row may have float
    samples, histogram samples, or both (at different times); histograms are a CSR of their own over the same
    rows. `start_t_ms` is None where no sample of the batch has a start timestamp; 0 means unset.
    """

    offsets: I64Array
    t_ms: I64Array
    values: F64Array
    start_t_ms: I64Array | None = None
    histograms: HistogramBatch | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class SharedSamples:
    """Float samples of R rows. Row i has values[offsets[i]:offsets[i+1]] (bits as stored), at the times of
    column[i]: t_ms[column_offsets[c]:column_offsets[c+1]], as many, ascending. Columns are numbered by the
    first rows that have them.
    """

    offsets: I64Array
    values: F64Array
    column: I64Array
    column_offsets: I64Array
    t_ms: I64Array

    def __len__(self) -> int:
        return len(self.column)

    def batch(self) -> SampleBatch:
        """The same with the timestamps of every row."""
        if len(self.column_offsets) == len(self.offsets):
            return SampleBatch(self.offsets, self.t_ms, self.values)
        t_ms = scratch(len(self.values), np.int64)
        spread_columns(self.offsets, self.column, self.column_offsets, self.t_ms, t_ms)
        return SampleBatch(self.offsets, t_ms, self.values)


class NumberedColumns(NamedTuple):
    """Column of each row, numbered through a selection, and the times of those that were not numbered before:
    columns first, first + 1, ... have t_ms[offsets[0]:offsets[1]] and so on."""

    column: I64Array
    first: int
    offsets: I64Array
    t_ms: I64Array


@dataclass(frozen=True, slots=True)
class RowValues:
    """Float samples of R rows without their times: row i has values[offsets[i]:offsets[i+1]], bits as stored.
    `timed` adds the times. `numbered`, where there is one, gives only those of columns that have no number
    yet; None where there are too many."""

    offsets: I64Array
    values: F64Array
    timed: Callable[[], SharedSamples]
    numbered: Callable[[ColumnNumbers], NumberedColumns | None] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1


def _go_on() -> None:
    pass


@dataclass(frozen=True, slots=True)
class SelectHints:
    """What the caller means to do, so that the store can do less. All optional, none changes the result.

    `step_ms` and `range_ms` say where the caller looks, `function` names the outermost function over the
    selector, `grouping` with `by` the labels an aggregation keeps; `limit` > 0 allows fewer series.
    `labels_only` says that no samples will be read, `latest_only` that of each series only the last sample
    is: older ones may be left out.

    `border_ms` > 0: every border of every window (lookback left out) is a multiple of it, and the caller asks
    `rollup_of` and reads windows. Then windows that divide it may stand in for samples. 0 where samples are
    wanted: only what is gone at full resolution comes from roll-ups.

    `at_once` > 0: the caller is a thread that must not wait (`tsdb.atonce`). The select raises NotAtOnceError
    where it would, and where it finds more series than that.

    `check` is called between the parts of a long select and may raise to end it.
    """

    step_ms: int = 0
    range_ms: int = 0
    function: str = ""
    grouping: tuple[str, ...] = field(default=())
    by: bool = False
    limit: int = 0
    labels_only: bool = False
    latest_only: bool = False
    border_ms: int = 0
    at_once: int = 0
    check: Callable[[], None] = field(default=_go_on, compare=False)

    def aimed(self, border_ms: int, latest_only: bool, at_once: int) -> SelectHints:
        """The same with what a scan knows last; `dataclasses.replace` takes 10 us."""
        return SelectHints(
            self.step_ms, self.range_ms, self.function, self.grouping, self.by, self.limit,
            self.labels_only, latest_only, border_ms, at_once, self.check,
        )  # fmt: skip

    def checked(self, check: Callable[[], None]) -> SelectHints:
        """The same with another `check`."""
        return SelectHints(
            self.step_ms, self.range_ms, self.function, self.grouping, self.by, self.limit,
            self.labels_only, self.latest_only, self.border_ms, self.at_once, check,
        )  # fmt: skip


class Selection(Protocol):
    """Series that match, in a stable but unspecified order, none twice; samples on demand."""

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the S series."""
        ...

    def sample_bounds(self) -> I64Array:
        """i64[S]: an upper bound of each row's samples, for budgets and for splitting work by samples."""
        ...

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive), all within [mint, maxt] of the select, both inclusive."""
        ...


HISTOGRAM_WORK = 96
"""A native histogram weighs as much as so many floats, in memory more than in time: pieces of a day are of
one series of 24 buckets. With 32 a day of 40 such series takes 10 of 24 MiB more and 0.85 of the CPU time."""


def work_bounds_of(selection: Selection) -> I64Array:
    """i64[S]: `sample_bounds` with histograms counted by their weight, as far as the selection knows."""
    ask = getattr(selection, "work_bounds", None)
    found: I64Array = selection.sample_bounds() if ask is None else ask()
    return found


class Rollup(Protocol):
    """Roll-ups that stand in for some of a selection's samples (docs/rollups.md).

    A sample that is there at full resolution is a window of its own. `Selection.read` of such a selection
    gives the last sample of each window where full resolution is gone.
    """

    @property
    def has_histograms(self) -> bool:
        """Whether rows may have histograms, which `samples` gives."""
        ...

    def borders(self, t_ms: I64Array) -> I64Array:
        """i64: the borders that windows really have: times inside of roll-ups move back to a window's end."""
        ...

    def samples(self, lo: int, hi: int) -> SampleBatch:
        """As `Selection.read`, but begins early enough for a lookback from `borders`. A window that ends
        stale has the stale marker at its end."""
        ...

    def windows(self, column: str, lo: int, hi: int) -> SampleBatch:
        """One column of the windows: "count", "sum", "min", "max", "first", "last", "resets", "first_age" or
        "last_age" (ms before the window's end), timed by the windows' ends. All columns have the same times;
        windows outside of the select's bounds may be present. No stale markers, no histograms."""
        ...


def rollup_of(selection: Selection) -> Rollup | None:
    """The roll-ups behind a selection, None where all of it is at full resolution."""
    found: Rollup | None = getattr(selection, "rollup", None)
    return found


class LookBack(NamedTuple):
    """Steps first_ms + k * step_ms for k up to `steps` (exclusive), `step_ms` > 0. Each looks for the newest
    sample in (its time - lookback_ms, its time]."""

    first_ms: int
    step_ms: int
    steps: int
    lookback_ms: int


class SharedRows(Protocol):
    """Another way to read a selection's rows: with timestamps kept once (tsdb.sharedread)."""

    def looking_back(self, steps: LookBack) -> SharedRows:
        """The same rows, of which samples may be missing that no step finds."""
        ...

    def read(self, lo: int, hi: int) -> SharedSamples | None:
        """What `Selection.read` gives; None where that has to be asked. Any thread."""
        ...

    def read_values(self, lo: int, hi: int) -> RowValues | None:
        """The same without times."""
        ...


def shared_rows_of(selection: Selection) -> SharedRows | None:
    """The other way to read a selection, None where there is none."""
    ask = getattr(selection, "shared_reader", None)
    found: SharedRows | None = None if ask is None else ask()
    return found


class LabelsAtOnce(Protocol):
    """See `labels_at_once_of`."""

    def __call__(
        self, matcher_sets: Sequence[Sequence[Matcher]], rows_max: int
    ) -> AbstractContextManager[None]:
        """Inside of it the querier's `series`, `label_names` and `label_values` by these sets do not wait.
        Both raise NotAtOnceError: this where a lock is held by others, those where something has to be read
        first, or a set has more series than `rows_max`."""
        ...


def labels_at_once_of(querier: Querier) -> LabelsAtOnce | None:
    """How a thread that must not wait asks for labels; None for a querier without such a way."""
    found: LabelsAtOnce | None = getattr(querier, "labels_at_once", None)
    return found


class Querier(Protocol):
    """A consistent view for one query. Times are milliseconds, bounds inclusive."""

    @property
    def symbols(self) -> SymbolTable:
        """The table the selections' label ids belong to."""
        ...

    def select(
        self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = SelectHints()
    ) -> Selection:
        """Series with samples possible in [mint, maxt] that satisfy every matcher."""
        ...

    def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted label names of the series that satisfy any of the sets (of all series for no sets)."""
        ...

    def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> list[str]:
        """Sorted values of one label over the series that satisfy any of the sets."""
        ...

    def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], mint: int, maxt: int, limit: int = 0
    ) -> SeriesLabels:
        """Sorted label sets of the series that satisfy any of the sets, each once."""
        ...

    def close(self) -> None:
        """Let go of blocks and head chunks."""
        ...
