"""Rewrites of the tree before it becomes operators, and what the planner asks about sub-trees.

Constant folding happens here; step invariance and common sub-expressions are properties that the planner
acts on (`promql.plan`), because both depend on the grid a sub-tree is evaluated on.
"""

from __future__ import annotations

import numpy as np

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from promql.kernels import binary as kernels
from promql.types import type_of
from promql.visit import children, replace, walk

STEP_DEPENDENT_FUNCTIONS = frozenset(
    {
        *("days_in_month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute", "month", "year"),
        *("time", "timestamp", "start_timestamp", "predict_linear", "start", "end", "step", "range"),
    }
)
"""Functions whose value depends on the evaluation time even where their arguments do not."""

SHARED_NODES_MAX = 200
"""Trees larger than this are not searched for common sub-expressions: hashing every sub-tree is quadratic."""


SHAREABLE = (VectorSelector, Call, AggregateExpr, BinaryExpr)


def unwrap(expr: Expr) -> Expr:
    """The expression inside parentheses and unary pluses."""
    while isinstance(expr, ParenExpr) or (isinstance(expr, UnaryExpr) and expr.op == "+"):
        expr = expr.expr
    return expr


def fold_constants(expr: Expr) -> Expr:
    """Replace arithmetic between number literals by its value."""
    return replace(expr, _fold)


def _fold(expr: Expr) -> Expr:
    if not isinstance(expr, BinaryExpr):
        return expr
    lhs, rhs = unwrap(expr.lhs), unwrap(expr.rhs)
    if not isinstance(lhs, NumberLiteral) or not isinstance(rhs, NumberLiteral):
        return expr
    x, y, out = np.array([lhs.value]), np.array([rhs.value]), np.empty(1)
    if expr.op in kernels.CODES:
        kernels.arithmetic_scalars(kernels.CODES[expr.op], x, y, out)
    elif expr.op in kernels.COMPARISONS:
        kernels.compare_scalars(kernels.COMPARISONS[expr.op], x, y, out)
    else:
        return expr
    return NumberLiteral(pos=expr.pos, value=float(out[0]))


def is_step_invariant(expr: Expr) -> bool:
    """Whether an expression has the same value at every step because `@` pins all its selectors."""
    expr = unwrap(expr)
    if isinstance(expr, (NumberLiteral, StringLiteral)):
        return True
    if isinstance(expr, (VectorSelector, SubqueryExpr)):
        return expr.at_ms is not None or expr.at_modifier is not None
    if isinstance(expr, MatrixSelector):
        return is_step_invariant(expr.selector)
    if isinstance(expr, UnaryExpr):
        return is_step_invariant(expr.expr)
    if isinstance(expr, BinaryExpr):
        return is_step_invariant(expr.lhs) and is_step_invariant(expr.rhs)
    if isinstance(expr, AggregateExpr):
        return is_step_invariant(expr.expr) and (expr.param is None or is_step_invariant(expr.param))
    if isinstance(expr, Call):
        return _call_is_step_invariant(expr)
    return False


def _call_is_step_invariant(call: Call) -> bool:
    if call.function in ("timestamp", "start_timestamp") and isinstance(unwrap(call.args[0]), VectorSelector):
        return is_step_invariant(call.args[0])
    return call.function not in STEP_DEPENDENT_FUNCTIONS and all(map(is_step_invariant, call.args))


def shared_expressions(expr: Expr) -> frozenset[Expr]:
    """Instant-vector sub-expressions that occur more than once. Only the outermost of nested ones: what is
    inside a shared expression is evaluated once anyway."""
    if sum(1 for _ in walk(expr)) > SHARED_NODES_MAX:
        return frozenset()
    seen: set[Expr] = set()
    shared: set[Expr] = set()
    pending = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, MatrixSelector):
            continue
        if isinstance(node, SHAREABLE) and type_of(node) is ValueType.VECTOR:
            if node in seen:
                shared.add(node)
                continue
            seen.add(node)
        pending.extend(children(node))
    return frozenset(shared)
