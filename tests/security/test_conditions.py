"""The condition language: trees, precedence, quoting, and Falco's words for what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.rules.ast import OPERATORS, render
from security.rules.condition import ConditionError, parse_condition
from tests.security.randomrules import conditions

TREES = [
    ("evt.type=execve", "evt.type = execve"),
    ("a and b or not c", "((a and b) or not c)"),
    ("a or b and c or d", "(a or (b and c) or d)"),
    ("not not a", "a"),
    ("not not not a", "not a"),
    ("not(a or b)and(c)", "(not (a or b) and c)"),
    # Keywords are names where no keyword can stand.
    ("or or and", "(or or and)"),
    ("not", "not"),
    ("order and nothing", "(order and nothing)"),
    ("fd.num<=3", "fd.num <= 3"),
    ("fd.num < -3", "fd.num < -3"),
    ("proc.name in(a, 'b c')", 'proc.name in (a, "b c")'),
    ("proc.name in ()", "proc.name in ()"),
    ("proc.name intersects names", "proc.name intersects (names)"),
    ("proc.aname[2] != sh", "proc.aname[2] != sh"),
    ("jevt.value[/a/b~1c] exists", "jevt.value[/a/b~1c] exists"),
    ("evt.arg['a b'] = x", 'evt.arg["a b"] = x'),
    ("fd.name startswith /etc/a.b-c", "fd.name startswith /etc/a.b-c"),
    ("fd.name contains anyof (a, b)", "fd.name contains anyof (a, b)"),
    ("fd.name = val(proc.exe)", "fd.name = val(proc.exe)"),
    ("toupper(b64(proc.name)) = X", "toupper(b64(proc.name)) = X"),
    ('join(",", (proc.name, evt.type)) = x', 'join(",", (proc.name, evt.type)) = x'),
    ('getopt(proc.args, "ab:")[b] = x', 'getopt(proc.args, "ab:")[b] = x'),
    ("proc.name = concat(fd.name, 'x')", 'proc.name = concat(fd.name, "x")'),
    ("evt.dir=< and a", "(evt.dir = < and a)"),
    ("a\n  and\tb", "(a and b)"),
    (r"""proc.args contains "a\"b\\\x41\/" """, r"""proc.args contains "a\"b\\A/" """.strip()),
    (r"""proc.args endswith '\ ' """, r"""proc.args endswith "\\" """.strip()),
]


@pytest.mark.parametrize(("text", "expected"), TREES)
def test_conditions_become_trees(text: str, expected: str) -> None:
    assert render(parse_condition(text)) == expected


_VALUES = "'val', 'tolower', 'toupper', 'b64', 'basename', 'len', 'join', 'concat', 'getopt'"
_OPERATORS = ", ".join(f"'{name}'" for name in OPERATORS)
ERRORS = [
    ("", 0, "filter input string is empty"),
    ("evt.type=execve foo", 16, "unexpected token after 'execve', expecting 'or', 'and'"),
    ("a not b", 2, "unexpected token after 'a', expecting 'or', 'and'"),
    ("a)", 1, "unexpected token after 'a', expecting 'or', 'and'"),
    ("a and", 2, "expected blank or '(' after 'and'"),
    ("a orb", 2, "expected blank or '(' after 'or'"),
    ("a and ", 6, "expected a '(' token, a field check, or an identifier"),
    ("= a", 0, "expected a '(' token, a field check, or an identifier"),
    ("(a", 2, "expected a ')' token"),
    ("(a b)", 3, "expected a ')' token"),
    ("evt.type", 8, f"expected a valid check operator: one of {_OPERATORS}"),
    ("evt.type like x", 9, f"expected a valid check operator: one of {_OPERATORS}"),
    ("proc.aname[", 10, "expected a valid field argument: a quoted string or a bare string"),
    ("evt.num > x", 10, f"expected a number value or a field with a valid transformer: {_VALUES}"),
    ("evt.type = ,", 11, f"expected a string value or a field with a valid transformer: {_VALUES}"),
    ("evt.type = 'x", 11, f"expected a string value or a field with a valid transformer: {_VALUES}"),
    ("evt.type in", 11, f"expected a list, an identifier, or a field with a valid transformer: {_VALUES}"),
    ("evt.type in (a b)", 15, "expected a ')' token"),
    ("evt.type in (a,", 15, "expected a string value"),
    ("tolower(=) = x", 8, f"expected a field or a nested valid transformer: {_VALUES}"),
    ("tolower(proc.name = x", 18, "expected a ')' token closing the transformer"),
    ("fd.name = val(x)", 14, "expected a field within 'val' transformer"),
    (r"proc.args = 'a\q'", 12, r"unknown escape in string: 'a\q'"),
    (r"proc.args = 'a\x00'", 12, "string contains a NUL byte, which is not supported"),
    ("(" * 201 + "a" + ")" * 201, 200, "exceeded max depth limit of 1000"),
]


@pytest.mark.parametrize(("text", "offset", "message"), ERRORS)
def test_errors_have_the_words_of_falco_and_the_place(text: str, offset: int, message: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse_condition(text)
    assert (caught.value.message, caught.value.offset) == (message, offset)


@settings(max_examples=200, deadline=None)
@given(conditions)
def test_printed_tree_parses_to_the_same_tree(text: str) -> None:
    printed = render(parse_condition(text))
    assert render(parse_condition(printed)) == printed


_WORDS = st.sampled_from(
    (
        *(
            "and",
            "or",
            "not",
            "(",
            ")",
            "evt.type",
            "proc.aname[1]",
            "=",
            "in",
            "exists",
            "'a",
            '"b"',
            "\\",
            "val(",
        ),
        *("tolower(", ",", "anyof", " ", "\n", "x", "0x1f", "[", "]", "é", "\0", "<", "startswith ", "not("),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_WORDS, max_size=30).map(" ".join) | st.text(max_size=40))
def test_any_text_is_a_tree_or_an_error_with_a_place(text: str) -> None:
    try:
        parse_condition(text)
        place, message = 0, "none"
    except ConditionError as error:
        place, message = error.offset, error.message
    assert 0 <= place <= len(text)
    assert message
