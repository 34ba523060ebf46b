"""Names in quotes mean what bare names do, and printed queries read back, UTF-8 names or not."""

from __future__ import annotations

from random import Random

from promql.ast import AggregateExpr, BinaryExpr, Expr, VectorSelector
from promql.builder import ParserOptions
from promql.parser import parse
from promql.printer import pretty, to_string
from promql.visit import walk
from tests.fuzz.queries import QueryMaker

QUERIES = 300


def read(text: str) -> Expr:
    return parse(text, ParserOptions.everything())


def matchers(text: str) -> list[set[tuple[str, str, str]]]:
    """Of each selector, in order."""
    found = [node for node in walk(read(text)) if isinstance(node, VectorSelector)]
    return [{(m.name, m.type.name, m.value) for m in node.matchers} for node in found]


def labels_and_matching(text: str) -> list[tuple[object, ...]]:
    """The kind of each node, in order, and what else of it names labels."""
    out: list[tuple[object, ...]] = []
    for node in walk(read(text)):
        if isinstance(node, AggregateExpr):
            out.append((node.op, node.grouping, node.without))
        elif isinstance(node, BinaryExpr):
            out.append((node.op, repr(node.matching)))  # as text, NaN is NaN
        else:
            out.append((type(node).__name__,))
    return out


def test_names_in_quotes_mean_what_bare_names_do() -> None:
    different = 0
    for number in range(QUERIES):
        bare, quoted = (
            QueryMaker(Random(f"spelling:{number}"), quoted_share=share).query() for share in (0.0, 1.0)
        )
        different += bare != quoted
        assert matchers(bare) == matchers(quoted), quoted
        assert labels_and_matching(bare) == labels_and_matching(quoted), quoted
    assert different > QUERIES * 0.8


def test_printed_queries_read_back_as_the_same() -> None:
    for number in range(QUERIES):
        text = QueryMaker(Random(f"printed:{number}"), quoted_share=0.5).query()
        printed = to_string(read(text))
        assert to_string(read(printed)) == printed
        assert to_string(read(pretty(read(text)))) == printed
        assert matchers(printed) == matchers(text)
