"""The same query pinned with `@`: evaluated at any other time it must give the same result."""

from __future__ import annotations

from dataclasses import replace

from promql.ast import Call, Expr, MatrixSelector, SubqueryExpr, VectorSelector
from promql.functions import AT_MODIFIER_UNSAFE
from promql.parser import parse
from promql.parseroptions import ParserOptions
from promql.printer import to_string
from promql.visit import children, with_children


def pinned_variants(text: str, at_ms: int) -> list[tuple[str, int]]:
    """(query, evaluation time ms) of the repetitions; none for queries that depend on the evaluation time.

    Every selector and subquery without a time gets `@ at_ms`; what lies inside a pinned subquery stays.
    """
    expr = parse(text, ParserOptions.everything())
    if _is_unsafe(expr):
        return []
    pinned = to_string(_pin(expr, at_ms))
    times = [-10 * at_ms, 0, at_ms // 5, at_ms, 10 * at_ms] if at_ms else [-1000, 0, 1000]
    return [(pinned, time_ms) for time_ms in times]


def _is_unsafe(expr: Expr) -> bool:
    if isinstance(expr, Call) and expr.function in AT_MODIFIER_UNSAFE:
        return True
    return not isinstance(expr, SubqueryExpr) and any(map(_is_unsafe, children(expr)))


def _pin(expr: Expr, at_ms: int) -> Expr:
    if isinstance(expr, (VectorSelector, SubqueryExpr)):
        return replace(expr, at_ms=at_ms) if expr.at_ms is None else expr
    if isinstance(expr, MatrixSelector):
        selector = _pin(expr.selector, at_ms)
        assert isinstance(selector, VectorSelector)
        return replace(expr, selector=selector)
    return with_children(expr, [_pin(child, at_ms) for child in children(expr)])
