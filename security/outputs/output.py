"""One output: its filter, its bounded queue, and the thread that hands events to a channel.

A channel that fails is tried again after a pause. Meanwhile events wait in the queue, then in the spool where
the output has one, and are dropped and counted only when both are full.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from security.eventlog.query import EventQuery
from security.outputs.spool import Spool, SpoolFullError
from security.record import EventRecord

log = logging.getLogger("security.outputs")

RETRY_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Pauses after failures in a row; the last one from then on."""
CLOSE_WAIT_S = 5.0
"""How long a stopping server tries to deliver what is left."""
Print = Callable[[EventRecord], str]


class Channel(Protocol):
    """Somewhere lines are written. Used by one thread."""

    batch: int
    """Most lines of one delivery."""

    def send(self, lines: Sequence[tuple[EventRecord, str]]) -> None:
        """Deliver printed events in order, all or none as far as that can be told. Raises OSError."""

    def reopen(self) -> None:
        """Begin anew: a rotated file, a connection that may be stale."""

    def close(self) -> None:
        """Let go of file or connection."""


class RefusedError(Exception):
    """The receiver refuses these events for good: they are dropped and counted, not sent again."""


class Output:
    """A sink of the pipeline. `write` never waits for the receiver."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        print_event: Print,
        *,
        query: EventQuery,
        priority: int,
        queue_limit: int,
        spool: Spool | None = None,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        """Events by outcome: delivered, dropped, refused, spooled; and failures of deliveries."""
        self._channel, self._print = channel, print_event
        self._query, self._priority, self._queue_limit = query, priority, queue_limit
        self._spool = spool
        self._spool_full = False
        self._changed = threading.Condition()
        self._queue: deque[EventRecord] = deque()
        self._closing = False
        self._reopen = False
        self._thread = threading.Thread(target=self._run, name=f"output-{name}", daemon=True)
        self._thread.start()

    @property
    def queued_count(self) -> int:
        """Events that wait in memory."""
        return len(self._queue)

    @property
    def queue_limit(self) -> int:
        """Events that may wait in memory."""
        return self._queue_limit

    @property
    def spooled_bytes(self) -> int:
        """Bytes that wait on disk."""
        return self._spool.size_bytes if self._spool is not None else 0

    def write(self, records: Sequence[EventRecord]) -> None:
        """Take the events this output wants."""
        wanted = [r for r in records if r.output.priority <= self._priority and self._query.accepts(r)]
        if not wanted:
            return
        with self._changed:
            room = self._queue_limit - len(self._queue)
            if len(wanted) > room:
                # The newest are dropped: the order of the others stays, as with Falco's queue.
                self.counts["dropped"] += len(wanted) - room
                wanted = wanted[:room]
            self._queue.extend(wanted)
            self._changed.notify_all()

    def tick(self) -> None:
        """Nothing: the output has a thread of its own."""

    def reopen(self) -> None:
        """Open file or connection again before the next event."""
        with self._changed:
            self._reopen = True
            self._changed.notify_all()

    def begin_close(self) -> None:
        """Let the thread come to its end; `close` waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """Deliver what waits, for at most CLOSE_WAIT_S; what is left goes to the spool, or is counted."""
        self.begin_close()
        self._thread.join(CLOSE_WAIT_S + 1)

    # The thread.

    def _run(self) -> None:
        failures = 0
        deadline = float("inf")
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing or self._reopen or self._waiting)
                if self._closing and deadline == float("inf"):
                    deadline = time.monotonic() + CLOSE_WAIT_S
                reopen, self._reopen = self._reopen, False
                done = self._closing and not self._queue and not self._waiting
            if done or time.monotonic() > deadline:
                break
            try:
                if reopen:
                    self._channel.reopen()
                self._deliver_some()
            except Exception as error:
                # Whatever it is: the thread must live, and the events are kept.
                self._note_failure(failures, error)
                pause_s = RETRY_PAUSES_S[min(failures, len(RETRY_PAUSES_S) - 1)]
                failures += 1
                self._move_to_spool()
                if self._closing and self._spool is not None:
                    break
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._reopen or self._crowded, min(pause_s, deadline - time.monotonic())
                    )
            else:
                failures = 0
        self._finish()

    @property
    def _waiting(self) -> bool:
        return self._spool is not None and self._spool.count > 0

    @property
    def _crowded(self) -> bool:
        """Whether the queue should be emptied to disk before the pause is over."""
        room = self._spool is not None and not self._spool_full
        return room and len(self._queue) * 2 >= self._queue_limit

    def _deliver_some(self) -> None:
        """One delivery, of the spool as long as it holds events. Raises OSError."""
        spooled = self._waiting
        with self._changed:
            size = self._channel.batch
            records = [] if spooled else [self._queue[at] for at in range(min(size, len(self._queue)))]
        if spooled:
            assert self._spool is not None
            records = self._spool.peek(size)
        if records:
            try:
                self._channel.send([(record, self._print(record)) for record in records])
                self.counts["delivered"] += len(records)
            except RefusedError as error:
                self.counts["refused"] += len(records)
                log.warning("Events refused by an output", extra={"output": self.name, "err": str(error)})
        if spooled:
            assert self._spool is not None
            self._spool.drop(len(records))
            self._spool_full = False
            self._move_to_spool()
        else:
            with self._changed:
                for _ in records:
                    self._queue.popleft()

    def _move_to_spool(self) -> None:
        """While the receiver is down, or older events wait on disk, new ones go to disk too."""
        if self._spool is None:
            return
        with self._changed:
            records = list(self._queue)
        if not records:
            return
        try:
            self._spool.add(records)
            self.counts["spooled"] += len(records)
        except (SpoolFullError, OSError) as error:
            # They stay in the queue; when that is full too, new ones are dropped and counted.
            self._spool_full = True
            log.warning("Spool of an output is full", extra={"output": self.name, "err": str(error)})
            return
        with self._changed:
            for _ in records:
                self._queue.popleft()

    def _note_failure(self, failures: int, error: Exception) -> None:
        self.counts["failures"] += 1
        if failures == 0:
            log.warning("Output failed, trying again", extra={"output": self.name, "err": str(error)})

    def _finish(self) -> None:
        self._move_to_spool()
        left = len(self._queue)
        if left:
            self.counts["dropped"] += left
            log.warning(
                "Events of an output are lost at the stop", extra={"output": self.name, "events": left}
            )
        self._channel.close()
        if self._spool is not None:
            self._spool.close()
