"""Parse a condition into a tree, with Falco's words for what is wrong (security-surface.md 2.1, 2.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from typing import Any

from security.rules.ast import (
    OPERATORS,
    TRANSFORMERS,
    Field,
    Node,
)

CONDITION_CHARS_LIMIT = 1 << 20
DEPTH_LIMIT = 1000
# A pair of parentheses costs five levels of Falco's recursive parser.
_LEVELS_PER_GROUP = 5
_NESTING_LIMIT = DEPTH_LIMIT // _LEVELS_PER_GROUP
_WITH_VAL = ", ".join(f"'{name}'" for name in ("val", *TRANSFORMERS))
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_PLAIN_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\\": "\\", "/": "/", " ": "\\"}


class ConditionError(Exception):
    """A condition is wrong at `offset`, in Falco's words."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def parse_condition(text: str) -> Node:
    """The tree of a condition. Raises ConditionError with the offset of the fault."""
    if not text:
        raise ConditionError("filter input string is empty")
    if len(text) > CONDITION_CHARS_LIMIT:
        raise ConditionError(f"condition of {len(text)} characters is longer than {CONDITION_CHARS_LIMIT}")
    _check_nesting(text)
    from lark.exceptions import UnexpectedInput, VisitError

    try:
        return _parser().parse(text)  # type: ignore[no-any-return]
    except VisitError as error:
        if isinstance(error.orig_exc, ConditionError):
            raise error.orig_exc from None
        raise
    except UnexpectedInput as error:
        raise _translate(error, text) from None


@lru_cache(maxsize=1)
def _parser() -> Any:
    from lark import Lark

    from security.rules.conditionbuilder import Builder

    grammar = resources.files("security.rules").joinpath("condition.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=Builder(), maybe_placeholders=False)


# A string that does not end runs to the end of the text, so that the search stays linear.
_GROUPS = re.compile(r""""(?:[^"]|(?<=\\)")*(?:(?<!\\)"|\Z)|'(?:[^']|(?<=\\)')*(?:(?<!\\)'|\Z)|[()]""")


def _check_nesting(text: str) -> None:
    depth = 0
    for match in _GROUPS.finditer(text):
        token = match.group()
        depth += (token == "(") - (token == ")")
        if depth > _NESTING_LIMIT:
            raise ConditionError(f"exceeded max depth limit of {DEPTH_LIMIT}", match.start())


def unescape(quoted: str, offset: int = 0) -> str:
    """The text of a quoted string, delimiters included. Raises ConditionError for an unknown escape."""
    delimiter = quoted[0]

    def plain(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] == "x" and len(code) == 3:
            return chr(int(code[1:], 16))
        if code == delimiter:
            return code
        if code not in _PLAIN_ESCAPES:
            raise ConditionError(f"unknown escape in string: {quoted}", offset)
        return _PLAIN_ESCAPES[code]

    value = quoted[1:-1]
    if "\\" in value:
        value = _ESCAPE.sub(plain, value)
    if "\0" in value:
        raise ConditionError("string contains a NUL byte, which is not supported", offset)
    return value


def split_field(token: str, offset: int = 0) -> Field:
    """A field token with its argument, e.g. `proc.aname[2]` or `jevt.value["/a b"]`."""
    if not token.endswith("]"):
        return Field(token, None, offset)
    name, _, tail = token.partition("[")
    argument = tail[:-1]
    if argument[:1] in "\"'":
        argument = unescape(argument, offset)
    return Field(name, argument, offset)


def _translate(error: Any, text: str) -> ConditionError:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    expected: set[str] = set()
    at: int | None = None
    if isinstance(error, UnexpectedCharacters):
        at, expected = error.pos_in_stream, set(error.allowed or ())
    elif isinstance(error, UnexpectedToken):
        at = error.token.start_pos if error.token.type != "$END" else None
        expected = set(error.accepts or error.expected or ())
    history = getattr(error, "token_history", None)
    offset = len(text) if at is None else at
    before = re.findall(r"[^\s()\"'=,]+|\S", text[:offset]) if not history else [str(history[-1])]
    last = before[-1] if before else ""
    return ConditionError(_words(expected, last.strip(" \t\b\r\n"), text, offset), offset)


def _words(expected: set[str], last: str, text: str, offset: int) -> str:
    operators = ", ".join(f"'{name}'" for name in OPERATORS)
    # The keyword is there, but the lexer refused it for want of a blank or a parenthesis after it.
    keyword = re.match(r"and|or", text[offset : offset + 3])
    if keyword and keyword.group().upper() in expected:
        return f"expected blank or '(' after '{keyword.group()}'"
    if "EXISTS" in expected:
        if text[offset : offset + 1] == "[":
            return "expected a valid field argument: a quoted string or a bare string"
        return f"expected a valid check operator: one of {operators}"
    if "NOT" in expected or {"NAME", "FIELD", "LPAR"} <= expected:
        return "expected a '(' token, a field check, or an identifier"
    if "NUMBER" in expected and "VAL" in expected:
        return f"expected a number value or a field with a valid transformer: {_WITH_VAL}"
    if "VAL" in expected and ("BARE" in expected or "MODIFIER" in expected):
        return f"expected a string value or a field with a valid transformer: {_WITH_VAL}"
    if "VAL" in expected:
        return f"expected a list, an identifier, or a field with a valid transformer: {_WITH_VAL}"
    if "FUNCTION" in expected:
        return f"expected a field or a nested valid transformer: {_WITH_VAL}"
    if "RPAR_ARGUMENT" in expected:
        return "expected a ')' token closing the transformer"
    if expected == {"FIELD"}:
        return "expected a field within 'val' transformer"
    if "RPAR" in expected:
        return "expected a ')' token"
    if "BARE" in expected:
        return "expected a string value"
    return f"unexpected token after '{last}', expecting 'or', 'and'"
