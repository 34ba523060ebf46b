"""Servers that are dead, slow or lie, over real sockets: nothing is lost, memory and disk stay bounded."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from agent.channel import client as channel_module
from agent.channel.client import ChannelClient, ChannelMetrics
from agent.channel.protocol import PushedFile, Report
from agent.channel.spool import EventSpool
from agent.channel.stagedfiles import StagedFiles
from ingest.config.httpclient import HTTPClientConfig
from ingest.diskqueue import DiskQueue
from ingest.httpclient import HTTPClient
from ingest.remotewrite.forward import ForwardAppender
from ingest.remotewrite.forwardmetrics import ForwardFamilies
from ingest.remotewrite.sender import Sender, SenderOptions
from security.output import EventOutput
from security.record import EventRecord
from tsdb.columns import SampleColumns, WriteBatch
from tsdb.labels import Labels

COLLECTIONS = 40
"""As many as ten minutes have."""
SLOW_SECONDS = 0.3
ENDLESS_BYTES_LIMIT = 16 << 20
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def record(number: int) -> EventRecord:
    output = EventOutput("Shell", "syscall", 5, (), 10**18 + number, f"event {number}", {"proc.pid": number})
    return EventRecord(output, (("rule", "Shell"),), "web-1")


async def request_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return head[0].split()[1], headers, body


def says(status: str, body: bytes = b"", *headers: str) -> Behave:
    """Answers every request alike."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        fixed = ("Connection: close", f"Content-Length: {len(body)}")
        lines = [f"HTTP/1.1 {status}", *fixed, *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return behave


def sends(data: bytes) -> Behave:
    """Answers with these bytes and closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(data)
        await writer.drain()

    return behave


async def dribbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header that never ends, one byte at a time."""
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection and nothing else."""
    await asyncio.sleep(60)


class Host:
    """A server that behaves as told, then as a good one, which remembers what it took."""

    def __init__(self) -> None:
        self.behave: Behave | None = None
        self.samples: list[bytes] = []
        self.events: list[int] = []
        self.longest_answer_bytes = 0
        self.requests = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await (self.behave or self._take)(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, headers, body = await request_of(reader)
        answer, extra = b"", ""
        if path.endswith("/write"):
            self.samples.append(body)
            extra = "X-Prometheus-Remote-Write-Samples-Written: 1\r\n"
        elif path.endswith("/events"):
            self.events.append(int(headers["x-vedette-sequence"]))
            answer = f'{{"acknowledged": {headers["x-vedette-sequence"]}, "refused": 0}}'.encode()
        else:
            answer = b'{"acknowledged": 0}'
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{extra}Content-Length: {len(answer)}\r\n\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()

    async def endless(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An answer without an end."""
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        sent = 0
        while sent < 1 << 30:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
            self.longest_answer_bytes = max(self.longest_answer_bytes, sent)


class Quick:
    """Time whose waits are short, and which is wide enough between two samples."""

    def __init__(self) -> None:
        self.t_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self.t_ms += 1
        return self.t_ms

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.01)


