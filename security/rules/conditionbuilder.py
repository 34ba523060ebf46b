"""From the rules of the grammar straight to our nodes; imported at the first condition, as lark is."""

from __future__ import annotations

from typing import Any

from lark import Transformer, v_args

from security.rules.ast import And, Call, Compare, Exists, Field, Macro, Node, Not, Or, Text, Tuple
from security.rules.condition import split_field, unescape


def _value(token: Any) -> str:
    return unescape(str(token), token.start_pos) if token.type == "QUOTED" else str(token)


@v_args(inline=True)
class Builder(Transformer):  # type: ignore[type-arg]
    """Reduces grammar rules straight to our nodes."""

    def start(self, node: Node) -> Node:
        return node

    def or_expr(self, *parts: Any) -> Node:
        return Or(tuple(parts[::2]), parts[0].offset)

    def and_expr(self, *parts: Any) -> Node:
        return And(tuple(parts[::2]), parts[0].offset)

    def negation(self, *parts: Any) -> Node:
        *nots, check = parts
        return Not(check, nots[0].start_pos) if len(nots) % 2 else check

    def group(self, _open: Any, node: Node, _close: Any) -> Node:
        return node

    def exists(self, left: Any, _word: Any) -> Node:
        return Exists(left, left.offset)

    def compare(self, left: Any, operator: Any, right: Any) -> Node:
        word = str(operator).strip(" \t\b\r\n")
        if isinstance(right, (Field, Call)):
            return Compare(left, word, (), right, None, left.offset)
        modifier, values = right
        return Compare(left, word, values, None, modifier, left.offset)

    def macro(self, name: Any) -> Node:
        return Macro(str(name), name.start_pos)

    def field(self, token: Any) -> Field:
        return split_field(str(token), token.start_pos)

    def call(self, function: Any, *parts: Any) -> Call:
        *items, close = parts
        tail = str(close)
        argument = split_field(f"x{tail[1:]}", close.start_pos).argument if len(tail) > 1 else None
        return Call(str(function)[:-1], tuple(items[::2]), argument, function.start_pos)

    def text(self, token: Any) -> Text:
        return Text(_value(token), token.start_pos)

    def literal(self, opening: Any, *parts: Any) -> Tuple:
        return Tuple(tuple(parts[:-1:2]), opening.start_pos)

    def value(self, token: Any) -> tuple[None, tuple[str, ...]]:
        return (None, (_value(token),))

    def item(self, token: Any) -> str:
        return _value(token)

    def values(self, _open: Any, *parts: Any) -> tuple[None, tuple[str, ...]]:
        return (None, tuple(parts[:-1:2]))

    def number_value(self, right: Any) -> Any:
        return right

    def string_value(self, right: Any) -> Any:
        return right

    def list_value(self, right: Any) -> Any:
        return right

    def modified(self, modifier: Any, literal: Any) -> tuple[str, tuple[str, ...]]:
        return (str(modifier).strip(" \t\b\r\n"), literal[1])

    def modified_name(self, modifier: Any, name: Any) -> tuple[str, tuple[str, ...]]:
        return (str(modifier).strip(" \t\b\r\n"), (str(name),))

    def val(self, word: Any, token: Any, _close: Any) -> Call:
        return Call("val", (split_field(str(token), token.start_pos),), None, word.start_pos)

    def transformed(self, call: Call) -> Call:
        return call
