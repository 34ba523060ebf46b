"""Trees as the data of /api/v1/parse_query, ready for JSON.

Shapes: prometheus-surface.md 1.5 (end). Durations and timestamps are integer milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from promql.visit import duration_postorder, postorder

Json = dict[str, Any]
Done = Mapping[int, Json]
"""What was written, by id of the node."""


def to_json(expr: Expr) -> Json:
    """A tree as dicts and lists. The tree may be deep, so there is no recursion: the nodes are written from
    the leaves on."""
    done: dict[int, Json] = {}
    for node in postorder(expr):
        done[id(node)] = _WRITERS[type(node)](node, done)
    return done[id(expr)]


def _aggregation(node: AggregateExpr, done: Done) -> Json:
    return {
        "type": "aggregation",
        "op": node.op,
        "expr": done[id(node.expr)],
        "param": None if node.param is None else done[id(node.param)],
        "grouping": list(node.grouping),
        "without": node.without,
    }


def _binary(node: BinaryExpr, done: Done) -> Json:
    return {
        "type": "binaryExpr",
        "op": node.op,
        "lhs": done[id(node.lhs)],
        "rhs": done[id(node.rhs)],
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


def _call(node: Call, done: Done) -> Json:
    function = FUNCTIONS[node.function]
    return {
        "type": "call",
        "func": {
            "name": function.name,
            "argTypes": [api_type(arg) for arg in function.arg_types],
            "variadic": function.variadic,
            "returnType": api_type(function.return_type),
        },
        "args": [done[id(arg)] for arg in node.args],
    }


def _selector_fields(node: VectorSelector) -> Json:
    return {
        "name": node.name,
        "offset": node.offset_ms,
        "offsetExpr": _duration(node.offset_expr),
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


def _vector_selector(node: VectorSelector, done: Done) -> Json:
    return {"type": "vectorSelector", **_selector_fields(node)}


def _matrix_selector(node: MatrixSelector, done: Done) -> Json:
    window = {"range": node.range_ms, "rangeExpr": _duration(node.range_expr)}
    return {"type": "matrixSelector", **_selector_fields(node.selector), **window}


def _subquery(node: SubqueryExpr, done: Done) -> Json:
    return {
        "type": "subquery",
        "expr": done[id(node.expr)],
        "range": node.range_ms,
        "rangeExpr": _duration(node.range_expr),
        "offset": node.offset_ms,
        "offsetExpr": _duration(node.offset_expr),
        "step": node.step_ms,
        "stepExpr": _duration(node.step_expr),
        "timestamp": node.at_ms,
        "startOrEnd": _start_or_end(node.at_modifier),
    }


def _duration(expr: DurationExpr | None) -> Json | None:
    if expr is None:
        return None
    done: dict[int, Json] = {}
    for node in duration_postorder(expr):
        if isinstance(node, NumberLiteral):
            text = format_f(node.value)
            done[id(node)] = {"type": "numberLiteral", "val": text, "duration": node.is_duration}
        else:
            done[id(node)] = {
                "type": "durationExpr",
                "op": node.op,
                "lhs": None if node.lhs is None else done[id(node.lhs)],
                "rhs": None if node.rhs is None else done[id(node.rhs)],
                "wrapped": node.wrapped,
            }
    return done[id(expr)]


_WRITERS: dict[type[Expr], Callable[[Any, Done], Json]] = {
    AggregateExpr: _aggregation,
    BinaryExpr: _binary,
    Call: _call,
    MatrixSelector: _matrix_selector,
    NumberLiteral: lambda node, done: {"type": "numberLiteral", "val": format_f(node.value)},
    ParenExpr: lambda node, done: {"type": "parenExpr", "expr": done[id(node.expr)]},
    StringLiteral: lambda node, done: {"type": "stringLiteral", "val": node.value},
    SubqueryExpr: _subquery,
    UnaryExpr: lambda node, done: {"type": "unaryExpr", "op": node.op, "expr": done[id(node.expr)]},
    VectorSelector: _vector_selector,
}
