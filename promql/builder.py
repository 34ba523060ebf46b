"""The actions of the grammar: from tokens to the typed tree.

Errors of single constructs (unknown functions, repeated modifiers, bad numbers) are raised here, at the
moment the construct is complete, with Prometheus's texts. Types are checked on the whole tree (types.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from promql.ast import (
    AggregateExpr,
    AtModifier,
    BinaryExpr,
    Call,
    Cardinality,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    Position,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from promql.duration import DURATION_SECONDS_MAX, DurationError, parse_duration, seconds_to_ms
from promql.errors import ParseError
from promql.functions import AGGREGATORS, FUNCTIONS, SET_OPERATORS
from promql.limits import TREE_DEPTH_MAX
from promql.quoting import quote, unquote
from promql.regexerrors import regex_error
from promql.tokens import Token, decode
from promql.types import type_of
from tsdb.labels import METRIC_NAME, Labels, Matcher, MatchType

T = TypeVar("T", bound=Expr)
Duration = NumberLiteral | DurationExpr

_MATCH_TYPES = {
    "=": MatchType.EQUAL,
    "!=": MatchType.NOT_EQUAL,
    "=~": MatchType.REGEXP,
    "!~": MatchType.NOT_REGEXP,
}
_INTEGER = re.compile(r"0[xX](?:_?[0-9a-fA-F])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*")
_INT64_MAX = 2**63 - 1
_ONE_TO_ONE = VectorMatching()


@dataclass(frozen=True, slots=True)
class ParserOptions:
    """Which parts of the language behind feature flags are allowed."""

    experimental_functions: bool = False
    duration_expr: bool = True
    extended_range_selectors: bool = False
    binop_fill_modifiers: bool = False

    @classmethod
    def everything(cls) -> ParserOptions:
        """All parts, as the test language has them."""
        return cls(True, True, True, True)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A bracketed list and where it ends."""

    items: list[Any]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Modifiers:
    """What stands between an operator and its right side."""

    matching: VectorMatching = _ONE_TO_ONE
    return_bool: bool = False

    def with_matching(self, **changes: Any) -> _Modifiers:
        return replace(self, matching=replace(self.matching, **changes))


def parse_number(text: str) -> float:
    """Value of a number literal: a Go integer literal (`0x1f`, `010` octal, `1_000`) or a float. Raises
    ValueError."""
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567"
        value = int(digits, 8) if octal else int(digits, 0)
        if value <= _INT64_MAX:
            return float(value)
    if text[:2] in ("0x", "0X") or not text.isascii():
        raise ValueError(text)
    value_f = float(text)
    if math.isinf(value_f) and not text.lstrip("+-").lower().startswith("inf"):
        raise OverflowError(text)
    return value_f


