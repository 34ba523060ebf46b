"""The loop of one target: aligned ticks, fetch on the event loop, parse and append in a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from ingest.clock import Clock
from ingest.config.durations import Duration
from ingest.metrics import ScrapeMetrics
from ingest.scrape.client import Fetched, ScrapeClient
from ingest.scrape.samples import Outcome, ScrapeError, TargetSamples
from ingest.scrape.target import Target
from tsdb.errors import StorageError
from tsdb.labels import Labels

ALIGNMENT_TOLERANCE_MS = 2
"""A scrape this late still gets the timestamp of its tick, because equal steps compress better."""

log = logging.getLogger("vedette.ingest.scrape")


class ScrapeLoop:
    """Scrapes one target until stopped. Event loop thread only; one task at a time touches the samples."""

    def __init__(
        self,
        target: Target,
        samples: TargetSamples,
        client: ScrapeClient,
        clock: Clock,
        executor: Executor,
        metrics: ScrapeMetrics,
        offset_seed: int,
        on_failure: Callable[[int, str, str], None] | None = None,
    ) -> None:
        """`on_failure(t_ms, url, error)` is called in a worker thread for every failed scrape."""
        self.target = target
        self.samples = samples
        self.forced_error = ""
        self.health = "unknown"
        self.last_error = ""
        self.last_scrape_ms = 0
        self.last_duration = 0.0
        self._client = client
        self._clock = clock
        self._executor = executor
        self._metrics = metrics
        self._offset_seed = offset_seed
        self._on_failure = on_failure
        self._previous_start: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin scraping at the target's offset in the current interval."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; a scrape that is being stored is finished first."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        interval = self.target.interval_ms
        now = self._clock.now_ms()
        wait = (self.target.offset_ms(self._offset_seed) - now) % interval
        start, tick = now + wait, 0
        while True:
            ideal = start + tick * interval
            delay = ideal - self._clock.now_ms()
            if delay > 0:
                await self._clock.sleep(delay / 1000)
            await self._scrape_safely(self._aligned(start))
            # As with a ticker that holds one pending tick: late scrapes follow at once, missed ones are lost.
            tick = max(tick + 1, (self._clock.now_ms() - start) // interval)

    def _aligned(self, start: int) -> int:
        now, interval = self._clock.now_ms(), self.target.interval_ms
        ideal = start + (now - start + interval // 2) // interval * interval
        tolerance = min(ALIGNMENT_TOLERANCE_MS, interval // 100)
        return ideal if abs(now - ideal) <= tolerance else now

    async def _scrape_safely(self, t_ms: int) -> None:
        try:
            await self.scrape(t_ms)
        except StorageError as error:
            self.health, self.last_error = "down", str(error)
            log.error("Scrape could not be stored", extra={"target": self.target.url, "err": str(error)})
        except asyncio.CancelledError:
            raise
        except Exception:
            self.health, self.last_error = "down", "internal error, see the log"
            log.exception("Scrape failed", extra={"target": self.target.url})

    async def scrape(self, t_ms: int) -> Outcome:
        """One scrape with timestamp `t_ms`. Raises StorageError when it could not be stored."""
        began = self._clock.monotonic()
        if self._previous_start is not None:
            label = str(Duration(self.target.interval_ms))
            self._metrics.interval_length.observe((label,), began - self._previous_start)
        self._previous_start = began
        fetched, failure = None, None
        try:
            if self.forced_error:
                raise ScrapeError(self.forced_error)
            fetched = await self._client.fetch(self.target)
        except ScrapeError as error:
            failure = error
        outcome = await self._in_thread(fetched, failure, t_ms, began)
        self.health = "down" if outcome.error else "up"
        self.last_error = outcome.error
        self.last_scrape_ms = t_ms
        self.last_duration = self._clock.monotonic() - began
        if outcome.durable is not None:
            # One batch a target waits for the log at most: a slow disk slows scraping, memory stays.
            await asyncio.wrap_future(outcome.durable.durable)
        return outcome

    async def _in_thread(
        self, fetched: Fetched | None, failure: ScrapeError | None, t_ms: int, began: float
    ) -> Outcome:
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, self._store, fetched, failure, t_ms, began
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The samples must not be touched by a successor while the thread still works on them.
            await asyncio.gather(work, return_exceptions=True)
            raise

    def _store(
        self, fetched: Fetched | None, failure: ScrapeError | None, t_ms: int, began: float
    ) -> Outcome:
        body = None
        if fetched is not None:
            try:
                body = self._client.decode(fetched)
            except ScrapeError as error:
                failure = error
        if failure is not None and failure.body_bytes < 0:
            self._metrics.count("exceeded_body_size_limit")
        now_ms = self._clock.now_ms()
        outcome = self.samples.store(body, failure, t_ms, lambda: self._clock.monotonic() - began, now_ms)
        if outcome.error and self._on_failure is not None:
            self._on_failure(t_ms, self.target.url, outcome.error)
        return outcome

    async def end_of_run(self, last_ms: int, is_active: Callable[[tuple[Labels, str]], bool]) -> None:
        """Wait two intervals and 10 %; unless the target came back, write its stale markers (surface 6.2)."""
        interval = self.target.interval_ms
        stale_ms = last_ms + interval
        await self._clock.sleep(max(0, stale_ms + interval + interval // 10 - self._clock.now_ms()) / 1000)
        if is_active(self.target.identity):
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self.samples.end, stale_ms)
