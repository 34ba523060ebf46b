"""From query text to a checked tree.

`parse` is the way in; parsed queries are cached by text. Semantics: prometheus-surface.md 2.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from promql.ast import Expr, Position, VectorSelector
from promql.builder import TreeBuilder
from promql.errors import ParseError
from promql.lalr import SyntaxProblem, run
from promql.limits import (
    CACHED_QUERIES_MAX,
    CACHED_QUERY_BYTES_MAX,
    LEVELS_AT_ONCE_MAX,
    QUERY_BYTES_MAX,
    allow_frames,
)
from promql.parseroptions import ParserOptions
from promql.parsetable import parse_table
from promql.syntaxerrors import unexpected
from promql.tokens import Lexer, LexError, encode
from promql.types import TypeChecker
from tsdb.labels import Labels, Matcher

STABLE = ParserOptions()
"""The language without feature flags."""

__all__ = [
    "STABLE",
    "ParseError",
    "ParserOptions",
    "parse",
    "parse_metric",
    "parse_metric_selector",
    "prepare",
]


def parse(text: str, options: ParserOptions = STABLE) -> Expr:
    """The typed tree of a query. Raises ParseError (`line:col: parse error: ...`)."""
    if len(text) <= CACHED_QUERY_BYTES_MAX:
        return _parse_cached(text, options)
    return _parse(text, options)


def prepare() -> None:
    """Read or compute the parse table now, so that the first query does not wait for it."""
    parse_table()


def _parse(text: str, options: ParserOptions) -> Expr:
    allow_frames()
    source = _source(text)
    builder = TreeBuilder(text, options)
    expr: Expr = _run("expression", text, source, builder)
    checker = TypeChecker(text, source, builder.raw_matching)
    if builder.deepest > LEVELS_AT_ONCE_MAX:
        checker.check_deep(expr)
    else:
        checker.check(expr)
    return expr


_parse_cached = lru_cache(maxsize=CACHED_QUERIES_MAX)(_parse)


def parse_metric_selector(text: str) -> tuple[Matcher, ...]:
    """Matchers of an instant selector as `match[]` holds: no `@`, offset or range. Raises ParseError.

    A selector that matches everything is accepted; callers that must refuse it ask
    `types.matches_everything`.
    """
    return _matchers_cached(text) if len(text) <= CACHED_QUERY_BYTES_MAX else _matchers(text)


def _matchers(text: str) -> tuple[Matcher, ...]:
    selector: VectorSelector = _run("metric_selector", text, _source(text), TreeBuilder(text, STABLE))
    return selector.matchers


_matchers_cached = lru_cache(maxsize=CACHED_QUERIES_MAX)(_matchers)


def parse_metric(text: str) -> Labels:
    """Labels of `name{a="b"}`. Raises ParseError."""
    labels: Labels = _run("metric", text, _source(text), TreeBuilder(text, STABLE))
    return labels


def _source(text: str) -> str:
    source = encode(text)
    if len(source) > QUERY_BYTES_MAX:
        message = f"query is {len(source)} bytes long, more than the limit of {QUERY_BYTES_MAX} bytes"
        raise ParseError(message, Position(0, len(source)), text)
    return source


def _run(start: str, text: str, source: str, builder: TreeBuilder) -> Any:
    lexer = Lexer(source)
    try:
        return run(start, lexer.next_token, builder)
    except LexError as error:
        raise ParseError(error.message, Position(error.pos, len(source)), text) from None
    except SyntaxProblem as problem:
        token = problem.token
        message = unexpected(token, problem.action)
        raise ParseError(message, Position(token.pos, token.end), text) from None
