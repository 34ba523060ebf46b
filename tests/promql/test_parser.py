"""The language: trees, error texts with positions, limits, caching."""

from __future__ import annotations

import time
from dataclasses import replace as changed

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql import limits
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
    VectorMatching,
    VectorSelector,
)
from promql.hints import explain
from promql.parser import ParseError, ParserOptions, parse, parse_metric, parse_metric_selector
from promql.printer import to_string
from promql.syntaxerrors import EXPLANATIONS
from promql.treejson import to_json
from promql.types import matches_everything
from promql.visit import depth, replace, selectors, walk, walk_with_path
from tests.promql.badqueries import BAD_QUERIES
from tsdb.labels import Labels, Matcher, MatchType

ALL = ParserOptions.everything()


def name(text: str) -> Matcher:
    return Matcher(MatchType.EQUAL, "__name__", text)


def selector(text: str, *matchers: Matcher, **fields: object) -> VectorSelector:
    return VectorSelector(name=text, matchers=(name(text), *matchers), **fields)  # type: ignore[arg-type]


UP = selector("up")


def number(value: float, duration: bool = False) -> NumberLiteral:
    return NumberLiteral(value=value, is_duration=duration)


TREES: dict[str, Expr] = {
    "-1^2": UnaryExpr(op="-", expr=BinaryExpr(op="^", lhs=number(1), rhs=number(2))),
    "2^3^2": BinaryExpr(op="^", lhs=number(2), rhs=BinaryExpr(op="^", lhs=number(3), rhs=number(2))),
    "-2": number(-2),
    "010": number(8),
    "0x1F": number(31),
    "1_000": number(1000),
    "5m": number(300, True),
    "(up)": ParenExpr(expr=UP),
    "`a\\b`": StringLiteral(value="a\\b"),
    "up[5m] offset 1h": MatrixSelector(selector=selector("up", offset_ms=3_600_000), range_ms=300_000),
    "up @ 1.5": selector("up", at_ms=1500),
    "up @ end() offset -5": selector("up", at_modifier=AtModifier.END, offset_ms=-5000),
    "up anchored": selector("up", anchored=True),
    '{"a.b", "c.d"=~"x"}': VectorSelector(
        name="", matchers=(name("a.b"), Matcher(MatchType.REGEXP, "c.d", "x"))
    ),
    "up[5m:]": SubqueryExpr(expr=UP, range_ms=300_000),
    "up[5m:1m] offset 1m": SubqueryExpr(expr=UP, range_ms=300_000, step_ms=60_000, offset_ms=60_000),
    "up[step()*2]": MatrixSelector(
        selector=UP,
        range_ms=0,
        range_expr=DurationExpr(op="*", lhs=DurationExpr(op="step"), rhs=number(2)),
    ),
    "up offset 1m + 1m": BinaryExpr(
        op="+", lhs=selector("up", offset_ms=60_000), rhs=number(60, True), matching=None
    ),
    "up offset (1m) + 1m": selector(
        "up", offset_expr=DurationExpr(op="+", lhs=number(60, True), rhs=number(60, True))
    ),
    "up offset -(1m + 1m)": selector(
        "up",
        offset_expr=DurationExpr(
            op="-", rhs=DurationExpr(op="+", lhs=number(60, True), rhs=number(60, True), wrapped=True)
        ),
    ),
    "SUM(up) BY (job)": AggregateExpr(op="sum", expr=UP, grouping=("job",)),
    "topk without () (3, up)": AggregateExpr(op="topk", expr=UP, param=number(3), without=True),
    "rate(up[5m])": Call(function="rate", args=(MatrixSelector(selector=UP, range_ms=300_000),)),
    "up * on(job) group_left(x) up": BinaryExpr(
        op="*",
        lhs=UP,
        rhs=UP,
        matching=VectorMatching(card=Cardinality.MANY_TO_ONE, labels=("job",), on=True, include=("x",)),
    ),
    "up and up": BinaryExpr(op="and", lhs=UP, rhs=UP, matching=VectorMatching(card=Cardinality.MANY_TO_MANY)),
    "up > bool 1": BinaryExpr(op=">", lhs=UP, rhs=number(1), return_bool=True),
    "up + fill_left(-1) up": BinaryExpr(op="+", lhs=UP, rhs=UP, matching=VectorMatching(fill_lhs=-1.0)),
    "start()": Call(function="start", args=()),
}


@pytest.mark.parametrize("query", TREES)
def test_text_becomes_the_tree_of_its_grammar(query: str) -> None:
    assert parse(query, ALL) == TREES[query]


