"""Literals, parentheses, unary and binary operators with their modifiers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from promql.actions.state import BuildState, signed
from promql.ast import (
    BinaryExpr,
    Cardinality,
    Expr,
    NumberLiteral,
    ParenExpr,
    Position,
    StringLiteral,
    UnaryExpr,
    ValueType,
    VectorMatching,
)
from promql.duration import DurationError, parse_duration
from promql.functions import SET_OPERATORS
from promql.numberformat import parse_number
from promql.quoting import quote
from promql.tokens import Token
from promql.types import type_of, type_of_binary

_ONE_TO_ONE = VectorMatching()


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What stands between an operator and its right side."""

    matching: VectorMatching = _ONE_TO_ONE
    return_bool: bool = False

    def with_matching(self, **changes: Any) -> Modifiers:
        return replace(self, matching=replace(self.matching, **changes))


class OperatorActions(BuildState):
    """Actions of expressions down to literals."""

    def on_empty_expression(self, parts: list[Any]) -> None:
        self.fail(Position(0, 0), "no expression found in input")

    def on_number_literal(self, parts: list[Any]) -> NumberLiteral:
        token: Token = parts[0]
        pos = Position(token.pos, token.end)
        try:
            value = parse_number(token.text)
        except (ValueError, OverflowError) as error:
            reason = "value out of range" if isinstance(error, OverflowError) else "invalid syntax"
            text = f"strconv.ParseFloat: parsing {quote(token.text)}: {reason}"
            self.fail(pos, f"error parsing number: {text}")
        return NumberLiteral(value=value, pos=pos)

    def on_duration_literal(self, parts: list[Any]) -> NumberLiteral:
        token: Token = parts[0]
        pos = Position(token.pos, token.end)
        try:
            ms = parse_duration(token.text)
        except DurationError as error:
            self.fail(pos, str(error))
        return NumberLiteral(value=ms / 1000, is_duration=True, pos=pos)

    def on_string_literal(self, parts: list[Any]) -> StringLiteral:
        token: Token = parts[0]
        return StringLiteral(value=self.unquoted(token), pos=Position(token.pos, token.end))

    def on_paren(self, parts: list[Any]) -> ParenExpr:
        opening, inner, closing = parts
        return self.grown(ParenExpr(expr=inner, pos=Position(opening.pos, closing.end)), inner)

    def on_unary_expression(self, parts: list[Any]) -> Expr:
        operator, operand = parts
        pos = Position(operator.pos, operand.pos.end)
        if isinstance(operand, NumberLiteral):
            return replace(operand, value=signed(operator, operand.value), pos=pos)
        return self.grown(UnaryExpr(op=operator.text, expr=operand, pos=pos), operand)

    def on_binary(self, parts: list[Any]) -> BinaryExpr:
        lhs, operator, modifiers, rhs = parts
        matching: VectorMatching = modifiers.matching
        op = operator.text.lower()
        pos = Position(lhs.pos.start, rhs.pos.end)
        fills = matching.fill_lhs is not None or matching.fill_rhs is not None
        if fills and not self.options.binop_fill_modifiers:
            self.fail(pos, "binop fill modifiers are experimental and not enabled")
        kept: VectorMatching | None = None
        left, right = type_of(lhs), type_of(rhs)
        if left is ValueType.VECTOR and right is ValueType.VECTOR:
            kept = matching
            if op in SET_OPERATORS and matching.card is Cardinality.ONE_TO_ONE:
                kept = replace(matching, card=Cardinality.MANY_TO_MANY)
        node = BinaryExpr(
            op=op,
            lhs=lhs,
            rhs=rhs,
            matching=kept,
            return_bool=modifiers.return_bool,
            value_type=type_of_binary(left, right),
            pos=pos,
        )
        self.raw_matching[id(node)] = matching
        return self.grown(node, lhs, rhs)

    def on_no_modifier(self, parts: list[Any]) -> Modifiers:
        return Modifiers()

    def on_bool_modifier(self, parts: list[Any]) -> Modifiers:
        return Modifiers(return_bool=True)

    def on_on(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(on=True, labels=tuple(parts[2].items))

    def on_ignoring(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(labels=tuple(parts[2].items))

    def _group(self, parts: list[Any], card: Cardinality) -> Modifiers:
        modifiers: Modifiers = parts[0]
        include = tuple(parts[2].items) if len(parts) > 2 else ()
        return modifiers.with_matching(card=card, include=include)

    def on_group_left(self, parts: list[Any]) -> Modifiers:
        return self._group(parts, Cardinality.MANY_TO_ONE)

    def on_group_right(self, parts: list[Any]) -> Modifiers:
        return self._group(parts, Cardinality.ONE_TO_MANY)

    def on_fill_value(self, parts: list[Any]) -> float:
        literal: NumberLiteral = parts[1]
        return literal.value

    def on_signed_fill_value(self, parts: list[Any]) -> float:
        return signed(parts[1], parts[2].value)

    def on_fill_both(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2], fill_rhs=parts[2])

    def on_fill_left(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2])

    def on_fill_right(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(fill_rhs=parts[2])

    def on_fill_left_right(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2], fill_rhs=parts[4])

    def on_fill_right_left(self, parts: list[Any]) -> Modifiers:
        modifiers: Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[4], fill_rhs=parts[2])
