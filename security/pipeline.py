"""The way of events from a source to those who want them: match, make outputs and labels, deliver.

`process` runs in the thread of the source. Deliveries go through one bounded queue to one thread, which hands
them to the sinks: the series, the event log, the live feed, the outputs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from security.activerules import ActiveRules
from security.columns import EventBatch
from security.eventlabels import event_labels
from security.record import EventRecord, clean_output

log = logging.getLogger("security")

QUEUE_RECORDS_LIMIT = 50_000
"""Records that wait for the sinks; some 100 MB at 2 KiB each."""
GROUP_RECORDS_LIMIT = 4096
"""Records that are handed to the sinks at once."""
QUEUE_WAIT_S = 0.2
"""How long a delivery waits for room before it is refused; a watching thread must not wait longer."""
TICK_S = 1.0
_CLOSE_WAIT_S = 30.0


class QueueFullError(Exception):
    """The queue has no room; the records are counted as dropped and the source may send them again."""


class EventSink(Protocol):
    """Somewhere events go. `write` is called by the pipeline's thread only."""

    name: str

    def write(self, records: Sequence[EventRecord]) -> Future[None] | None:
        """Take records in order of delivery. The result is done when they are durable, None where that means
        nothing. Must not wait for anything outside of this host."""

    def tick(self) -> None:
        """What is due by time alone; about once in TICK_S, by the same thread."""

    def close(self) -> None:
        """No record comes any more: write out what is held back."""


@dataclass(slots=True)
class _Delivery:
    records: Sequence[EventRecord]
    done: Future[None] = field(default_factory=Future)


class Pipeline:
    """Events of all sources. Any thread may call `process` and `deliver`; `start` and `close` once."""

    def __init__(
        self,
        rules: ActiveRules,
        sinks: Sequence[EventSink] = (),
        *,
        hostname: str = "",
        queue_records_limit: int = QUEUE_RECORDS_LIMIT,
    ) -> None:
        """`hostname` is that of events whose batch names none."""
        self.rules = rules
        self.sinks = tuple(sinks)
        self.hostname = hostname
        self.events_count: Counter[str] = Counter()
        """Events judged, by source."""
        self.matched: Counter[str] = Counter()
        """Events by the rule that found them, over reloads."""
        self.dropped_count = 0
        """Records refused because the queue was full."""
        self.sink_failures_count: Counter[str] = Counter()
        """Writes that a sink failed, by its name."""
        self._queue_limit = queue_records_limit
        self._source_locks: dict[str, threading.Lock] = {}
        self._changed = threading.Condition()
        self._queue: deque[_Delivery] = deque()
        self._queued_count = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    # Sources.

    def process(self, batch: EventBatch) -> list[EventRecord]:
        """Match a batch with the running rules and deliver what they found; the records, in order.

        Nothing is raised for a full queue: what has no room is counted.
        """
        records = self.match(batch)
        if records:
            self.deliver(records)
        return records

    def match(self, batch: EventBatch) -> list[EventRecord]:
        """Match a batch with the running rules and make the records, without delivering them."""
        engine = self.rules.engine
        if engine is None:
            return []
        hostname = batch.hostname or self.hostname
        with self._lock_of(batch.source):
            self.events_count[batch.source] += batch.count
            matches = engine.match(batch)
            self.matched.update(match.rule.name for match in matches)
            outputs = engine.outputs(batch, matches)
            return [
                EventRecord(
                    clean_output(output), event_labels(batch, match.row, match.rule, hostname), hostname
                )
                for match, output in zip(matches, outputs, strict=True)
            ]

    def _lock_of(self, source: str) -> threading.Lock:
        # An engine serves one thread at a time a source; a slow audit body must not hold up system calls.
        return self._source_locks.setdefault(source, threading.Lock())

    def deliver(self, records: Sequence[EventRecord]) -> Future[None]:
        """Queue records for the sinks; waits at most QUEUE_WAIT_S for room.

        The result is done when every sink that stores them has them on disk. It fails with QueueFullError
        when there was no room (the records are dropped and counted), and with a sink's error.
        """
        delivery = _Delivery(tuple(records))
        with self._changed:
            room = self._changed.wait_for(lambda: self._has_room(len(records)), QUEUE_WAIT_S)
            if not room or self._closing:
                self.dropped_count += len(records)
                limit = self._queue_limit
                text = (
                    "pipeline is closed" if self._closing else f"event queue has its limit of {limit} records"
                )
                delivery.done.set_exception(QueueFullError(text))
                return delivery.done
            self._queue.append(delivery)
            self._queued_count += len(records)
            self._changed.notify_all()
        return delivery.done

    def _has_room(self, count: int) -> bool:
        return self._closing or self._queued_count == 0 or self._queued_count + count <= self._queue_limit

    @property
    def queued_count(self) -> int:
        """Records that wait for the sinks."""
        return self._queued_count

    # The thread.

    def start(self) -> None:
        """Begin to hand records to the sinks."""
        self._thread = threading.Thread(target=self._run, name="security-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse new records, hand over what is queued, close the sinks. May be called twice."""
        with self._changed:
            closed, self._closing = self._closing, True
            self._changed.notify_all()
        if closed:
            return
        if self._thread is not None:
            self._thread.join(_CLOSE_WAIT_S)
        for sink in self.sinks:
            self._guarded(sink, sink.close)

    def _run(self) -> None:
        ticked = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing, TICK_S)
                if not self._queue and self._closing:
                    return
                group = self._take_group() if self._queue else []
            if time.monotonic() - ticked >= TICK_S:
                ticked = time.monotonic()
                for sink in self.sinks:
                    self._guarded(sink, sink.tick)
            if not group:
                continue
            self._hand_over(group)
            with self._changed:
                self._queued_count -= sum(len(delivery.records) for delivery in group)
                self._changed.notify_all()

    def _take_group(self) -> list[_Delivery]:
        group = [self._queue.popleft()]
        count = len(group[0].records)
        while self._queue and count + len(self._queue[0].records) <= GROUP_RECORDS_LIMIT:
            group.append(self._queue.popleft())
            count += len(group[-1].records)
        return group

    def _hand_over(self, group: Sequence[_Delivery]) -> None:
        records = [record for delivery in group for record in delivery.records]
        waiting = []
        for sink in self.sinks:
            stored = self._guarded(sink, lambda sink=sink: sink.write(records))  # type: ignore[misc]
            if stored is not None:
                waiting.append(stored)
        _when_all(waiting, [delivery.done for delivery in group])

    def _guarded(self, sink: EventSink, call: Callable[[], Future[None] | None]) -> Future[None] | None:
        """What a sink does must not keep the others from their records."""
        try:
            return call()
        except Exception as error:
            self.sink_failures_count[sink.name] += 1
            log.exception("A sink of security events failed", extra={"sink": sink.name})
            failed: Future[None] = Future()
            failed.set_exception(error)
            return failed


def _when_all(parts: Sequence[Future[None]], wholes: Sequence[Future[None]]) -> None:
    """Complete the wholes when all parts are done, with the first failure among them."""
    left = len(parts)
    failure: list[BaseException] = []
    lock = threading.Lock()

    def finish() -> None:
        for whole in wholes:
            if failure:
                whole.set_exception(failure[0])
            else:
                whole.set_result(None)

    def one_done(part: Future[None]) -> None:
        nonlocal left
        with lock:
            error = part.exception()
            if error is not None:
                failure.append(error)
            left -= 1
            last = left == 0
        if last:
            finish()

    if not parts:
        finish()
    for part in parts:
        part.add_done_callback(one_done)
