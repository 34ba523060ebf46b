"""Canonical and pretty text of trees."""

from __future__ import annotations

import pytest

from promql.numberformat import format_api, format_f, format_g, format_openmetrics
from promql.parser import ParserOptions, parse
from promql.printer import COLUMNS_MAX, pretty, to_string
from promql.quoting import quote, unquote
from tests.promql.goodqueries import GOOD_QUERIES

ALL = ParserOptions.everything()
QUERIES = [query for query, _, _ in GOOD_QUERIES]
NOT_READABLE = {"info(up, {})"}
"""Prometheus prints nothing for an empty selector."""


@pytest.mark.parametrize(("query", "canonical", "lines"), GOOD_QUERIES, ids=QUERIES)
def test_query_prints_as_prometheus_does(query: str, canonical: str, lines: str | None) -> None:
    tree = parse(query, ALL)
    assert to_string(tree) == canonical
    assert pretty(tree) == (canonical if lines is None else lines)


@pytest.mark.parametrize("query", [q for q in QUERIES if q not in NOT_READABLE])
def test_both_forms_read_back_as_the_same_canonical_text(query: str) -> None:
    canonical = to_string(parse(query, ALL))
    assert to_string(parse(canonical, ALL)) == canonical
    assert to_string(parse(pretty(parse(query, ALL)), ALL)) == canonical


def test_pretty_breaks_only_what_does_not_fit() -> None:
    inner = "a" * (COLUMNS_MAX - len("sum()"))
    assert pretty(parse(f"sum({inner})")) == f"sum({inner})"
    assert pretty(parse(f"sum({inner}a)")) == f"sum(\n  {inner}a\n)"


FLOATS = [
    # value, %g, 'f', API, OpenMetrics
    (0.0, "0", "0", "0", "0.0"),
    (-0.0, "-0", "-0", "-0", "-0.0"),
    (1.0, "1", "1", "1", "1.0"),
    (0.1, "0.1", "0.1", "0.1", "0.1"),
    (100000.0, "100000", "100000", "100000", "100000.0"),
    (1e6, "1e+06", "1000000", "1000000", "1e+06"),
    (1234567.0, "1.234567e+06", "1234567", "1234567", "1.234567e+06"),
    (123456.5, "123456.5", "123456.5", "123456.5", "123456.5"),
    (1e21, "1e+21", "1" + "0" * 21, "1e+21", "1e+21"),
    (1e20, "1e+20", "1" + "0" * 20, "1" + "0" * 20, "1e+20"),
    (0.0001, "0.0001", "0.0001", "0.0001", "0.0001"),
    (0.00001, "1e-05", "0.00001", "0.00001", "1e-05"),
    (1e-6, "1e-06", "0.000001", "0.000001", "1e-06"),
    (1.5e-7, "1.5e-07", "0.00000015", "1.5e-07", "1.5e-07"),
    (1e100, "1e+100", "1" + "0" * 100, "1e+100", "1e+100"),
    (5e-324, "5e-324", "0." + "0" * 323 + "5", "5e-324", "5e-324"),
    (float("inf"), "+Inf", "+Inf", "+Inf", "+Inf"),
    (float("-inf"), "-Inf", "-Inf", "-Inf", "-Inf"),
    (float("nan"), "NaN", "NaN", "NaN", "NaN"),
]


@pytest.mark.parametrize(("value", "g", "f", "api", "openmetrics"), FLOATS)
def test_float_has_the_text_of_each_place(value: float, g: str, f: str, api: str, openmetrics: str) -> None:
    texts = format_g(value), format_f(value), format_api(value), format_openmetrics(value)
    assert texts == (g, f, api, openmetrics)


STRINGS = [
    ("plain", '"plain"'),
    ('a"b\\c', '"a\\"b\\\\c"'),
    ("\n\t\r\a\b\f\v", '"\\n\\t\\r\\a\\b\\f\\v"'),
    ("\x00\x7f", '"\\x00\\x7f"'),
    ("é☺", '"é☺"'),
    ("\u200b", '"\\u200b"'),
    ("a\udcc5z", '"a\\xc5z"'),
]


@pytest.mark.parametrize(("text", "quoted"), STRINGS)
def test_strings_are_quoted_as_go_does_and_read_back(text: str, quoted: str) -> None:
    assert quote(text) == quoted
    assert unquote(quoted) == text
