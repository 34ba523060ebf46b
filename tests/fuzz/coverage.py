"""What a random query holds: counted over a run, and a test that nothing is never generated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)
from promql.functions import AGGREGATORS, FUNCTIONS
from promql.visit import walk
from tests.fuzz.spelling import BARE
from tsdb.labels import METRIC_NAME, MatchType

OPERATORS = frozenset(
    {
        *("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "</", ">/"),
        *("and", "or", "unless"),
    }
)
FORMS = frozenset(
    {
        *("by", "without", "bool", "on", "ignoring", "group_left", "group_right", "include", "unary"),
        *("fill", "fill_left", "fill_right", "@ time", "@ start", "@ end", "offset", "offset expression"),
        *("anchored", "smoothed range", "smoothed", "subquery", "subquery step", "default step"),
        *("range expression", "step expression", "subquery @", "subquery offset", "vector with scalar"),
        *("utf-8 metric", "utf-8 matcher", "utf-8 by", "utf-8 without", "utf-8 on", "utf-8 ignoring"),
        "utf-8 include",
    }
)
EVERYTHING = (
    {f"function {name}" for name in FUNCTIONS}
    | {f"aggregator {name}" for name in AGGREGATORS}
    | {f"operator {name}" for name in OPERATORS}
    | {f"form {name}" for name in FORMS}
)


def contents(expr: Expr) -> set[str]:
    """Those of EVERYTHING that an expression holds."""
    return {item for node in walk(expr) for item in _of(node)}


def _of(node: Expr) -> Iterator[str]:
    if isinstance(node, Call):
        yield f"function {node.function}"
    elif isinstance(node, AggregateExpr):
        yield f"aggregator {node.op}"
        word = "without" if node.without else "by"
        if node.grouping:
            yield f"form {word}"
        if _any_utf8(node.grouping):
            yield f"form utf-8 {word}"
    elif isinstance(node, UnaryExpr):
        yield "form unary"
    elif isinstance(node, BinaryExpr):
        yield f"operator {node.op}"
        yield from _matching(node)
    elif isinstance(node, (VectorSelector, SubqueryExpr)):
        yield from _moved(node)
        if isinstance(node, VectorSelector):
            yield from _names(node)
    elif isinstance(node, MatrixSelector):
        if node.range_expr is not None:
            yield "form range expression"
        yield from _extension(node)


def _extension(node: MatrixSelector) -> Iterator[str]:
    if node.selector.anchored:
        yield "form anchored"
    if node.selector.smoothed:
        yield "form smoothed range"


def _any_utf8(names: Iterable[str]) -> bool:
    return any(BARE.fullmatch(name) is None for name in names)


def _names(node: VectorSelector) -> Iterator[str]:
    metric = [m.value for m in node.matchers if m.name == METRIC_NAME and m.type is MatchType.EQUAL]
    if _any_utf8(metric):
        yield "form utf-8 metric"
    if _any_utf8(m.name for m in node.matchers):
        yield "form utf-8 matcher"


def _matching(node: BinaryExpr) -> Iterator[str]:
    if node.return_bool:
        yield "form bool"
    matching = node.matching
    if matching is None:
        yield "form vector with scalar"
        return
    word = "on" if matching.on else "ignoring"
    if matching.labels:
        yield f"form {word}"
    if _any_utf8(matching.labels):
        yield f"form utf-8 {word}"
    if _any_utf8(matching.include):
        yield "form utf-8 include"
    if matching.card is Cardinality.MANY_TO_ONE:
        yield "form group_left"
    if matching.card is Cardinality.ONE_TO_MANY:
        yield "form group_right"
    if matching.include:
        yield "form include"
    fills = matching.fill_lhs is not None, matching.fill_rhs is not None
    if any(fills):
        yield "form fill" if all(fills) else ("form fill_left" if fills[0] else "form fill_right")


def _moved(node: VectorSelector | SubqueryExpr) -> Iterator[str]:
    inner = isinstance(node, SubqueryExpr)
    if isinstance(node, SubqueryExpr):
        yield "form subquery"
        yield "form subquery step" if node.step_ms else "form default step"
        if node.step_expr is not None:
            yield "form step expression"
    elif node.smoothed:
        yield "form smoothed"
    if node.at_ms is not None:
        yield "form subquery @" if inner else "form @ time"
    if node.at_modifier is not None:
        yield f"form @ {node.at_modifier.name.lower()}"
    if node.offset_ms:
        yield "form subquery offset" if inner else "form offset"
    if node.offset_expr is not None:
        yield "form offset expression"
