"""Aggregations and binary operators of the slow PromQL interpreter, one step at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import xxhash

from promql.ast import AggregateExpr, BinaryExpr, Cardinality, VectorMatching, VectorSelector
from promql.numberformat import format_f
from tests.reference import histogramqueries as queries
from tests.reference.histograms import GAUGE, FloatHistogram, IncompatibleBuckets, add, combine
from tests.reference.interpreterfunctions import extreme
from tests.reference.promqlvalues import (
    ARITHMETIC,
    COMPARISONS,
    METADATA,
    Cell,
    EvaluationError,
    Row,
    Unspecified,
    kahan_sum,
    mean,
    merge_rows,
    plain_variance,
    quantile,
)
from tsdb.labels import METRIC_NAME, Labels

TRIMS = ("</", ">/")
_DOUBTFUL = re.compile(r"[0-9.]{16}")
"""Numbers with so many digits that another order of operations, or another libm, changes the last."""

Element = tuple[Labels, float | FloatHistogram, bool]
"""Labels, value, delayed name removal flag."""


def aggregate_step(expr: AggregateExpr, elements: Sequence[Element], param: float) -> list[Element]:
    """Aggregators with one result a group."""
    groups: dict[Labels, list[Element]] = {}
    for element in elements:
        groups.setdefault(group_of(expr, element[0]), []).append(element)
    out: list[Element] = []
    for labels, members in groups.items():
        value = _reduce(expr.op, [value for _, value, _ in members], param)
        if value is not None:
            out.append((labels, value, any(drop for _, _, drop in members)))
    return out


def group_of(expr: AggregateExpr, labels: Labels) -> Labels:
    """The labels of an element's group."""
    if expr.without:
        return labels.without(*expr.grouping, METRIC_NAME)
    return Labels(tuple(p for p in labels if p[0] in expr.grouping))


def _reduce(op: str, values: Sequence[float | FloatHistogram], param: float) -> Cell:
    floats = [v for v in values if isinstance(v, float)]
    histograms = [v for v in values if isinstance(v, FloatHistogram)]
    if op == "count":
        return float(len(values))
    if op == "group":
        return 1.0
    if op in ("sum", "avg"):
        if floats and histograms:
            return None
        if floats:
            return kahan_sum(floats) if op == "sum" else mean(floats)
        combined = combine(histograms, op == "avg").histogram
        return None if combined is None else combined.compact()
    if not floats:
        return None
    if op in ("min", "max"):
        return extreme(floats, 1 if op == "max" else -1)
    if op == "quantile":
        return quantile(param, floats)
    variance = plain_variance(floats)
    if op == "stdvar":
        return variance
    return math.sqrt(variance) if variance >= 0 else math.nan


def pick_step(expr: AggregateExpr, elements: Sequence[Element], param: float) -> set[int]:
    """topk, bottomk, limitk, limit_ratio: the numbers of the elements kept."""
    if expr.op == "limit_ratio":
        return _by_hash([labels for labels, _, _ in elements], param)
    if math.isnan(param):
        raise EvaluationError("Parameter value is NaN")
    k = min(math.trunc(param) if math.isfinite(param) else len(elements), len(elements))
    if math.isinf(param) and param > 0:
        raise EvaluationError("Scalar value +Inf overflows int64")
    if math.isinf(param):
        raise EvaluationError("Scalar value -Inf underflows int64")
    if k < 1:
        return set()
    groups: dict[Labels, list[int]] = {}
    for number, (labels, value, _) in enumerate(elements):
        if expr.op == "limitk" or isinstance(value, float):
            groups.setdefault(group_of(expr, labels), []).append(number)
    kept: set[int] = set()
    for members in groups.values():
        if expr.op != "limitk":
            sign = -1.0 if expr.op == "topk" else 1.0

            def key(number: int, sign: float = sign) -> tuple[bool, float]:
                value = elements[number][1]
                assert isinstance(value, float)
                return math.isnan(value), 0.0 if math.isnan(value) else sign * value

            members = sorted(members, key=key)
            if 0 < k < len(members) and key(members[k - 1]) == key(members[k]):
                raise Unspecified("choice among equal values")
        elif len(members) > k and not isinstance(expr.expr, VectorSelector):
            raise Unspecified("order of an expression's series")
        kept.update(members[:k])
    return kept


def _by_hash(rows: Sequence[Labels], ratio: float) -> set[int]:
    if math.isnan(ratio):
        raise EvaluationError("Ratio value is NaN")
    ratio = max(-1.0, min(1.0, ratio))
    places = [xxhash.xxh64_intdigest(layout(labels)) / (2**64 - 1) for labels in rows]
    return {i for i, at in enumerate(places) if (at < ratio if ratio >= 0 else at >= 1.0 + ratio)}


def layout(labels: Labels) -> bytes:
    """Length and bytes of each name and value, as Prometheus lays them out."""
    out = bytearray()
    for pair in labels:
        for text in pair:
            raw = text.encode()
            if len(raw) < 255:
                out.append(len(raw))
            else:
                out += b"\xff" + len(raw).to_bytes(3, "little")
            out += raw
    return bytes(out)


def count_values_step(expr: AggregateExpr, elements: Sequence[Element], label: str) -> list[Element]:
    """count_values."""
    counts: dict[Labels, tuple[float, bool]] = {}
    for labels, value, drop in elements:
        text = format_f(value) if isinstance(value, float) else queries.text(value)
        if _DOUBTFUL.search(text):
            raise Unspecified("last digit of a number as text")
        grouped = group_of(expr, labels).with_label(label, text)
        count, flag = counts.get(grouped, (0.0, False))
        counts[grouped] = count + 1, flag or (drop and label != METRIC_NAME)
    return [(labels, count, drop) for labels, (count, drop) in counts.items()]


