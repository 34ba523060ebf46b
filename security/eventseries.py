"""Security events as series: `vedette_security_events_total`, a counter for each bounded label set.

A counter looks as though it had been scraped every INTERVAL_MS: it is repeated while it lives, begins with
zeros before its first event, and ends with a stale marker IDLE_MS after its last one. An event raises it at
the event's own time, with the old value one millisecond before, so that every window that holds the moment
shows the step.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from security.record import EventRecord
from tsdb.columns import Appender, AppendResult, Metadata, Rejected, SampleColumns, WriteBatch
from tsdb.errors import InvalidLabelsError, LimitError
from tsdb.labels import METRIC_NAME, Labels, Matcher, MatchType
from tsdb.select import STALE_BITS, Querier

log = logging.getLogger("security")

METRIC = "vedette_security_events_total"
HELP = "Security events by the rule that found them and by where they happened."
SERIES_LIMIT = 10_000
"""Label sets alive at a time; further ones are counted by rule, priority, source and host only."""
OVERFLOW_LIMIT = 2_000
"""Label sets of the overflow; beyond them all events are one series."""
OVERFLOW = ("overflow", "true")
INTERVAL_MS = 15_000
ZEROS_MS = 300_000
"""How long before its first event a counter stands at zero: the usual window of rate()."""
IDLE_MS = 3_600_000
LAG_MS = {"syscall": 5_000, "k8s_audit": 45_000, "aws_cloudtrail": 900_000}
"""How late events of a source come: a counter is not repeated nearer to the present, because an event must
not be older than its counter's newest sample. API servers hold audit events 30 s, CloudTrail 15 minutes."""
LAG_DEFAULT_MS = 60_000

_STALE_VALUE = -1
_KEPT_IN_OVERFLOW = ("hostname", "priority", "rule", "source")
Key = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Series:
    """One living counter. `seen_ms` is the clock at its last event."""

    ref: int
    lag_ms: int
    value: int = 0
    last_t_ms: int = 0
    seen_ms: int = 0