class Sending:
    """Both lanes of an agent to one address, with what they have on disk."""

    def __init__(self, folder: Path, url: str, bytes_limit: int = 1 << 20) -> None:
        self.registry, self.clock, self.url = CollectorRegistry(), Quick(), url
        self.metrics = ForwardFamilies(self.registry).destination("agent", url)
        self.samples = DiskQueue(folder / "samples", bytes_limit)
        self.events = DiskQueue(folder / "events", bytes_limit)
        self.http = HTTPClient(HTTPClientConfig(follow_redirects=False), "test")
        self.appender = ForwardAppender(self.samples, self.metrics, clock=self.clock)
        self.sender = Sender(
            self.samples,
            self.http,
            SenderOptions(f"{url}/api/v1/write", timeout_seconds=SLOW_SECONDS, confirmed=True),
            self.metrics,
            clock=self.clock,
        )

        async def apply(files: Sequence[tuple[PushedFile, Path]]) -> None:
            raise AssertionError("nothing is pushed")

        def report() -> Report:
            return Report(agent="a-1", epoch=self.events.epoch, hostname="h", version="1", started_ms=0)

        self.channel = ChannelClient(
            "a-1",
            url,
            self.http,
            self.events,
            StagedFiles(folder / "pushed", apply),
            report,
            ChannelMetrics(self.registry),
            clock=self.clock,
        )
        self.spool = EventSpool(self.events, lambda count: None)
        self.refs = self.appender.refs([Labels.from_dict({"__name__": "up"})])

    def collect(self, number: int) -> None:
        """One collection and one event."""
        times = np.array([self.clock.now_ms()])
        self.appender.append(WriteBatch(SampleColumns(self.refs, times, np.array([float(number)]))))
        self.spool.write([record(number)]).result()

    def empty(self) -> bool:
        """Whether the server has taken all."""
        return self.samples.record_count == self.events.record_count == 0

    def repeated(self) -> float:
        """Requests that were sent again, of the kind that has fewer of them."""
        labels = {"remote_name": "agent", "url": self.url}
        samples = self.registry.get_sample_value("prometheus_remote_storage_samples_retried_total", labels)
        events = self.registry.get_sample_value("vedette_agent_events_retries_total")
        return min(samples or 0.0, events or 0.0)

    async def __aenter__(self) -> Sending:
        await self.sender.start()
        await self.channel.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.sender.stop()
        await self.channel.stop()
        await self.http.close()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(30):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"not in 30 s: {what}")


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setattr(channel_module, "TIMEOUT_SECONDS", SLOW_SECONDS)
    made = Host()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(says("200 OK", b"<html>"), id="200 without storing"),
        pytest.param(says("500 Internal Server Error", b"<html>"), id="500"),
        pytest.param(says("404 Not Found"), id="404"),
        pytest.param(says("302 Found", b"", "Location: /login"), id="redirect"),
        pytest.param(sends(b"\x16\x03\x01\x02\x00\xff" * 50), id="garbage"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), id="ends in the middle"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), id="huge header"),
        pytest.param(dribbles, id="one byte at a time"),
        pytest.param(reads_nothing, id="silence"),
        pytest.param("endless", id="endless answer"),
        pytest.param("refused", id="no server"),
    ],
)
async def test_ten_minutes_of_a_bad_server_lose_nothing(
    host: Host, tmp_path: Path, lie: Behave | str
) -> None:
    async with Sending(tmp_path, f"http://127.0.0.1:{host.port}") as sending:
        sending.collect(0)
        await sending.until(sending.empty, "the server is good at first")
        host.behave = host.endless if lie == "endless" else None if isinstance(lie, str) else lie
        if lie == "refused":
            await host.stop()
        for number in range(1, COLLECTIONS + 1):
            sending.collect(number)
        await sending.until(lambda: sending.repeated() >= 3, "both are sent again")
        assert (sending.samples.record_count, sending.events.record_count) == (COLLECTIONS, COLLECTIONS)
        assert host.longest_answer_bytes < ENDLESS_BYTES_LIMIT, "an answer is not read without end"
        if lie == "refused":
            await host.start()
        host.behave = None
        await sending.until(sending.empty, "the good server has taken all")
    # A good server that is slow once may be asked twice.
    assert sorted(set(host.events)) == list(range(1, COLLECTIONS + 2))
    assert len(set(host.samples)) == COLLECTIONS + 1


async def test_a_certificate_for_another_name_is_no_server(host: Host, tmp_path: Path) -> None:
    """The key is right, the authority is known, only the name is another."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    subject = ("-subj", "/CN=other", "-addext", "subjectAltName=DNS:other.example")
    subprocess.run(["openssl", *new.split(), *subject], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    await host.stop()
    host.port = 0
    await host.start(context)
    sending = Sending(tmp_path, f"https://localhost:{host.port}")
    tls = {"ca_file": str(tmp_path / "cert.pem")}
    sending.http._config = HTTPClientConfig.model_validate({"tls_config": tls})
    async with sending:
        sending.collect(1)
        await sending.until(lambda: sending.repeated() >= 2, "both are sent again")
        assert (sending.samples.record_count, sending.events.record_count) == (1, 1)
    assert (host.samples, host.events, host.requests) == ([], [], 0)


async def test_the_disk_stays_bounded_and_the_newest_are_kept(host: Host, tmp_path: Path) -> None:
    host.behave = says("503 Service Unavailable")
    async with Sending(tmp_path, f"http://127.0.0.1:{host.port}", bytes_limit=16 << 10) as sending:
        for number in range(300):
            sending.collect(number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        for name in ("samples", "events"):
            size = sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file())
            assert size <= 20 << 10, name
        host.behave = None
        await sending.until(sending.empty, "the good server has taken the rest")
    arrived = sorted(set(host.events))
    assert arrived[-1] == 300
    assert arrived[1:] == list(range(arrived[1], 301)), "one may have been on its way"
