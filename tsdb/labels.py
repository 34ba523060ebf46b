"""Labels and label matchers.

A label set is a sorted tuple of (name, value) pairs without empty values; an absent label equals an empty
one. Order is bytewise by name, then value, which for UTF-8 is the order of Python's strings.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tsdb.errors import InvalidLabelsError

METRIC_NAME = "__name__"
TYPE_LABEL = "__type__"
UNIT_LABEL = "__unit__"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Labels:
    """An immutable label set. Hashable, ordered label by label, shorter prefix first."""

    __slots__ = ("pairs",)
    pairs: tuple[tuple[str, str], ...]

    def __init__(self, pairs: tuple[tuple[str, str], ...] = ()) -> None:
        """`pairs` must be sorted by name, without duplicate names and empty values; see `from_pairs`."""
        self.pairs = pairs

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> Labels:
        """Sort, drop empty values, and refuse a repeated name with InvalidLabelsError."""
        ordered = sorted(pairs)
        for (left, _), (right, _) in itertools.pairwise(ordered):
            if left == right:
                raise InvalidLabelsError(f'label name "{left}" is not unique')
        return cls(tuple(pair for pair in ordered if pair[1]))

    @classmethod
    def from_dict(cls, mapping: Mapping[str, str]) -> Labels:
        """Labels of a mapping; empty values are dropped."""
        return cls(tuple(sorted((n, v) for n, v in mapping.items() if v)))

    def get(self, name: str, default: str = "") -> str:
        """Value of a label, `default` where absent."""
        for label, value in self.pairs:
            if label == name:
                return value
        return default

    def to_dict(self) -> dict[str, str]:
        """A new dict in label order."""
        return dict(self.pairs)

    def without(self, *names: str) -> Labels:
        """The set less the given names."""
        return Labels(tuple(p for p in self.pairs if p[0] not in names))

    def with_label(self, name: str, value: str) -> Labels:
        """The set with one label set, or removed where the value is empty."""
        changed = dict(self.pairs)
        changed[name] = value
        return Labels.from_dict(changed)

    @property
    def metric_name(self) -> str:
        """The value of `__name__`, or the empty string."""
        return self.get(METRIC_NAME)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and self.pairs == other.pairs

    def __lt__(self, other: Labels) -> bool:
        return self.pairs < other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __str__(self) -> str:
        """`name{a="b"}` as Prometheus prints a metric; `{}` for the empty set."""
        name = self.metric_name
        inner = ", ".join(f'{n}="{v.translate(_ESCAPES)}"' for n, v in self.pairs if n != METRIC_NAME)
        return f"{name}{{{inner}}}" if inner or not name else name

    __repr__ = __str__


class MatchType(enum.IntEnum):
    """Kinds of label matchers; the numbers are those of remote read."""

    EQUAL = 0
    NOT_EQUAL = 1
    REGEXP = 2
    NOT_REGEXP = 3

    @property
    def symbol(self) -> str:
        """The operator in a selector."""
        return ("=", "!=", "=~", "!~")[self]


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a selector. Regular expressions are RE2, fully anchored, and dot matches newline."""

    type: MatchType
    name: str
    value: str

    def matches(self, value: str) -> bool:
        """Whether a label value (the empty string for an absent label) satisfies the matcher."""
        if self.type is MatchType.EQUAL:
            return value == self.value
        if self.type is MatchType.NOT_EQUAL:
            return value != self.value
        from tsdb.regex import compile_regex

        return compile_regex(self.value).matches(value) == (self.type is MatchType.REGEXP)

    @property
    def matches_empty(self) -> bool:
        """Whether series without the label satisfy the matcher."""
        return self.matches("")

    def __str__(self) -> str:
        return f'{self.name}{self.type.symbol}"{self.value.translate(_ESCAPES)}"'
