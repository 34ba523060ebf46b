"""The operator protocol: announce the series once, then give batches of rows.

Three kinds, by the type of the expression:

* `VectorOperator` gives instant vectors at every step of its grid: `series()` first, then `batches()`, whose
  pieces are runs of rows in announced order that together cover every row exactly once. Announcing may be
  costly (it may select, or evaluate a child); it is done once and remembered. A row without a sample at any
  step is legal everywhere and is dropped only from the final result.
* `RangeOperator` gives range vectors: the samples of each row and the `WindowGrid` that says which of them
  belong to which step.
* `ScalarOperator` gives one float a step.

`RowwiseOperator` is a VectorOperator whose rows can be computed independently: it implements `load(lo, hi)`,
thread-safe, and gets `batches()` from this module, which computes pieces on the query's threads. A function
of one row wraps its child's `load`, so scan, window and function of one piece run in one thread on warm
cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from promql.ast import Call, Expr, VectorSelector
from promql.context import EvalContext
from promql.matrix import BoolArray, F64Array, Grid, HistogramCells
from tsdb.labels import METRIC_NAME, TYPE_LABEL, UNIT_LABEL
from tsdb.select import RowValues, SampleBatch
from tsdb.serieslabels import SeriesLabels

if TYPE_CHECKING:
    from promql.operators.rollups import RolledRows

METADATA_LABELS = (METRIC_NAME, TYPE_LABEL, UNIT_LABEL)
"""Always dropped together (prometheus-surface.md 2.4)."""


@dataclass(frozen=True, slots=True)
class Series:
    """Announced series: label sets and the delayed name removal flag, bool[S]. Label sets may repeat only
    where their samples do not share a step."""

    labels: SeriesLabels
    drop_name: BoolArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `lo .. lo + R` of the announced series: `values` f64[R, K] (ABSENT where no float) and
    histograms' `index` i32[R, K]. The receiver owns the arrays and may overwrite them."""

    lo: int
    values: F64Array
    histograms: HistogramCells | None = None

    @property
    def hi(self) -> int:
        """One past the last row."""
        return self.lo + len(self.values)


class WindowGrid(NamedTuple):
    """Windows of a range vector: step k sees samples in (first_end_ms + k*step_ms - range_ms, first_end_ms +
    k*step_ms]. `step_ms` is 0 where `@` pins all steps to one window. Offsets are already taken off, so
    evaluation time k is `eval_grid.start_ms + k * eval_grid.step_ms`, not the window's end."""

    first_end_ms: int
    step_ms: int
    steps: int
    range_ms: int
    eval_grid: Grid

    def ends_ms(self) -> npt.NDArray[np.int64]:
        """i64[steps]: inclusive right borders."""
        return self.first_end_ms + self.step_ms * np.arange(self.steps, dtype=np.int64)

    def part(self, at: int, end: int) -> WindowGrid:
        """The windows of steps `at .. end`."""
        grid = self.eval_grid
        return WindowGrid(
            self.first_end_ms + at * self.step_ms,
            self.step_ms,
            end - at,
            self.range_ms,
            Grid(grid.start_ms + at * grid.step_ms, grid.step_ms, end - at),
        )


@dataclass(frozen=True, slots=True)
class RangePiece:
    """Samples of rows `lo .. lo + len(samples)`. Stale markers (of floats and histograms) are removed and
    NaNs canonical; samples outside the windows may be present. `samples.histograms` is None for none.

    Where roll-ups stand in for samples `rolled` answers the functions of
    `promql.operators.rollups.ROLLED_FUNCTIONS`, and `samples` are there for their histograms only."""

    lo: int
    samples: SampleBatch
    rolled: RolledRows | None = None


INDENTED_MAX = 300
"""Levels of a plan that are indented."""


@dataclass(frozen=True, slots=True)
class Explain:
    """One line of a plan: the operator, its details, and its children."""

    name: str
    details: str = ""
    children: tuple[Explain, ...] = ()

    def lines(self) -> Iterator[str]:
        """The tree, indented as far as anybody can follow: thousands of levels make no sense as spaces."""
        pending = [(self, 0)]
        while pending:
            plan, depth = pending.pop()
            indent = "  " * min(depth, INDENTED_MAX)
            yield indent + (f"{plan.name} {plan.details}" if plan.details else plan.name)
            pending.extend((child, depth + 1) for child in reversed(plan.children))


class Operator(ABC):
    """What all kinds share."""

    def __init__(self, ctx: EvalContext) -> None:
        self.ctx = ctx

    @property
    def grid(self) -> Grid:
        """Evaluation times of this operator."""
        return self.ctx.grid

    @abstractmethod
    def explain(self) -> Explain:
        """The plan below this operator; evaluates nothing."""


