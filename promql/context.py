"""What every operator of one query shares, and the grid it evaluates on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from promql.annotations import Annotations
from promql.budget import QueryBudget
from promql.heldsamples import HeldSamples
from promql.looks import looking
from promql.matrix import Grid
from promql.options import EngineOptions
from promql.stepcounts import Consumer, StepCounts
from tsdb.select import Querier
from tsdb.symbols import OverlaySymbols

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class EvalContext:
    """One evaluation. `grid` is that of this sub-tree (a subquery has its own, a step-invariant part one
    step); `query_grid` is the whole query's (start(), end(), step(), range()).

    `symbols` is the query's own overlay: intern made-up strings there, never in the store's table. All
    SeriesLabels inside a query carry `symbols` as their table.
    """

    querier: Querier
    symbols: OverlaySymbols
    grid: Grid
    query_grid: Grid
    lookback_ms: int
    options: EngineOptions
    budget: QueryBudget
    annotations: Annotations
    pool: ThreadPoolExecutor | None = None
    query_end: int | None = None
    measured: bool = False
    held: HeldSamples | None = None
    """Where operators report what they yield; None where a query can neither reach the limit nor is asked."""
    step_counts: StepCounts | None = None
    """Where selectors count what they look at and read; None where nobody asks."""

    @property
    def query_end_ms(self) -> int:
        """The end the user asked for, which may lie after the last step."""
        return self.query_end if self.query_end is not None else self.query_grid.end_ms

    def on_grid(self, grid: Grid, consumer: Consumer, whole: bool) -> EvalContext:
        """The inside of a subquery, which may be the whole query: the same query on another grid."""
        counts = self.step_counts
        counts = None if counts is None else counts.inside(grid, consumer, whole)
        # `dataclasses.replace` takes 5 us.
        return EvalContext(
            self.querier, self.symbols, grid, self.query_grid, self.lookback_ms, self.options, self.budget,
            self.annotations, self.pool, self.query_end, self.measured, self.held, counts,
        )  # fmt: skip

    def at_one_step(self) -> EvalContext:
        """A step-invariant part: the same query at one step, counted for all of them."""
        counts = None if self.step_counts is None else self.step_counts.repeated()
        return replace(self, grid=self.grid._replace(steps=1), step_counts=counts)

    def ordered_map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        """Results in order, computed by the pool a few ahead of the consumer, so memory stays bounded."""
        if self.pool is None or len(items) < 2:
            for item in items:
                self.budget.check()
                yield function(item)
            return
        pending: deque[Future[B]] = deque()
        ahead = self.options.thread_count + 1

        def task(item: A) -> B:
            with looking(self.budget.check):
                return function(item)

        try:
            for item in items:
                if len(pending) >= ahead:
                    yield self._next(pending)
                pending.append(self.pool.submit(task, item))
            while pending:
                yield self._next(pending)
        finally:
            for future in pending:
                future.cancel()

    def _next(self, pending: deque[Future[B]]) -> B:
        self.budget.check()
        return pending.popleft().result()
