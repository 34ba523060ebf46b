"""info() of the slow PromQL interpreter (prometheus-surface.md 2.10), one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promql.ast import DurationExpr, Expr, MatrixSelector, NumberLiteral, SubqueryExpr, VectorSelector
from promql.visit import children
from tests.reference.promqlvalues import Cell, EvaluationError, Row, Sample
from tsdb.labels import METRIC_NAME, Labels, Matcher, MatchType

IDENTITY = ("instance", "job")
Key = tuple[str, ...]
DurationPart = DurationExpr | NumberLiteral | None


@dataclass(frozen=True)
class Asked:
    """The second argument's matchers: of the metric's name, and of data labels."""

    names: list[Matcher]
    data: list[Matcher]

    def is_info(self, labels: Labels) -> bool:
        """Whether a series is an info series itself."""
        return all(m.matches(labels.get(METRIC_NAME)) for m in self.names)


def asked(matchers: Sequence[Matcher]) -> Asked:
    """Without a condition on the name it is target_info, with negative ones only any name ending in _info."""
    names = [m for m in matchers if m.name == METRIC_NAME]
    if not names:
        names = [Matcher(MatchType.EQUAL, METRIC_NAME, "target_info")]
    elif all(m.type in (MatchType.NOT_EQUAL, MatchType.NOT_REGEXP) for m in names):
        names.append(Matcher(MatchType.REGEXP, METRIC_NAME, ".+_info"))
    return Asked(names, [m for m in matchers if m.name != METRIC_NAME])


def info_selector(expr: Expr) -> VectorSelector:
    """A selector that reads when the first selector of an expression does."""

    def moved(node: Expr, inner: VectorSelector) -> VectorSelector:
        pinned = inner.at_ms is not None or inner.at_modifier is not None
        if pinned or not isinstance(node, SubqueryExpr):
            return inner
        return replace(
            inner,
            offset_ms=inner.offset_ms + node.offset_ms,
            offset_expr=_sum(inner.offset_expr, node.offset_expr),
            at_ms=node.at_ms,
            at_modifier=node.at_modifier,
        )

    def first(node: Expr) -> VectorSelector | None:
        if isinstance(node, VectorSelector):
            return node
        if isinstance(node, MatrixSelector):
            return node.selector
        for child in children(node):
            found = first(child)
            if found is not None:
                return moved(node, found)
        return None

    found = first(expr)
    plain = VectorSelector(name="", matchers=())
    if found is None:
        return plain
    expr, literal_ms = found.offset_expr, found.offset_ms
    if expr is not None and literal_ms:  # a selector has one or the other
        expr, literal_ms = _sum(expr, NumberLiteral(value=literal_ms / 1000)), 0
    return replace(
        plain, offset_ms=literal_ms, offset_expr=expr, at_ms=found.at_ms, at_modifier=found.at_modifier
    )


def _sum(left: DurationPart, right: DurationPart) -> DurationPart:
    if left is None or right is None:
        return right if left is None else left
    return DurationExpr(op="+", lhs=left, rhs=right)


def identity(labels: Labels) -> Key:
    return tuple(labels.get(name) for name in IDENTITY)


def info_step(
    wanted: Asked, elements: Sequence[tuple[Labels, Cell, bool]], infos: Sequence[tuple[Labels, Sample]]
) -> list[tuple[Labels, Cell, bool]]:
    """The argument's elements of a step with labels of the info series' samples of that step."""
    newest: dict[tuple[Key, str], tuple[Labels, Sample]] = {}
    for labels, sample in infos:
        place = identity(labels), labels.get(METRIC_NAME)
        held = newest.get(place)
        if held is not None and held[1].t_ms == sample.t_ms:
            raise EvaluationError("found duplicate series for info metric")
        if held is None or sample.t_ms > held[1].t_ms:
            newest[place] = labels, sample
    allowed = {m.name for m in wanted.data}
    optional = all(m.matches("") for m in wanted.data)
    out = []
    for labels, cell, drop in elements:
        if wanted.is_info(labels):
            out.append((labels, cell, drop))
            continue
        mine = [info for (key, _), (info, _) in newest.items() if key == identity(labels)]
        if not mine and not optional:
            continue
        added: dict[str, str] = {}
        for info in mine:
            for name, value in info:
                if name == METRIC_NAME or labels.get(name) or (allowed and name not in allowed):
                    continue
                if added.setdefault(name, value) != value:
                    raise EvaluationError(f"conflicting label: {name}")
        out.append((Labels.from_dict({**labels.to_dict(), **added}), cell, drop))
    return out


def wanted_identities(wanted: Asked, rows: Sequence[Row]) -> dict[str, set[str]]:
    """Identifying labels of the series that want information; only info series with one of each matter."""
    values = {
        name: {row.labels.get(name) for row in rows if not wanted.is_info(row.labels)} - {""}
        for name in IDENTITY
    }
    return {name: found for name, found in values.items() if found}
