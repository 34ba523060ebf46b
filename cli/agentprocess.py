"""The process of `vedette agent`: queues, rules, parts of the agent, and the two ways to the server."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import os
import platform
import re
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from agent.channel.client import ChannelClient, ChannelMetrics
from agent.channel.protocol import PushedFile, Report
from agent.channel.pushedfiles import CONFIG_NAME
from agent.channel.spool import EventSpool
from agent.channel.stagedfiles import StagedFiles
from agent.config import AgentConfig, read_agent_config
from agent.service import AgentService
from cli.configuration import read_security_config
from ingest.config.address import parse_address
from ingest.config.document import LoadedConfig, load_config, parse_config
from ingest.config.errors import ConfigError
from ingest.config.httpclient import HTTPClientConfig
from ingest.diskqueue import DiskQueue
from ingest.httpclient import HTTPClient
from ingest.remotewrite.forward import ForwardAppender
from ingest.remotewrite.forwardmetrics import ForwardFamilies
from ingest.remotewrite.sender import Sender, SenderOptions
from security.activerules import ActiveRules
from security.config import SecurityConfig
from security.pipeline import Pipeline
from tsdb.errors import StorageError
from tsdb.kernels import compile as kernels

log = logging.getLogger("vedette.agent")

_PROGRESS_AFTER_SECONDS = 2.0
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


class StartError(Exception):
    """The agent cannot start; the text is one clear line."""


@dataclass(frozen=True, slots=True)
class AgentFlags:
    """What the command line says. `server` has no slash at its end; `tls` are keys of a `tls_config`."""

    server: str
    data: Path
    config_file: str = ""
    rules: tuple[str, ...] = ()
    token_file: str = ""
    tls: Mapping[str, str] = field(default_factory=dict)
    samples_bytes: int = 512 << 20
    events_bytes: int = 512 << 20
    samples_age_seconds: float = 0.0
    flush_seconds: float = 5.0
    listen: str = ""


def agent_name(folder: Path, hostname: str) -> str:
    """The name by which the server knows this agent: the host's name and a number kept in the folder."""
    path = folder / "agent-id"
    number = path.read_text().strip() if path.exists() else ""
    if not re.fullmatch(r"[0-9a-f]{12}", number):
        number = secrets.token_hex(6)
        path.write_text(number + "\n")
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', hostname).strip('-')[:40] or 'host'}-{number}"


