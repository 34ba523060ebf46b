"""The remote-write endpoint: bytes and headers in, status, headers and text out.

Decompression, decoding and appending run in a pool of threads; the event loop only waits. A request is
answered when its WAL record is durable. `docs/remote-write.md` lists the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from ingest.remotewrite import v1, v2
from ingest.remotewrite.append import AliasTable, Outcome, Reader, RequestAppender
from ingest.remotewrite.decoded import DecodeArrays, RequestLimitError
from ingest.remotewrite.framing import (
    MESSAGES,
    CompressionError,
    SnappyBuffer,
    UnsupportedMediaError,
    negotiate,
)
from ingest.remotewrite.metrics import ReceiverMetrics
from ingest.remotewrite.wire import MalformedMessageError
from ingest.remotewrite.workers import Workers
from tsdb.columns import Appender
from tsdb.errors import ClosedError, DiskFullError, LimitError, StorageError

log = logging.getLogger(__name__)

Answer = tuple[int, Mapping[str, str], str]

_TEXT_HEADERS = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_WRITTEN_HEADER = "X-Prometheus-Remote-Write-{}-Written"


@dataclass(frozen=True, slots=True)
class RemoteWriteLimits:
    """Limits of one receiver."""

    body_bytes_max: int = 64 << 20
    """Compressed body; the web layer stops reading there, this is the second look (413)."""
    decoded_bytes_max: int = 32 << 20
    """Declared size of the snappy block, as in Prometheus (400)."""
    waiting_requests_max: int = 256
    """Requests that hold a body and wait for a thread (503, which senders retry)."""


class _Scratch(threading.local):
    """Buffers of one pool thread."""

    arrays: DecodeArrays | None = None
    snappy: SnappyBuffer | None = None


class Receiver:
    """Remote write 1.0 and 2.0. `handle` is called on the event loop; one pool of threads inside."""

    def __init__(
        self,
        appender: Appender,
        series_table: AliasTable,
        limits: RemoteWriteLimits | None = None,
        registry: CollectorRegistry | None = None,
        accepted_messages: Collection[str] = MESSAGES,
        threads: int | None = None,
    ) -> None:
        """`accepted_messages` are names of protobuf messages; others are answered 415."""
        unknown = set(accepted_messages) - set(MESSAGES)
        if unknown or not accepted_messages:
            raise ValueError(
                f"accepted remote write messages must be among {MESSAGES}, got {unknown or 'none'}"
            )
        self._limits = limits or RemoteWriteLimits()
        self._metrics = ReceiverMetrics(registry if registry is not None else CollectorRegistry())
        self._requests = RequestAppender(appender, series_table, self._metrics)
        self._table = series_table
        self._accepted = tuple(accepted_messages)
        self._stored = {message: self._metrics.requests.labels(message, "204") for message in self._accepted}
        self._pool = Workers(threads or os.cpu_count() or 1, "remote-write")
        self._scratch = _Scratch()
        self._waiting = 0
        self._metrics.waiting.set_function(self.waiting_count)

    async def handle(self, body: bytes | bytearray | memoryview, headers: Mapping[str, str]) -> Answer:
        """Store one request. Never raises for what a sender can cause."""
        try:
            message = negotiate(
                headers.get("Content-Type", ""), headers.get("Content-Encoding", ""), self._accepted
            )
        except UnsupportedMediaError as error:
            return self._answer("", Outcome(415, [str(error)], 1))
        limit = self._limits.body_bytes_max
        if len(body) > limit:
            text = f"request body of {len(body)} bytes exceeds the limit of {limit} bytes"
            return self._answer(message, Outcome(413, [text], 1))
        waiting_max = self._limits.waiting_requests_max
        if self._waiting >= waiting_max:
            text = f"{self._waiting} remote write requests are waiting, the limit is {waiting_max}"
            return self._answer(message, Outcome(503, [text], 1))
        self._waiting += 1
        try:
            outcome = await self._store(body, message)
        finally:
            self._waiting -= 1
        return self._answer(message, outcome)

    def waiting_count(self) -> int:
        """Requests that are not answered yet. Any thread."""
        return self._waiting

    async def _store(self, body: bytes | bytearray | memoryview, message: str) -> Outcome:
        try:
            return await self._durable(body, message)
        except (DiskFullError, ClosedError, LimitError) as error:
            # Of LimitErrors only those of the head's room come here: there is some again after the next cut.
            return Outcome(503, [str(error)], 1)
        except StorageError as error:
            log.error("Error while remote writing the request: %s", error)
            return Outcome(500, [str(error)], 1)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("Error while remote writing the request")
            return Outcome(500, [f"{type(error).__name__}: {error}"], 1)

    async def _durable(self, body: bytes | bytearray | memoryview, message: str) -> Outcome:
        """Process a body in the pool; the event loop is woken once, when the outcome is durable."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def tell(outcome: Outcome | None, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, answer, outcome, error)

        def work() -> None:
            try:
                outcome = self._process(body, message)
            except BaseException as error:
                # Whatever it is: the request waits for this thread.
                tell(None, error)
                return
            if outcome.durable is None:
                tell(outcome, None)
            else:
                outcome.durable.add_done_callback(lambda done: tell(outcome, done.exception()))

        self._pool.submit(work)
        return await answer

    def _process(self, body: bytes | bytearray | memoryview, message: str) -> Outcome:
        """Decompress, decode and append; in a pool thread."""
        scratch = self._scratch
        if scratch.arrays is None or scratch.snappy is None:
            scratch.arrays = DecodeArrays()
            scratch.snappy = SnappyBuffer(self._limits.decoded_bytes_max)
        self._metrics.received_bytes.inc(len(body))
        try:
            size = scratch.snappy.decompress(body)
            self._metrics.decoded_bytes.inc(size)
            source = (scratch.snappy.bytes, size, self._table.snapshot(), self._table.seeds, scratch.arrays)
            reader: Reader
            if message == v1.MESSAGE:
                request = v1.decode(*source)
                reader = v1.Reader(request)
            else:
                request = v2.decode(*source)
                reader = v2.Reader(request, scratch.arrays)
            return self._requests.append(request, reader)
        except (CompressionError, MalformedMessageError, RequestLimitError) as error:
            return Outcome(400, [str(error)], 1)
        finally:
            scratch.arrays.give_back()

    def _answer(self, message: str, outcome: Outcome) -> Answer:
        if outcome.status == 204:
            self._stored[message].inc()
        else:
            self._metrics.requests.labels(message, str(outcome.status)).inc()
        headers: dict[str, str] = {}
        if message == v2.MESSAGE:
            headers[_WRITTEN_HEADER.format("Samples")] = str(outcome.samples_written)
            headers[_WRITTEN_HEADER.format("Histograms")] = str(outcome.histograms_written)
            headers[_WRITTEN_HEADER.format("Exemplars")] = str(outcome.exemplars_written)
        if outcome.status != 204:
            headers.update(_TEXT_HEADERS)
        return outcome.status, headers, outcome.text

    def close(self) -> None:
        """Finish what runs and stop the threads."""
        self._pool.close()


def _settle(answer: asyncio.Future[Outcome], outcome: Outcome | None, error: BaseException | None) -> None:
    """Resolve what a request waits for, unless it was given up meanwhile."""
    if answer.done():
        return
    if outcome is not None and error is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(error or RuntimeError("no outcome"))
