"""Slow twin of the event log: a list of events and a plain filter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from security.record import EventRecord
from tsdb.labels import Matcher, MatchType


def satisfies(record: EventRecord, matcher: Matcher) -> bool:
    value = {**dict(record.labels), "__name__": "vedette_security_events_total"}.get(matcher.name, "")
    if matcher.type in (MatchType.EQUAL, MatchType.NOT_EQUAL):
        return (value == matcher.value) == (matcher.type is MatchType.EQUAL)
    found = re.fullmatch(matcher.value, value, re.DOTALL) is not None
    return found == (matcher.type is MatchType.REGEXP)


def holds(record: EventRecord, word: str) -> bool:
    values = [record.output.rule, record.output.message]
    for value in record.output.fields.values():
        values += value if isinstance(value, list) else [value]
    return any(word.lower() in value.lower() for value in values if isinstance(value, str))


def select(
    arrived: Sequence[EventRecord],
    matcher_sets: Sequence[Sequence[Matcher]],
    start_ns: int,
    end_ns: int,
    text: str,
    limit: int,
) -> list[EventRecord]:
    """Wanted events, newest first; of one time the last to arrive first."""
    wanted = [
        (record.output.time_ns, at)
        for at, record in enumerate(arrived)
        if start_ns <= record.output.time_ns <= end_ns
        and (not matcher_sets or any(all(satisfies(record, m) for m in ms) for ms in matcher_sets))
        and all(holds(record, word) for word in text.split())
    ]
    return [arrived[at] for _, at in sorted(wanted, reverse=True)[:limit]]
