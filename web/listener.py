"""Listening sockets that take no more connections than allowed: more of them wait in the kernel's queue.

Prometheus does the same (netutil.SharedLimitListener): nobody is refused, and all addresses share one limit.
asyncio's own servers accept everything, so the sockets are accepted from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that wait in the kernel (which may allow fewer: net.core.somaxconn)."""
_RETRY_S = 1.0


class ConnectionLimit:
    """How many connections are open, and may be. Loop thread only."""

    def __init__(self, count_max: int, registry: CollectorRegistry) -> None:
        """Metrics have Prometheus's names where it has one."""
        self._free = asyncio.Semaphore(count_max)
        self._open = Gauge("vedette_http_connections", "Open HTTP connections.", registry=registry)
        limit = Gauge("vedette_http_connections_limit", "Most open HTTP connections.", registry=registry)
        limit.set(count_max)
        accepted, closed = (
            Counter(
                f"net_conntrack_listener_conn_{what}_total",
                f"Total number of connections {what} to the listener of a given name.",
                ("listener_name",),
                registry=registry,
            )
            for what in ("accepted", "closed")
        )
        self._accepted, self._closed = accepted.labels("http"), closed.labels("http")

    async def acquire(self) -> None:
        """Wait until one more connection may be accepted."""
        await self._free.acquire()

    def give_back(self) -> None:
        """Nothing was accepted after all."""
        self._free.release()

    def opened(self) -> None:
        """A connection was accepted."""
        self._accepted.inc()
        self._open.inc()

    def closed(self) -> None:
        """A connection has ended."""
        self._closed.inc()
        self._open.dec()
        self._free.release()


class CountedConnection(asyncio.Protocol):
    """Another protocol, whose end is reported once."""

    def __init__(self, protocol: asyncio.Protocol, closed: Callable[[], None]) -> None:
        self._protocol = protocol
        self._closed: Callable[[], None] | None = closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Passed on, like all that follow."""
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self.end()

    def end(self) -> None:
        """Report the end, if that has not been done."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


class LimitedSite(web.BaseSite):
    """One address of a runner."""

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        limit: ConnectionLimit,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """An empty `host` stands for all interfaces."""
        super().__init__(runner, ssl_context=ssl_context)
        self._host, self._port, self._limit = host, port, limit
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The address as a URL."""
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{self._host or '0.0.0.0'}:{self._port}"

    async def start(self) -> None:
        """Listen on every address of the host that this machine has. Raises OSError."""
        await super().start()
        absent: OSError | None = None
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    self._sockets.append(_listening(family, address))
                except OSError as error:
                    # All interfaces include those of IPv6 also where the kernel has none.
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    absent = error
            if absent is not None and not self._sockets:
                raise absent
        except OSError:
            self._close_sockets()
            raise
        for listening in self._sockets:
            self._spawn(self._accept(listening))

    async def stop(self) -> None:
        """Accept nothing more; open connections are the runner's."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()
        await super().stop()

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    def _spawn(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        """Accept while the limit allows. A place is taken when somebody waits, not before: else an address
        that nobody uses would hold one."""
        while True:
            await _readable(listening)
            await self._limit.acquire()
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._limit.give_back()
                continue
            except OSError as error:
                # Out of descriptors or memory, most likely: those who wait can wait longer.
                self._limit.give_back()
                log.warning("Cannot accept a connection", extra={"address": self.name, "err": str(error)})
                await asyncio.sleep(_RETRY_S)
                continue
            self._limit.opened()
            self._spawn(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        """Hand a connection to the runner's server, after its TLS handshake."""
        server = self._runner.server
        assert server is not None
        counted = CountedConnection(server(), self._limit.closed)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: counted, connection, ssl=self._ssl_context
            )
        except BaseException as error:
            connection.close()
            counted.end()
            if not isinstance(error, OSError):
                raise


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


async def _readable(listening: socket.socket) -> None:
    """Wait until a connection waits."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(listening, tell)
    try:
        await ready
    finally:
        with contextlib.suppress(ValueError, OSError):
            loop.remove_reader(listening)
