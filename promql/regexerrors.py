"""What is wrong with a regular expression, in the words of Go's regexp package."""

from __future__ import annotations

import re

_PREFIX = "error parsing regexp: "

_REPETITION = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??"
_REPEATED = re.compile(f"{_REPETITION}{_REPETITION}")
_ONE_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
"""RE2's escape for a single byte, which Go does not have."""

# RE2's words, Go's words, and whether Go shows the whole expression or the part RE2 names.
_TEXTS = (
    ("missing ): ", "missing closing )", True),
    ("unexpected ): ", "unexpected )", True),
    ("missing ]: ", "missing closing ]", False),
    ("invalid escape sequence: ", "invalid escape sequence", False),
    ("invalid character class range: ", "invalid character class range", False),
    ("invalid character class: ", "invalid character class range", False),
    ("no argument for repetition operator: ", "missing argument to repetition operator", False),
    ("invalid repetition size: ", "invalid repeat count", False),
    ("bad repetition operator: ", "invalid nested repetition operator", False),
    ("invalid perl operator: ", "invalid or unsupported Perl syntax", False),
    ("invalid named capture group: ", "invalid named capture", False),
    ("invalid UTF-8", "invalid UTF-8", True),
)


def regex_error(pattern: str) -> str | None:
    """Prometheus's error text for a pattern that does not compile, None for one that does."""
    if not any(char in "\\[](){}*+?|^$." for char in pattern):
        return None
    if _ONE_BYTE.search(pattern):
        return _PREFIX + "invalid escape sequence: `\\C`"
    from tsdb.regex import InvalidRegexError, compile_regex

    try:
        compile_regex(pattern)
    except InvalidRegexError as error:
        return _PREFIX + _go_text(pattern, str(error))
    return None


def _go_text(pattern: str, fallback: str) -> str:
    """The same mistake as Go describes it: RE2's description of the bare pattern, translated."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        re2.compile(pattern, options)
    except UnicodeError:
        return f"invalid UTF-8: `{pattern}`"
    except re2.error as error:
        detail = error.args[0]
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        for theirs, ours, whole in _TEXTS:
            if text.startswith(theirs):
                shown = pattern if whole else _part(pattern, text[len(theirs) :])
                return f"{ours}: `{shown}`"
        if text.startswith("trailing \\"):
            return "trailing backslash at end of expression: ``"
        return text
    return fallback


def _part(pattern: str, named: str) -> str:
    """The part of the pattern that Go shows; RE2 names the same but for runs of repetitions, which Go shows
    with their non-greedy marks."""
    if named and named[0] in "*+?{":
        run = _REPEATED.search(pattern)
        if run is not None:
            return run[0]
    return named if named else pattern
