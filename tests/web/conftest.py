"""An application over a small store in memory, with an engine that answers from a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from promql.ast import ValueType
from promql.memory import MemoryStore
from promql.parser import parse
from tsdb.errors import NotAtOnceError
from tsdb.labels import Labels
from tsdb.select import Querier
from web.app import create_app
from web.readiness import Readiness
from web.services import AppServices, BuildInfo, CancelFlag

NOW_S = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class FakeResult:
    """A `web.services.QueryResult`."""

    value: Any
    type: ValueType = ValueType.VECTOR
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    stats: Any = None
    work: int = 0


@dataclass(slots=True)
class FakeEngine:
    """Parses like the real engine, then calls `answer`; remembers the arguments of the last call."""

    answer: Callable[[str, CancelFlag], FakeResult] = lambda text, cancel: FakeResult(1.0)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    """What short queries were allowed; `answers_at_once` says whether they are answered."""
    answers_at_once: bool = False

    def instant(
        self,
        querier: Querier,
        text: str,
        time_ms: int,
        *,
        lookback_ms: int = 0,
        timeout_s: float = 0.0,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> FakeResult:
        parse(text)
        self._judge(at_once)
        self.calls.append((text, time_ms, lookback_ms, round(timeout_s, 1)))
        assert cancel is not None
        return self.answer(text, cancel)

    def range(
        self,
        querier: Querier,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        lookback_ms: int = 0,
        timeout_s: float = 0.0,
        stats: str = "",
        cancel: CancelFlag | None = None,
        at_once: int = 0,
    ) -> FakeResult:
        parse(text)
        self._judge(at_once)
        self.calls.append((text, start_ms, end_ms, step_ms))
        assert cancel is not None
        return self.answer(text, cancel)

    def _judge(self, at_once: int) -> None:
        if at_once:
            self.at_once.append(at_once)
            if not self.answers_at_once:
                raise NotAtOnceError("not this one")

    def observe_queue_s(self, seconds: float) -> None:
        assert seconds >= 0


class MemoryDatabase:
    """A store whose querier is closed and counted."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.deleted: list[tuple[Any, int, int]] = []

    def querier(self) -> Querier:
        return self.store.querier()

    def delete_series(self, matcher_sets: Any, mint: int, maxt: int) -> None:
        self.deleted.append((matcher_sets, mint, maxt))

    def snapshot(self, *, skip_head: bool) -> str:
        return f"20231114T221320Z-{int(skip_head):016x}"


@dataclass(slots=True)
class Site:
    """A running application and what is behind it."""

    client: TestClient[Any, Any]
    services: AppServices
    engine: FakeEngine
    database: MemoryDatabase

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """Status and parsed body of a GET."""
        async with self.client.get(path, **options) as response:
            return response.status, await _body(response)

    async def post(self, path: str, **options: Any) -> tuple[int, Any]:
        """Status and parsed body of a POST."""
        async with self.client.post(path, **options) as response:
            return response.status, await _body(response)


async def _body(response: Any) -> Any:
    if response.content_type == "application/json":
        return await response.json()
    return await response.text()


def filled(database: MemoryDatabase) -> None:
    """Three series of `up` and one with a dotted label."""
    for instance in ("a:1", "b:2", "c:3"):
        labels = Labels.from_dict({"__name__": "up", "instance": instance, "job": "node"})
        database.store.add_float(labels, int(NOW_S * 1000) - 5000, 1.0)
    dotted = Labels.from_dict({"__name__": "http_total", "http.path": "/<x>", "job": "web"})
    database.store.add_float(dotted, int(NOW_S * 1000) - 250, 2.5)


SiteFactory = Callable[..., Any]


@pytest.fixture
async def make_site() -> AsyncIterator[SiteFactory]:
    """`await make_site(ready=..., **fields of AppServices)`."""
    clients: list[TestClient[Any, Any]] = []

    async def make(ready: bool = True, headers: Mapping[str, str] | None = None, **changes: Any) -> Site:
        engine, database, readiness = FakeEngine(), MemoryDatabase(), Readiness()
        filled(database)
        if ready:
            readiness.set_ready()
        fields: dict[str, Any] = {
            "readiness": readiness,
            "engine": engine,
            "registry": CollectorRegistry(),
            "build": BuildInfo("1.2.3", go_version="python3"),
            "database": database,
            "clock_s": lambda: NOW_S,
            **changes,
        }
        services = AppServices(**fields)
        client = TestClient(TestServer(create_app(services)), headers=headers)
        await client.start_server()
        clients.append(client)
        return Site(client, services, engine, database)

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def site(make_site: SiteFactory) -> Site:
    """A ready application with default settings."""
    made: Site = await make_site()
    return made