def operate(op: str, left: float | FloatHistogram, right: float | FloatHistogram) -> tuple[Cell, bool]:
    """(result, whether a comparison holds) of two samples; (None, False) where they do not fit."""
    if isinstance(left, float) and isinstance(right, float):
        if op in ARITHMETIC:
            return ARITHMETIC[op](left, right), True
        if op in COMPARISONS:
            return left, COMPARISONS[op](left, right)
        return None, False
    if isinstance(left, FloatHistogram) and isinstance(right, FloatHistogram):
        if op in ("==", "!="):
            return left, left.equals(right) == (op == "==")
        if op not in ("+", "-"):
            return None, False
        result = left.copy()
        try:
            add(result, right, 1 if op == "+" else -1)
        except IncompatibleBuckets:
            return None, False
        if op == "-":
            result.hint = GAUGE
        return result.compact(), True
    if isinstance(left, float):
        assert isinstance(right, FloatHistogram)
        return (right.copy().scale(left).compact(), True) if op == "*" else (None, False)
    assert isinstance(right, float)
    if op in ("*", "/"):
        return left.copy().scale(right, op == "/").compact(), True
    if op in TRIMS:
        return queries.trim(left, right, op == "</"), True
    return None, False


def signature(matching: VectorMatching, labels: Labels) -> Labels:
    """What elements of both sides are matched by."""
    if matching.on:
        return Labels(tuple(p for p in labels if p[0] in matching.labels))
    return labels.without(*matching.labels, *METADATA[:1])


def keeps_name(expr: BinaryExpr) -> bool:
    """Whether the operator leaves metric names alone."""
    return (expr.op in COMPARISONS or expr.op in TRIMS) and not expr.return_bool


def result_labels(expr: BinaryExpr, many: Labels, one: Labels, delayed: bool) -> Labels:
    """Labels of a matched pair. With delayed removal `bool` only marks the name, arithmetic drops it."""
    matching = expr.matching
    assert matching is not None
    kept = many if keeps_name(expr) or (delayed and expr.return_bool) else many.without(*METADATA)
    if matching.card is Cardinality.ONE_TO_ONE:
        if matching.on:
            return Labels(tuple(p for p in kept if p[0] in matching.labels))
        return kept.without(*matching.labels)
    for name in matching.include:
        kept = kept.with_label(name, one.get(name))
    return kept


def match_step(
    expr: BinaryExpr, left: Sequence[Element], right: Sequence[Element], delayed: bool
) -> list[Element]:
    """Arithmetic, comparison and trimming of two vectors."""
    matching = expr.matching
    assert matching is not None
    swapped = matching.card is Cardinality.ONE_TO_MANY
    many, one = (right, left) if swapped else (left, right)
    if (not many and matching.fill_lhs is None) or (not one and matching.fill_rhs is None):
        return []
    ones: dict[Labels, Element] = {}
    for element in one:
        key = signature(matching, element[0])
        if key in ones:
            raise EvaluationError("found duplicate series for the match group")
        ones[key] = element
    out: list[Element] = []
    matched: dict[Labels, set[Labels]] = {}
    # fill_left is the many side's, even where that is the right operand.
    if matching.fill_lhs is not None:
        here = {signature(matching, labels) for labels, _, _ in many}
        many = [*many, *((key, matching.fill_lhs, False) for key in ones if key not in here)]
    if matching.fill_rhs is not None:
        groups = {signature(matching, labels) for labels, _, _ in many}
        ones.update({key: (key, matching.fill_rhs, False) for key in groups if key not in ones})
    for labels, value, drop in many:
        key = signature(matching, labels)
        if key not in ones:
            continue
        other_labels, other, _ = ones[key]
        pair = (other, value) if swapped else (value, other)
        result, holds = operate(expr.op, *pair)
        if expr.return_bool:
            fits = result is not None and (expr.op in ("==", "!=") or isinstance(result, float))
            result = (1.0 if holds else 0.0) if fits else None
        elif not holds:
            result = None
        named = result_labels(expr, labels, other_labels, delayed)
        seen = matched.setdefault(key, set())
        if matching.card is Cardinality.ONE_TO_ONE:
            if seen:
                raise EvaluationError("multiple matches for labels: many-to-one matching must be explicit")
            seen.add(named)
        else:
            if named in seen:
                raise EvaluationError(
                    "multiple matches for labels: grouping labels must ensure unique matches"
                )
            seen.add(named)
        if result is not None:
            out.append((named, result, drop or (delayed and expr.return_bool)))
    return out


def set_operation(expr: BinaryExpr, left: Sequence[Row], right: Sequence[Row], steps: int) -> list[Row]:
    """`and`, `or`, `unless` at every step."""
    matching = expr.matching
    assert matching is not None
    gathered: list[Row] = []
    for side, rows, others in ((0, left, right), (1, right, left)):
        if side == 1 and expr.op != "or":
            break
        for row in rows:
            cells: list[Cell] = []
            for k in range(steps):
                found = {signature(matching, r.labels) for r in others if r.cells[k] is not None}
                matched = signature(matching, row.labels) in found
                keep = matched if expr.op == "and" else (not matched or (expr.op == "or" and side == 0))
                cells.append(row.cells[k] if keep else None)
            gathered.append(Row(row.labels, cells, row.drop))
    return merge_rows(gathered) if expr.op == "or" else gathered
