"""The pipeline's sink on an agent: events wait on disk until the server has them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from agent.channel.protocol import FRAME_BYTES_LIMIT, FRAME_EVENTS_LIMIT
from ingest.diskqueue import DiskQueue
from security.record import EventRecord

_log = logging.getLogger("vedette.agent")


class EventSpool:
    """An `EventSink` over a queue; one record of the queue is one request to the server."""

    name = "server"

    def __init__(self, queue: DiskQueue, on_drop: Callable[[int], None]) -> None:
        """`on_drop` is told how many events could not be kept, because the disk failed."""
        self._queue = queue
        self._on_drop = on_drop

    def write(self, records: Sequence[EventRecord]) -> Future[None]:
        """Put records into the queue, durably."""
        done: Future[None] = Future()
        failure: Exception | None = None
        for lines, newest_ms in _frames(records):
            try:
                self._queue.append(b"\n".join(lines), len(lines), newest_ms)
            except Exception as error:
                self._on_drop(len(lines))
                failure = error
        if failure is None:
            done.set_result(None)
        else:
            _log.error("events were lost before they reached the disk", extra={"error": str(failure)})
            done.set_exception(failure)
        return done

    def tick(self) -> None:
        """Nothing is due by time."""

    def close(self) -> None:
        """Nothing is held back; whoever opened the queue closes it."""


def _frames(records: Sequence[EventRecord]) -> Iterator[tuple[list[bytes], int]]:
    """Lines of one request each, with the newest time in it (ms)."""
    lines: list[bytes] = []
    size = newest_ms = 0
    for record in records:
        line = record.to_wire()
        if lines and (size + len(line) + 1 > FRAME_BYTES_LIMIT or len(lines) == FRAME_EVENTS_LIMIT):
            yield lines, newest_ms
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
        newest_ms = max(newest_ms, record.time_ms)
    if lines:
        yield lines, newest_ms
