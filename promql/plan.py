"""From the tree to operators.

Durations and `@` are resolved here, step-invariant parts get a grid of one step, equal sub-expressions of one
grid share one evaluation, and selectors are told what is done with them (`SelectHints`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from promql.ast import (
    AggregateExpr,
    AtModifier,
    BinaryExpr,
    Call,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Position,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from promql.context import EvalContext
from promql.duration import DurationError, evaluate_duration
from promql.engineerrors import ExecutionError, PreparationError
from promql.heldsamples import RANGE, REPEAT, SAME, SUBQUERY, HeldNode, kind_of
from promql.matrix import Grid
from promql.operators.aggregate import Aggregate, Quantile
from promql.operators.binary import VectorBinary, with_scalar
from promql.operators.counted import CountedRange, CountedVector
from promql.operators.countvalues import CountValues
from promql.operators.held import HeldScalar, held
from promql.operators.mathfunctions import NegateOperator
from promql.operators.measured import MeasuredRange, measured
from promql.operators.merge import checked
from promql.operators.operator import FunctionBuilder, RangeOperator, ScalarOperator, VectorOperator
from promql.operators.ranked import LimitK, LimitRatio, TopK
from promql.operators.scalar import Constant, Negate, ScalarBinary
from promql.operators.scan import RangeScan, SelectorTimes, VectorScan, selector_times
from promql.operators.setops import SetOperator
from promql.operators.shared import SharedCell, SharedOperator
from promql.operators.staged import Stages
from promql.operators.subquery import EmptyVector, Repeat, RepeatScalar, Subquery, subquery_grid
from promql.optimize import is_step_invariant, unwrap
from promql.prepared import PreparedQuery
from promql.stepcounts import Consumer
from promql.types import type_of
from tsdb.select import SelectHints

FUNCTION_MODULES = (
    *("absent", "scalar", "sort", "window", "mathfunctions", "labelfunctions", "timefunctions"),
    *("histogram", "info"),
)
"""Modules of `promql.operators` that export FUNCTIONS."""

SET_OPERATORS = ("and", "or", "unless")

NO_HINTS = SelectHints()


@cache
def function_builders() -> dict[str, FunctionBuilder]:
    """Builders of all functions by name; imports the operator modules at the first call."""
    table: dict[str, FunctionBuilder] = {}
    for name in FUNCTION_MODULES:
        table.update(importlib.import_module(f"promql.operators.{name}").FUNCTIONS)
    return table


class PlanBuilder:
    """Builds operators of one evaluation; sub-trees on other grids get a builder of their own."""

    def __init__(
        self,
        ctx: EvalContext,
        shared: frozenset[Expr] = frozenset(),
        cells: dict[tuple[Expr, Grid], SharedCell] | None = None,
    ) -> None:
        self._ctx = ctx
        self._shared = shared
        self._cells = {} if cells is None else cells
        self._query: PreparedQuery | None = None
        self._hints = NO_HINTS
        self._hints_resolved: frozenset[Position] = frozenset()
        self._node: HeldNode | None = None
        """Of the expression that is being planned."""
        self._staged: frozenset[int] = frozenset()
        """Ids of the nodes that are evaluated before what is above them."""
        self.stages = Stages()

    @classmethod
    def for_query(cls, ctx: EvalContext, query: PreparedQuery) -> PlanBuilder:
        """The builder of a whole query."""
        # Prometheus evaluates equal parts again, and so they count.
        builder = cls(ctx, query.shared if ctx.held is None else frozenset())
        builder._query, builder._hints_resolved = query, query.resolved_hints
        builder._staged = query.stages
        return builder

    @property
    def ctx(self) -> EvalContext:
        """The evaluation the operators belong to."""
        return self._ctx

    def _on(self, ctx: EvalContext) -> PlanBuilder:
        builder = PlanBuilder(ctx, self._shared, self._cells)
        builder._query, builder._hints = self._query, self._hints
        builder._hints_resolved = self._hints_resolved
        builder._node = self._node
        builder._staged, builder.stages = self._staged, self.stages
        return builder

    @contextmanager
    def _counted(self, expr: Expr, kind: int) -> Iterator[HeldNode | None]:
        """The node of an expression while it is planned, None where nothing is counted."""
        held_samples = self._ctx.held
        if held_samples is None:
            yield None
            return
        above = self._node
        self._node = held_samples.open(expr, kind, self._ctx.grid.steps, above)
        yield self._node
        self._node = above

    def _is_repeated(self, expr: Expr) -> bool:
        if self._ctx.grid.steps < 2:
            return False
        return is_step_invariant(expr) if self._query is None else self._query.is_step_invariant(expr)

    def vector(self, expr: Expr) -> VectorOperator:
        """Operator of an instant-vector expression."""
        expr = unwrap(expr)
        if self._staged and id(expr) in self._staged:
            later = self._on(self._ctx)
            return self.stages.vector(self._ctx, lambda: later._counted_vector(expr))
        return self._counted_vector(expr)

    def _counted_vector(self, expr: Expr) -> VectorOperator:
        if self._ctx.held is None:
            operator = self._planned(expr)
            return measured(operator) if self._ctx.measured else operator
        with self._counted(expr, REPEAT if self._is_repeated(expr) else kind_of(expr)) as node:
            operator = self._planned(expr)
            if node is not None and node.kind not in (REPEAT, SAME):
                operator = held(operator, node)
        return measured(operator) if self._ctx.measured else operator

    def _planned(self, expr: Expr) -> VectorOperator:
        grid = self._ctx.grid
        if grid.steps == 0:
            return EmptyVector(self._ctx)
        if self._is_repeated(expr):
            once = self._on(self._ctx.at_one_step())
            return Repeat(self._ctx, once.vector(expr))
        if not self._shared or expr not in self._shared:
            return self._vector(expr)
        cell = self._cells.setdefault((expr, grid), SharedCell())
        own = self._vector(expr)
        return SharedOperator(measured(own) if self._ctx.measured else own, cell)

    def _vector(self, expr: Expr) -> VectorOperator:
        if isinstance(expr, VectorSelector):
            return self.selector(expr)
        if isinstance(expr, Call):
            before, self._hints = self._hints, SelectHints(function=expr.function)
            made = self._builder_of(expr)(expr, self)
            self._hints = before
            assert isinstance(made, VectorOperator)
            return made
        if isinstance(expr, AggregateExpr):
            return self._aggregate(expr)
        if isinstance(expr, UnaryExpr):
            return checked(NegateOperator(self.vector(expr.expr)))
        if isinstance(expr, BinaryExpr):
            before, self._hints = self._hints, NO_HINTS
            operator = self._binary(expr)
            self._hints = before
            return operator
        raise ExecutionError(f"unexpected expression type {type_of(expr).value!r}")

    def _builder_of(self, call: Call) -> FunctionBuilder:
        found = function_builders().get(call.function)
        if found is None:
            raise ExecutionError(f'unknown function with name "{call.function}"')
        return found

    def _aggregate(self, expr: AggregateExpr) -> VectorOperator:
        hints = SelectHints(function=expr.op, grouping=expr.grouping, by=not expr.without)
        before, self._hints = self._hints, hints
        child = self.vector(expr.expr)
        self._hints = before
        if expr.param is None:
            return Aggregate(expr, child)
        if expr.op == "count_values":
            return CountValues(expr, child, self.string(expr.param))
        param = self.scalar(expr.param)
        if expr.op == "quantile":
            return Quantile(expr, child, param)
        kinds: dict[str, Callable[[AggregateExpr, VectorOperator, ScalarOperator], VectorOperator]]
        kinds = {"topk": TopK, "bottomk": TopK, "limitk": LimitK, "limit_ratio": LimitRatio}
        return kinds[expr.op](expr, child, param)

    def _binary(self, expr: BinaryExpr) -> VectorOperator:
        left_scalar = type_of(expr.lhs) is ValueType.SCALAR
        if left_scalar:
            return with_scalar(expr, self.vector(expr.rhs), self.scalar(expr.lhs), swapped=True)
        if type_of(expr.rhs) is ValueType.SCALAR:
            return with_scalar(expr, self.vector(expr.lhs), self.scalar(expr.rhs), swapped=False)
        lhs, rhs = self.vector(expr.lhs), self.vector(expr.rhs)
        if expr.op in SET_OPERATORS:
            return SetOperator(expr, lhs, rhs)
        return VectorBinary(expr, lhs, rhs)

    def selector(self, expr: VectorSelector, want: str = "value") -> VectorOperator:
        """Scan of an instant selector; `want` is "value", "time" or "start_time"."""
        times = self._times(expr)
        scan = VectorScan(self._ctx, expr, times, self._hints_over(times, 0), want)
        scan.resolve_hints = expr.pos in self._hints_resolved
        counts = self._ctx.step_counts
        return scan if counts is None else CountedVector(scan, counts)

    def _times(self, expr: VectorSelector | SubqueryExpr) -> SelectorTimes:
        offset = expr.offset_ms
        if expr.offset_expr is not None:
            offset = self._duration(expr.offset_expr, negative_allowed=True)
        return selector_times(self._ctx.grid, offset, self._at_ms(expr))

    def _at_ms(self, expr: VectorSelector | SubqueryExpr) -> int | None:
        if expr.at_modifier is AtModifier.START:
            return self._ctx.query_grid.start_ms
        if expr.at_modifier is AtModifier.END:
            return self._ctx.query_end_ms
        return expr.at_ms

    def _duration(self, expr: DurationExpr, negative_allowed: bool = False) -> int:
        grid = self._ctx.query_grid
        span = self._ctx.query_end_ms - grid.start_ms
        try:
            return evaluate_duration(expr, grid.step_ms, span, negative_allowed=negative_allowed)
        except DurationError as error:
            raise PreparationError(str(error)) from error

    def _hints_over(self, times: SelectorTimes, range_ms: int) -> SelectHints:
        hints = self._hints
        return SelectHints(
            step_ms=times.step_ms,
            range_ms=range_ms,
            function=hints.function,
            grouping=hints.grouping,
            by=hints.by,
        )

    def range(self, expr: Expr) -> RangeOperator:
        """Operator of a range-vector expression (range selector or subquery)."""
        function = self._node
        expr = unwrap(expr)
        counts, whole = self._ctx.step_counts, function is None
        if isinstance(expr, SubqueryExpr):
            if self._ctx.held is None:
                operator = self._subquery(expr, whole)
            else:
                with self._counted(expr, SUBQUERY):
                    operator = self._subquery(expr, whole)
            counts = None if whole else counts
        else:
            operator = self._range(expr)
        if self._ctx.held is not None:
            if function is None:
                function = self._ctx.held.open(expr, RANGE, self._ctx.grid.steps, None)
            operator = CountedRange(operator, counts, function)
        return MeasuredRange(operator) if self._ctx.measured else operator

    def _range(self, expr: Expr) -> RangeOperator:
        if isinstance(expr, MatrixSelector):
            span = expr.range_ms
            if expr.range_expr is not None:
                span = self._duration(expr.range_expr)
            times = self._times(expr.selector)
            scan = RangeScan(self._ctx, expr.selector, times, span, self._hints_over(times, span))
            scan.resolve_hints = expr.selector.pos in self._hints_resolved
            return scan
        raise ExecutionError(f"unexpected expression type {type_of(expr).value!r}")

    def _subquery(self, expr: SubqueryExpr, whole: bool) -> RangeOperator:
        span = expr.range_ms if expr.range_expr is None else self._duration(expr.range_expr)
        step = expr.step_ms if expr.step_expr is None else self._duration(expr.step_expr)
        step = step or self._ctx.options.subquery_step_ms
        times = self._times(expr)
        grid = subquery_grid(times, span, step)
        self._check_steps(grid)
        # Its child may be made of scalars, with no selector that would announce cells.
        self._ctx.budget.expect(grid.steps)
        inner = self._ctx.on_grid(grid, Consumer(times.first_ms, times.step_ms, times.steps, span), whole)
        builder = self._on(inner)
        builder._hints = NO_HINTS
        child = builder.vector(expr.expr)
        return Subquery(self._ctx, expr, child, times, span)

    def _check_steps(self, grid: Grid) -> None:
        limit = self._ctx.options.subquery_steps_max
        if grid.steps > limit:
            raise ExecutionError(
                f"subquery would evaluate {grid.steps} steps, more than the limit of {limit}"
            )

    def scalar(self, expr: Expr) -> ScalarOperator:
        """Operator of a scalar expression."""
        expr = unwrap(expr)
        if self._staged and id(expr) in self._staged:
            later = self._on(self._ctx)
            return self.stages.scalar(self._ctx, lambda: later._counted_scalar(expr))
        return self._counted_scalar(expr)

    def _counted_scalar(self, expr: Expr) -> ScalarOperator:
        repeated = not isinstance(expr, NumberLiteral) and self._is_repeated(expr)
        if self._ctx.held is None:
            return self._scalar(expr, repeated)
        with self._counted(expr, REPEAT if repeated else kind_of(expr)) as node:
            operator = self._scalar(expr, repeated)
        if node is None or node.kind in (REPEAT, SAME) or isinstance(expr, NumberLiteral):
            return operator
        return HeldScalar(operator, node)

    def _scalar(self, expr: Expr, repeated: bool) -> ScalarOperator:
        if isinstance(expr, NumberLiteral):
            return Constant(self._ctx, expr.value)
        if repeated:
            once = self._on(self._ctx.at_one_step())
            return RepeatScalar(self._ctx, once.scalar(expr))
        if isinstance(expr, UnaryExpr):
            return Negate(self._ctx, self.scalar(expr.expr))
        if isinstance(expr, BinaryExpr):
            return ScalarBinary(self._ctx, expr.op, self.scalar(expr.lhs), self.scalar(expr.rhs))
        assert isinstance(expr, Call)
        made = self._builder_of(expr)(expr, self)
        assert isinstance(made, ScalarOperator)
        return made

    def string(self, expr: Expr) -> str:
        """Text of a string literal (parentheses allowed)."""
        expr = unwrap(expr)
        assert isinstance(expr, StringLiteral)
        return expr.value
