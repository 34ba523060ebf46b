"""Named hints for typical mistakes, and the line with a caret."""

from __future__ import annotations

import pytest

from promql.hints import HINT_NAMES, caret_lines, explain, hint_for
from promql.parser import ParseError, ParserOptions, parse

ALL = ParserOptions.everything()


HINTS = {
    "range-before-offset": "up offset 5m [5m]",
    "range-before-at": "up @ 5 [5m]",
    "range-of-expression": "sum(up)[5m]",
    "missing-range": "rate(up)",
    "unexpected-range": "sum(up[5m])",
    "scalar-for-vector": "abs(1)",
    "operator-on-range": "up[5m] + up",
    "unknown-function": "ratee(up[5m])",
    "feature-flag": "limitk(1, up)",
    "missing-parenthesis": "sum(up",
    "extra-parenthesis": "sum(up))",
    "missing-bracket": "up[5m",
    "missing-brace": "up{",
    "missing-quote": '{a="b',
    "scalar-comparison": "1 == 1",
    "group-without-on": "a * group_left b",
    "unquoted-label-value": "up{job=api}",
    "single-equals": "up = 1",
    "regex-outside-braces": 'up =~ "a"',
    "operator-word": "a && b",
    "unreplaced-variable": "rate(up[$__rate_interval])",
    "dotted-name": "http.requests",
    "duration-syntax": "up[5M]",
    "empty-range": "up[]",
    "trailing-comma": "rate(up[5m],)",
    "empty-selector": "{}",
    "set-operator-on-scalar": "1 and 2",
    "matching-with-scalar": "up + on(job) 1",
    "aggregation-arguments": "topk(up)",
    "empty-query": "",
    "set-operator-with-group": "a and on(x) group_left b",
    "bool-without-comparison": "1 + bool 1",
    "subquery-of-range": "up[5m][5m:]",
}


def test_every_hint_has_a_query_that_shows_it() -> None:
    assert HINTS.keys() == HINT_NAMES.keys()


@pytest.mark.parametrize("hint", HINTS)
def test_typical_mistake_gets_its_named_hint(hint: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(HINTS[hint])
    found = hint_for(caught.value)
    assert found is not None
    assert found.name == hint
    assert f"hint ({hint}): " in explain(caught.value)


def test_caret_stands_under_the_character_and_long_lines_are_cut() -> None:
    assert caret_lines('{a="é"} &', 9) == '{a="é"} &\n        ^'
    line, caret = caret_lines("up + " * 100 + "&", 500).split("\n")
    assert len(line) == 100
    assert line[len(caret) - 1] == "&"


def test_unknown_function_hint_names_close_ones() -> None:
    with pytest.raises(ParseError) as caught:
        parse("histogram_quantil(0.9, up)")
    hint = hint_for(caught.value)
    assert hint is not None
    assert "histogram_quantile" in hint.text
