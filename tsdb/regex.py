"""Regular expressions of matchers with RE2 semantics: linear time, fully anchored, dot matches newline."""

from __future__ import annotations

from functools import lru_cache

import re2


class Regex:
    """A compiled, anchored expression."""

    def __init__(self, pattern: str) -> None:
        """Raises re2.error for a pattern RE2 refuses."""
        self.pattern = pattern
        self._full = re2.compile(f"(?s:{pattern})")

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        return self._full.fullmatch(value) is not None


@lru_cache(maxsize=4096)
def compile_regex(pattern: str) -> Regex:
    """The compiled expression of a pattern, cached."""
    return Regex(pattern)
