"""What a read of the store gives: series announced first, then samples in CSR buffers.

A `Selection` names its series as columns (`SeriesLabels`) before any sample is read; `read(lo, hi)` then
decodes a contiguous run of rows. Several threads may call `read` at the same time on different rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels, Matcher
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
class SelectHints:
    """What the caller means to do, so that the store can do less. All optional, none changes the result.

    `step_ms` and `range_ms` let the store choose a roll-up, `function` names the outermost function over the
    selector, `grouping` with `by` the labels an aggregation keeps; `limit` > 0 allows fewer series.
    `labels_only` says that no samples will be read.
    """

    step_ms: int = 0
    range_ms: int = 0
    function: str = ""
    grouping: tuple[str, ...] = field(default=())
    by: bool = False
    limit: int = 0
    labels_only: bool = False


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
    ) -> list[Labels]:
        """Sorted label sets of the series that satisfy any of the sets, each once."""
        ...

    def close(self) -> None:
        """Let go of blocks and head chunks."""
        ...
