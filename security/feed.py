"""The live feed: events as they come, to clients that follow them, each behind a bounded queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from security.eventlog.query import EventQuery
from security.record import EventRecord

SUBSCRIBERS_LIMIT = 64
QUEUE_RECORDS_LIMIT = 1000
"""Records that wait for one client; when it is slower the oldest are dropped, and it is told how many."""


class TooManySubscribersError(Exception):
    """SUBSCRIBERS_LIMIT clients follow events already."""


class Subscription:
    """One client's queue. Filled by the pipeline's thread, emptied by any one other."""

    def __init__(self, query: EventQuery, wake: Callable[[], None]) -> None:
        self._query, self._wake = query, wake
        self._lock = threading.Lock()
        self._queue: deque[EventRecord] = deque()
        self._dropped_count = 0

    def offer(self, records: Sequence[EventRecord]) -> int:
        """Queue what the client wants; the number of records that were dropped for it."""
        wanted = [record for record in records if self._query.accepts(record)]
        if not wanted:
            return 0
        with self._lock:
            self._queue.extend(wanted)
            over = max(len(self._queue) - QUEUE_RECORDS_LIMIT, 0)
            for _ in range(over):
                self._queue.popleft()
            self._dropped_count += over
        self._wake()
        return over

    def take(self) -> tuple[list[EventRecord], int]:
        """What waits, in order of arrival, and how many were dropped before it."""
        with self._lock:
            records, dropped = list(self._queue), self._dropped_count
            self._queue.clear()
            self._dropped_count = 0
        return records, dropped


class LiveFeed:
    """A sink. Any thread may subscribe."""

    name = "feed"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self.dropped_count = 0
        """Records dropped for slow clients."""

    @property
    def subscribers_count(self) -> int:
        """Clients that follow."""
        return len(self._subscriptions)

    def subscribe(self, query: EventQuery, wake: Callable[[], None]) -> Subscription:
        """Follow events that the query accepts; `wake` is called from the pipeline's thread when some wait.

        Raises TooManySubscribersError.
        """
        with self._lock:
            if len(self._subscriptions) >= SUBSCRIBERS_LIMIT:
                raise TooManySubscribersError(
                    f"{SUBSCRIBERS_LIMIT} clients follow events, which is the limit"
                )
            subscription = Subscription(query, wake)
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop following."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def write(self, records: Sequence[EventRecord]) -> None:
        """Offer records to every client."""
        for subscription in self._subscriptions:
            self.dropped_count += subscription.offer(records)

    def tick(self) -> None:
        """Nothing is due."""

    def close(self) -> None:
        """Nothing to write out."""
