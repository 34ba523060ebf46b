"""The agent's side of the channel: events until they are acknowledged, reports, and what is pushed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.channel.protocol import (
    ANSWER_BYTES_LIMIT,
    EPOCH_HEADER,
    EVENTS_TYPE,
    FILE_BYTES_LIMIT,
    PREFIX,
    SEQUENCE_HEADER,
    EventsAnswer,
    ProtocolError,
    PushedFile,
    Report,
    ReportAnswer,
    parse,
)
from agent.channel.stagedfiles import StagedFiles
from ingest.clock import Clock, SystemClock
from ingest.diskqueue import DiskQueue, QueueItem
from ingest.httpclient import Answer, RequestError
from ingest.queuelane import QueueLane, backoff_seconds, retry_after_seconds

REPORT_SECONDS = 10.0
TIMEOUT_SECONDS = 30.0
BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 10.0
POISONOUS = frozenset({400, 413})
"""Answers that blame the request itself: it would be refused for ever, so it is given up and counted."""

_log = logging.getLogger("vedette.agent")


class Client(Protocol):
    """What the channel needs of `ingest.httpclient.HTTPClient`."""

    def get(
        self, url: str, headers: Mapping[str, str], timeout_seconds: float, body_bytes_limit: int
    ) -> Awaitable[Answer]:
        """One request. Raises RequestError."""
        ...

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float, body_bytes_limit: int
    ) -> Awaitable[Answer]:
        """One request. Raises RequestError."""
        ...


class ChannelMetrics:
    """Own metrics of the channel. Any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "vedette_agent_events_sent_total", "Events that the server has acknowledged.", registry=registry
        )
        self.dropped = Counter(
            "vedette_agent_events_dropped_total",
            "Events given up, by reason: queue_bytes (the limit of the queue), refused (by the server), "
            "unreadable, disk.",
            ("reason",),
            registry=registry,
        )
        self.retries = Counter(
            "vedette_agent_events_retries_total", "Requests with events sent again.", registry=registry
        )
        self.reports = Counter(
            "vedette_agent_reports_total",
            "Reports to the server, by outcome.",
            ("outcome",),
            registry=registry,
        )
        self.connected = Gauge(
            "vedette_agent_connected", "Whether the last report reached the server.", registry=registry
        )
        self.queued = Gauge(
            "vedette_agent_events_queued", "Events that wait for the server.", registry=registry
        )


class ChannelClient:
    """Talks to one server. Event loop only. Whatever the server says or does not say, nothing here raises."""

    def __init__(
        self,
        agent: str,
        server: str,
        client: Client,
        queue: DiskQueue,
        files: StagedFiles,
        make_report: Callable[[], Report],
        metrics: ChannelMetrics,
        *,
        report_seconds: float = REPORT_SECONDS,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._events_url = f"{server}{PREFIX}/{agent}/events"
        self._report_url = f"{server}{PREFIX}/{agent}/report"
        self._files_url = f"{server}{PREFIX}/files"
        self._client = client
        self._queue = queue
        self._files = files
        self._make_report = make_report
        self._metrics = metrics
        self._report_seconds = report_seconds
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._reports: asyncio.Task[None] | None = None
        self._lane = QueueLane(queue, self._settle, metrics.dropped.labels("unreadable").inc, self._clock)
        self._told: dict[str, str] = {}
        metrics.queued.set_function(lambda: queue.pending_items)

    async def start(self) -> None:
        """Begin."""
        self._reports = asyncio.create_task(self._report_for_ever(), name="agent-reports")
        await self._lane.start()

    async def stop(self, flush_seconds: float = 0.0) -> None:
        """End, after `flush_seconds` for emptying the queue; what is left is sent after the next start."""
        await self._lane.stop(flush_seconds)
        if self._reports is not None:
            self._reports.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reports
            self._reports = None

    # Reports.

    async def _report_for_ever(self) -> None:
        while True:
            await self.report_once()
            await self._clock.sleep(self._report_seconds * (0.9 + 0.2 * self._jitter()))

    async def report_once(self) -> None:
        """One report, and what its answer asks for."""
        try:
            answer = await self._client.post(
                self._report_url,
                {"Content-Type": "application/json"},
                self._make_report().model_dump_json().encode(),
                TIMEOUT_SECONDS,
                ANSWER_BYTES_LIMIT,
            )
            said = parse(ReportAnswer, _good(answer))
        except (RequestError, ValueError) as error:
            self._metrics.reports.labels("failed").inc()
            self._metrics.connected.set(0)
            self._tell("report", "server does not take reports", str(error))
            return
        self._metrics.reports.labels("taken").inc()
        self._metrics.connected.set(1)
        self._tell("report", "", "")
        await self._files.follow(said, self._fetch)

    async def _fetch(self, file: PushedFile) -> bytes:
        url = f"{self._files_url}/{file.sha256}"
        answer = await self._client.get(url, {}, TIMEOUT_SECONDS, FILE_BYTES_LIMIT + 1)
        return _good(answer)

    # Events.

    async def _settle(self, item: QueueItem) -> None:
        """Send until the server has acknowledged the record, or refused it for good."""
        attempt = 0
        while True:
            wait_seconds = await self._send(item)
            if wait_seconds is None:
                return
            attempt += 1
            self._metrics.retries.inc()
            usual = backoff_seconds(attempt, BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX, self._jitter)
            await self._clock.sleep(wait_seconds or usual)

    async def _send(self, item: QueueItem) -> float | None:
        """None when the record is settled, else seconds to wait (0 for the usual)."""
        headers = {
            "Content-Type": EVENTS_TYPE,
            EPOCH_HEADER: self._queue.epoch,
            SEQUENCE_HEADER: str(item.sequence),
        }
        try:
            answer = await self._client.post(
                self._events_url, headers, item.payload, TIMEOUT_SECONDS, ANSWER_BYTES_LIMIT
            )
        except RequestError as error:
            self._tell("events", "server cannot be reached, events wait on disk", str(error))
            return 0.0
        if answer.status in POISONOUS:
            self._metrics.dropped.labels("refused").inc(item.item_count)
            self._tell("events", "server refused events", _text(answer))
            return None
        try:
            said = parse(EventsAnswer, _good(answer))
        except (RequestError, ProtocolError) as error:
            self._tell("events", "server does not take events, they wait on disk", str(error))
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return retry_after_seconds(headers.get("retry-after", ""), self._clock.now_ms())
        if said.acknowledged < item.sequence:
            self._tell("events", "server did not acknowledge events", f"it acknowledged {said.acknowledged}")
            return 0.0
        self._tell("events", "", "")
        self._metrics.dropped.labels("refused").inc(min(said.refused, item.item_count))
        self._metrics.sent.inc(max(0, item.item_count - said.refused))
        return None

    def _tell(self, what: str, text: str, reason: str) -> None:
        """Say a failure when it begins or changes, and its end; not every attempt."""
        before = self._told.get(what, "")
        if text == before:
            return
        self._told[what] = text
        if text:
            _log.warning(text, extra={"url": self._events_url, "reason": reason})
        else:
            _log.info("server is back", extra={"url": self._events_url})


def _good(answer: Answer) -> bytes:
    if answer.status != 200:
        raise RequestError(_text(answer))
    return answer.body


def _text(answer: Answer) -> str:
    return f"{answer.status} {answer.reason}: {answer.body[:512].decode('utf-8', 'replace').strip()}"