class AgentProcess:
    """One agent. `run` blocks until SIGTERM or SIGINT; SIGHUP reads configuration and rules again."""

    def __init__(self, flags: AgentFlags) -> None:
        """Raises ConfigError, StartError."""
        self._flags = flags
        self._local = self._read_config()
        self._hostname = os.uname().nodename
        self._started_ms = time.time_ns() // 1_000_000
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._http = self._make_client()
        self._open_queues()
        self._rules = ActiveRules()
        sink = EventSpool(self._events, self._channel_metrics.dropped.labels("disk").inc)
        self._pipeline = Pipeline(self._rules, [sink], hostname=self._hostname)
        self._service = AgentService(
            self._appender, self._registry, self._local[0], self._pipeline, standalone=True
        )
        self._files = StagedFiles(flags.data / "pushed", self._apply)
        self._pushed: Sequence[tuple[PushedFile, Path]] = ()
        self._stop = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()

    def _read_config(self) -> tuple[AgentConfig, SecurityConfig]:
        if not self._flags.config_file:
            return AgentConfig(), SecurityConfig()
        try:
            return _sections(load_config(self._flags.config_file))
        except OSError as error:
            raise StartError(f"read {self._flags.config_file}: {error.strerror}") from None

    def _make_client(self) -> HTTPClient:
        flags = self._flags
        parts = urlsplit(flags.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StartError(f'--server wants a URL such as https://vedette:9090, not "{flags.server}"')
        if flags.token_file and parts.scheme == "http" and not _LOOPBACK.fullmatch(parts.hostname):
            log.warning("the token is sent unencrypted: use https", extra={"server": flags.server})
        # A redirect would turn a request into a GET of something else, whose answer says nothing.
        raw: dict[str, object] = {"follow_redirects": False}
        if flags.tls:
            raw["tls_config"] = dict(flags.tls)
        if flags.token_file:
            raw["authorization"] = {"credentials_file": flags.token_file}
        try:
            config = HTTPClientConfig.model_validate(raw)
        except ValidationError as error:
            raise StartError(f"TLS or token flags: {error.errors()[0]['msg']}") from None
        return HTTPClient(config, f"Vedette/{importlib.metadata.version('vedette')}")

    def _open_queues(self) -> None:
        flags = self._flags
        url = f"{flags.server}/api/v1/write"
        self._forward_metrics = ForwardFamilies(self._registry).destination("agent", url)
        self._channel_metrics = ChannelMetrics(self._registry)

        def lost_samples(count: int) -> None:
            self._forward_metrics.dropped("queue_bytes", count)

        try:
            self._samples = DiskQueue(flags.data / "samples", flags.samples_bytes, on_drop=lost_samples)
            self._events = DiskQueue(
                flags.data / "events",
                flags.events_bytes,
                on_drop=self._channel_metrics.dropped.labels("queue_bytes").inc,
            )
            self._name = agent_name(flags.data, self._hostname)
        except (StorageError, OSError) as error:
            raise StartError(f"open the queues in {flags.data}: {error}") from None
        self._appender = ForwardAppender(self._samples, self._forward_metrics)

    def run(self) -> None:
        """Watch until stopped. Raises StartError."""
        gc.freeze()
        gc.enable()
        uvloop.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        listener = await self._listen()
        options = SenderOptions(
            f"{self._flags.server}/api/v1/write",
            age_limit_seconds=self._flags.samples_age_seconds,
            confirmed=True,
        )
        sender = Sender(self._samples, self._http, options, self._forward_metrics)
        channel = ChannelClient(
            self._name,
            self._flags.server,
            self._http,
            self._events,
            self._files,
            self._report,
            self._channel_metrics,
        )
        try:
            # Before the budget is watched: compiling is not what the agent costs.
            await asyncio.to_thread(_warm_watch_path)
            await self._files.resume()
            if not self._pushed:
                await self._apply_local()
            self._pipeline.start()
            await sender.start()
            await self._service.start()
            await channel.start()
            log.info("Agent is ready", extra={"agent": self._name, "server": self._flags.server})
            await self._stop.wait()
        finally:
            await self._close(listener, sender, channel)

    async def _close(self, listener: web.AppRunner | None, sender: Sender, channel: ChannelClient) -> None:
        log.info("Stopping")
        await self._service.stop()
        await asyncio.to_thread(self._pipeline.close)
        seconds = self._flags.flush_seconds
        await asyncio.gather(sender.stop(seconds), channel.stop(seconds))
        if listener is not None:
            await listener.cleanup()
        await self._http.close()
        left = {"samples": self._samples.pending_items, "events": self._events.pending_items}
        self._samples.close()
        self._events.close()
        log.info("Stopped; what is left is sent after the next start", extra=left)

    async def _listen(self) -> web.AppRunner | None:
        if not self._flags.listen:
            return None
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        for path in ("/-/ready", "/-/healthy"):
            app.router.add_get(path, self._serve_ready)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        address = parse_address(self._flags.listen)
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as error:
            await runner.cleanup()
            raise StartError(f"listen on {address}: {error.strerror or error}") from None
        return runner

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _serve_ready(self, request: web.Request) -> web.Response:
        return web.Response(text="Vedette agent is ready.\n")

    # What runs.

    def _report(self) -> Report:
        return Report(
            agent=self._name,
            epoch=self._events.epoch,
            hostname=self._hostname[:255],
            version=importlib.metadata.version("vedette"),
            started_ms=self._started_ms,
            queued_events=self._events.pending_items,
            queued_samples=self._samples.pending_items,
            dropped_events=self._pipeline.dropped_count,
            parts=self._service.running,
            budget_level=self._service.budget_level,
            files=self._files.status,
            metadata={
                "kernel": platform.release(),
                "machine": platform.machine(),
                "user": "root" if os.geteuid() == 0 else "not root",
            },
        )

    async def _apply(self, files: Sequence[tuple[PushedFile, Path]]) -> None:
        """Run with files of the server; where it has none, with the local ones. Raises what is wrong."""
        config, security = self._local
        rules = [*security.rules_files, *self._flags.rules]
        for file, path in files:
            if file.name == CONFIG_NAME:
                text = await asyncio.to_thread(path.read_text, encoding="utf-8")
                config, security = _sections(parse_config(text, CONFIG_NAME, environ={}))
        pushed_rules = [str(path) for file, path in files if file.name != CONFIG_NAME]
        options, self._rules.options = self._rules.options, security.rule_options()
        await asyncio.to_thread(self._rules.reload, pushed_rules or rules)
        if self._rules.problems:
            self._rules.options = options
            problem = self._rules.problems[0]
            for file, path in files:
                problem = problem.replace(str(path), file.name)
            raise ValueError(problem)
        self._pushed = files
        await self._service.apply(config)

    async def _apply_local(self) -> None:
        try:
            await self._apply(())
        except ValueError as error:
            for line in self._rules.problem_lines or [str(error)]:
                log.error("rules are bad, no rule runs", extra={"err": line})

    def _reload_on_signal(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            self._local = await asyncio.to_thread(self._read_config)
            await self._apply(self._pushed)
        except (ConfigError, StartError, ValueError, OSError) as error:
            log.error("Error reloading, what runs stays", extra={"err": str(error)})
        else:
            log.info("Configuration and rules are read again")


def _warm_watch_path() -> None:
    kernels.import_kernel_modules(("agent",))
    kernels.warm(
        "watch", kernels.report_progress_after(_PROGRESS_AFTER_SECONDS, "vedette: compiling kernels")
    )


def _sections(loaded: LoadedConfig) -> tuple[AgentConfig, SecurityConfig]:
    """What an agent reads of a file. Raises ConfigError."""
    return read_agent_config(loaded), read_security_config(loaded)
