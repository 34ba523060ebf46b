"""The sockets of StatsD and the flushes into the store."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as MetricCounter

from ingest.clock import Clock, SystemClock
from ingest.gathered import Gathered, GatheredWriter
from ingest.statsd.aggregate import Aggregator, ObserverType
from ingest.statsd.limits import DATAGRAM_BYTES_LIMIT, StatsdLimits
from ingest.statsd.metrics import StatsdMetrics
from tsdb.columns import Appender
from tsdb.errors import StorageError

DATAGRAMS_PER_WAKE = 64
"""Then other work on the loop has its turn."""
DATAGRAMS_AT_STOP = 10_000
"""Datagrams still taken from each socket when the listener stops."""
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMORY_INFO = struct.Struct("=9I")
"""What the kernel tells of a socket's memory; the last number is that of dropped datagrams."""
_U32 = 1 << 32

_log = logging.getLogger("vedette.statsd")


@dataclass(frozen=True, slots=True)
class StatsdOptions:
    """`udp_port` None for no UDP socket, 0 for any port; `unix_path` empty for no Unix socket."""

    udp_host: str = "127.0.0.1"
    udp_port: int | None = 9125
    unix_path: str = ""
    unix_mode: int = 0o622
    flush_interval_seconds: float = 10.0
    idle_seconds: float = 3600.0
    """A series without samples for this long is forgotten and gets a stale marker; 0 keeps all."""
    receive_buffer_bytes: int = 8 << 20
    observer: ObserverType = "summary"
    limits: StatsdLimits = field(default_factory=StatsdLimits)


class StatsdListener:
    """Receives on the event loop, stores in a thread. All methods on the loop.

    Every flush stores all series, as a scrape would; when the store fails, totals go on growing and the next
    flush has them.
    """

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry | None,
        options: StatsdOptions | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`labels` are added to every series unless a tag says otherwise."""
        self._options = options or StatsdOptions()
        self._clock = clock or SystemClock()
        self._metrics = StatsdMetrics(registry)
        self._aggregator = Aggregator(self._options.limits, self._options.observer)
        self._writer = GatheredWriter(appender, labels)
        self._sockets: list[tuple[socket.socket, MetricCounter]] = []
        self._buffer = bytearray(DATAGRAM_BYTES_LIMIT)
        self._drops: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._bound_path = ""
        self._last_ms = 0

    @property
    def udp_address(self) -> tuple[str, int] | None:
        """Host and port bound, None without a UDP socket."""
        for sock, _ in self._sockets:
            if sock.family != socket.AF_UNIX:
                host, port = sock.getsockname()[:2]
                return host, port
        return None

    async def start(self) -> None:
        """Bind and listen. Raises OSError when an address cannot be bound."""
        try:
            if self._options.udp_port is not None:
                self._sockets.append((await self._bind_udp(self._options.udp_port), self._metrics.udp))
            if self._options.unix_path:
                self._sockets.append((self._bind_unix(self._options.unix_path), self._metrics.unix))
        except OSError:
            self._close_sockets()
            raise
        loop = asyncio.get_running_loop()
        for sock, packets in self._sockets:
            loop.add_reader(sock.fileno(), self._drain, sock, packets)
        self._pool = ThreadPoolExecutor(1, "statsd-flush")
        self._task = asyncio.create_task(self._run(), name="statsd")

    async def _bind_udp(self, port: int) -> socket.socket:
        rows = await asyncio.get_running_loop().getaddrinfo(
            self._options.udp_host, port, type=socket.SOCK_DGRAM
        )
        family, kind, protocol, _, address = rows[0]
        sock = self._prepare(socket.socket(family, kind, protocol))
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        return sock

    def _bind_unix(self, path: str) -> socket.socket:
        """A socket that nobody listens on is replaced; any other file at its path is an error."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "exists and is no socket", path)
            if _is_listening(path):
                raise OSError(errno.EADDRINUSE, "another process listens", path)
            os.unlink(path)
        sock = self._prepare(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        try:
            sock.bind(path)
            self._bound_path = path
            os.chmod(path, self._options.unix_mode)
        except OSError:
            sock.close()
            raise
        return sock

    def _prepare(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, self._options.receive_buffer_bytes)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._options.receive_buffer_bytes)
        return sock

    def _drain(
        self, sock: socket.socket, packets: MetricCounter, count_limit: int = DATAGRAMS_PER_WAKE
    ) -> None:
        """Take what waits in the socket, up to a bound."""
        view = memoryview(self._buffer)
        received = 0
        for _ in range(count_limit):
            try:
                size = sock.recv_into(view, 0, socket.MSG_TRUNC)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                _log.warning("statsd socket failed", extra={"error": str(error)})
                break
            received += 1
            if size > DATAGRAM_BYTES_LIMIT:
                self._metrics.too_long.inc()
                continue
            self._aggregator.receive(bytes(view[:size]))
        if received:
            packets.inc(received)

    def _count_drops(self) -> None:
        """Take over what the kernel has dropped; kernels before 4.12 do not tell."""
        for sock, _ in self._sockets:
            try:
                info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY_INFO.size)
                total = _MEMORY_INFO.unpack(info)[-1]
            except (OSError, struct.error):
                continue
            self._metrics.dropped.inc((total - self._drops.get(sock.fileno(), 0)) % _U32)
            self._drops[sock.fileno()] = total

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._options.flush_interval_seconds)
            await self.flush()

    async def flush(self) -> None:
        """Store all series now. Between start and stop."""
        if self._options.idle_seconds:
            self._aggregator.expire(self._clock.monotonic(), self._options.idle_seconds)
        self._count_drops()
        self._metrics.take(self._aggregator)
        t_ms = self._last_ms = max(self._clock.now_ms(), self._last_ms + 1)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._store, t_ms, self._clock.monotonic())

    def _store(self, t_ms: int, now_seconds: float) -> None:
        gathered = Gathered(series_limit=self._options.limits.series_count * 16)
        self._aggregator.gather(gathered, now_seconds)
        try:
            written = self._writer.write(gathered, t_ms)
        except StorageError as error:
            self._metrics.flush_failures.inc()
            _log.warning("statsd flush failed", extra={"error": str(error)})
            return
        self._metrics.refused.inc(written.refused_count)

    async def stop(self) -> None:
        """Take what still waits, store it, mark all series as stale, close the sockets."""
        if self._task is None or self._pool is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        loop = asyncio.get_running_loop()
        for sock, packets in self._sockets:
            loop.remove_reader(sock.fileno())
            self._drain(sock, packets, DATAGRAMS_AT_STOP)
        await self.flush()
        self._close_sockets()
        with contextlib.suppress(StorageError):
            await loop.run_in_executor(self._pool, self._writer.end, self._last_ms + 1)
        self._pool.shutdown()
        self._pool = None

    def _close_sockets(self) -> None:
        for sock, _ in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._bound_path:
            with contextlib.suppress(OSError):
                os.unlink(self._bound_path)
            self._bound_path = ""


def _is_listening(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == 0
