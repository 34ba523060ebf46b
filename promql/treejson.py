"""Trees as the data of /api/v1/parse_query, ready for JSON.

Shapes: prometheus-surface.md 1.5 (end). Durations and timestamps are integer milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promql.ast import (
    AggregateExpr,
    AtModifier,
    BinaryExpr,
    Call,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorMatching,
    VectorSelector,
)
from promql.functions import FUNCTIONS
from promql.numberformat import format_f
from promql.types import api_type

Json = dict[str, Any]


def to_json(expr: Expr | None) -> Json | None:
    """A node and everything below it as dicts and lists; None stays None."""
    if expr is None:
        return None
    return _WRITERS[type(expr)](expr)


def _aggregation(node: AggregateExpr) -> Json:
    return {
        "type": "aggregation",
        "op": node.op,
        "expr": to_json(node.expr),
        "param": to_json(node.param),
        "grouping": list(node.grouping),
        "without": node.without,
    }


def _binary(node: BinaryExpr) -> Json:
    return {
        "type": "binaryExpr",
        "op": node.op,
        "lhs": to_json(node.lhs),
        "rhs": to_json(node.rhs),
        "matching": None if node.matching is None else _matching(node.matching),
        "bool": node.return_bool,
    }


def _matching(matching: VectorMatching) -> Json:
    return {
        "card": matching.card.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_lhs, "rhs": matching.fill_rhs},
    }


def _call(node: Call) -> Json:
    function = FUNCTIONS[node.function]
    return {
        "type": "call",
        "func": {
            "name": function.name,
            "argTypes": [api_type(arg) for arg in function.arg_types],
            "variadic": function.variadic,
            "returnType": api_type(function.return_type),
        },
        "args": [to_json(arg) for arg in node.args],
    }


def _selector_fields(node: VectorSelector) -> Json:
    return {
        "name": node.name,
        "offset": node.offset_ms,
        "offsetExpr": to_json(node.offset_expr),
        "matchers": _matchers(node),
        "timestamp": node.at_ms,
        "startOrEnd": _start_or_end(node.at_modifier),
        "anchored": node.anchored,
        "smoothed": node.smoothed,
    }


def _matchers(node: VectorSelector) -> list[Json]:
    # A bare name comes last in Prometheus's list of matchers and first in ours.
    ordered = (*node.matchers[1:], node.matchers[0]) if node.name else node.matchers
    return [{"name": m.name, "value": m.value, "type": m.type.symbol} for m in ordered]


def _start_or_end(modifier: AtModifier | None) -> str | None:
    return None if modifier is None else modifier.value


def _vector_selector(node: VectorSelector) -> Json:
    return {"type": "vectorSelector", **_selector_fields(node)}


def _matrix_selector(node: MatrixSelector) -> Json:
    window = {"range": node.range_ms, "rangeExpr": to_json(node.range_expr)}
    return {"type": "matrixSelector", **_selector_fields(node.selector), **window}


def _subquery(node: SubqueryExpr) -> Json:
    return {
        "type": "subquery",
        "expr": to_json(node.expr),
        "range": node.range_ms,
        "rangeExpr": to_json(node.range_expr),
        "offset": node.offset_ms,
        "offsetExpr": to_json(node.offset_expr),
        "step": node.step_ms,
        "stepExpr": to_json(node.step_expr),
        "timestamp": node.at_ms,
        "startOrEnd": _start_or_end(node.at_modifier),
    }


def _duration(node: DurationExpr) -> Json:
    return {
        "type": "durationExpr",
        "op": node.op,
        "lhs": _duration_part(node.lhs),
        "rhs": _duration_part(node.rhs),
        "wrapped": node.wrapped,
    }


def _duration_part(node: DurationExpr | NumberLiteral | None) -> Json | None:
    if isinstance(node, NumberLiteral):
        return {"type": "numberLiteral", "val": format_f(node.value), "duration": node.is_duration}
    return to_json(node)


_WRITERS: dict[type[Expr], Callable[[Any], Json]] = {
    AggregateExpr: _aggregation,
    BinaryExpr: _binary,
    Call: _call,
    DurationExpr: _duration,
    MatrixSelector: _matrix_selector,
    NumberLiteral: lambda node: {"type": "numberLiteral", "val": format_f(node.value)},
    ParenExpr: lambda node: {"type": "parenExpr", "expr": to_json(node.expr)},
    StringLiteral: lambda node: {"type": "stringLiteral", "val": node.value},
    SubqueryExpr: _subquery,
    UnaryExpr: lambda node: {"type": "unaryExpr", "op": node.op, "expr": to_json(node.expr)},
    VectorSelector: _vector_selector,
}
