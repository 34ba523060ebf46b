"""What is asked of the event log, and whether one event answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from security.eventseries import METRIC
from security.record import EventRecord
from tsdb.labels import METRIC_NAME, Matcher

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000
TEXT_CHARS_LIMIT = 4096
TIME_MAX_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Newest events first, at most `limit`, with times in [start_ns, end_ns].

    An event must satisfy every matcher of one of the sets (any event does when there is none) and hold each
    word of `text`, whatever the case, in its rule, message, or a field that is text.
    """

    matcher_sets: Sequence[Sequence[Matcher]] = ()
    start_ns: int = 0
    end_ns: int = TIME_MAX_NS
    text: str = ""
    limit: int = LIMIT_DEFAULT

    @property
    def words(self) -> list[str]:
        """The words of `text` in small letters."""
        return self.text.lower().split()

    def accepts(self, record: EventRecord) -> bool:
        """Whether the event is wanted, whatever the limit."""
        return (
            self.start_ns <= record.output.time_ns <= self.end_ns
            and self.accepts_labels(record.labels)
            and has_words(record, self.words)
        )

    def accepts_labels(self, labels: Sequence[tuple[str, str]]) -> bool:
        """Whether a label set satisfies one of the matcher sets."""
        if not self.matcher_sets:
            return True
        values = {**dict(labels), METRIC_NAME: METRIC}
        return any(
            all(matcher.matches(values.get(matcher.name, "")) for matcher in matchers)
            for matchers in self.matcher_sets
        )


def has_words(record: EventRecord, words: Sequence[str]) -> bool:
    """Whether each word is somewhere in the event's text."""
    if not words:
        return True
    text = search_text(record)
    return all(word in text for word in words)


def search_text(record: EventRecord) -> str:
    """What text searches look at, in small letters, a value a line."""
    output = record.output
    parts = [output.rule, output.message]
    for value in output.fields.values():
        parts += _texts(value)
    return "\n".join(parts).lower()


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []
