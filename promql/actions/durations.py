"""Durations and arithmetic with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from promql.actions.state import BuildState, Duration, signed
from promql.ast import DurationExpr, NumberLiteral, Position
from promql.duration import DURATION_SECONDS_MAX
from promql.tokens import Token


class DurationActions(BuildState):
    """Actions of what stands in brackets and after offset."""

    def on_positive_duration(self, parts: list[Any]) -> Duration:
        duration: Duration = parts[0]
        if isinstance(duration, NumberLiteral) and duration.value <= 0:
            self.fail(duration.pos, "duration must be greater than 0")
        return duration

    def _in_range(self, literal: NumberLiteral, where: Position) -> NumberLiteral:
        if abs(literal.value) > DURATION_SECONDS_MAX:
            self.fail(where, "duration out of range")
        return literal

    def _experimental_duration(self, expr: Duration) -> None:
        if not self.options.duration_expr:
            self.fail(expr.pos, "experimental duration expression is not enabled")

    def on_duration_number(self, parts: list[Any]) -> NumberLiteral:
        literal: NumberLiteral = parts[0]
        return self._in_range(literal, literal.pos)

    def on_duration_sign(self, parts: list[Any]) -> Duration:
        return self._duration_sign(parts[0], parts[1])

    def on_offset_signed_number(self, parts: list[Any]) -> Duration:
        return self._duration_sign(parts[0], parts[1])

    def on_offset_double_sign(self, parts: list[Any]) -> Duration:
        return self._duration_sign(parts[0], self._duration_sign(parts[1], parts[2]))

    def on_offset_signed_paren(self, parts: list[Any]) -> Duration:
        operator, (_, inner, closing) = parts
        if isinstance(inner, DurationExpr):
            inner = replace(inner, wrapped=True)
        signed = self._duration_sign(operator, inner)
        return replace(signed, pos=Position(operator.pos, closing.end))

    def on_parenthesised(self, parts: list[Any]) -> list[Any]:
        return parts

    def on_offset_signed_word(self, parts: list[Any]) -> DurationExpr:
        operator, word, _, closing = parts
        call = DurationExpr(op=word.text.lower(), pos=Position(word.pos, closing.end))
        return self._signed_call(operator, call)

    def on_offset_signed_choice(self, parts: list[Any]) -> DurationExpr:
        operator, word, _, lhs, _, rhs, closing = parts
        node = self._signed_call(operator, self._choice(word, lhs, rhs, closing))
        self.note_end(node, closing.end)
        return node

    def _signed_call(self, operator: Token, call: DurationExpr) -> DurationExpr:
        node = DurationExpr(op=operator.text, rhs=call, pos=Position(operator.pos, call.pos.end))
        self._experimental_duration(node)
        return self.grown(node, call)

    def _duration_sign(self, operator: Token, operand: Duration) -> Duration:
        pos = Position(operator.pos, operand.pos.end)
        if isinstance(operand, NumberLiteral):
            literal = replace(operand, value=signed(operator, operand.value), pos=pos)
            return self._in_range(literal, Position(operator.pos, operator.end))
        if operator.kind == "ADD":
            return operand
        return self.grown(DurationExpr(op="-", rhs=operand, pos=pos), operand)

    def on_duration_binary(self, parts: list[Any]) -> DurationExpr:
        lhs, operator, rhs = parts
        self._experimental_duration(lhs)
        if isinstance(rhs, NumberLiteral) and rhs.value == 0 and operator.kind in ("DIV", "MOD"):
            problem = "division by zero" if operator.kind == "DIV" else "modulo by zero"
            self.fail(Position(operator.pos, operator.end), problem)
        pos = Position(lhs.pos.start, rhs.pos.end)
        return self.grown(DurationExpr(op=operator.text, lhs=lhs, rhs=rhs, pos=pos), lhs, rhs)

    def on_duration_paren(self, parts: list[Any]) -> Duration:
        _, inner, closing = parts
        self._experimental_duration(inner)
        wrapped: Duration = inner
        if isinstance(inner, DurationExpr):
            wrapped = self.grown(replace(inner, wrapped=True), inner)
        self.note_end(wrapped, closing.end)
        return wrapped

    def on_duration_word(self, parts: list[Any]) -> DurationExpr:
        word, _, closing = parts
        node = DurationExpr(op=word.text.lower(), pos=Position(word.pos, closing.end))
        self._experimental_duration(node)
        return node

    def on_duration_choice(self, parts: list[Any]) -> DurationExpr:
        word, _, lhs, _, rhs, closing = parts
        node = self._choice(word, lhs, rhs, closing)
        self._experimental_duration(node)
        return node

    def _choice(self, word: Token, lhs: Duration, rhs: Duration, closing: Token) -> DurationExpr:
        # The range of the node is that of its arguments, as errors of Prometheus show it.
        pos = Position(lhs.pos.start, rhs.pos.end)
        node = self.grown(DurationExpr(op=word.text.lower(), lhs=lhs, rhs=rhs, pos=pos), lhs, rhs)
        self.note_end(node, closing.end)
        return node
