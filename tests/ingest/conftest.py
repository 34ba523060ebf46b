"""Fixtures of the scrape tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ingest.kernels import exposition, seriescache
from tests.ingest.scrapebench import PORT, Bench, Exporter
from tsdb.kernels.compile import registered


@pytest.fixture(scope="session")
def scrape_kernels() -> None:
    """Loaded before the first scrape, whose time would count the loading."""
    for item in registered():
        if item.function.__module__ in (exposition.__name__, seriescache.__name__):
            item.compile()


@pytest.fixture
async def exporter(scrape_kernels: None) -> AsyncIterator[Exporter]:
    made = Exporter()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    yield made
    await runner.cleanup()


@pytest.fixture
async def bench(scrape_kernels: None) -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.manager.close()
