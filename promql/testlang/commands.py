"""What a test file says, as values. Times are milliseconds."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from promql.seriesnotation import SeriesValue
from tsdb.labels import Labels


class TestFileError(Exception):
    """A test file that cannot be read; `line` is 1-based."""

    __test__ = False

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


class ExpectKind(enum.Enum):
    """Kinds of `expect` lines about the run of a query."""

    FAIL = "fail"
    WARN = "warn"
    NO_WARN = "no_warn"
    INFO = "info"
    NO_INFO = "no_info"
    ORDERED = "ordered"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A text to be met: exactly (`message`), or by a search (`pattern`); both None accept any."""

    message: str | None = None
    pattern: re.Pattern[str] | None = None

    def matches(self, text: str) -> bool:
        """Whether an error or annotation meets it."""
        if self.message is not None:
            return text == self.message
        return self.pattern is None or self.pattern.search(text) is not None

    def __str__(self) -> str:
        if self.message is not None:
            return f"message {self.message!r}"
        return "anything" if self.pattern is None else f"pattern {self.pattern.pattern!r}"


@dataclass(frozen=True, slots=True)
class LoadedSeries:
    """One `load` line; `starts_ms` are signed offsets of start timestamps from the sample times, None where
    none was given."""

    labels: Labels
    values: tuple[SeriesValue, ...]
    starts_ms: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Clear:
    """Empty the store."""

    line: int


@dataclass(frozen=True, slots=True)
class Load:
    """Add series whose values are `step_ms` apart, from time 0."""

    line: int
    step_ms: int
    series: tuple[LoadedSeries, ...]
    with_nhcb: bool = False


@dataclass(frozen=True, slots=True)
class ExpectedSeries:
    """One expected row; `position` counts from 1 in the order of the file."""

    labels: Labels
    values: tuple[SeriesValue, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Eval:
    """One query and what must come of it.

    `start_ms`, `end_ms`, `step_ms` are the range of a range query, or of the points that an instant query of
    a range vector must return (`expects_range_vector`). `at_ms` is the time of an instant query.
    """

    line: int
    text: str
    is_range: bool
    at_ms: int = 0
    start_ms: int = 0
    end_ms: int = 0
    step_ms: int = 0
    expectations: dict[ExpectKind, list[Expectation]] = field(default_factory=dict)
    series: tuple[ExpectedSeries, ...] = ()
    scalar: float | None = None
    string: str | None = None
    expects_range_vector: bool = False

    @property
    def must_fail(self) -> bool:
        """Whether the query must end in an error."""
        return ExpectKind.FAIL in self.expectations

    @property
    def ordered(self) -> bool:
        """Whether rows must come in the order of the file."""
        return ExpectKind.ORDERED in self.expectations


Command = Clear | Load | Eval
