"""The running server: opens the store, wires the parts together, and closes them in order.

The HTTP side listens first and answers 503 until the WAL is replayed and the kernels of the write path are
loaded; the kernels of the read path follow in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import importlib.metadata
import logging
import os
import platform
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import uvloop
from aiohttp import web
from prometheus_client import Gauge

from cli.configuration import ConfigurationSource, read_security_config
from cli.earlystore import StoreOpening
from cli.flags import ServeFlags
from cli.kernelmemory import give_back
from cli.kernels import import_all_kernels, load_for_first_query, load_rest
from cli.securityparts import SecurityError, SecurityParts, load_rules
from cli.serveagents import make_agent_registry, pushed_files, read_token
from cli.serveremote import make_destinations
from cli.serveroptions import engine_options, retention_text, storage_options
from ingest.config.document import LoadedConfig, config_to_yaml
from ingest.config.errors import ConfigError
from ingest.remotewrite.destinations import Destinations
from ingest.remotewrite.receiver import Receiver, RemoteWriteLimits
from ingest.scrape.service import ScrapeManager, ScrapeSettings
from promql.activequeries import ActiveQueries
from promql.engine import Engine
from security.activerules import ActiveRules
from tsdb.database import Database
from tsdb.errors import StorageError
from tsdb.kernels import compile as kernels
from web.app import create_app
from web.listener import ConnectionLimit, LimitedSite
from web.querylog import QueryLog
from web.readiness import Readiness
from web.services import AppServices, BuildInfo, ReloadState
from web.tls import server_context

if TYPE_CHECKING:
    from agent.service import AgentService

log = logging.getLogger("vedette.main")

_PROGRESS_AFTER_S = 2.0
_SHUTDOWN_S = 30.0
_FIRST_QUERY_WAIT_S = 1.0
_COMPILE_WAIT_S = 0.5
"""How long a server that stops waits for the kernel that is being compiled."""
_QUIET_S = 0.2
"""Between ready and the loading of all other kernels: for who asks at once."""


@dataclass(slots=True)
class _LoadedRules:
    """Rules, and the configuration they are from."""

    config: LoadedConfig
    active: ActiveRules


class StartError(Exception):
    """The server cannot start; the text is one clear line."""


class Server:
    """One server process. `run` blocks until SIGTERM, SIGINT or /-/quit."""

    def __init__(
        self, flags: ServeFlags, source: ConfigurationSource, config: LoadedConfig, opening: StoreOpening
    ) -> None:
        """`opening` knows its options; it is begun here at the latest."""
        self._flags = flags
        self._source = source
        self._config = config
        self._opening = opening
        self._registry = opening.registry
        self._readiness = Readiness()
        self._replay = opening.progress
        self._database: Database | None = None
        self._scrape: ScrapeManager | None = None
        self._receiver: Receiver | None = None
        self._destinations: Destinations | None = None
        self._agent: AgentService | None = None
        self._security: SecurityParts | None = None
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._answers_queries = asyncio.Event()
        self._reload_lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()
        self._compiling: asyncio.Future[Any] | None = None
        """The thread that loads or compiles kernels at the moment, or the last one that did."""
        self._engine = Engine(
            engine_options(flags), self._registry, concurrent_max=flags["query.max-concurrency"]
        )
        self._query_log = QueryLog(self._registry, flags.duration_ms("query.slow-log-threshold") / 1000)
        self._services = self._make_services()

    def run(self) -> None:
        """Serve until stopped. Raises StartError."""
        gc.freeze()
        gc.enable()
        uvloop.run(self._run())

    async def _run(self) -> None:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        # One thread a core for kernels, and some that wait: for fsync, for a query's turn.
        loop.set_default_executor(ThreadPoolExecutor((os.cpu_count() or 1) + 8, "vedette"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_on_signal()))
        self._log_warnings()
        runner = await self._listen()
        try:
            if await self._open():
                await self._serve(started)
        finally:
            self._readiness.set_stopping()
            self._stop.set()
            await self._close(runner)
        await self._leave()

    async def _serve(self, started: float) -> None:
        """Be ready until told to stop."""
        # Milliseconds with a warm cache; a query that must compile its kernels waits by itself.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answers_queries.wait(), _FIRST_QUERY_WAIT_S)
        self._readiness.set_ready()
        self._ready.set()
        log.info("Server is ready to receive requests", extra={"seconds": _since(started)})
        if self._flags["config.auto-reload"]:
            self._spawn(self._watch_configuration())
        if self._flags["agent"]:
            await self._start_agent()
        await self._stop.wait()

    async def _listen(self) -> web.AppRunner:
        timeout_s = self._flags.duration_ms("web.read-timeout") / 1000
        runner = web.AppRunner(
            create_app(self._services),
            access_log=None,
            keepalive_timeout=timeout_s,
            shutdown_timeout=_SHUTDOWN_S,
            # Handlers judge encodings themselves: remote write takes snappy only, and answers others 415.
            auto_decompress=False,
        )
        try:
            tls = server_context(self._flags["web.config.file"])
        except (ConfigError, OSError) as error:
            raise StartError(f"web configuration: {error}") from None
        await runner.setup()
        limit = ConnectionLimit(self._flags["web.max-connections"], self._registry)
        for address in self._flags.addresses():
            site = LimitedSite(runner, address.host, address.port, limit, tls)
            try:
                await site.start()
            except OSError as error:
                await runner.cleanup()
                raise StartError(f"listen on {address}: {error.strerror or error}") from None
            log.info("Start listening for connections", extra={"address": str(address)})
        return runner

    async def _open(self) -> bool:
        """Open the store (replaying its WAL) while the write path's kernels load, then what feeds it. False
        if the server is told to stop before that is done. Raises StartError."""
        path = self._flags["storage.tsdb.path"]
        self._opening.begin()
        self._opening.settle(storage_options(self._flags, self._config))
        store = asyncio.wrap_future(self._opening.database)
        write_path = self._compiling = asyncio.ensure_future(
            asyncio.to_thread(_warm_write_path, self._stop.is_set)
        )
        self._spawn(self._warm_read_path(write_path))
        rules = asyncio.ensure_future(self._load_rules(write_path, self._config))
        rules.add_done_callback(_forget)
        both = asyncio.gather(store, write_path)
        told = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((both, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if self._stop.is_set():
            both.add_done_callback(_forget)
            return False
        try:
            database, _ = both.result()
        except (StorageError, OSError) as error:
            raise StartError(f"open storage in {path}: {error}") from None
        self._database = database
        appender = database.appender()
        self._services.database = database
        self._log_active_queries()
        try:
            self._query_log.open(self._config.globals.query_log_file)
        except OSError as error:
            raise StartError(f"open query log: {error}") from None
        if self._flags["web.enable-remote-write-receiver"]:
            self._receiver = Receiver(
                appender,
                database.series_table,
                RemoteWriteLimits(body_bytes_max=self._flags.size_bytes("web.max-body-size")),
                registry=self._registry,
                accepted_messages=self._flags["web.remote-write-receiver.accepted-protobuf-messages"],
            )
            database.gather_for(self._receiver.waiting_count)
            self._services.receiver = self._receiver
        self._scrape = ScrapeManager(appender, self._registry, settings=self._scrape_settings())
        self._services.scrape = self._scrape
        self._destinations = make_destinations(self._flags, database, self._scrape, self._registry)
        await self._apply_destinations()
        await self._scrape.apply(self._config)
        self._security = await self._start_security(database, rules)
        self._take_agents(path)
        return True

    async def _apply_destinations(self) -> None:
        if self._destinations is not None:
            config = self._config.config
            await self._destinations.apply(config.remote_write, config.global_.external_labels)

    async def _start_agent(self) -> None:
        """After ready: the agent's modules and its probe take longer than the server itself, and a query that
        comes first should not wait for them."""
        await self._answers_queries.wait()
        service = await asyncio.to_thread(importlib.import_module, "agent.service")
        from agent.config import read_agent_config

        assert self._database is not None
        assert self._security is not None
        self._agent = agent = service.AgentService(
            self._database.appender(),
            self._registry,
            read_agent_config(self._config),
            self._security.services.pipeline,
            directory=self._scrape,
        )
        await agent.start()

    def _take_agents(self, path: str) -> None:
        """Let agents in. Raises StartError."""
        assert self._security is not None
        try:
            token = self._services.agent_token = read_token(self._flags["web.agent-token-file"])
            if self._flags["web.remote-write-receiver.require-token"]:
                if not token:
                    raise ValueError("--web.remote-write-receiver.require-token needs --web.agent-token-file")
                self._services.write_token = token
            self._services.agents = make_agent_registry(
                self._security.services.pipeline.deliver, path, self._config, self._registry
            )
        except (ConfigError, StorageError, OSError, ValueError) as error:
            raise StartError(f"agents: {error}") from None

    async def _load_rules(self, write_path: asyncio.Future[None], loaded: LoadedConfig) -> _LoadedRules:
        """Rules of the configuration, loaded beside the replay, behind what that needs."""
        await asyncio.wait([write_path])
        config = read_security_config(loaded)
        return _LoadedRules(loaded, await asyncio.to_thread(load_rules, self._flags, config))

    async def _start_security(
        self, database: Database, loading: asyncio.Future[_LoadedRules]
    ) -> SecurityParts:
        try:
            rules = await loading
            config = read_security_config(self._config)
            if rules.config is not self._config:
                # It was loaded again meanwhile.
                rules.active = await asyncio.to_thread(load_rules, self._flags, config)
            parts = await asyncio.to_thread(SecurityParts, self._flags, config, database, rules.active)
        except (ConfigError, SecurityError, StorageError, OSError) as error:
            raise StartError(str(error)) from None
        parts.start(self._registry)
        self._services.security = parts.services
        return parts

    def _log_active_queries(self) -> None:
        folder, slots = Path(self._flags["storage.tsdb.path"]), self._flags["query.max-concurrency"]
        try:
            active = ActiveQueries(folder, slots, time.time)
        except OSError as error:
            log.warning("Running queries are not logged", extra={"err": str(error)})
            return
        if active.unfinished:
            log.warning("These queries didn't finish in the last run", extra={"queries": active.unfinished})
        self._engine.log_active_queries(active)

    async def _close(self, runner: web.AppRunner) -> None:
        log.info("Stopping")
        for task in self._background:
            task.cancel()
        if self._agent is not None:
            await self._agent.stop()
        if self._security is not None:
            await asyncio.to_thread(self._security.stop_sources)
        if self._scrape is not None:
            await self._scrape.close()
        await runner.cleanup()
        if self._security is not None:
            await asyncio.to_thread(self._security.close)
        if self._receiver is not None:
            self._receiver.close()
        if self._destinations is not None:
            await self._destinations.close()
        self._engine.close()
        self._query_log.close()
        if self._database is not None:
            await asyncio.to_thread(self._database.close)
        log.info("See you next time!")

    async def _leave(self) -> None:
        """End the process here if a thread still compiles: one kernel takes seconds, and Python would wait
        for it. Everything is closed, but for a store that was not to be used yet: it must be as after a
        crash, since closing it may need kernels, too."""
        compiling = self._compiling
        if compiling is not None and not compiling.done():
            await asyncio.wait([compiling], timeout=_COMPILE_WAIT_S)
        if self._database is not None and (compiling is None or compiling.done()):
            return
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)

    async def _warm_read_path(self, write_path: asyncio.Future[None]) -> None:
        """What a first query needs is loaded beside the replay, before the rest of the read path."""
        await asyncio.wait([write_path])
        try:
            self._compiling = asyncio.ensure_future(
                asyncio.to_thread(load_for_first_query, self._stop.is_set)
            )
            await asyncio.shield(self._compiling)
        finally:
            self._answers_queries.set()
        await self._ready.wait()
        await asyncio.sleep(_QUIET_S)
        self._compiling = asyncio.ensure_future(
            asyncio.to_thread(load_rest, "read", self._stop.is_set, self._engine.running)
        )
        seconds = await asyncio.shield(self._compiling)
        await asyncio.to_thread(give_back, kernels.registered())
        # Kernels, series and modules stay: a full collection that walks them stops the event loop for 0.1 s.
        gc.freeze()
        log.info(
            "Kernels loaded", extra={"kernels": len(kernels.registered("read")), "seconds": round(seconds, 3)}
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Configuration.

    async def reload(self) -> None:
        """Read the configuration again and apply it; on an error everything stays as it was.

        Raises ConfigError or OSError; SecurityError for bad rules, all else being applied then.
        """
        async with self._reload_lock:
            try:
                config = await asyncio.to_thread(self._source.load)
                security = read_security_config(config)
                pushed = await asyncio.to_thread(pushed_files, config)
                self._query_log.open(config.globals.query_log_file)
            except (ConfigError, OSError) as error:
                log.error("Error reloading config", extra={"err": str(error)})
                raise
            self._config = config
            self._log_warnings()
            self._services.external_labels = config.globals.external_labels
            self._apply_storage_options()
            await self._apply_destinations()
            if self._scrape is not None:
                await self._scrape.apply(config)
            if self._services.agents is not None:
                self._services.agents.pushed = pushed
            if self._agent is not None:
                from agent.config import read_agent_config

                await self._agent.apply(read_agent_config(config))
            if self._security is not None:
                await asyncio.to_thread(self._security.apply, security)
            log.info("Completed loading of configuration file", extra={"file": str(self._source.path)})

    def _apply_storage_options(self) -> None:
        """As Prometheus does, a reload changes retentions, the out-of-order window and the exemplars held."""
        options = storage_options(self._flags, self._config)
        self._services.storage_retention = retention_text(self._flags, self._config)
        if self._database is not None:
            self._database.reconfigure(options)
        if self._security is not None:
            self._security.set_retention(options)

    def _log_warnings(self) -> None:
        for text in self._config.warnings:
            log.warning("Configuration has a part without effect", extra={"reason": text})

    async def _reload_on_signal(self) -> None:
        with contextlib.suppress(ConfigError, OSError, SecurityError):
            await self.reload()

    async def _watch_configuration(self) -> None:
        interval_s = self._flags.duration_ms("config.auto-reload-interval") / 1000
        while True:
            await asyncio.sleep(interval_s)
            if await asyncio.to_thread(self._source.has_changed):
                await self._reload_on_signal()

    # Parts.

    def _make_services(self) -> AppServices:
        flags = self._flags
        external = flags["web.external-url"]
        self._add_config_metrics()
        return AppServices(
            readiness=self._readiness,
            engine=self._engine,
            query_log=self._query_log,
            registry=self._registry,
            build=BuildInfo(
                version=importlib.metadata.version("vedette"), go_version=f"python{platform.python_version()}"
            ),
            flags=flags.as_text(),
            external_labels=self._config.globals.external_labels,
            config_yaml=lambda: config_to_yaml(self._config.config),
            wal_replay=lambda: (self._replay.first, self._replay.last, self._replay.current),
            reload_state=lambda: ReloadState(self._source.succeeded, self._source.loaded_at_s),
            reload=self.reload,
            quit=self._stop.set,
            page_title=flags["web.page-title"],
            cors_origin=flags["web.cors.origin"],
            external_url=external,
            route_prefix="/" + (flags["web.route-prefix"] or urlsplit(external).path).strip("/"),
            storage_retention=retention_text(flags, self._config),
            enable_admin_api=flags["web.enable-admin-api"],
            enable_lifecycle=flags["web.enable-lifecycle"],
            query_concurrency=flags["query.max-concurrency"],
            query_timeout_s=flags.duration_ms("query.timeout") / 1000,
            lookback_ms=flags.duration_ms("query.lookback-delta"),
            remote_write_body_bytes_max=flags.size_bytes("web.max-body-size"),
        )

    def _scrape_settings(self) -> ScrapeSettings:
        return ScrapeSettings(
            user_agent=f"Vedette/{importlib.metadata.version('vedette')}",
            hostname=socket.gethostname(),
            external_url=self._flags["web.external-url"],
            listen_port=self._flags.addresses()[0].port,
            exemplars="exemplar-storage" in self._flags.features(),
            seed=secrets.randbits(64),
        )

    def _add_config_metrics(self) -> None:
        succeeded = Gauge(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
            registry=self._registry,
        )
        succeeded.set_function(lambda: float(self._source.succeeded))
        loaded_at = Gauge(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Timestamp of the last successful configuration reload.",
            registry=self._registry,
        )
        loaded_at.set_function(lambda: self._source.loaded_at_s)


def _warm_write_path(stopping: Callable[[], bool]) -> None:
    import_all_kernels()
    report = kernels.report_progress_after(_PROGRESS_AFTER_S, "vedette: compiling kernels")
    kernels.warm("write", report, stopping)


def _forget(done: asyncio.Future[Any]) -> None:
    """Nobody wants to know how it ended."""
    if not done.cancelled():
        done.exception()


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
