"""Runs checks at their intervals, each in a process with limits, and stores what they print.

A check that fails, hangs or prints too much has `up` 0, its series go stale, and nothing else is concerned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from agent.checks.config import CHECKS_LIMIT, CheckConfig, CheckProgram
from agent.checks.run import CheckFailure, run_program
from ingest.clock import Clock, SystemClock
from ingest.kernels import exposition
from ingest.metrics import ScrapeMetrics
from ingest.scrape.samples import Body, SampleOptions, ScrapeError, TargetSamples
from tsdb.columns import Appender
from tsdb.errors import StorageError
from tsdb.labels import Labels

SAMPLES_LIMIT = 5000
SPREAD_SECONDS = 5.0
RUNNING_LIMIT = 4
"""Checks that run at once; the others wait."""

_log = logging.getLogger("vedette.agent")


def programs_in(directory: Path) -> list[CheckProgram]:
    """The executable files of a folder as checks; files that others may write are left out."""
    found = []
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        path = directory / name
        status = path.stat()
        if not os.access(path, os.X_OK) or name.startswith("."):
            continue
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            _log.warning("check left out: others may write it", extra={"file": str(path)})
            continue
        found.append(CheckConfig().program(name, "", (str(path),), {}))
    return found


class CheckRunner:
    """All checks of the agent. Start and stop on the event loop."""

    def __init__(
        self,
        appender: Appender,
        registry: CollectorRegistry | None,
        programs: Sequence[CheckProgram],
        *,
        instance: str,
        clock: Clock | None = None,
    ) -> None:
        """Series get the label `job` (the check's name) and `instance` (the check's, or `instance`)."""
        if len(programs) > CHECKS_LIMIT:
            raise ValueError(f"{len(programs)} checks exceed {CHECKS_LIMIT}")
        self._clock = clock or SystemClock()
        # The names of scraping are taken by the server's own; what a check costs is counted here.
        unseen = ScrapeMetrics(CollectorRegistry())
        options = SampleOptions(sample_limit=SAMPLES_LIMIT, honor_timestamps=False)
        self._checks = [
            (
                program,
                TargetSamples(
                    appender,
                    Labels.from_dict({"job": program.name, "instance": program.instance or instance}),
                    options,
                    unseen,
                ),
            )
            for program in programs
        ]
        self._runs = Counter("vedette_agent_check_runs", "Runs of a check.", ("check",), registry=registry)
        self._failures = Counter(
            "vedette_agent_check_failures",
            "Runs that gave no metrics.",
            ("check", "reason"),
            registry=registry,
        )
        self._stopping = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reported: dict[tuple[str, str], str] = {}

    async def start(self) -> None:
        """Begin; the first runs are spread over some seconds."""
        self._stopping.clear()
        self._pool = ThreadPoolExecutor(RUNNING_LIMIT, "check")
        for program, samples in self._checks:
            name = f"check-{program.name}"
            self._tasks.append(asyncio.create_task(self._repeat(program, samples), name=name))

    async def stop(self) -> None:
        """End running checks and mark their series as stale."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)
            self._pool = None
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        now_ms = self._clock.now_ms() + 1
        for _, samples in self._checks:
            with contextlib.suppress(StorageError):
                samples.end(now_ms)

    async def _repeat(self, program: CheckProgram, samples: TargetSamples) -> None:
        loop = asyncio.get_running_loop()
        await self._clock.sleep(random.uniform(0, min(program.interval_seconds / 4, SPREAD_SECONDS)))
        while True:
            began = self._clock.monotonic()
            await loop.run_in_executor(self._pool, self.run_once, program, samples)
            elapsed = self._clock.monotonic() - began
            await self._clock.sleep(max(program.interval_seconds - elapsed, 1.0))

    def run_once(self, program: CheckProgram, samples: TargetSamples) -> None:
        """Run a check and store its metrics, or that it is down. In a thread of the pool, or a test's."""
        body: Body | None = None
        failure: ScrapeError | None = None
        began, t_ms = self._clock.monotonic(), self._clock.now_ms()
        self._runs.labels(program.name).inc()
        try:
            output = run_program(program, self._stopping)
            body = Body(output if output.endswith(b"\n") else output + b"\n", exposition.TEXT)
        except CheckFailure as error:
            if self._stopping.is_set():
                return
            failure = ScrapeError(str(error))
            self._failed(program, error.reason, str(error))
        except (OSError, ValueError, LookupError) as error:
            failure = ScrapeError(str(error))
            self._failed(program, "start", str(error))
        try:
            outcome = samples.store(body, failure, t_ms, lambda: self._clock.monotonic() - began)
        except StorageError as error:
            self._failed(program, "store", str(error))
            return
        if failure is None and outcome.error:
            self._failed(program, "metrics", outcome.error)

    def _failed(self, program: CheckProgram, reason: str, text: str) -> None:
        """Each failure is counted; it is logged once, and again when its text changes."""
        self._failures.labels(program.name, reason).inc()
        key = (program.name, program.instance)
        if self._reported.get(key) != text:
            self._reported[key] = text
            _log.warning("check failed", extra={"check": program.name, "reason": text})
