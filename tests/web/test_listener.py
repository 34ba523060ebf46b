"""Listening sockets on machines that lack a family of addresses."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from tests.e2e.processes import free_port
from web.listener import ConnectionLimit, LimitedSite

UNKNOWN_FAMILY = 999
"""No kernel makes sockets of it: as IPv6 is where it is turned off."""


async def started(port: int, families: list[int], monkeypatch: pytest.MonkeyPatch) -> web.AppRunner:
    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(family, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for family in families]

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    site = LimitedSite(runner, "", port, ConnectionLimit(4, CollectorRegistry()))
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    finally:
        monkeypatch.undo()
    return runner


async def test_a_family_that_the_kernel_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    runner = await started(port, [UNKNOWN_FAMILY, socket.AF_INET], monkeypatch)
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
            assert await answer.text() == "hello"
    finally:
        await runner.cleanup()


async def test_a_site_without_any_address_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="not supported"):
        await started(free_port(), [UNKNOWN_FAMILY], monkeypatch)
