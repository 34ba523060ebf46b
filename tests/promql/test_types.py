"""Types of expressions and the order of their checks."""

from __future__ import annotations

import pytest

from promql.ast import ValueType
from promql.parser import ParseError, ParserOptions, parse
from promql.types import api_type, type_of

ALL = ParserOptions.everything()

TYPES = [
    ("1", ValueType.SCALAR),
    ("5m", ValueType.SCALAR),
    ('"a"', ValueType.STRING),
    ("up", ValueType.VECTOR),
    ("up[5m]", ValueType.MATRIX),
    ("up[5m:1m]", ValueType.MATRIX),
    ("sum(up)", ValueType.VECTOR),
    ("time()", ValueType.SCALAR),
    ("scalar(up)", ValueType.SCALAR),
    ("vector(1)", ValueType.VECTOR),
    ("-(1)", ValueType.SCALAR),
    ("-(up)", ValueType.VECTOR),
    ("1 + 2", ValueType.SCALAR),
    ("1 + up", ValueType.VECTOR),
    ("up + 1", ValueType.VECTOR),
    ("1 + 1 + up + 1", ValueType.VECTOR),
    ("(up) or (up)", ValueType.VECTOR),
    ("min_of(1, step())", ValueType.SCALAR),
]


@pytest.mark.parametrize(("query", "value_type"), TYPES)
def test_expression_has_the_type_of_its_value(query: str, value_type: ValueType) -> None:
    assert type_of(parse(query, ALL)) is value_type


def test_types_have_the_names_of_result_type() -> None:
    assert [api_type(t) for t in ValueType] == ["scalar", "vector", "matrix", "string", "none"]


def test_the_innermost_left_error_is_the_one_reported() -> None:
    with pytest.raises(ParseError, match=r"1:5: .*got range vector"):
        parse("sum(a[5m]) + rate(b)")


def test_syntax_errors_come_before_type_errors() -> None:
    with pytest.raises(ParseError, match="unclosed left parenthesis"):
        parse("rate(up) + (")


def test_an_unknown_function_is_reported_before_a_later_bad_character() -> None:
    with pytest.raises(ParseError, match="unknown function"):
        parse("nope(up) ;")


def test_matching_labels_on_a_scalar_are_refused_but_empty_ones_pass() -> None:
    parse("up + ignoring() 1")
    parse("up + on() 1")
    with pytest.raises(ParseError, match="vector matching only allowed between instant vectors"):
        parse("up + on(a) 1")
