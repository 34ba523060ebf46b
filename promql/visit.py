"""Walks over trees: all nodes, selectors with their surroundings, and rebuilding with changes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import replace as changed

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

Duration = DurationExpr | NumberLiteral


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct sub-expressions in evaluation order; the selector of a range counts as its child."""
    if isinstance(expr, (ParenExpr, UnaryExpr, SubqueryExpr)):
        return (expr.expr,)
    if isinstance(expr, BinaryExpr):
        return (expr.lhs, expr.rhs)
    if isinstance(expr, Call):
        return expr.args
    if isinstance(expr, AggregateExpr):
        return (expr.expr,) if expr.param is None else (expr.param, expr.expr)
    if isinstance(expr, MatrixSelector):
        return (expr.selector,)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The node and everything below it, parents first, left to right."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def postorder(expr: Expr) -> list[Expr]:
    """All nodes, children before their parents, left to right: what is worked out for each node in this order
    finds its children's done, however deep the tree."""
    found: list[Expr] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        found.append(node)
        stack.extend(children(node))
    found.reverse()
    return found


def depth(expr: Expr) -> int:
    """Levels of a tree."""
    levels, level = 0, [expr]
    while level:
        levels, level = levels + 1, [child for node in level for child in children(node)]
    return levels


def duration_postorder(expr: Duration) -> list[Duration]:
    """The same of a duration expression."""
    found: list[Duration] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        found.append(node)
        if isinstance(node, DurationExpr):
            stack.extend(side for side in (node.lhs, node.rhs) if side is not None)
    found.reverse()
    return found


def walk_with_path(expr: Expr) -> Iterator[tuple[Expr, tuple[Expr, ...]]]:
    """Like `walk`, each node with its ancestors, outermost first."""
    stack: list[tuple[Expr, tuple[Expr, ...]]] = [(expr, ())]
    while stack:
        node, path = stack.pop()
        yield node, path
        below = (*path, node)
        stack.extend((child, below) for child in reversed(children(node)))


def selectors(expr: Expr) -> list[VectorSelector]:
    """All vector selectors, those inside ranges included, left to right."""
    return [node for node in walk(expr) if isinstance(node, VectorSelector)]


def replace(expr: Expr, function: Callable[[Expr], Expr]) -> Expr:
    """The tree rebuilt from the leaves: `function` sees every node with its children already replaced and
    returns it or another. Untouched parts are shared with the old tree."""
    fresh: dict[int, Expr] = {}
    for node in postorder(expr):
        old = children(node)
        new = [fresh[id(child)] for child in old]
        same = all(map(operator.is_, new, old))
        fresh[id(node)] = function(node if same else with_children(node, new))
    return fresh[id(expr)]


def with_children(expr: Expr, fresh: list[Expr]) -> Expr:
    """The node with other children, in the order of `children`."""
    if isinstance(expr, (ParenExpr, UnaryExpr, SubqueryExpr)):
        return changed(expr, expr=fresh[0])
    if isinstance(expr, BinaryExpr):
        return changed(expr, lhs=fresh[0], rhs=fresh[1])
    if isinstance(expr, Call):
        return changed(expr, args=tuple(fresh))
    if isinstance(expr, AggregateExpr):
        return changed(expr, expr=fresh[-1], param=None if expr.param is None else fresh[0])
    if isinstance(expr, MatrixSelector):
        if not isinstance(fresh[0], VectorSelector):
            raise TypeError(f"a range needs a vector selector, not {type(fresh[0]).__name__}")
        return changed(expr, selector=fresh[0])
    return expr
