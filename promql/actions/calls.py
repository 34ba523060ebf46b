"""Function calls and aggregations."""

from __future__ import annotations

from typing import Any, NoReturn

from promql.actions.state import BuildState, Listed
from promql.ast import AggregateExpr, Call, Position
from promql.functions import AGGREGATORS, FUNCTIONS
from promql.quoting import quote
from promql.tokens import Token


class CallActions(BuildState):
    """Actions of calls, aggregations and lists of labels."""

    def on_call_body(self, parts: list[Any]) -> Listed:
        return Listed(parts[1], parts[0].pos, parts[2].end)

    def on_empty_call_body(self, parts: list[Any]) -> Listed:
        return Listed([], parts[0].pos, parts[1].end)

    def on_trailing_comma(self, parts: list[Any]) -> NoReturn:
        comma: Token = parts[1]
        text = "trailing commas not allowed in function call args"
        self.fail(Position(comma.pos, comma.end), text)

    def on_call(self, parts: list[Any]) -> Call:
        name: Token = parts[0]
        body: Listed = parts[1]
        function = FUNCTIONS.get(name.text)
        pos = Position(name.pos, name.end)
        if function is None:
            self.fail(pos, f"unknown function with name {quote(name.text)}")
        if function.experimental and not self.options.experimental_functions:
            self.fail(pos, f"function {quote(name.text)} is not enabled")
        node = Call(function=name.text, args=tuple(body.items), pos=Position(name.pos, body.end))
        return self.grown(node, *body.items)

    def on_aggregation(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[1], None, parts[1].end)

    def on_aggregation_modifier_first(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[2], parts[1], parts[2].end)

    def on_aggregation_modifier_last(self, parts: list[Any]) -> AggregateExpr:
        return self._aggregation(parts[0], parts[1], parts[2], parts[2][1].end)

    def on_by(self, parts: list[Any]) -> tuple[bool, Listed]:
        return False, parts[1]

    def on_without(self, parts: list[Any]) -> tuple[bool, Listed]:
        return True, parts[1]

    def _aggregation(
        self, name: Token, body: Listed, modifier: tuple[bool, Listed] | None, end: int
    ) -> AggregateExpr:
        op = name.text.lower()
        aggregator = AGGREGATORS[op]
        pos = Position(name.pos, end)
        if not body.items:
            self.fail(pos, "no arguments for aggregate expression provided")
        if aggregator.experimental and not self.options.experimental_functions:
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
        return self.grown(node, *body.items)

    def on_grouping(self, parts: list[Any]) -> Listed:
        return Listed(parts[1], parts[0].pos, parts[-1].end)

    def on_empty_grouping(self, parts: list[Any]) -> Listed:
        return Listed([], parts[0].pos, parts[-1].end)

    def on_grouping_label(self, parts: list[Any]) -> str:
        token: Token = parts[0]
        return token.text

    def on_quoted_grouping_label(self, parts: list[Any]) -> str:
        token: Token = parts[0]
        name = self.unquoted(token)
        if not _valid_utf8_name(name):
            text = f"invalid label name for grouping: {quote(name)}"
            self.fail(Position(token.pos, token.end), text)
        return name


def _valid_utf8_name(name: str) -> bool:
    return bool(name) and not any(0xDC80 <= ord(char) <= 0xDCFF for char in name)
