"""From matchers to a set of series, the same way for the head and for blocks.

Matchers that only labelled series can satisfy include: the cheapest first, intersected until nothing is left.
Matchers that the empty value satisfies exclude: the values they refuse are taken away, so series without the
label stay, as in Prometheus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyroaring import BitMap

from tsdb.labels import Matcher, MatchType
from tsdb.regex import Regex, compile_regex


class PostingsSource(Protocol):
    """An inverted index. Returned bitmaps belong to the source: callers must not change them."""

    def all_refs(self) -> BitMap:
        """Every series."""
        ...

    def with_name(self, name: str) -> BitMap:
        """Series that have the label."""
        ...

    def with_value(self, name: str, value: str) -> BitMap:
        """Series with this value of the label."""
        ...

    def with_regex(self, name: str, regex: Regex, matching: bool) -> BitMap:
        """Series that have the label with a value that matches (or does not)."""
        ...

    def value_count(self, name: str) -> int:
        """Distinct values of the label."""
        ...


def resolve(source: PostingsSource, matchers: Sequence[Matcher]) -> BitMap:
    """Series that satisfy every matcher. The result may belong to the source: do not change it.

    Raises InvalidRegexError.
    """
    exact, broad, excluding = _sorted_by_kind(source, matchers)
    found: BitMap | None = None
    bitmaps = sorted((source.with_value(m.name, m.value) for m in exact), key=len)
    for bitmap in bitmaps:
        found = bitmap if found is None else found & bitmap
        if not found:
            return BitMap()
    for matcher in broad:
        bitmap = _included(source, matcher)
        found = bitmap if found is None else found & bitmap
        if not found:
            return BitMap()
    if found is None:
        found = source.all_refs()
    for matcher in excluding:
        if not found:
            break
        found = found - _excluded(source, matcher)
    return found


def _sorted_by_kind(
    source: PostingsSource, matchers: Sequence[Matcher]
) -> tuple[list[Matcher], list[Matcher], list[Matcher]]:
    """Equality on a value; other including matchers, few values first; excluding matchers."""
    exact: list[Matcher] = []
    broad: list[Matcher] = []
    excluding: list[Matcher] = []
    for matcher in matchers:
        if matcher.matches_empty:
            if not _matches_all(matcher):
                excluding.append(matcher)
        elif matcher.type is MatchType.EQUAL:
            exact.append(matcher)
        else:
            broad.append(matcher)
    broad.sort(key=lambda m: _literal_count(m) or source.value_count(m.name))
    return exact, broad, excluding


def _matches_all(matcher: Matcher) -> bool:
    return matcher.type is MatchType.REGEXP and compile_regex(matcher.value).matches_everything


def _literal_count(matcher: Matcher) -> int:
    if matcher.type is not MatchType.REGEXP:
        return 0
    return len(compile_regex(matcher.value).literals() or ())


def _included(source: PostingsSource, matcher: Matcher) -> BitMap:
    """Series with a value that satisfies a matcher which refuses the empty value."""
    if matcher.type is MatchType.NOT_EQUAL:
        return source.with_name(matcher.name)
    regex = compile_regex(matcher.value)
    if matcher.type is MatchType.REGEXP:
        if regex.matches_non_empty:
            return source.with_name(matcher.name)
        literals = regex.literals()
        if literals is not None:
            return BitMap.union(*(source.with_value(matcher.name, value) for value in literals))
        return source.with_regex(matcher.name, regex, True)
    if regex.matches_everything:
        return BitMap()
    if regex.literals() == ("",):
        return source.with_name(matcher.name)
    return source.with_regex(matcher.name, regex, False)


def _excluded(source: PostingsSource, matcher: Matcher) -> BitMap:
    """Series with a value that a matcher refuses which accepts the empty value."""
    if matcher.type is MatchType.EQUAL:
        return source.with_name(matcher.name)
    if matcher.type is MatchType.NOT_EQUAL:
        return source.with_value(matcher.name, matcher.value)
    regex = compile_regex(matcher.value)
    if matcher.type is MatchType.REGEXP:
        if regex.literals() == ("",):
            return source.with_name(matcher.name)
        return source.with_regex(matcher.name, regex, False)
    if regex.matches_non_empty:
        return source.with_name(matcher.name)
    literals = regex.literals()
    if literals is not None:
        return BitMap.union(*(source.with_value(matcher.name, value) for value in literals))
    return source.with_regex(matcher.name, regex, True)