class _SeriesOperator(Operator):
    def __init__(self, ctx: EvalContext) -> None:
        super().__init__(ctx)
        self._series: Series | None = None
        self.is_distinct = False
        """Whether the announced label sets are known to differ; set when they are announced."""

    def series(self) -> Series:
        """Announce the series, once."""
        if self._series is None:
            self._series = self._announce()
        return self._series

    @abstractmethod
    def _announce(self) -> Series: ...


class VectorOperator(_SeriesOperator):
    """Instant vectors at every step. `batches` may be called once."""

    @abstractmethod
    def batches(self) -> Iterator[Piece]:
        """Pieces in row order covering all announced rows."""


class RowwiseOperator(VectorOperator):
    """A VectorOperator whose rows do not depend on each other."""

    @abstractmethod
    def splits(self) -> Sequence[tuple[int, int]]:
        """Row ranges of sensible size, in order, covering all rows."""

    @abstractmethod
    def load(self, lo: int, hi: int) -> Piece:
        """Compute a run of rows: one of the `splits` or a part of one. Thread-safe once `series()` was
        called."""

    def batches(self) -> Iterator[Piece]:
        """Pieces of the splits, computed by the query's threads."""
        self.series()
        yield from self.ctx.ordered_map(lambda split: self.load(*split), self.splits())


class RangeOperator(_SeriesOperator):
    """Range vectors: a scan's or a subquery's samples with their windows."""

    window: WindowGrid

    @abstractmethod
    def splits(self) -> Sequence[tuple[int, int]]:
        """Row ranges of sensible size, in order, covering all rows."""

    @abstractmethod
    def samples_a_window(self) -> int:
        """About how many samples a window holds, known once `series()` was called."""

    @abstractmethod
    def load(self, lo: int, hi: int) -> RangePiece:
        """Samples of a run of rows: one of the `splits` or a part of one. Thread-safe once `series()` was
        called."""

    def load_shared(self, lo: int, hi: int) -> RowValues | RangePiece:
        """As `load`, or the same floats with timestamps that rows share, where that is less work; stale
        markers are not removed from those."""
        return self.load(lo, hi)

    def load_values(self, lo: int, hi: int) -> RowValues | RangePiece:
        """As `load` of an operator whose one window holds all samples, or their values without times, where
        that is less work; stale markers are not removed from those."""
        return self.load(lo, hi)


class ScalarOperator(Operator):
    """A scalar at every step."""

    @abstractmethod
    def values(self) -> F64Array:
        """f64[K]."""


class Builder(Protocol):
    """What makes operators of expressions (`promql.plan.PlanBuilder`); given to function builders."""

    @property
    def ctx(self) -> EvalContext:
        """The evaluation the operators belong to."""
        ...

    def vector(self, expr: Expr) -> VectorOperator:
        """Operator of an instant-vector expression."""
        ...

    def selector(self, expr: VectorSelector, want: str = "value") -> VectorOperator:
        """Scan of an instant selector; `want` is "value", "time" or "start_time"."""
        ...

    def range(self, expr: Expr) -> RangeOperator:
        """Operator of a range-vector expression (range selector or subquery)."""
        ...

    def scalar(self, expr: Expr) -> ScalarOperator:
        """Operator of a scalar expression."""
        ...

    def string(self, expr: Expr) -> str:
        """Text of a string literal (parentheses allowed)."""
        ...


FunctionBuilder = Callable[[Call, Builder], "VectorOperator | ScalarOperator"]
"""Operator modules export `FUNCTIONS: dict[str, FunctionBuilder]`; `promql.plan` lists the modules."""


PIECE_WORK_MAX = 1 << 19
"""Samples plus cells of one piece: 4 MiB of them stay near the cache, and the fixed cost of a piece (0.2 ms
of Python, and going through the pages that it shares with others) stays below a tenth of its kernels."""

PIECE_CELLS_MAX = 1 << 17
"""Cells of one piece: up to five of them wait for their turn, while samples are gone by then."""


def refined(splits: Sequence[tuple[int, int]], steps: int) -> list[tuple[int, int]]:
    """Splits cut smaller where a row becomes longer: no piece has more than PIECE_WORK_MAX cells of `steps` a
    row, unless one row has."""
    rows_max = max(1, PIECE_WORK_MAX // max(steps, 1))
    return [(at, min(at + rows_max, hi)) for lo, hi in splits for at in range(lo, max(hi, lo + 1), rows_max)]


def drop_metadata(series: Series, ctx: EvalContext) -> Series:
    """What functions and arithmetic do to names (2.4): drop them now, or only raise the flag when removal is
    delayed. Wrap the operator in `operators.merge.checked` where equal label sets may arise."""
    if ctx.options.delayed_name_removal:
        return Series(series.labels, np.ones(len(series), dtype=np.bool_))
    return Series(series.labels.filter_names(METADATA_LABELS, keep=False), series.drop_name)
