"""Sends a queue by remote write, in order, until the server has taken it (prometheus-surface.md 5.4)."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import cramjam

from ingest.clock import Clock, SystemClock
from ingest.diskqueue import DiskQueue, QueueItem
from ingest.httpclient import Answer, RequestError
from ingest.queuelane import QueueLane, backoff_seconds, retry_after_seconds
from ingest.remotewrite.downgrade import to_version_1
from ingest.remotewrite.forwardmetrics import ForwardMetrics
from ingest.remotewrite.framing import MEDIA_TYPE
from ingest.remotewrite.v2 import MESSAGE as MESSAGE_2

ANSWER_BYTES_LIMIT = 64 << 10
VERSION_2_AGAIN_SECONDS = 3600.0
"""A server that refused version 2 is asked again after this long."""
ABOUT_THE_ENDPOINT = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407, 408, 425, 429})
"""Answers that say nothing about the samples: once a wrong token or address is mended, they are wanted."""

_WRITTEN_HEADER = "x-prometheus-remote-write-samples-written"

_log = logging.getLogger("vedette.remote_write")


class Client(Protocol):
    """What the sender needs of `ingest.httpclient.HTTPClient`."""

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float, body_bytes_limit: int
    ) -> Awaitable[Answer]:
        """One request. Raises RequestError."""
        ...


@dataclass(frozen=True, slots=True)
class SenderOptions:
    """How to send. `retried_statuses` are 4xx answers after which the same request is sent again; age 0 is no
    limit."""

    url: str
    timeout_seconds: float = 30.0
    backoff_seconds_min: float = 0.03
    backoff_seconds_max: float = 5.0
    age_limit_seconds: float = 0.0
    retried_statuses: frozenset[int] = ABOUT_THE_ENDPOINT
    headers: Mapping[str, str] = field(default_factory=dict)
    version: int = 2
    """The version to begin with; 1 is never raised."""
    confirmed: bool = False
    """Whether version 2 counts as delivered only when the answer says how much was written, as it must. An
    old server reads version 2 as an empty version 1 and answers 204; so it gets version 1. One that has
    spoken version 2 before, and now answers without that header, is not the server but something before it:
    sent again."""
    payload_version: int = 2
    """The version of what is in the queue."""


class _Outcome(enum.Enum):
    DELIVERED = enum.auto()
    REFUSED = enum.auto()
    RETRY = enum.auto()
    OTHER_VERSION = enum.auto()


class Sender:
    """One ordered lane: the next request leaves when the one before is settled. Event loop only."""

    def __init__(
        self,
        queue: DiskQueue,
        client: Client,
        options: SenderOptions,
        metrics: ForwardMetrics,
        *,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` gives numbers from 0 to 1 that spread the waits of many senders."""
        self._client = client
        self._options = options
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._version = options.version
        self._version_2_worked = False
        self._refused_2_at = 0.0
        self._told = ""
        self._lane = QueueLane(queue, self._settle, lambda: metrics.dropped("unreadable", 1), self._clock)
        metrics.version.set(self._version)
        metrics.watch_queue(lambda: queue.pending_items, lambda: queue.bytes, queue.bytes_limit)

    async def start(self) -> None:
        """Begin to send."""
        await self._lane.start()

    async def stop(self, flush_seconds: float = 0.0) -> None:
        """End, after `flush_seconds` for emptying the queue; what is left is sent after the next start."""
        await self._lane.stop(flush_seconds)

    async def _settle(self, item: QueueItem) -> None:
        """Send until it is delivered, refused for good, or too old."""
        attempt = 0
        while not self._too_old(item):
            outcome, wait_seconds = await self._send(item, attempt)
            if outcome is _Outcome.OTHER_VERSION:
                continue
            if outcome is not _Outcome.RETRY:
                return
            attempt += 1
            self._metrics.retried.inc(item.item_count)
            options = self._options
            shortest, longest = options.backoff_seconds_min, options.backoff_seconds_max
            await self._clock.sleep(wait_seconds or backoff_seconds(attempt, shortest, longest, self._jitter))
        self._metrics.dropped("too_old", item.item_count)

    def _too_old(self, item: QueueItem) -> bool:
        limit_seconds = self._options.age_limit_seconds
        return bool(limit_seconds) and self._clock.now_ms() - item.created_ms > limit_seconds * 1000

    async def _send(self, item: QueueItem, attempt: int) -> tuple[_Outcome, float]:
        refused_seconds = self._clock.monotonic() - self._refused_2_at
        if self._version < self._options.version and refused_seconds > VERSION_2_AGAIN_SECONDS:
            self._speak(2)
        body = item.payload
        if self._version < self._options.payload_version:
            body = await asyncio.to_thread(_as_version_1, body)
        headers = {**self._options.headers, **_headers(self._version)}
        if attempt:
            headers["Retry-Attempt"] = str(attempt)
        began = self._clock.monotonic()
        try:
            answer = await self._client.post(
                self._options.url, headers, body, self._options.timeout_seconds, ANSWER_BYTES_LIMIT
            )
        except RequestError as error:
            self._tell("server cannot be reached, samples wait on disk", str(error))
            return _Outcome.RETRY, 0.0
        finally:
            self._metrics.duration.observe(self._clock.monotonic() - began)
        return self._judge(item, answer, len(body))

    def _judge(self, item: QueueItem, answer: Answer, size: int) -> tuple[_Outcome, float]:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        status, text = answer.status, answer.body[:512].decode("utf-8", "replace").strip()
        understood = _WRITTEN_HEADER in headers
        if 200 <= status < 300 and self._unconfirmed(understood):
            if self._version_2_worked:
                self._tell("answers are not those of the server, samples wait on disk", f"{status} {text}")
                return _Outcome.RETRY, 0.0
            return self._other_version()
        if 200 <= status < 300:
            self._delivered(item, size, understood)
            return _Outcome.DELIVERED, 0.0
        if self._version == 2 and (
            status == 415 or (status == 400 and not understood and not self._version_2_worked)
        ):
            return self._other_version()
        if status >= 500 or status in self._options.retried_statuses:
            self._tell("server does not take samples, they wait on disk", f"{status} {answer.reason}: {text}")
            return _Outcome.RETRY, retry_after_seconds(headers.get("retry-after", ""), self._clock.now_ms())
        lost = item.item_count - _written(headers)
        self._metrics.failed.inc(max(lost, 0))
        self._metrics.sent.inc(item.item_count - max(lost, 0))
        self._tell("server refused samples", f"{status} {answer.reason}: {text}")
        return _Outcome.REFUSED, 0.0

    def _unconfirmed(self, understood: bool) -> bool:
        return self._options.confirmed and self._version == 2 and not understood

    def _other_version(self) -> tuple[_Outcome, float]:
        self._refused_2_at = self._clock.monotonic()
        self._speak(1)
        return _Outcome.OTHER_VERSION, 0.0

    def _delivered(self, item: QueueItem, size: int, understood: bool) -> None:
        if self._version == 2:
            self._version_2_worked |= understood
            if not understood:
                self._tell("server took remote write 2.0 without saying what it wrote", "no such header")
        if self._told and (self._version == 1 or understood):
            _log.info("server takes samples", extra={"url": self._options.url})
            self._told = ""
        self._metrics.sent.inc(item.item_count)
        self._metrics.bytes.inc(size)
        self._metrics.highest_sent.set(item.created_ms / 1000)

    def _speak(self, version: int) -> None:
        self._version = version
        self._version_2_worked = False
        self._metrics.version.set(version)
        _log.info("version of remote write", extra={"version": version, "url": self._options.url})

    def _tell(self, what: str, reason: str) -> None:
        """A failure is logged when it begins and when its kind changes, not for every attempt."""
        if self._told != what:
            self._told = what
            _log.warning(what, extra={"url": self._options.url, "reason": reason})


def _as_version_1(body: bytes) -> bytes:
    message = bytes(cramjam.snappy.decompress_raw(body))
    return bytes(cramjam.snappy.compress_raw(to_version_1(message)))


def _headers(version: int) -> dict[str, str]:
    message = f"{MEDIA_TYPE};proto={MESSAGE_2}" if version == 2 else MEDIA_TYPE
    return {
        "Content-Encoding": "snappy",
        "Content-Type": message,
        "X-Prometheus-Remote-Write-Version": "2.0.0" if version == 2 else "0.1.0",
    }


def _written(headers: Mapping[str, str]) -> int:
    """Samples and histograms that a server says it has stored of a request."""
    names = (_WRITTEN_HEADER, _WRITTEN_HEADER.replace("samples", "histograms"))
    texts = [headers.get(name, "0") for name in names]
    return sum(int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 10)