class TreeBuilder:
    """Builds the tree of one text; indexed by the grammar's action names."""

    def __init__(self, query: str, options: ParserOptions) -> None:
        self._query = query
        self._options = options
        self._depths: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self.raw_matching: dict[int, VectorMatching] = {}
        """What was written between an operator and its right side, by id of the BinaryExpr."""

    def __getitem__(self, action: str) -> Callable[[list[Any]], Any]:
        return getattr(self, "on_" + action)  # type: ignore[no-any-return]

    def fail(self, pos: Position, message: str) -> NoReturn:
        """Raise a ParseError about a part of the text."""
        raise ParseError(message, pos, self._query)

    def _grown(self, node: T, *children: Expr | None) -> T:
        """Note how deep a new node reaches, and refuse one that is too deep."""
        depths = self._depths
        deepest = 0
        for child in children:
            if child is not None:
                deepest = max(deepest, depths.get(id(child), 1))
        if deepest >= TREE_DEPTH_MAX:
            self.fail(node.pos, f"expression is nested deeper than the limit of {TREE_DEPTH_MAX} levels")
        depths[id(node)] = deepest + 1
        return node

    def _changed(self, node: T, end: int, **changes: Any) -> T:
        """A copy of a selector or subquery with a modifier."""
        fresh = replace(node, pos=Position(node.pos.start, end), **changes)
        self._depths[id(fresh)] = self._depths.get(id(node), 1)
        return fresh

    def on_empty_expression(self, parts: list[Any]) -> NoReturn:
        self.fail(Position(0, 0), "no expression found in input")

    def on_first(self, parts: list[Any]) -> list[Any]:
        return [parts[0]]

    def on_append(self, parts: list[Any]) -> list[Any]:
        items: list[Any] = parts[0]
        items.append(parts[2])
        return items

    # Literals

    def _unquoted(self, token: Token) -> str:
        try:
            return unquote(token.string)
        except ValueError as error:
            text = f"error unquoting string {quote(token.string)}: {error}"
            self.fail(Position(token.pos, token.end), text)

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
        return StringLiteral(value=self._unquoted(token), pos=Position(token.pos, token.end))

    # Operators

    def on_paren(self, parts: list[Any]) -> ParenExpr:
        opening, inner, closing = parts
        return self._grown(ParenExpr(expr=inner, pos=Position(opening.pos, closing.end)), inner)

    def on_unary_expression(self, parts: list[Any]) -> Expr:
        operator, operand = parts
        pos = Position(operator.pos, operand.pos.end)
        if isinstance(operand, NumberLiteral):
            return replace(operand, value=_signed(operator, operand.value), pos=pos)
        return self._grown(UnaryExpr(op=operator.text, expr=operand, pos=pos), operand)

    def on_binary(self, parts: list[Any]) -> BinaryExpr:
        lhs, operator, modifiers, rhs = parts
        matching: VectorMatching = modifiers.matching
        op = operator.text.lower()
        pos = Position(lhs.pos.start, rhs.pos.end)
        fills = matching.fill_lhs is not None or matching.fill_rhs is not None
        if fills and not self._options.binop_fill_modifiers:
            self.fail(pos, "binop fill modifiers are experimental and not enabled")
        kept: VectorMatching | None = None
        if type_of(lhs) is ValueType.VECTOR and type_of(rhs) is ValueType.VECTOR:
            kept = matching
            if op in SET_OPERATORS and matching.card is Cardinality.ONE_TO_ONE:
                kept = replace(matching, card=Cardinality.MANY_TO_MANY)
        node = BinaryExpr(op=op, lhs=lhs, rhs=rhs, matching=kept, return_bool=modifiers.return_bool, pos=pos)
        self.raw_matching[id(node)] = matching
        return self._grown(node, lhs, rhs)

    def on_no_modifier(self, parts: list[Any]) -> _Modifiers:
        return _Modifiers()

    def on_bool_modifier(self, parts: list[Any]) -> _Modifiers:
        return _Modifiers(return_bool=True)

    def on_on(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(on=True, labels=tuple(parts[2].items))

    def on_ignoring(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(labels=tuple(parts[2].items))

    def _group(self, parts: list[Any], card: Cardinality) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        include = tuple(parts[2].items) if len(parts) > 2 else ()
        return modifiers.with_matching(card=card, include=include)

    def on_group_left(self, parts: list[Any]) -> _Modifiers:
        return self._group(parts, Cardinality.MANY_TO_ONE)

    def on_group_right(self, parts: list[Any]) -> _Modifiers:
        return self._group(parts, Cardinality.ONE_TO_MANY)

    def on_fill_value(self, parts: list[Any]) -> float:
        literal: NumberLiteral = parts[1]
        return literal.value

    def on_signed_fill_value(self, parts: list[Any]) -> float:
        return _signed(parts[1], parts[2].value)

    def on_fill_both(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2], fill_rhs=parts[2])

    def on_fill_left(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2])

    def on_fill_right(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(fill_rhs=parts[2])

    def on_fill_left_right(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[2], fill_rhs=parts[4])

    def on_fill_right_left(self, parts: list[Any]) -> _Modifiers:
        modifiers: _Modifiers = parts[0]
        return modifiers.with_matching(fill_lhs=parts[4], fill_rhs=parts[2])

    # Calls and aggregations

    def on_call_body(self, parts: list[Any]) -> _Listed:
        return _Listed(parts[1], parts[0].pos, parts[2].end)

    def on_empty_call_body(self, parts: list[Any]) -> _Listed:
        return _Listed([], parts[0].pos, parts[1].end)

    def on_trailing_comma(self, parts: list[Any]) -> NoReturn:
        comma: Token = parts[1]
        text = "trailing commas not allowed in function call args"
        self.fail(Position(comma.pos, comma.end), text)

    def on_call(self, parts: list[Any]) -> Call:
        name: Token = parts[0]
        body: _Listed = parts[1]
        function = FUNCTIONS.get(name.text)
        pos = Position(name.pos, name.end)
        if function is None:
            self.fail(pos, f"unknown function with name {quote(name.text)}")
        if function.experimental and not self._options.experimental_functions:
            self.fail(pos, f"function {quote(name.text)} is not enabled")
        node = Call(function=name.text, args=tuple(body.items), pos=Position(name.pos, body.end))
        return self._grown(node, *body.items)

    def on_aggregation(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[1], None, parts[1].end)

    def on_aggregation_modifier_first(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[2], parts[1], parts[2].end)

    def on_aggregation_modifier_last(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[1], parts[2], parts[2][1].end)

    def on_by(self, parts: list[Any]) -> tuple[bool, _Listed]:
        return False, parts[1]

    def on_without(self, parts: list[Any]) -> tuple[bool, _Listed]:
        return True, parts[1]

    def _aggregation(
        self, name: Token, body: _Listed, modifier: tuple[bool, _Listed] | None, end: int
    ) -> AggregateExpr:
        op = name.text.lower()
        aggregator = AGGREGATORS[op]
        pos = Position(name.pos, end)
        if not body.items:
            self.fail(pos, "no arguments for aggregate expression provided")
        if aggregator.experimental and not self._options.experimental_functions:
            flag = "--enable-feature=promql-experimental-functions"
            self.fail(pos, f"{op}() is experimental and must be enabled with {flag}")
        wanted = 1 if aggregator.param is None else 2
        if len(body.items) != wanted:
            text = "wrong number of arguments for aggregate expression provided"
            self.fail(pos, f"{text}, expected {wanted}, got {len(body.items)}")
        without, grouping = modifier if modifier is not None else (False, None)
        node = AggregateExpr(
            op=op,
            expr=body.items[-1],
            param=body.items[0] if wanted == 2 else None,
            grouping=tuple(grouping.items) if grouping is not None else (),
            without=without,
            pos=pos,
        )
        return self._grown(node, *body.items)

    def on_grouping(self, parts: list[Any]) -> _Listed:
        return _Listed(parts[1], parts[0].pos, parts[-1].end)

    def on_empty_grouping(self, parts: list[Any]) -> _Listed:
        return _Listed([], parts[0].pos, parts[-1].end)

    def on_grouping_label(self, parts: list[Any]) -> str:
        token: Token = parts[0]
        return token.text

    def on_quoted_grouping_label(self, parts: list[Any]) -> str:
        token: Token = parts[0]
        name = self._unquoted(token)
        if not _valid_utf8_name(name):
            text = f"invalid label name for grouping: {quote(name)}"
            self.fail(Position(token.pos, token.end), text)
        return name

    # Selectors

    def on_matcher(self, parts: list[Any]) -> Matcher:
        return self._matcher(parts[0].text, parts)

    def on_quoted_matcher(self, parts: list[Any]) -> Matcher:
        return self._matcher(self._unquoted(parts[0]), parts)

    def _matcher(self, name: str, parts: list[Any]) -> Matcher:
        label, operator, literal = parts
        value = self._unquoted(literal)
        match_type = _MATCH_TYPES[operator.text]
        if match_type in (MatchType.REGEXP, MatchType.NOT_REGEXP):
            problem = regex_error(value)
            if problem is not None:
                self.fail(Position(label.pos, literal.end), problem)
        return Matcher(match_type, name, value)

    def on_name_matcher(self, parts: list[Any]) -> Matcher:
        return Matcher(MatchType.EQUAL, METRIC_NAME, self._unquoted(parts[0]))

    def on_matchers(self, parts: list[Any]) -> _Listed:
        return _Listed(parts[1], parts[0].pos, parts[-1].end)

    def on_no_matchers(self, parts: list[Any]) -> _Listed:
        return _Listed([], parts[0].pos, parts[-1].end)

    def on_named_selector_with_matchers(self, parts: list[Any]) -> VectorSelector:
        return self._named_selector(parts[0], parts[1].items, parts[1].end)

    def on_named_selector(self, parts: list[Any]) -> VectorSelector:
        return self._named_selector(parts[0], [], parts[0].end)

    def _named_selector(self, name: Token, matchers: list[Matcher], end: int) -> VectorSelector:
        named = (Matcher(MatchType.EQUAL, METRIC_NAME, name.text), *matchers)
        return VectorSelector(name=name.text, matchers=named, pos=Position(name.pos, end))

    def on_selector(self, parts: list[Any]) -> VectorSelector:
        body: _Listed = parts[0]
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
            literal_ms, expr = _duration_parts(duration)
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
        range_ms, range_expr = _duration_parts(duration)
        step_ms, step_expr = (0, None) if step is None else _duration_parts(step)
        node = SubqueryExpr(
            expr=inner,
            range_ms=range_ms,
            range_expr=range_expr,
            step_ms=step_ms,
            step_expr=step_expr,
            pos=Position(inner.pos.start, closing.end),
        )
        return self._grown(node, inner)

    # Modifiers of selectors

    def _modified(self, expr: Expr, end: int, **changes: Any) -> Expr | None:
        """The selector, range or subquery with changes; None for anything else."""
        if isinstance(expr, MatrixSelector):
            selector = replace(expr.selector, **changes)
            return self._changed(expr, end, selector=selector)
        if isinstance(expr, (VectorSelector, SubqueryExpr)):
            return self._changed(expr, end, **changes)
        return None

    def on_offset(self, parts: list[Any]) -> Expr:
        expr, _, duration = parts
        literal_ms, offset_expr = _duration_parts(duration)
        end = self._ends.get(id(duration), duration.pos.end)
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
        if not self._options.extended_range_selectors:
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
        seconds = _signed(parts[2], parts[3].value)
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

    # Durations

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
        if not self._options.duration_expr:
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
        self._ends[id(node)] = closing.end
        return node

    def _signed_call(self, operator: Token, call: DurationExpr) -> DurationExpr:
        node = DurationExpr(op=operator.text, rhs=call, pos=Position(operator.pos, call.pos.end))
        self._experimental_duration(node)
        return self._grown(node, call)

    def _duration_sign(self, operator: Token, operand: Duration) -> Duration:
        pos = Position(operator.pos, operand.pos.end)
        if isinstance(operand, NumberLiteral):
            literal = replace(operand, value=_signed(operator, operand.value), pos=pos)
            return self._in_range(literal, Position(operator.pos, operator.end))
        if operator.kind == "ADD":
            return operand
        return self._grown(DurationExpr(op="-", rhs=operand, pos=pos), operand)

    def on_duration_binary(self, parts: list[Any]) -> DurationExpr:
        lhs, operator, rhs = parts
        self._experimental_duration(lhs)
        if isinstance(rhs, NumberLiteral) and rhs.value == 0 and operator.kind in ("DIV", "MOD"):
            problem = "division by zero" if operator.kind == "DIV" else "modulo by zero"
            self.fail(Position(operator.pos, operator.end), problem)
        pos = Position(lhs.pos.start, rhs.pos.end)
        return self._grown(DurationExpr(op=operator.text, lhs=lhs, rhs=rhs, pos=pos), lhs, rhs)

    def on_duration_paren(self, parts: list[Any]) -> Duration:
        _, inner, closing = parts
        self._experimental_duration(inner)
        wrapped: Duration = inner
        if isinstance(inner, DurationExpr):
            wrapped = self._grown(replace(inner, wrapped=True), inner)
        self._ends[id(wrapped)] = closing.end
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
        node = self._grown(DurationExpr(op=word.text.lower(), lhs=lhs, rhs=rhs, pos=pos), lhs, rhs)
        self._ends[id(node)] = closing.end
        return node

    # Metrics with label values

    def on_label(self, parts: list[Any]) -> tuple[str, str]:
        return parts[0].text, self._unquoted(parts[2])

    def on_quoted_label(self, parts: list[Any]) -> tuple[str, str]:
        return self._unquoted(parts[0]), self._unquoted(parts[2])

    def on_name_label(self, parts: list[Any]) -> tuple[str, str]:
        return METRIC_NAME, self._unquoted(parts[0])

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


def _signed(operator: Token, value: float) -> float:
    return -value if operator.kind == "SUB" else value


def _valid_utf8_name(name: str) -> bool:
    return bool(name) and not any(0xDC80 <= ord(char) <= 0xDCFF for char in name)


def _duration_parts(duration: Duration) -> tuple[int, DurationExpr | None]:
    if isinstance(duration, NumberLiteral):
        return seconds_to_ms(duration.value), None
    return 0, duration


def _timestamp_ms(seconds: float) -> int:
    """Milliseconds, halves away from zero; saturates where Go's int64 would."""
    product = seconds * 1000
    if abs(product) >= 2.0**63:
        return -(2**63)
    return int(math.copysign(math.floor(abs(product) + 0.5), product))


def token_text(token: Token) -> str:
    """The token as Unicode."""
    return decode(token.text)
