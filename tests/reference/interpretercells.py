"""What the interpreter does with one cell, or the elements of one step: no series, times or selectors."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

from promql.ast import Expr, MatrixSelector, ParenExpr, StringLiteral, VectorSelector
from promql.numberformat import format_openmetrics
from tests.reference import histogramqueries as queries
from tests.reference.histograms import GAUGE, UNKNOWN, FloatHistogram, divide
from tests.reference.interpreteraggregate import Element
from tests.reference.interpreterfunctions import DATES, MATH
from tests.reference.promqlvalues import Cell, EvaluationError, Row
from tsdb.labels import METRIC_NAME, Labels, MatchType


def bucket_results(
    name: str,
    group: list[tuple[float, float]] | None,
    native: FloatHistogram | None,
    numbers: Sequence[float],
) -> list[tuple[str | None, float]]:
    if name == "histogram_fraction":
        lower, upper = numbers
        if native is not None:
            return [(None, queries.fraction(lower, upper, native)[0])]
        assert group is not None
        return [(None, queries.classic_fraction(lower, upper, group))]
    out: list[tuple[str | None, float]] = []
    for q in numbers:
        if native is not None:
            value = queries.quantile(q, native)[0]
        else:
            assert group is not None
            value = queries.classic_quantile(q, group)[0]
        out.append((format_openmetrics(q) if name == "histogram_quantiles" else None, value))
    return out


def elements_at(rows: Sequence[Row], k: int) -> list[Element]:
    out: list[Element] = []
    for row in rows:
        cell = row.cells[k]
        if cell is not None:
            out.append((row.labels, cell, row.drop))
    return out


def place(gathered: dict[Labels, Row], made: Sequence[Element], k: int, steps: int) -> None:
    for labels, value, drop in made:
        row = gathered.setdefault(labels, Row(labels, [None] * steps))
        if row.cells[k] is not None:
            raise EvaluationError("vector cannot contain metrics with the same labelset")
        row.cells[k] = value
        row.drop |= drop


def negated(cell: float | FloatHistogram) -> Cell:
    return -cell if isinstance(cell, float) else cell.copy().scale(-1.0).compact()


def extreme_of(x: float, y: float, name: str) -> float:
    return smaller(x, y) if name == "min_of" else -smaller(-x, -y)


def without_hint(cell: float | FloatHistogram) -> Cell:
    """A subquery's histograms do not follow each other in the store: only gauges stay known."""
    if isinstance(cell, FloatHistogram) and cell.hint != GAUGE:
        return replace(cell, hint=UNKNOWN)
    return cell


def text_of(expr: Expr) -> str:
    while isinstance(expr, ParenExpr):
        expr = expr.expr
    assert isinstance(expr, StringLiteral)
    return expr.value


def expand(template: str, found) -> str:  # type: ignore[no-untyped-def]
    """`$1` and `${1}` only."""

    @functools.cache
    def group(number: str) -> str:
        index = int(number)
        return (found.group(index) or "") if index <= len(found.groups()) else ""

    out, at = "", 0
    while at < len(template):
        if template[at] == "$" and at + 1 < len(template) and template[at + 1].isdigit():
            out += group(template[at + 1])
            at += 2
        else:
            out += template[at]
            at += 1
    return out


def absent_labels(expr: Expr) -> Labels:
    while isinstance(expr, ParenExpr):
        expr = expr.expr
    selector = expr.selector if isinstance(expr, MatrixSelector) else expr
    if not isinstance(selector, VectorSelector):
        return Labels()
    kept: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.type is MatchType.EQUAL and matcher.name not in seen:
            kept[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            kept.pop(matcher.name, None)
    return Labels.from_dict(kept)


def elementwise(name: str, x: float, args: Sequence[float]) -> Cell:
    if name in MATH:
        return MATH[name](x)
    if name in DATES:
        return DATES[name](x)
    if name == "round":
        inverse = divide(1.0, args[0]) if args else 1.0
        return divide(MATH["floor"](x * inverse + 0.5), inverse)
    if name == "clamp" and args[1] < args[0]:
        return None
    if name != "clamp_min":
        x = smaller(args[-1], x)
    return x if name == "clamp_max" else -smaller(-args[0], -x)


def smaller(x: float, y: float) -> float:
    """Go's math.Min: -Inf even beside NaN, -0 before 0."""
    if -math.inf in (x, y):
        return -math.inf
    if math.isnan(x) or math.isnan(y):
        return math.nan
    return min(x, y, key=lambda value: (value, math.copysign(1.0, value)))
