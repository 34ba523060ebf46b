"""Selectors, ranges and subqueries, and metrics with label values."""

from __future__ import annotations

from typing import Any

from promql.actions.state import BuildState, Duration, Listed, duration_parts
from promql.ast import Expr, MatrixSelector, Position, SubqueryExpr, VectorSelector
from promql.regexerrors import regex_error
from promql.tokens import Token
from tsdb.labels import METRIC_NAME, Labels, Matcher, MatchType

_MATCH_TYPES = {
    "=": MatchType.EQUAL,
    "!=": MatchType.NOT_EQUAL,
    "=~": MatchType.REGEXP,
    "!~": MatchType.NOT_REGEXP,
}


class SelectorActions(BuildState):
    """Actions of what stands in braces and brackets."""

    def on_matcher(self, parts: list[Any]) -> Matcher:
        return self._matcher(parts[0].text, parts)

    def on_quoted_matcher(self, parts: list[Any]) -> Matcher:
        return self._matcher(self.unquoted(parts[0]), parts)

    def _matcher(self, name: str, parts: list[Any]) -> Matcher:
        label, operator, literal = parts
        value = self.unquoted(literal)
        match_type = _MATCH_TYPES[operator.text]
        if match_type in (MatchType.REGEXP, MatchType.NOT_REGEXP):
            problem = regex_error(value)
            if problem is not None:
                self.fail(Position(label.pos, literal.end), problem)
        return Matcher(match_type, name, value)

    def on_name_matcher(self, parts: list[Any]) -> Matcher:
        return Matcher(MatchType.EQUAL, METRIC_NAME, self.unquoted(parts[0]))

    def on_matchers(self, parts: list[Any]) -> Listed:
        return Listed(parts[1], parts[0].pos, parts[-1].end)

    def on_no_matchers(self, parts: list[Any]) -> Listed:
        return Listed([], parts[0].pos, parts[-1].end)

    def on_named_selector_with_matchers(self, parts: list[Any]) -> VectorSelector:
        return self._named_selector(parts[0], parts[1].items, parts[1].end)

    def on_named_selector(self, parts: list[Any]) -> VectorSelector:
        return self._named_selector(parts[0], [], parts[0].end)

    def _named_selector(self, name: Token, matchers: list[Matcher], end: int) -> VectorSelector:
        named = (Matcher(MatchType.EQUAL, METRIC_NAME, name.text), *matchers)
        return VectorSelector(name=name.text, matchers=named, pos=Position(name.pos, end))

    def on_selector(self, parts: list[Any]) -> VectorSelector:
        body: Listed = parts[0]
        return VectorSelector(name="", matchers=tuple(body.items), pos=Position(body.start, body.end))

    def on_matrix_selector(self, parts: list[Any]) -> MatrixSelector:
        selector, opening, duration, closing = parts
        if not isinstance(selector, VectorSelector):
            problem = "ranges only allowed for vector selectors"
        elif selector.offset_ms:
            problem = "no offset modifiers allowed before range"
        elif selector.at_ms is not None:
            problem = "no @ modifiers allowed before range"
        else:
            literal_ms, expr = duration_parts(duration)
            pos = Position(selector.pos.start, closing.end)
            return MatrixSelector(selector=selector, range_ms=literal_ms, range_expr=expr, pos=pos)
        self.fail(Position(opening.pos, closing.end), problem)

    def on_subquery(self, parts: list[Any]) -> SubqueryExpr:
        expr, _, duration, _, step, closing = parts
        return self._subquery(expr, duration, step, closing)

    def on_subquery_default_step(self, parts: list[Any]) -> SubqueryExpr:
        expr, _, duration, _, closing = parts
        return self._subquery(expr, duration, None, closing)

    def _subquery(
        self, inner: Expr, duration: Duration, step: Duration | None, closing: Token
    ) -> SubqueryExpr:
        range_ms, range_expr = duration_parts(duration)
        step_ms, step_expr = (0, None) if step is None else duration_parts(step)
        node = SubqueryExpr(
            expr=inner,
            range_ms=range_ms,
            range_expr=range_expr,
            step_ms=step_ms,
            step_expr=step_expr,
            pos=Position(inner.pos.start, closing.end),
        )
        return self.grown(node, inner)

    def on_label(self, parts: list[Any]) -> tuple[str, str]:
        return parts[0].text, self.unquoted(parts[2])

    def on_quoted_label(self, parts: list[Any]) -> tuple[str, str]:
        return self.unquoted(parts[0]), self.unquoted(parts[2])

    def on_name_label(self, parts: list[Any]) -> tuple[str, str]:
        return METRIC_NAME, self.unquoted(parts[0])

    def on_label_set(self, parts: list[Any]) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = parts[1]
        return pairs

    def on_empty_label_set(self, parts: list[Any]) -> list[tuple[str, str]]:
        return []

    def on_named_metric(self, parts: list[Any]) -> Labels:
        pairs = dict(parts[1])
        pairs[METRIC_NAME] = parts[0].text
        return Labels.from_dict(pairs)

    def on_unnamed_metric(self, parts: list[Any]) -> Labels:
        return Labels.from_dict(dict(parts[0]))
