"""Rewrites of the tree before it becomes operators, and what the planner asks about sub-trees.

Constant folding happens here; step invariance and common sub-expressions are properties that the planner
acts on (`promql.plan`), because both depend on the grid a sub-tree is evaluated on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


_NOTHING: Mapping[int, bool] = {}

SHAREABLE = (VectorSelector, Call, AggregateExpr, BinaryExpr)


def unwrap(expr: Expr) -> Expr:
    """The expression inside parentheses and unary pluses."""
    while isinstance(expr, ParenExpr) or (isinstance(expr, UnaryExpr) and expr.op == "+"):
        expr = expr.expr
    return expr


def is_wrapper(expr: Expr) -> bool:
    """Whether `unwrap` takes this node off."""
    return isinstance(expr, ParenExpr) or (isinstance(expr, UnaryExpr) and expr.op == "+")


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


def is_step_invariant(expr: Expr, known: Mapping[int, bool] = _NOTHING) -> bool:
    """Whether an expression has the same value at every step because `@` pins all its selectors. `known` has
    answers by the nodes' ids."""
    expr = unwrap(expr)
    if (found := known.get(id(expr))) is not None:
        return found
    if isinstance(expr, (NumberLiteral, StringLiteral)):
        return True
    if isinstance(expr, (VectorSelector, SubqueryExpr)):
        return expr.at_ms is not None or expr.at_modifier is not None
    if isinstance(expr, MatrixSelector):
        return is_step_invariant(expr.selector, known)
    if isinstance(expr, Call):
        of_selector = expr.function in ("timestamp", "start_timestamp") and isinstance(
            unwrap(expr.args[0]), VectorSelector
        )
        if expr.function in STEP_DEPENDENT_FUNCTIONS and not of_selector:
            return False
    return all(is_step_invariant(child, known) for child in children(expr))


def step_invariants(nodes: Sequence[Expr]) -> dict[int, bool]:
    """`is_step_invariant` of all nodes of a tree, which come in `postorder`, by their ids; without recursion.
    Wrappers are left out: nobody asks for them."""
    known: dict[int, bool] = {}
    for node in nodes:
        if not is_wrapper(node):
            known[id(node)] = is_step_invariant(node, known)
    return known


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