@pytest.mark.parametrize(("query", "text"), BAD_QUERIES, ids=[repr(q) for q, _ in BAD_QUERIES])
def test_bad_query_has_prometheus_error_text_and_position(query: str, text: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(query, ALL)
    assert str(caught.value) == text


def test_bad_queries_reach_every_explanation_of_a_syntax_error() -> None:
    for action, (context, expected) in EXPLANATIONS.items():
        if "label set" in context:
            continue
        text = f" in {context}" if context else "unexpected"
        want = f", expected {expected}" if expected else ""
        assert any(text in error and error.endswith(want) for _, error in BAD_QUERIES), action


FLAGS = [
    ("mad_over_time(up[5m])", '1:1: parse error: function "mad_over_time" is not enabled'),
    (
        "limitk(1, up)",
        "1:1: parse error: limitk() is experimental and must be enabled with"
        " --enable-feature=promql-experimental-functions",
    ),
    ("rate(up[5m] anchored)", "1:6: parse error: anchored modifier is experimental and not enabled"),
    ("up smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
    ("up + fill(0) up", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
]


@pytest.mark.parametrize(("query", "text"), FLAGS)
def test_experimental_parts_need_their_flag(query: str, text: str) -> None:
    parse(query, ALL)
    with pytest.raises(ParseError) as caught:
        parse(query)
    assert str(caught.value) == text


def test_duration_expressions_can_be_switched_off() -> None:
    for query in ("up[5m+5m]", "up offset (5m)", "up[step()]", "up offset -step()"):
        parse(query)
        with pytest.raises(ParseError, match="experimental duration expression is not enabled"):
            parse(query, ParserOptions(duration_expr=False))


def test_keywords_are_metric_and_label_names_where_the_grammar_allows() -> None:
    for word in (
        "sum",
        "by",
        "offset",
        "start",
        "step",
        "range",
        "min_of",
        "anchored",
        "and",
        "fill",
        "topk",
    ):
        (found,) = selectors(parse(f'{word}{{{word}="x"}}'))
        assert found.name == word
        assert found.matchers[1].name == word
    aggregation = parse("sum by (on, bool, group_left, atan2, fill, offset) (up)")
    assert isinstance(aggregation, AggregateExpr)
    assert aggregation.grouping == ("on", "bool", "group_left", "atan2", "fill", "offset")


def test_positions_are_byte_ranges() -> None:
    tree = parse('sum by (a) ({b="é"}) + rate(up[5m])')
    assert isinstance(tree, BinaryExpr)
    assert tree.lhs.pos == Position(0, 21)
    assert tree.rhs.pos == Position(24, 36)
    assert isinstance(tree.rhs, Call)
    assert tree.rhs.args[0].pos == Position(29, 35)


def test_second_line_is_counted() -> None:
    with pytest.raises(ParseError) as caught:
        parse('"é" +\n  rate(up)')
    assert str(caught.value).startswith("2:8: parse error: expected type range vector")


def test_escapes_that_are_not_utf8_become_surrogate_escapes() -> None:
    assert parse(r'"a\xc5z"') == StringLiteral(value="a\udcc5z")
    assert parse(r'"\xc3\xa9"') == StringLiteral(value="é")


HUGE = [
    ("(" * 10_000, "1:10001: parse error: unclosed left parenthesis"),
    ("(" * 10_000 + "1" + ")" * 10_001, "1:20003: parse error: unexpected right parenthesis ')'"),
    ("sum(" * 10_000, "1:40001: parse error: unclosed left parenthesis"),
    ("up[" + "(" * 10_000, "1:10004: parse error: unexpected end of input in duration expression"),
    (
        "m" + "[1m:1m]" * 10_000,
        "1:1: parse error: subquery is only allowed on instant vector, got matrix instead",
    ),
    (
        "abs(" * 10_000 + "'a'" + ")" * 10_000,
        '1:40001: parse error: expected type instant vector in call to function "abs", got string',
    ),
    # Of two errors the one on the way down to the other.
    (
        "(" * 1_000 + "sum(1) + " + "abs(" * 1_000 + "'a'" + ")" * 2_000,
        "1:1005: parse error: expected type instant vector in aggregation expression, got scalar",
    ),
    ('"' + "a" * 1_000_000, "unterminated quoted string"),
    ("é" * 6_000_000, "query is 12000000 bytes long, more than the limit of 10485760 bytes"),
]


@pytest.mark.parametrize(("query", "text"), HUGE, ids=[text[:30] for _, text in HUGE])
def test_huge_bad_queries_fail_as_in_prometheus_and_soon(query: str, text: str) -> None:
    parse("1")
    begin = time.perf_counter()
    with pytest.raises(ParseError) as caught:
        parse(query)
    assert text in str(caught.value)
    assert time.perf_counter() - begin < 20


def test_depth_has_no_limit() -> None:
    chain = parse("up" + "+up" * 20_000)
    assert len(selectors(chain)) == 20_001
    assert depth(chain) == 20_001
    assert depth(parse("up")) == 1


def test_a_tree_is_rebuilt_at_any_depth() -> None:
    tree = parse("abs(" * 5_000 + "a" + ")" * 5_000)
    renamed = replace(
        tree, lambda node: changed(node, name="b") if isinstance(node, VectorSelector) else node
    )
    assert to_string(renamed) == "abs(" * 5_000 + 'b{__name__="a"}' + ")" * 5_000
    assert replace(tree, lambda node: node) is tree


def test_same_text_gives_the_cached_tree() -> None:
    assert parse("sum(cached_metric)") is parse("sum(cached_metric)")
    long = "up" + " " * limits.CACHED_QUERY_BYTES_MAX
    assert parse(long) is not parse(long)


def test_metric_selector_gives_matchers_and_refuses_more() -> None:
    assert parse_metric_selector('up{job!~"a"}') == (name("up"), Matcher(MatchType.NOT_REGEXP, "job", "a"))
    assert matches_everything(parse_metric_selector("{}"))
    assert not matches_everything(parse_metric_selector("up"))
    for text in ("up offset 5m", "up[5m]", "1", "rate(up)"):
        with pytest.raises(ParseError, match="parse error: unexpected"):
            parse_metric_selector(text)


METRICS = [
    ('up{job="a",le="+Inf",}', {"__name__": "up", "job": "a", "le": "+Inf"}),
    ('{"http.x", "a b"="c"}', {"__name__": "http.x", "a b": "c"}),
    ("{}", {}),
    ("", {}),
    ('sum{a="\\n"}', {"__name__": "sum", "a": "\n"}),
]


@pytest.mark.parametrize(("text", "pairs"), METRICS)
def test_metric_text_becomes_labels(text: str, pairs: dict[str, str]) -> None:
    assert parse_metric(text) == Labels.from_dict(pairs)


BAD_METRICS = [
    ("up{a}", '1:5: parse error: unexpected "}" in label set, expected "="'),
    ("up{a=b}", '1:6: parse error: unexpected identifier "b" in label set, expected string'),
    ('up{a="b" c="d"}', '1:10: parse error: unexpected identifier "c" in label set, expected "," or "}"'),
    ("up{=}", '1:4: parse error: unexpected "=" in label set, expected identifier or "}"'),
    ("up + up", "1:4: parse error: unexpected <op:+>"),
]


@pytest.mark.parametrize(("text", "error"), BAD_METRICS)
def test_bad_metric_text_is_explained(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_metric(text)
    assert str(caught.value) == error


def test_walks_visit_parents_first_and_keep_the_path() -> None:
    tree = parse("sum(rate(a[5m])) + topk(scalar(b), c)")
    assert [s.name for s in selectors(tree)] == ["a", "b", "c"]
    kinds = [type(node).__name__ for node in walk(tree)]
    assert kinds[:5] == ["BinaryExpr", "AggregateExpr", "Call", "MatrixSelector", "VectorSelector"]
    paths = {n.name: len(path) for n, path in walk_with_path(tree) if isinstance(n, VectorSelector)}
    assert paths == {"a": 4, "b": 3, "c": 2}


def test_replace_shares_what_it_does_not_touch() -> None:
    tree = parse("sum(a) + sum(b)")
    assert replace(tree, lambda node: node) is tree
    renamed = replace(
        tree, lambda node: UP if isinstance(node, VectorSelector) and node.name == "a" else node
    )
    assert renamed == parse("sum(up) + sum(b)")
    assert isinstance(renamed, BinaryExpr)
    assert isinstance(tree, BinaryExpr)
    assert renamed.rhs is tree.rhs


WORDS = (
    *(
        "up",
        "sum",
        "by",
        "without",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "5m",
        "1",
        "0x1f",
        '"a"',
        "'b'",
        "`c`",
    ),
    *("=", "=~", "!=", "!~", "==", "<", ">/", "</", "+", "-", "*", "/", "%", "^", "@", "offset", "and", "or"),
    *(
        "unless",
        "on",
        "ignoring",
        "group_left",
        "bool",
        "fill",
        "start",
        "end",
        "step",
        "range",
        "min_of",
        "rate",
    ),
    *("topk", "anchored", "smoothed", "#", "\n", " ", "é", "\\", '"', "$", "inf", "nan", "1e", "info", "5"),
)


def outcome(text: str) -> Expr | ParseError:
    try:
        return parse(text, ALL)
    except ParseError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25), st.booleans())
def test_any_text_gives_a_tree_or_a_parse_error_with_a_place(words: list[str], spaced: bool) -> None:
    text = (" " if spaced else "").join(words)
    found = outcome(text)
    if isinstance(found, ParseError):
        assert 0 <= found.pos.start <= len(text.encode())
        assert str(found).endswith(found.message)
        assert found.message in explain(found)
        return
    canonical = to_string(found)
    if "{}" not in text.replace(" ", ""):
        assert to_string(parse(canonical, ALL)) == canonical
    assert to_json(found) is not None


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_arbitrary_unicode_never_breaks_the_parser(text: str) -> None:
    assert isinstance(outcome(text), (Expr, ParseError))
