"""Regular expressions of matchers with RE2 semantics: linear time, fully anchored, dot matches newline.

A pattern is classified once (`tsdb.regexclass`); literals, sets, prefixes, suffixes and "contains" are then
answered without the regular expression engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2

from tsdb.regexclass import Language, classify

PATTERN_BYTES_LIMIT = 1 << 20
_CACHE_LIMIT = 4096


class InvalidRegexError(ValueError):
    """A pattern that RE2 refuses; the text gives RE2's reason and the pattern."""


class Regex:
    """A compiled, anchored expression. Immutable; any thread may use it."""

    __slots__ = ("_engine", "_exact", "_globs", "_literal_set", "_suffix", "literal_set", "pattern", "prefix")

    def __init__(self, pattern: str) -> None:
        """Raises InvalidRegexError for a pattern that RE2 refuses or that is over PATTERN_BYTES_LIMIT."""
        if len(pattern) > PATTERN_BYTES_LIMIT:
            raise InvalidRegexError(
                f"regular expression of {len(pattern)} characters is longer than {PATTERN_BYTES_LIMIT}"
            )
        self.pattern = pattern
        self._engine: Any = _compile(pattern)
        self._globs: Language | None = classify(pattern)
        globs = self._globs or ()
        self._exact = bool(globs) and all(glob.exact for glob in globs)
        finite = self._exact and all(not glob.gaps for glob in globs)
        self.literal_set: tuple[str, ...] | None = (
            tuple(dict.fromkeys(glob.literals[0] for glob in globs)) if finite else None
        )
        self._literal_set = frozenset(self.literal_set or ())
        self.prefix: str = _common_prefix([glob.literals[0] for glob in globs])
        """Every match begins with this text, which may be empty."""
        self._suffix: str = _common_prefix([glob.literals[-1][::-1] for glob in globs])[::-1]

    def literals(self) -> tuple[str, ...] | None:
        """All texts that match, where these are few (at most 256); otherwise None."""
        return self.literal_set

    @property
    def matches_everything(self) -> bool:
        """Whether any text matches, the empty one too."""
        return self._exact and any(g.literals == ("", "") and g.gaps == (0,) for g in self._globs or ())

    @property
    def matches_non_empty(self) -> bool:
        """Whether every text but the empty one matches."""
        return (
            self._exact
            and any(g.literals == ("", "") and g.gaps in ((0,), (1,)) for g in self._globs or ())
            and not self.matches_everything
            and not self.matches("")
        )

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        if self.literal_set is not None:
            return value in self._literal_set
        if self._exact and self._globs is not None:
            return any(glob.matches(value) for glob in self._globs)
        if not value.startswith(self.prefix) or not value.endswith(self._suffix):
            return False
        return self._engine.fullmatch(value.encode("utf-8", "surrogatepass")) is not None

    def matching(self, values: Sequence[str]) -> list[int]:
        """Indices of the values that match, ascending."""
        if self.literal_set is not None:
            wanted = self._literal_set
            return [i for i, value in enumerate(values) if value in wanted]
        if self.matches_everything:
            return list(range(len(values)))
        if self._exact and self._globs is not None and len(self._globs) == 1:
            glob = self._globs[0].matches
            return [i for i, value in enumerate(values) if glob(value)]
        matches = self.matches
        return [i for i, value in enumerate(values) if matches(value)]

    def fullmatch(self, value: str) -> Any:
        """RE2's match object over the whole value, or None; for the groups of relabelling and
        label_replace."""
        return self._engine.fullmatch(value)

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"


def _common_prefix(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    low, high = min(texts), max(texts)
    size = next((i for i, char in enumerate(low) if char != high[i]), len(low))
    return low[:size]


def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeError) as error:
        reason = error.args[0] if error.args and isinstance(error, re2.error) else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidRegexError(f"error parsing regexp: {text}: `{pattern}`") from None


@lru_cache(maxsize=_CACHE_LIMIT)
def compile_regex(pattern: str) -> Regex:
    """The compiled expression of a pattern, cached. Raises InvalidRegexError."""
    return Regex(pattern)