class _Rows:
    """Samples of one append. `events` is how many events a sample stands for; _STALE_VALUE marks the end."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.t_ms: list[int] = []
        self.values: list[int] = []
        self.events: list[int] = []

    def add(self, key: Key, t_ms: int, value: int, events: int = 0) -> None:
        self.keys.append(key)
        self.t_ms.append(t_ms)
        self.values.append(value)
        self.events.append(events)


class EventSeries:
    """The sink that counts. One thread."""

    name = "series"

    def __init__(
        self,
        appender: Appender,
        clock_ms: Callable[[], int],
        *,
        age_limit_ms: int = IDLE_MS,
        series_limit: int = SERIES_LIMIT,
    ) -> None:
        """`age_limit_ms` is how old an event may be to be counted: what the store takes."""
        self._appender, self._clock_ms = appender, clock_ms
        self._age_limit_ms, self._series_limit = age_limit_ms, series_limit
        self._series: dict[Key, _Series] = {}
        self._described = False
        self.overflow_count = 0
        """Events counted without their own labels."""
        self.moved_count = 0
        """Events that came after a later sample of their series and count one millisecond after it."""
        self.refused_count: Counter[str] = Counter()
        """Events that are not in the series, by reason: the store's, or `labels`."""

    @property
    def series_count(self) -> int:
        """Living counters."""
        return len(self._series)

    def resume(self, querier: Querier) -> None:
        """Go on with the counters of the last run, so that a restart is no reset."""
        now_ms = self._clock_ms()
        matcher = Matcher(MatchType.EQUAL, METRIC_NAME, METRIC)
        selection = querier.select((matcher,), now_ms - IDLE_MS, now_ms)
        samples = selection.read(0, len(selection.labels))
        bounds = samples.offsets.tolist()
        for row, labels in enumerate(selection.labels.rows()):
            lo, hi = bounds[row], bounds[row + 1]
            if lo == hi or samples.values[hi - 1 : hi].view(np.uint64)[0] == STALE_BITS:
                continue
            key = labels.without(METRIC_NAME).pairs
            series = self._new_series(key)
            if series is not None:
                series.value = int(samples.values[hi - 1])
                series.last_t_ms, series.seen_ms = int(samples.t_ms[hi - 1]), now_ms

    # Events.

    def write(self, records: Sequence[EventRecord]) -> Future[None] | None:
        """Count the events. Raises StorageError when the store takes nothing."""
        now_ms = self._clock_ms()
        rows = _Rows()
        before: dict[Key, tuple[int, int] | None] = {}
        by_key: dict[Key, list[int]] = {}
        oldest_ms = now_ms - self._age_limit_ms
        for record in records:
            if record.time_ms < oldest_ms:
                self.refused_count["too_old"] += 1
                continue
            key = self._key_of(record)
            if key not in before:
                series = self._series.get(key)
                before[key] = (series.value, series.last_t_ms) if series is not None else None
                if series is None:
                    self._new_series(key)
            by_key.setdefault(key, []).append(record.time_ms)
        for key, times in by_key.items():
            series = self._series.get(key)
            if series is None:
                self.refused_count["labels"] += len(times)
                continue
            series.seen_ms = now_ms
            self._count(rows, key, series, sorted(times))
        return self._store(rows, before)

    def _key_of(self, record: EventRecord) -> Key:
        """The labels the event is counted under: its own while there is room."""
        key = record.labels
        if key in self._series or len(self._series) < self._series_limit:
            return key
        self.overflow_count += 1
        short = tuple(sorted([*(pair for pair in key if pair[0] in _KEPT_IN_OVERFLOW), OVERFLOW]))
        if short in self._series or len(self._series) < self._series_limit + OVERFLOW_LIMIT:
            return short
        return (OVERFLOW,)

    def _new_series(self, key: Key) -> _Series | None:
        labels = Labels.from_pairs([*key, (METRIC_NAME, METRIC)])
        try:
            ref = int(self._appender.refs([labels])[0])
        except (InvalidLabelsError, LimitError) as error:
            log.warning("The store refuses a series of security events", extra={"err": str(error)})
            return None
        source = dict(key).get("source", "")
        series = self._series[key] = _Series(ref, LAG_MS.get(source, LAG_DEFAULT_MS))
        return series

    def _count(self, rows: _Rows, key: Key, series: _Series, times: Sequence[int]) -> None:
        for t_ms, group in itertools.groupby(times):
            count = sum(1 for _ in group)
            if t_ms <= series.last_t_ms:
                self.moved_count += count
                t_ms = series.last_t_ms + 1
            self._repeat(rows, key, series, t_ms - 1)
            if series.last_t_ms < t_ms - 1:
                rows.add(key, t_ms - 1, series.value)
            series.value += count
            series.last_t_ms = t_ms
            rows.add(key, t_ms, series.value, count)

    def _repeat(self, rows: _Rows, key: Key, series: _Series, until_ms: int) -> None:
        """Samples of the value as it stands, every INTERVAL_MS up to `until_ms`; a longer gap, as before the
        first event and after a restart, is filled for its last ZEROS_MS only."""
        series.last_t_ms = max(series.last_t_ms, until_ms - ZEROS_MS - INTERVAL_MS)
        while series.last_t_ms + INTERVAL_MS <= until_ms:
            series.last_t_ms += INTERVAL_MS
            rows.add(key, series.last_t_ms, series.value)

    # The store.

    def _store(self, rows: _Rows, before: dict[Key, tuple[int, int] | None]) -> Future[None] | None:
        if not rows.keys:
            return None
        result = self._append(rows, range(len(rows.keys)))
        codes = result.codes
        unknown = np.flatnonzero(codes == Rejected.UNKNOWN_SERIES).tolist()
        durable = result.durable
        if unknown:
            # The store has collected the series since its ref was looked up.
            for key in {rows.keys[row] for row in unknown}:
                self._renew(key)
            again = self._append(rows, unknown)
            codes = codes.copy()
            codes[unknown] = again.codes
            durable = again.durable
        self._note_refused(rows, codes.tolist(), before)
        return durable

    def _append(self, rows: _Rows, chosen: Iterable[int]) -> AppendResult:
        chosen = list(chosen)
        samples = SampleColumns(
            np.array([self._series[rows.keys[row]].ref for row in chosen], np.uint32),
            np.array([rows.t_ms[row] for row in chosen], np.int64),
            np.array([rows.values[row] for row in chosen], np.float64),
        )
        samples.values.view(np.uint64)[samples.values < 0] = STALE_BITS
        metadata = () if self._described else (Metadata(METRIC, "counter", HELP, ""),)
        result = self._appender.append(WriteBatch(samples=samples, metadata=metadata))
        self._described = True
        return result

    def _renew(self, key: Key) -> None:
        old = self._series[key]
        series = self._new_series(key)
        if series is not None:
            series.value, series.last_t_ms, series.seen_ms = old.value, old.last_t_ms, old.seen_ms

    def _note_refused(
        self, rows: _Rows, codes: Sequence[int], before: dict[Key, tuple[int, int] | None]
    ) -> None:
        """Count refused events. Where a counter's newest sample was refused, the counter is as it was."""
        last = {key: row for row, key in enumerate(rows.keys)}
        for row, code in enumerate(codes):
            if code == Rejected.NO:
                continue
            key = rows.keys[row]
            if rows.events[row]:
                self.refused_count[Rejected(code).name.lower()] += rows.events[row]
            if last[key] == row and key in before:
                known = before[key]
                if known is None:
                    self._series.pop(key, None)
                else:
                    self._series[key].value, self._series[key].last_t_ms = known

    # Time.

    def tick(self) -> None:
        """Repeat living counters, end those without events for IDLE_MS."""
        now_ms = self._clock_ms()
        rows, ended = _Rows(), []
        for key, series in self._series.items():
            self._repeat(rows, key, series, now_ms - series.lag_ms)
            if now_ms - series.seen_ms >= IDLE_MS:
                rows.add(key, series.last_t_ms + 1, _STALE_VALUE)
                ended.append(key)
        self._store(rows, {})
        for key in ended:
            del self._series[key]

    def close(self) -> None:
        """Nothing: the next run goes on with the counters."""
