"""Offset, `@`, `anchored` and `smoothed` after selectors and subqueries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from promql.actions.state import BuildState, duration_parts, signed
from promql.ast import AtModifier, Expr, MatrixSelector, SubqueryExpr, VectorSelector


class ModifierActions(BuildState):
    """Actions of modifiers."""

    def _modified(self, expr: Expr, end: int, **changes: Any) -> Expr | None:
        """The selector, range or subquery with changes; None for anything else."""
        if isinstance(expr, MatrixSelector):
            selector = replace(expr.selector, **changes)
            return self.changed(expr, end, selector=selector)
        if isinstance(expr, (VectorSelector, SubqueryExpr)):
            return self.changed(expr, end, **changes)
        return None

    def on_offset(self, parts: list[Any]) -> Expr:
        expr, _, duration = parts
        literal_ms, offset_expr = duration_parts(duration)
        end = self.text_end(duration)
        holder = expr.selector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(holder, (VectorSelector, SubqueryExpr)):
            text = "offset modifier must be preceded by an instant vector selector or range vector selector"
            self.fail(expr.pos, f"{text} or a subquery")
        if holder.offset_ms or holder.offset_expr is not None:
            self.fail(expr.pos, "offset may not be set multiple times")
        changed = self._modified(expr, end, offset_ms=literal_ms, offset_expr=offset_expr)
        assert changed is not None
        return changed

    def on_anchored(self, parts: list[Any]) -> Expr:
        return self._extended(parts[0], "anchored")

    def on_smoothed(self, parts: list[Any]) -> Expr:
        return self._extended(parts[0], "smoothed")

    def _extended(self, expr: Expr, modifier: str) -> Expr:
        if not self.options.extended_range_selectors:
            self.fail(expr.pos, f"{modifier} modifier is experimental and not enabled")
        if isinstance(expr, SubqueryExpr):
            self.fail(expr.pos, f"{modifier} modifier is not supported for subqueries")
        holder = expr.selector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(holder, VectorSelector):
            self.fail(expr.pos, f"{modifier} modifier not implemented")
        if holder.smoothed if modifier == "anchored" else holder.anchored:
            self.fail(expr.pos, "anchored and smoothed modifiers cannot be used together")
        # Prometheus leaves the word out of the node's range; positions of errors show it.
        changed = self._modified(expr, expr.pos.end, **{modifier: True})
        assert changed is not None
        return changed

    def on_at_number(self, parts: list[Any]) -> Expr:
        return self._at(parts[0], parts[2].pos.end, seconds=parts[2].value)

    def on_at_signed_number(self, parts: list[Any]) -> Expr:
        seconds = signed(parts[2], parts[3].value)
        return self._at(parts[0], parts[3].pos.end, seconds=seconds)

    def on_at_preprocessor(self, parts: list[Any]) -> Expr:
        modifier = AtModifier(parts[2].text.lower())
        return self._at(parts[0], parts[4].end, modifier=modifier)

    def _at(
        self, expr: Expr, end: int, seconds: float | None = None, modifier: AtModifier | None = None
    ) -> Expr:
        if seconds is not None and not -(2.0**63) < seconds < 2.0**63:
            shown = "NaN" if math.isnan(seconds) else f"{seconds:+.6f}"
            shown = {"+inf": "+Inf", "-inf": "-Inf"}.get(shown, shown).removeprefix(
                "+" if seconds < math.inf else ""
            )
            self.fail(expr.pos, f"timestamp out of bounds for @ modifier: {shown}")
        holder = expr.selector if isinstance(expr, MatrixSelector) else expr
        if not isinstance(holder, (VectorSelector, SubqueryExpr)):
            text = "@ modifier must be preceded by an instant vector selector or range vector selector"
            self.fail(expr.pos, f"{text} or a subquery")
        if holder.at_ms is not None or holder.at_modifier is not None:
            self.fail(expr.pos, "@ <timestamp> may not be set multiple times")
        at_ms = None if seconds is None else _timestamp_ms(seconds)
        changed = self._modified(expr, end, at_ms=at_ms, at_modifier=modifier)
        assert changed is not None
        return changed


def _timestamp_ms(seconds: float) -> int:
    """Milliseconds, halves away from zero; saturates where Go's int64 would."""
    product = seconds * 1000
    if abs(product) >= 2.0**63:
        return -(2**63)
    return int(math.copysign(math.floor(abs(product) + 0.5), product))
