"""Carries a queue to a server: one record after the other, each until it is settled; and how long to wait."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
from collections.abc import Awaitable, Callable

from ingest.clock import Clock
from ingest.diskqueue import DiskQueue, QueueItem
from tsdb.errors import CorruptionError

RETRY_AFTER_SECONDS_LIMIT = 300.0
"""A server cannot silence a sender for longer with one answer."""
_FLUSH_POLL_SECONDS = 0.05

_log = logging.getLogger("vedette.queue")


class QueueLane:
    """One ordered lane: the next record's turn comes when the one before is settled. Event loop only."""

    def __init__(
        self,
        queue: DiskQueue,
        settle: Callable[[QueueItem], Awaitable[None]],
        on_unreadable: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`settle` returns when the record has arrived or was given up; `on_unreadable` is told of one that
        the disk does not give back."""
        self._queue = queue
        self._settle = settle
        self._on_unreadable = on_unreadable
        self._clock = clock
        self._position = queue.acknowledged
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._filled.set)

        self._queue.on_append(wake)
        self._task = asyncio.create_task(self._run(), name="queue-lane")

    async def stop(self, flush_seconds: float) -> None:
        """End, after at most `flush_seconds` for emptying the queue; what is left stays in it."""
        if self._task is None:
            return
        deadline = self._clock.monotonic() + flush_seconds
        while self._queue.record_count and self._clock.monotonic() < deadline and not self._task.done():
            await self._clock.sleep(_FLUSH_POLL_SECONDS)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    async def _run(self) -> None:
        while True:
            self._filled.clear()
            try:
                item = await asyncio.to_thread(self._queue.next, self._position)
            except (CorruptionError, OSError) as error:
                _log.error("a record of the queue is unreadable and left out", extra={"error": str(error)})
                self._on_unreadable()
                await self._move_to(self._position + 1)
                continue
            if item is None:
                await self._filled.wait()
                continue
            await self._settle(item)
            await self._move_to(item.sequence)

    async def _move_to(self, sequence: int) -> None:
        self._position = sequence
        await asyncio.to_thread(self._queue.acknowledge, sequence)


def backoff_seconds(attempt: int, shortest: float, longest: float, jitter: Callable[[], float]) -> float:
    """The wait after a failed attempt (from 1): doubling, its upper half at random (`jitter` 0 to 1)."""
    return min(shortest * 2.0 ** min(attempt - 1, 32), longest) * (0.5 + 0.5 * jitter())


def retry_after_seconds(text: str, now_ms: int) -> float:
    """What a Retry-After header asks for, in seconds or as an HTTP date; 0 for neither."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now_ms / 1000
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_LIMIT)
