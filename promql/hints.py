"""Help with typical mistakes: a caret under the place, and a named hint what to write instead.

The API's error texts stay Prometheus's; hints are for the command line, the UI and logs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from promql.errors import ParseError, line_and_column
from promql.functions import AGGREGATORS, FUNCTIONS

LINE_COLUMNS_MAX = 100
"""A longer line is cut around the place."""

_NAME_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Hint:
    """`name` is stable, for documentation and tests; `text` is one sentence."""

    name: str
    text: str


_Texts = Callable[[re.Match[str], ParseError], str]


def _did_you_mean(match: re.Match[str], error: ParseError) -> str:
    name = match[1][:_NAME_CHARS_MAX]
    lowered = name.lower()
    known = [*FUNCTIONS, *AGGREGATORS]
    if lowered in known:
        return f"function names are written in lower case: {lowered}"
    close = difflib.get_close_matches(lowered, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else "the list of functions is in the documentation"


def _operator_word(match: re.Match[str], error: ParseError) -> str:
    words = {"&": "and", "|": "or"}
    return f'write "{words[match[1]]}" instead'


def _range_call(match: re.Match[str], error: ParseError) -> str:
    function = match[1]
    return f"{function} needs samples over time: add a range, as in {function}(metric[5m])"


_RULES: tuple[tuple[str, str, str | _Texts], ...] = (
    (
        r"^no offset modifiers allowed before range",
        "range-before-offset",
        "the range selector stands before the offset: metric[5m] offset 1h",
    ),
    (
        r"^no @ modifiers allowed before range",
        "range-before-at",
        "the range selector stands before the @ modifier: metric[5m] @ end()",
    ),
    (
        r"^ranges only allowed for vector selectors",
        "range-of-expression",
        "only a plain selector takes [5m]; over an expression write a subquery with a colon: (...)[5m:]",
    ),
    (
        r'^expected type range vector in call to function "(\w+)", got instant vector',
        "missing-range",
        _range_call,
    ),
    (
        r"^expected type instant vector in .*, got range vector",
        "unexpected-range",
        "a range vector must first go through a function such as rate() or avg_over_time(), or drop the [..]",
    ),
    (
        r"^expected type (?:instant|range) vector in .*, got scalar",
        "scalar-for-vector",
        "a number becomes an instant vector with vector(...)",
    ),
    (
        r"^binary expression must contain only scalar and instant vector types",
        "operator-on-range",
        "operators do not work on range vectors: apply rate() or another function to each side first",
    ),
    (r"^unknown function with name \"(.*)\"", "unknown-function", _did_you_mean),
    (
        r"is not enabled$|is experimental and must be enabled|experimental and not enabled",
        "feature-flag",
        "this part of the language needs --enable-feature on the server",
    ),
    (r"^unclosed left parenthesis", "missing-parenthesis", 'a ")" is missing'),
    (r"^unexpected right parenthesis", "extra-parenthesis", 'there is a ")" without its "("'),
    (
        r"^unclosed left bracket|^unexpected end of input in duration",
        "missing-bracket",
        'a "]" is missing',
    ),
    (r"^unexpected end of input inside braces", "missing-brace", 'a "}" is missing'),
    (
        r"^unterminated (?:quoted|raw) string",
        "missing-quote",
        "the string has no closing quote",
    ),
    (
        r"^comparisons between scalars must use BOOL",
        "scalar-comparison",
        "between two numbers write the comparison with bool: 1 > bool 2",
    ),
    (
        r"^unexpected <group_(?:left|right)>",
        "group-without-on",
        "group_left and group_right stand after on(...) or ignoring(...)",
    ),
    (
        r"^unexpected (?:identifier|number|<).* in label matching, expected string",
        "unquoted-label-value",
        'label values are quoted: {job="api"}',
    ),
    (
        r'^unexpected "="$',
        "single-equals",
        'to compare write "==", to select labels write them in braces',
    ),
    (
        r"^unexpected character after '=': '~'",
        "regex-outside-braces",
        'regular expressions match labels: {job=~"a.*"}',
    ),
    (r"^unexpected character: '([&|])'", "operator-word", _operator_word),
    (
        r"'\$'",
        "unreplaced-variable",
        "a template variable such as $interval was not replaced before the query was sent",
    ),
    (
        r"^unexpected character: '\.'",
        "dotted-name",
        'names with dots are quoted inside braces: {"http.requests"}',
    ),
    (
        r"^bad number or duration syntax|not a valid duration string|^unknown unit",
        "duration-syntax",
        "a duration is digits and units from large to small: 1h30m; units are ms s m h d w y",
    ),
    (
        r"in subquery or range selector, expected|^duration must be greater than 0",
        "empty-range",
        "brackets need a duration greater than zero: [5m]",
    ),
    (r"^trailing commas not allowed", "trailing-comma", "remove the comma before the parenthesis"),
    (
        r"^vector selector must contain at least one non-empty matcher",
        "empty-selector",
        'name a metric or add a matcher that not every series satisfies, such as {job!=""}',
    ),
    (
        r"^set operator .* not allowed in binary scalar",
        "set-operator-on-scalar",
        "and, or and unless work on instant vectors; vector(1) makes one of a number",
    ),
    (
        r"^(?:vector matching|filling in missing series) only allowed between instant vectors",
        "matching-with-scalar",
        "on, ignoring and fill only make sense when both sides are instant vectors",
    ),
    (
        r"^wrong number of arguments for aggregate expression",
        "aggregation-arguments",
        "topk, bottomk, quantile, count_values, limitk, limit_ratio take a parameter first: topk(5, metric)",
    ),
    (r"^no expression found in input", "empty-query", "the query has no expression"),
    (
        r"^no grouping allowed for",
        "set-operator-with-group",
        "and, or and unless always match many to many: leave out group_left and group_right",
    ),
    (
        r"^bool modifier can only be used on comparison",
        "bool-without-comparison",
        "bool belongs to == != > < >= <=",
    ),
    (
        r"^subquery is only allowed on instant vector",
        "subquery-of-range",
        "a subquery evaluates an instant vector repeatedly: remove the inner [..]",
    ),
)

_COMPILED = tuple((re.compile(pattern), name, text) for pattern, name, text in _RULES)

HINT_NAMES: Mapping[str, str] = MappingProxyType({name: pattern for pattern, name, _ in _RULES})
"""All hints with the error texts they answer."""


def hint_for(error: ParseError) -> Hint | None:
    """The first hint that knows the mistake."""
    for pattern, name, text in _COMPILED:
        match = pattern.search(error.message)
        if match is not None:
            return Hint(name, text if isinstance(text, str) else text(match, error))
    return None


def caret_lines(query: str, offset: int) -> str:
    """The line of the query at a byte offset, and a caret under the place. Long lines are cut."""
    source = query.encode("utf-8", "surrogateescape")
    line_number, column = line_and_column(query, min(offset, len(source)))
    lines = source.split(b"\n")
    line = lines[line_number - 1]
    before = line[: column - 1].decode("utf-8", "replace")
    text = before + line[column - 1 :].decode("utf-8", "replace")
    at = len(before)
    start = max(0, min(at - LINE_COLUMNS_MAX // 2, len(text) - LINE_COLUMNS_MAX))
    shown = text[start : start + LINE_COLUMNS_MAX].replace("\t", " ")
    return f"{shown}\n{' ' * (at - start)}^"


def explain(error: ParseError) -> str:
    """The error, the line with a caret, and the hint if there is one."""
    hint = hint_for(error)
    tail = "" if hint is None else f"\nhint ({hint.name}): {hint.text}"
    return f"{error}\n{caret_lines(error.query, error.pos.start)}{tail}"
