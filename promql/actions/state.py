"""What all actions share: the text, the options, errors, and how deep each node reaches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from promql.ast import DurationExpr, Expr, NumberLiteral, Position, VectorMatching
from promql.duration import seconds_to_ms
from promql.errors import ParseError
from promql.parseroptions import ParserOptions
from promql.quoting import quote, unquote
from promql.tokens import Token

T = TypeVar("T", bound=Expr)
Duration = NumberLiteral | DurationExpr


@dataclass(frozen=True, slots=True)
class Listed:
    """A bracketed list and where it ends."""

    items: list[Any]
    start: int
    end: int


class BuildState:
    """One text while it is parsed. Notes about nodes are kept by id, so all noted nodes are kept alive."""

    def __init__(self, query: str, options: ParserOptions) -> None:
        self.query = query
        self.options = options
        self._depths: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self.deepest = 0
        """Levels of the deepest node."""
        self._noted: list[Expr] = []
        self.raw_matching: dict[int, VectorMatching] = {}
        """What was written between an operator and its right side, by id of the BinaryExpr."""

    def fail(self, pos: Position, message: str) -> NoReturn:
        """Raise a ParseError about a part of the text."""
        raise ParseError(message, pos, self.query)

    def grown(self, node: T, *children: Expr | None) -> T:
        """Note how deep a new node reaches."""
        depths = self._depths
        deepest = 0
        for child in children:
            if child is not None:
                deepest = max(deepest, depths.get(id(child), 1))
        depths[id(node)] = deepest = deepest + 1
        self.deepest = max(self.deepest, deepest)
        self._noted.append(node)
        return node

    def changed(self, node: T, end: int, **changes: Any) -> T:
        """A copy of a selector or subquery with a modifier."""
        fresh = replace(node, pos=Position(node.pos.start, end), **changes)
        depth = self._depths.get(id(node))
        if depth is not None:
            self._depths[id(fresh)] = depth
            self._noted.append(fresh)
        return fresh

    def note_end(self, node: Expr, end: int) -> None:
        """Remember that a duration's text reaches further than its range, over a closing parenthesis."""
        self._ends[id(node)] = end
        self._noted.append(node)

    def text_end(self, node: Expr) -> int:
        """Where a duration's text ends."""
        return self._ends.get(id(node), node.pos.end)

    def unquoted(self, token: Token) -> str:
        """Value of a string literal."""
        try:
            return unquote(token.string)
        except ValueError as error:
            text = f"error unquoting string {quote(token.string)}: {error}"
            self.fail(Position(token.pos, token.end), text)

    def on_first(self, parts: list[Any]) -> list[Any]:
        return [parts[0]]

    def on_append(self, parts: list[Any]) -> list[Any]:
        items: list[Any] = parts[0]
        items.append(parts[2])
        return items


def signed(operator: Token, value: float) -> float:
    """The value under a unary plus or minus."""
    return -value if operator.kind == "SUB" else value


def duration_parts(duration: Duration) -> tuple[int, DurationExpr | None]:
    """A literal as milliseconds, or 0 and the expression that must be computed."""
    if isinstance(duration, NumberLiteral):
        return seconds_to_ms(duration.value), None
    return 0, duration
