"""Deep queries in stages: what lies many levels down is evaluated before what is above it.

Planning and evaluation recurse, a dozen frames of Python a level. So a tree of more levels than that allows
is cut (`promql.prepared`): in place of a node where it is cut the plan has an operator that knows how to plan
the node, and all of them are planned, and later evaluated, one after the other. Each holds its rows until the
operators above it have had them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from promql.context import EvalContext
from promql.matrix import F64Array, HistogramCells
from promql.operators.collect import Collected, collect
from promql.operators.operator import (
    Explain,
    Operator,
    Piece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
)

O = TypeVar("O", bound=Operator)  # noqa: E741 - an operator


class _Stage(Operator, ABC, Generic[O]):
    """A part of the tree that is planned and evaluated when `Stages` says so."""

    def __init__(self, ctx: EvalContext, plan: Callable[[], O]) -> None:
        super().__init__(ctx)
        self._plan: Callable[[], O] | None = plan
        self._source: O | None = None
        self._shown: Explain | None = None
        self.below: Sequence[_Stage[Operator]] = ()
        """Stages that this one's plan refers to."""
        self._counts_above = 0
        """Inner grids whose steps are counted and that were planned before this stage."""

    def prepare(self) -> None:
        """Plan what is in this stage."""
        assert self._plan is not None, "planned once"
        counts = self.ctx.step_counts
        self._counts_above = 0 if counts is None else counts.known()
        self._source, self._plan = self._plan(), None

    def evaluate(self) -> None:
        """Find and keep the values; those of the stages below are no longer needed."""
        assert self._source is not None, "planned before"
        self._keep(self._source)
        if self.ctx.measured:
            self._shown = self._source.explain()
        self._source = None
        for stage in self.below:
            stage.drop()
        if self.ctx.step_counts is not None:
            self.ctx.step_counts.settle(self._counts_above)

    @abstractmethod
    def _keep(self, source: O) -> None: ...

    @abstractmethod
    def drop(self) -> None:
        """Forget the values."""

    def show(self) -> None:
        """Make this stage's plan, of those below."""
        if self._source is not None:
            self._shown = self._source.explain()

    def explain(self) -> Explain:
        """The plan of the part."""
        assert self._shown is not None, "made from the bottom up"
        return self._shown


class StagedVector(_Stage[VectorOperator], RowwiseOperator):
    """An instant vector."""

    def __init__(self, ctx: EvalContext, plan: Callable[[], VectorOperator]) -> None:
        RowwiseOperator.__init__(self, ctx)
        _Stage.__init__(self, ctx, plan)
        self._rows: Collected | None = None

    def _keep(self, source: VectorOperator) -> None:
        self._rows = collect(source)
        self._series = self._rows.series
        self.is_distinct = source.is_distinct

    def drop(self) -> None:
        """Forget the rows."""
        if self._rows is not None:
            self._rows.release(self.ctx)
            self._rows = None

    def _announce(self) -> Series:
        raise AssertionError("announced when it was evaluated")

    def splits(self) -> Sequence[tuple[int, int]]:
        """One run of all rows."""
        return [(0, len(self.series()))]

    def load(self, lo: int, hi: int) -> Piece:
        """A copy of the rows; the receiver may overwrite it."""
        rows = self._rows
        assert rows is not None, "evaluated before"
        cells = rows.histograms
        part = None if cells is None else HistogramCells(cells.index[lo:hi].copy(), cells.pool)
        return Piece(lo, rows.values[lo:hi].copy(), part)


class StagedScalar(_Stage[ScalarOperator], ScalarOperator):
    """A scalar."""

    def __init__(self, ctx: EvalContext, plan: Callable[[], ScalarOperator]) -> None:
        _Stage.__init__(self, ctx, plan)
        self._values: F64Array = np.empty(0)

    def _keep(self, source: ScalarOperator) -> None:
        self._values = source.values()

    def drop(self) -> None:
        """Forget the values."""
        self._values = np.empty(0)

    def values(self) -> F64Array:
        """f64[K]; the receiver may overwrite them."""
        return self._values.copy()


class Stages:
    """The stages of one query, those above before those below."""

    def __init__(self) -> None:
        self._stages: list[StagedVector | StagedScalar] = []

    def vector(self, ctx: EvalContext, plan: Callable[[], VectorOperator]) -> StagedVector:
        """An operator in place of the one that `plan` will make."""
        stage = StagedVector(ctx, plan)
        self._stages.append(stage)
        return stage

    def scalar(self, ctx: EvalContext, plan: Callable[[], ScalarOperator]) -> StagedScalar:
        """The same of a scalar."""
        stage = StagedScalar(ctx, plan)
        self._stages.append(stage)
        return stage

    def prepare(self) -> None:
        """Plan all of them, and those that are found on the way."""
        at = 0
        while at < len(self._stages):
            stage, known = self._stages[at], len(self._stages)
            stage.prepare()
            stage.below = self._stages[known:]  # type: ignore[assignment]
            stage.ctx.budget.check()
            at += 1

    def evaluate(self) -> None:
        """Evaluate all of them, from the last on: none refers to one before it."""
        for stage in reversed(self._stages):
            stage.ctx.budget.check()
            stage.evaluate()

    def show(self) -> None:
        """Make their plans, for `explain`."""
        for stage in reversed(self._stages):
            stage.show()
