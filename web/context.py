"""What handlers share in one application: the services, the metrics, the pool for queries."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp import web

from tsdb.select import Querier
from web.envelope import ApiError, ErrorType
from web.metrics import HttpMetrics
from web.services import AppServices, Database
from web.shortqueries import ShortQueries

RENDER_THREADS = 4
"""Threads that make and compress answers, besides those that evaluate queries."""


@dataclass(slots=True)
class AppContext:
    """One application. Loop thread only, but for the pool."""

    services: AppServices
    metrics: HttpMetrics
    pool: ThreadPoolExecutor
    slots: asyncio.Semaphore
    api_prefix: str
    """Path of the API with the slash at its end."""
    waiting_queries: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    notification_subscribers: int = 0
    short_queries: ShortQueries = field(default_factory=ShortQueries)

    @classmethod
    def create(cls, services: AppServices) -> AppContext:
        """Pools and metrics for the services."""
        threads = services.query_concurrency + RENDER_THREADS
        return cls(
            services,
            HttpMetrics(services.registry),
            ThreadPoolExecutor(threads, thread_name_prefix="query"),
            asyncio.Semaphore(services.query_concurrency),
            f"{services.route_prefix.rstrip('/')}/api/v1/",
        )

    def now_ms(self) -> int:
        """The present, in milliseconds."""
        return int(self.services.clock_s() * 1000)

    def database(self) -> Database:
        """The open store. Raises ApiError while there is none."""
        if self.services.database is None:
            raise ApiError(ErrorType.UNAVAILABLE, "TSDB not ready")
        return self.services.database

    def querier(self) -> Querier:
        """A view of the store; the caller closes it."""
        return self.database().querier()


CONTEXT = web.AppKey("context", AppContext)


def context_of(request: web.Request) -> AppContext:
    """The application's context."""
    return request.app[CONTEXT]
