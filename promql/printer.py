"""Trees as text: the canonical form on one line, and the pretty form within 100 columns.

Both read back as the same tree. Semantics: prometheus-surface.md appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

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
from promql.visit import postorder
from tsdb.labels import METRIC_NAME, Matcher, MatchType

COLUMNS_MAX = 100
PRETTY_CHARS_MAX = 32 * 1024 * 1024
"""Longest pretty form: that of some 4,000 levels. Each level is indented, so 10,000 levels would be 200
million spaces; Prometheus does not come to an end with those."""
INDENT = "  "

_LEGACY_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def to_string(expr: Expr) -> str:
    """The canonical form, as rules and errors show a query."""
    return _joined(expr, _parts)


def _joined(expr: Expr, parts_of: Callable[[Any], Sequence[str | Expr]]) -> str:
    """The texts of the parts of an expression, of their parts, and so on; trees may be deep, so there is no
    recursion."""
    out: list[str] = []
    pending: list[str | Expr] = [expr]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            out.append(part)
        else:
            pending.extend(reversed(parts_of(part)))
    return "".join(out)


def _parts(expr: Expr) -> Sequence[str | Expr]:
    """Texts and sub-expressions of a node, in order."""
    if isinstance(expr, BinaryExpr):
        return expr.lhs, f" {operator_text(expr)} ", expr.rhs
    if isinstance(expr, AggregateExpr):
        head = aggregation_head(expr) + "("
        return (head, expr.expr, ")") if expr.param is None else (head, expr.param, ", ", expr.expr, ")")
    if isinstance(expr, Call):
        return expr.function + "(", *_separated(expr.args, ", "), ")"
    if isinstance(expr, ParenExpr):
        return "(", expr.expr, ")"
    if isinstance(expr, UnaryExpr):
        return expr.op, expr.expr
    if isinstance(expr, SubqueryExpr):
        return expr.expr, subquery_suffix(expr)
    return (_leaf(expr),)


P = TypeVar("P")


def _separated(parts: Sequence[P], separator: str) -> list[P | str]:
    out: list[P | str] = []
    for part in parts:
        out += (separator, part) if out else (part,)
    return out


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
    return _joined(expr, _duration_parts)


def _duration_parts(expr: DurationExpr | NumberLiteral) -> Sequence[str | Expr]:
    if isinstance(expr, NumberLiteral):
        return (number_text(expr),)
    parts: Sequence[str | Expr]
    if expr.op in ("step", "range"):
        parts = (f"{expr.op}()",)
    else:
        assert expr.rhs is not None
        if expr.lhs is None:
            parts = ("-" if expr.op == "-" else "", expr.rhs)
        elif expr.op in ("min_of", "max_of"):
            parts = (f"{expr.op}(", expr.lhs, ", ", expr.rhs, ")")
        else:
            parts = (expr.lhs, f" {expr.op} ", expr.rhs)
    return ("(", *parts, ")") if expr.wrapped else parts


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


def pretty(expr: Expr) -> str:
    """The form over several lines; what fits in 100 columns stays on one. Raises FormatError."""
    widths = _widths(expr)
    out: list[str] = []
    size = 0
    pending: list[str | _Block] = [_Block(expr, 0)]
    while pending:
        block = pending.pop()
        if isinstance(block, str):
            out.append(block)
        else:
            fits = widths[id(block.expr)] <= COLUMNS_MAX
            pending.extend(reversed(_one_line(block) if fits else _lines(block)))
            continue
        size += len(block)
        if size > PRETTY_CHARS_MAX:
            raise FormatError(f"formatted query is longer than the limit of {PRETTY_CHARS_MAX} characters")
    return "".join(out)


class FormatError(Exception):
    """A form that would be too long."""


class _Block(NamedTuple):
    """An expression to be laid out; with `goes_on` its first line follows what stands before it."""

    expr: Expr
    level: int
    goes_on: bool = False


def _widths(expr: Expr) -> dict[int, int]:
    """Bytes of the canonical form of all nodes, by their ids."""
    widths: dict[int, int] = {}
    for node in postorder(expr):
        widths[id(node)] = sum(
            len(part.encode("utf-8", "surrogateescape")) if isinstance(part, str) else widths[id(part)]
            for part in _parts(node)
        )
    return widths


def _one_line(block: _Block) -> Sequence[str | _Block]:
    expr = block.expr
    text = to_string(expr)
    if isinstance(expr, UnaryExpr):
        text = expr.op + to_string(expr.expr).strip()
    return (text if block.goes_on or isinstance(expr, SubqueryExpr) else INDENT * block.level + text,)


def _lines(block: _Block) -> Sequence[str | _Block]:
    expr, level, goes_on = block
    inner = level + 1
    indent = INDENT * level
    start = "" if goes_on else indent
    if isinstance(expr, UnaryExpr):
        return start + expr.op, _Block(expr.expr, level, True)
    if isinstance(expr, AggregateExpr):
        param: Sequence[str | _Block] = () if expr.param is None else (_Block(expr.param, inner), ",\n")
        return f"{start}{aggregation_head(expr)}(\n", *param, _Block(expr.expr, inner), f"\n{indent})"
    if isinstance(expr, BinaryExpr):
        lhs, rhs = _Block(expr.lhs, inner, goes_on), _Block(expr.rhs, inner)
        return lhs, f"\n{indent}{operator_text(expr)}\n", rhs
    if isinstance(expr, Call):
        args = _separated([_Block(arg, inner) for arg in expr.args], ",\n")
        return f"{start}{expr.function}(\n", *args, f"\n{indent})"
    if isinstance(expr, ParenExpr):
        return f"{start}(\n", _Block(expr.expr, inner), f"\n{indent})"
    if isinstance(expr, SubqueryExpr):
        return _Block(expr.expr, level, goes_on), subquery_suffix(expr)
    return (start + _leaf(expr),)
