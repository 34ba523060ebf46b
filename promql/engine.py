"""The query engine: text in, `QueryResult` out.

Synchronous and thread-safe: the web layer calls it from a pool of threads, one query a thread; kernels run
on the engine's own pool without the GIL.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from promql.activequeries import ActiveQueries, Entered
from promql.annotations import Annotations
from promql.ast import AggregateExpr, Call, Expr, StringLiteral, ValueType
from promql.budget import CancelFlag, CountingNeeded, QueryBudget
from promql.builder import ParserOptions
from promql.context import EvalContext
from promql.engineerrors import ExecutionError, PreparationError, StorageReadError
from promql.heldsamples import HeldSamples
from promql.looks import looking
from promql.matrix import Grid, Matrix
from promql.metrics import EngineMetrics, Timings
from promql.operators.collect import Collected, collect
from promql.operators.operator import Explain, Operator, RangeOperator, ScalarOperator, Series, VectorOperator
from promql.operators.rangeresult import range_vectors
from promql.operators.staged import Stages
from promql.optimize import unwrap
from promql.options import EngineOptions
from promql.plan import PlanBuilder
from promql.prepared import PreparedQuery, prepare_query
from promql.result import QueryResult, RangeVectors, finish_rows
from promql.stepcounts import StepCounts
from promql.types import type_of
from tsdb.errors import NotAtOnceError
from tsdb.select import Querier
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import OverlaySymbols

log = logging.getLogger("promql.engine")

CONCURRENT_MAX_DEFAULT = 20

SORTED_INSTANT_ROWS_MAX = 1000
"""Instant vectors have no order of their own. Small ones are sorted for the people who read them; sorting
100,000 rows would take longer than most such queries."""


class Engine:
    """Evaluates queries. Close it to stop its threads. `active` is the log of running queries, if there is
    to be one."""

    def __init__(
        self,
        options: EngineOptions | None = None,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
        concurrent_max: int = CONCURRENT_MAX_DEFAULT,
        active: ActiveQueries | None = None,
    ) -> None:
        self.options = options or EngineOptions()
        self._clock = clock
        self._active = active
        self._metrics = None if registry is None else EngineMetrics(registry, concurrent_max)
        features = self.options.features
        self._parser_options = ParserOptions(
            experimental_functions="promql-experimental-functions" in features,
            extended_range_selectors="promql-extended-range-selectors" in features,
            binop_fill_modifiers="promql-binop-fill-modifiers" in features,
        )
        threads = self.options.thread_count
        self._pool = ThreadPoolExecutor(threads, "promql") if threads > 1 else None

    def log_active_queries(self, active: ActiveQueries) -> None:
        """Write running queries to a log from now on; for a log that lies in the store's folder."""
        self._active = active

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def running(self) -> int:
        """Queries that are being evaluated, where there are metrics that count them."""
        return 0 if self._metrics is None else self._metrics.running

    def observe_queue_s(self, seconds: float) -> None:
        """Count the time a query waited for its turn, which the caller gives out."""
        if self._metrics is not None:
            self._metrics.queued(seconds)

    def parser_options(self) -> ParserOptions:
        """Parts of the language that the features allow."""
        return self._parser_options

    def instant(
        self,
        querier: Querier,
        text: str,
        time_ms: int,
        *,
        lookback_ms: int | None = None,
        timeout_s: float | None = None,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> QueryResult:
        """Evaluate at one time. None or 0 for lookback and timeout mean the options'. With `stats` "true" or
        "all" the samples that steps look at are counted, by step for "all" (and its feature flag).

        With `at_once` the calling thread must not wait: NotAtOnceError is raised, before anything is read,
        where it would have to, and where there are more samples and cells than that.

        Raises ParseError, PreparationError, ExecutionError, QueryTimeout, QueryCancelled, StorageReadError.
        """
        grid = Grid(time_ms, 0, 1)
        ctx = self._context(querier, grid, time_ms, lookback_ms, timeout_s, cancel, at_once)
        return self._run(ctx, text, stats, instant=True)

    def range(
        self,
        querier: Querier,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None = None,
        timeout_s: float | None = None,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> QueryResult:
        """Evaluate at start, start + step, ... up to end. Raises as `instant`."""
        grid = Grid(start_ms, step_ms, (end_ms - start_ms) // step_ms + 1)
        ctx = self._context(querier, grid, end_ms, lookback_ms, timeout_s, cancel, at_once)
        return self._run(ctx, text, stats, instant=False)

    def explain(
        self,
        querier: Querier,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int | None = None,
        timeout_s: float | None = None,
        analyze: bool = False,
        cancel: CancelFlag | None = None,
    ) -> Explain:
        """The plan of a query; `step_ms` 0 means an instant query at start. With `analyze` the query is
        evaluated and the plan shows rows, pieces, samples and time (children's included) of each operator.
        Parameters and errors are those of `instant`."""
        steps = (end_ms - start_ms) // step_ms + 1 if step_ms else 1
        query = prepare_query(text, self.parser_options())
        grid = Grid(start_ms, step_ms, steps)
        ctx = self._context(querier, grid, end_ms, lookback_ms, timeout_s, cancel)
        if isinstance(unwrap(query.expr), StringLiteral):
            return Explain("String")
        if not analyze:
            operator, stages = self._operator(ctx, query)
            stages.show()
            return operator.explain()
        ctx = replace(ctx, measured=True)
        try:
            return self._analyzed(ctx, query)
        except CountingNeeded:
            return self._analyzed(self._counting(ctx, ""), query)

    def _analyzed(self, ctx: EvalContext, query: PreparedQuery) -> Explain:
        operator, stages = self._operator(ctx, query)
        stages.evaluate()
        if isinstance(operator, RangeOperator):
            range_vectors(operator)
        elif isinstance(operator, ScalarOperator):
            operator.values()
        elif isinstance(operator, VectorOperator):
            finish_rows(collect(operator), ctx, sort=True)
        return operator.explain()

    def _context(
        self,
        querier: Querier,
        grid: Grid,
        end_ms: int,
        lookback_ms: int | None,
        timeout_s: float | None,
        cancel: CancelFlag | None,
        at_once: int = 0,
    ) -> EvalContext:
        options = self.options
        limit_s = min(timeout_s, options.timeout_s) if timeout_s else options.timeout_s
        budget = QueryBudget(options.samples_max, options.bytes_max, limit_s, cancel, self._clock)
        budget.at_once = at_once
        return EvalContext(
            querier=querier,
            symbols=OverlaySymbols(querier.symbols),
            grid=grid,
            query_grid=grid,
            lookback_ms=lookback_ms or options.lookback_ms,
            options=options,
            budget=budget,
            annotations=Annotations(),
            pool=None if at_once else self._pool,
            query_end=end_ms,
        )

    def _run(self, ctx: EvalContext, text: str, stats: str, instant: bool) -> QueryResult:
        metrics = self._metrics
        if metrics is not None:
            metrics.started()
        timings, timed = Timings(), True
        try:
            started = self._clock()
            query = prepare_query(text, self.parser_options())
            value_type = query.type
            if not instant and value_type not in (ValueType.SCALAR, ValueType.VECTOR):
                raise PreparationError(
                    f'invalid expression type "{value_type.value}" for range query, '
                    "must be Scalar or instant Vector"
                )
            ctx.budget.expected_max = query.cells_max(self.options.samples_max, ctx.grid.steps)
            with Entered(self._active, text), looking(ctx.budget.check):
                if stats or ctx.grid.steps > ctx.budget.expected_max:
                    ctx = self._counting(ctx, stats)
                try:
                    value = self._evaluate(ctx, query, instant, timings, started)
                except CountingNeeded:
                    ctx = self._counting(ctx, stats)
                    value = self._evaluate(ctx, query, instant, timings, started)
                if ctx.held is not None:
                    ctx.held.check()
        except RecursionError as error:
            raise ExecutionError("expression is nested too deeply to be evaluated") from error
        except StorageReadError as error:
            log.error("The store could not be read for a query", extra={"query": text, "err": str(error)})
            if metrics is not None:
                metrics.read_failed()
            raise
        except NotAtOnceError:
            timed = False  # the caller asks again
            raise
        finally:
            if metrics is not None:
                metrics.finished(ctx.budget.samples_read, timings if timed else None)
        warnings = tuple(ctx.annotations.warnings(text))
        infos = tuple(ctx.annotations.infos(text))
        shown = _stats(ctx, timings, stats == "all")
        return QueryResult(value_type, value, warnings, infos, shown, ctx.budget.work)

    def _counting(self, ctx: EvalContext, stats: str) -> EvalContext:
        """The same query from its beginning, with its samples counted; by step as well where `stats` are
        asked for."""
        ctx.budget.counting = True
        return replace(
            ctx,
            symbols=OverlaySymbols(ctx.querier.symbols),
            annotations=Annotations(),
            held=HeldSamples(self.options.samples_max),
            step_counts=StepCounts(ctx.grid.steps) if stats else None,
        )

    def _operator(self, ctx: EvalContext, query: PreparedQuery) -> tuple[Operator, Stages]:
        """The plan, and what is to be evaluated before."""
        if query.stages and ctx.budget.at_once:
            raise NotAtOnceError("a deep query takes long to be planned")
        builder, expr = PlanBuilder.for_query(ctx, query), query.expr
        operator: Operator
        kind = type_of(expr)
        if kind is ValueType.SCALAR:
            operator = builder.scalar(expr)
        elif kind is ValueType.MATRIX:
            operator = builder.range(expr)
        else:
            operator = builder.vector(expr)
        builder.stages.prepare()
        return operator, builder.stages

    def _evaluate(
        self, ctx: EvalContext, query: PreparedQuery, instant: bool, timings: Timings, started: float
    ) -> Matrix | RangeVectors | float | str:
        plain = unwrap(query.expr)
        if isinstance(plain, StringLiteral):
            return plain.value
        operator, stages = self._operator(ctx, query)
        prepared = self._clock()
        timings.prepare_s = prepared - started
        try:
            stages.evaluate()
            if not isinstance(operator, VectorOperator):
                if isinstance(operator, RangeOperator):
                    return range_vectors(operator)
                assert isinstance(operator, ScalarOperator)
                values = operator.values()
                return float(values[0]) if instant else _scalar_matrix(ctx, values)
            rows = collect(operator)
        finally:
            evaluated = self._clock()
            timings.eval_s = evaluated - prepared
        ctx.budget.check()
        sort = not instant or (not _ordered(plain) and len(rows.values) <= SORTED_INSTANT_ROWS_MAX)
        matrix = finish_rows(rows, ctx, sort)
        timings.sort_s = self._clock() - evaluated
        return matrix


def _ordered(expr: Expr) -> bool:
    """Whether an instant query's result keeps the operator's order."""
    if isinstance(expr, AggregateExpr):
        return expr.op in ("topk", "bottomk")
    return isinstance(expr, Call) and expr.function.startswith("sort")


def _scalar_matrix(ctx: EvalContext, values: np.ndarray[Any, np.dtype[np.float64]]) -> Matrix:
    none = np.empty(0, dtype=np.uint32)
    labels = SeriesLabels(np.zeros(2, dtype=np.int64), none, none, ctx.symbols)
    flags = np.zeros(1, dtype=np.bool_)
    rows = Collected(Series(labels, flags), np.ascontiguousarray(values).reshape(1, -1), None)
    return Matrix(labels, ctx.grid, rows.values, flags)


def _stats(ctx: EvalContext, timings: Timings, by_step: bool) -> dict[str, Any]:
    """The API's `stats` object (prometheus-surface.md 1.2). Where nobody asked for it, samples looked at are
    not counted, and those read stand in for them."""
    budget, counts = ctx.budget, ctx.step_counts
    if counts is not None:
        counts.settle()
    samples: dict[str, Any] = {
        "totalQueryableSamples": budget.samples_read if counts is None else counts.total,
        "samplesRead": budget.samples_read if counts is None else counts.total_read,
        "peakSamples": 0 if ctx.held is None else ctx.held.peak(),
    }
    if by_step and counts is not None and ctx.options.per_step_stats:
        times_s = (ctx.grid.times_ms() / 1000).tolist()
        samples["totalQueryableSamplesPerStep"] = list(zip(times_s, counts.counts.tolist(), strict=True))
        samples["samplesReadPerStep"] = list(zip(times_s, counts.read.tolist(), strict=True))
    total = timings.prepare_s + timings.eval_s + timings.sort_s
    return {
        "timings": {
            "evalTotalTime": timings.eval_s + timings.sort_s,
            "resultSortTime": timings.sort_s,
            "queryPreparationTime": timings.prepare_s,
            "innerEvalTime": timings.eval_s,
            "execQueueTime": 0.0,
            "execTotalTime": total if math.isfinite(total) else 0.0,
        },
        "samples": samples,
    }
