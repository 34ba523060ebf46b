"""Trees as text: the canonical form on one line, and the pretty form within 100 columns.

Both read back as the same tree. Semantics: prometheus-surface.md appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
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
from promql.duration import format_duration
from promql.numberformat import format_f, format_g
from promql.quoting import quote
from tsdb.labels import METRIC_NAME, Matcher, MatchType

COLUMNS_MAX = 100
INDENT = "  "

_LEGACY_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def to_string(expr: Expr) -> str:
    """The canonical form, as rules and errors show a query."""
    out: list[str] = []
    _write(expr, out)
    return "".join(out)


def _write(expr: Expr, out: list[str]) -> None:
    if isinstance(expr, BinaryExpr):
        _write_binary(expr, out)
    elif isinstance(expr, AggregateExpr):
        out.append(aggregation_head(expr) + "(")
        if expr.param is not None:
            _write(expr.param, out)
            out.append(", ")
        _write(expr.expr, out)
        out.append(")")
    elif isinstance(expr, Call):
        out.append(expr.function + "(")
        for index, arg in enumerate(expr.args):
            if index:
                out.append(", ")
            _write(arg, out)
        out.append(")")
    elif isinstance(expr, ParenExpr):
        out.append("(")
        _write(expr.expr, out)
        out.append(")")
    elif isinstance(expr, UnaryExpr):
        out.append(expr.op)
        _write(expr.expr, out)
    elif isinstance(expr, SubqueryExpr):
        _write(expr.expr, out)
        out.append(subquery_suffix(expr))
    else:
        out.append(_leaf(expr))


def _write_binary(expr: BinaryExpr, out: list[str]) -> None:
    chain = [expr]
    while isinstance(chain[-1].lhs, BinaryExpr):
        chain.append(chain[-1].lhs)
    _write(chain[-1].lhs, out)
    for link in reversed(chain):
        out.append(f" {operator_text(link)} ")
        _write(link.rhs, out)


def _leaf(expr: Expr) -> str:
    if isinstance(expr, VectorSelector):
        return selector_text(expr) + _at(expr) + _extended(expr) + _offset(expr)
    if isinstance(expr, MatrixSelector):
        inner = expr.selector
        window = _duration(expr.range_ms, expr.range_expr)
        return f"{selector_text(inner)}[{window}]{_extended(inner)}{_at(inner)}{_offset(inner)}"
    if isinstance(expr, NumberLiteral):
        return number_text(expr)
    if isinstance(expr, StringLiteral):
        return quote(expr.value)
    if isinstance(expr, DurationExpr):
        return duration_text(expr)
    raise TypeError(f"{type(expr).__name__} is not an expression")


def number_text(literal: NumberLiteral) -> str:
    """A number without exponent, or a duration in its short form."""
    if not literal.is_duration:
        return format_f(literal.value)
    ms = int(abs(literal.value) * 1e9) // 1_000_000
    return ("-" if literal.value < 0 else "") + format_duration(ms)


def duration_text(expr: DurationExpr | NumberLiteral) -> str:
    """A duration expression."""
    if isinstance(expr, NumberLiteral):
        return number_text(expr)
    if expr.op in ("step", "range"):
        text = f"{expr.op}()"
    elif expr.op in ("min_of", "max_of"):
        assert expr.lhs is not None
        assert expr.rhs is not None
        text = f"{expr.op}({duration_text(expr.lhs)}, {duration_text(expr.rhs)})"
    elif expr.lhs is None:
        assert expr.rhs is not None
        text = ("-" if expr.op == "-" else "") + duration_text(expr.rhs)
    else:
        assert expr.rhs is not None
        text = f"{duration_text(expr.lhs)} {expr.op} {duration_text(expr.rhs)}"
    return f"({text})" if expr.wrapped else text


def _duration(ms: int, expr: DurationExpr | None) -> str:
    return format_duration(ms) if expr is None else duration_text(expr)


def matcher_text(matcher: Matcher) -> str:
    """`label="value"`, the label quoted where it is not a plain name."""
    return f"{label_name(matcher.name)}{matcher.type.symbol}{quote(matcher.value)}"


def label_name(name: str) -> str:
    """A label name as it stands in a query."""
    return name if _LEGACY_LABEL.fullmatch(name) else quote(name)


def _labels(names: Iterable[str]) -> str:
    return ", ".join(label_name(name) for name in names)


def selector_text(selector: VectorSelector) -> str:
    """Name and matchers without modifiers; matchers are sorted by their text, as Prometheus prints them."""
    shown = sorted(
        (matcher_text(matcher) for matcher in selector.matchers if not _is_name(selector, matcher)),
        key=lambda text: text.encode("utf-8", "surrogateescape"),
    )
    return f"{selector.name}{{{','.join(shown)}}}" if shown else selector.name


def _is_name(selector: VectorSelector, matcher: Matcher) -> bool:
    named = matcher.name == METRIC_NAME and matcher.type is MatchType.EQUAL
    return named and matcher.value == selector.name and matcher.value != ""


def _at(node: VectorSelector | SubqueryExpr) -> str:
    if node.at_ms is not None:
        return f" @ {node.at_ms / 1000:.3f}"
    return f" @ {node.at_modifier.value}()" if node.at_modifier is not None else ""


def _extended(node: VectorSelector) -> str:
    return " anchored" if node.anchored else " smoothed" if node.smoothed else ""


def _offset(node: VectorSelector | SubqueryExpr) -> str:
    if node.offset_expr is not None:
        return f" offset {duration_text(node.offset_expr)}"
    if node.offset_ms == 0:
        return ""
    return f" offset {'-' if node.offset_ms < 0 else ''}{format_duration(abs(node.offset_ms))}"


def subquery_suffix(node: SubqueryExpr) -> str:
    """`[range:step] @ time offset duration`."""
    step = "" if node.step_ms == 0 and node.step_expr is None else _duration(node.step_ms, node.step_expr)
    return f"[{_duration(node.range_ms, node.range_expr)}:{step}]{_at(node)}{_offset(node)}"


def aggregation_head(node: AggregateExpr) -> str:
    """The aggregator with its grouping, up to the parenthesis."""
    if node.without:
        return f"{node.op} without ({_labels(node.grouping)}) "
    return f"{node.op} by ({_labels(node.grouping)}) " if node.grouping else node.op


def operator_text(node: BinaryExpr) -> str:
    """The operator with its modifiers."""
    text = node.op + (" bool" if node.return_bool else "")
    return text if node.matching is None else text + _matching(node.matching)


def _matching(matching: VectorMatching) -> str:
    text = ""
    grouped = matching.card in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY)
    if matching.labels or matching.on or grouped:
        text += f" {'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"
    if grouped:
        side = "left" if matching.card is Cardinality.MANY_TO_ONE else "right"
        text += f" group_{side} ({_labels(matching.include)})"
    left, right = matching.fill_lhs, matching.fill_rhs
    if left is not None and left == right:
        return text + f" fill ({format_g(left)})"
    if left is not None:
        text += f" fill_left ({format_g(left)})"
    return text if right is None else text + f" fill_right ({format_g(right)})"


def pretty(expr: Expr, level: int = 0) -> str:
    """The form over several lines; what fits in 100 columns stays on one."""
    indent = INDENT * level
    if isinstance(expr, UnaryExpr):
        return indent + expr.op + pretty(expr.expr, level).strip()
    text = to_string(expr)
    if len(text.encode("utf-8", "surrogateescape")) <= COLUMNS_MAX:
        return text if isinstance(expr, SubqueryExpr) else indent + text
    if isinstance(expr, AggregateExpr):
        param = "" if expr.param is None else pretty(expr.param, level + 1) + ",\n"
        return f"{indent}{aggregation_head(expr)}(\n{param}{pretty(expr.expr, level + 1)}\n{indent})"
    if isinstance(expr, BinaryExpr):
        lhs, rhs = pretty(expr.lhs, level + 1), pretty(expr.rhs, level + 1)
        return f"{lhs}\n{indent}{operator_text(expr)}\n{rhs}"
    if isinstance(expr, Call):
        args = ",\n".join(pretty(arg, level + 1) for arg in expr.args)
        return f"{indent}{expr.function}(\n{args}\n{indent})"
    if isinstance(expr, ParenExpr):
        return f"{indent}(\n{pretty(expr.expr, level + 1)}\n{indent})"
    if isinstance(expr, SubqueryExpr):
        return pretty(expr.expr, level) + subquery_suffix(expr)
    return indent + text
