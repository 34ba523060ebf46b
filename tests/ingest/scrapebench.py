"""A scrape manager on a clock that the test moves, and an exposition server to scrape."""

from __future__ import annotations

import asyncio
import gzip
import heapq
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from ingest.config.document import parse_config
from ingest.scrape.service import ScrapeManager, ScrapeSettings
from tests.e2e.processes import lasting_port
from tests.ingest.fakestore import FakeStore

PORT = lasting_port()
"""Where the exporter of a test listens, one after the other."""
SETTLE_SECONDS = 0.2
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MovedClock:
    """Time stands still until `advance`; sleepers wake in order of their time."""

    def __init__(self, start_ms: int = 1_000_000_000_000) -> None:
        self.ms = float(start_ms)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return round(self.ms)

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.ms + seconds * 1000, self._count, future))
        await future

    async def settle(self, sleeper_count: int = 0) -> None:
        """Let happen what needs no time to pass: wait, not for long, until so many sleep again."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for _ in range(10):
            await asyncio.sleep(0.001)
        while len(self._sleepers) < sleeper_count and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    async def advance(self, seconds: float) -> None:
        """Move on, stopping at every wake-up in between."""
        end = self.ms + seconds * 1000
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            count = len(self._sleepers)
            at, _, future = heapq.heappop(self._sleepers)
            self.ms = max(self.ms, at)
            if not future.done():
                future.set_result(None)
                await self.settle(count)
        self.ms = end
        await self.settle()


class Exporter:
    """An exposition server whose answer the test sets."""

    def __init__(self) -> None:
        self.body = b"a 1\n"
        self.status = 200
        self.content_type = TEXT_TYPE
        self.requests: list[web.BaseRequest] = []
        self.gate: asyncio.Event | None = None
        self.respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.respond is not None:
            return await self.respond(request)
        if self.gate is not None:
            await self.gate.wait()
        headers = {"Content-Type": self.content_type}
        body = self.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        return web.Response(body=body, status=self.status, headers=headers)


class Bench:
    """A manager on a moved clock."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = MovedClock()
        self.registry = CollectorRegistry()
        self.manager = ScrapeManager(self.store, self.registry, self.clock, ScrapeSettings())

    async def apply(self, text: str, file: str = "prometheus.yml") -> None:
        await self.manager.apply(parse_config(text, file))
        await self.clock.settle()

    def one(self, series: str = "up", job: str = "j", port: int = PORT) -> list[float | str]:
        return self.store.values(f'{series}{{instance="127.0.0.1:{port}", job="{job}"}}')

    def active(self) -> dict[str, object]:
        targets = self.manager.targets()["activeTargets"]
        assert len(targets) == 1
        return dict(targets[0])


def job(extra: str = "", name: str = "j", port: int = PORT) -> str:
    return (
        f"- job_name: {name}\n  scrape_interval: 10s\n  scrape_timeout: 5s\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{extra}"
    )


def config(*jobs: str) -> str:
    return "scrape_configs:\n" + "".join(jobs)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another thread or process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition was not reached in time"
        await asyncio.sleep(0.01)
