"""Numbers of this host, measured in this process: the agent's sources without a store."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from agent.containermetrics import ContainerSource, NamesOf
from agent.events import Events
from agent.groupconfig import ConnectionsConfig, ProcessesConfig
from agent.groupmetrics import GroupMetrics
from agent.hostcollector import Source as MetricSource
from agent.probe.layout import KIND_EXEC
from agent.probe.program import ProbeError
from agent.processes import Process, ProcessTable
from agent.runtimes.lookup import default_lookup
from agent.watcher import Watcher
from cli.live.views import Happening, Reading, SourceError, Wanted
from ingest.gathered import Gathered, SeriesKey

EVENTS_LIMIT = 500
BATCH_LIMIT = 100
"""Executions of one batch that are shown, the last ones."""


class Executions:
    """Consumer of a watcher that keeps the last programs that were started. Any thread."""

    def __init__(self, names_of: NamesOf) -> None:
        self._names_of = names_of
        self._lock = threading.Lock()
        self._kept: deque[Happening] = deque(maxlen=EVENTS_LIMIT)

    def consume(self, events: Events, table: ProcessTable) -> None:
        """Keep the executions of a batch."""
        header = events.batch.header
        rows = np.flatnonzero(header["kind"] == KIND_EXEC)[-BATCH_LIMIT:]
        made = []
        for row in rows.tolist():
            process = table.get(int(header["pid"][row]), int(header["start_ns"][row]))
            if process is not None:
                text = f"{process.pid}{self._where(process)} {process.command_line}"
                made.append(Happening(int(events.time_unix_ns[row]) / 1e9, "", process.comm, text))
        with self._lock:
            self._kept.extend(made)

    def _where(self, process: Process) -> str:
        """The container by name, by its id as long as the runtime has not told the name."""
        if process.container is None:
            return ""
        names = self._names_of(process.container.id)
        name = (names.container or names.name) if names else ""
        return f" [{name or process.container.shown_id}]"

    def newest(self) -> list[Happening]:
        """All that is kept, newest first."""
        with self._lock:
            return list(reversed(self._kept))


class HostSource:
    """This host. One thread reads; a probe watches in its own."""

    def __init__(self) -> None:
        self.title = os.uname().nodename
        self.note = ""
        self._containers = default_lookup()
        asyncio.run(self._containers.start())
        groups = GroupMetrics(ProcessesConfig(), ConnectionsConfig(), self._containers)
        self._sources: list[MetricSource] = [
            *groups.sources,
            ContainerSource(names_of=self._containers.names_of),
        ]
        self._executions = Executions(self._containers.names_of)
        consumers = [*groups.consumers, self._executions.consume]
        self._watcher: Watcher | None = Watcher(None, None, consumers=consumers, calls=groups.calls)
        try:
            self._watcher.start()
        except ProbeError as error:
            self.note = f"no probe: {error}"
            self._watcher = None
        self._now: dict[SeriesKey, float] = {}
        self._before: dict[SeriesKey, float] = {}
        self._seconds = 0.0
        self._read_at = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Measure now; rates are between this and the time before."""
        gathered = Gathered()
        for source in self._sources:
            try:
                source.collect(gathered)
            except (OSError, ValueError, IndexError) as error:
                raise SourceError(f"{source.name}: {error}") from None
        now = time.monotonic()
        self._before, self._now = self._now, gathered.values
        self._seconds, self._read_at = now - self._read_at, now

    def read(self, labels: Sequence[str], wanted: Sequence[Wanted]) -> Reading:
        """Measure and sum up."""
        self.refresh()
        by_name: dict[str, list[tuple[SeriesKey, float]]] = {}
        for key, value in self._now.items():
            by_name.setdefault(key[0], []).append((key, value))
        return {item: self._values(labels, item, by_name.get(item.metric, [])) for item in wanted}

    def happenings(self) -> list[Happening]:
        """The programs that were started last."""
        return self._executions.newest()

    def close(self) -> None:
        """Take the probe out of the kernel."""
        if self._watcher is not None:
            self._watcher.stop()
        asyncio.run(self._containers.stop())

    def _values(
        self, labels: Sequence[str], wanted: Wanted, series: Sequence[tuple[SeriesKey, float]]
    ) -> Mapping[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for key, value in series:
            own = dict(zip(key[1], key[2], strict=True))
            if any(own.get(name) != text for name, text in wanted.where):
                continue
            if wanted.rate:
                # A series that is new began to count since the last time.
                value = max(value - self._before.get(key, 0.0 if self._before else value), 0.0)
                value /= max(self._seconds, 0.001)
            row = tuple(own.get(label, "") for label in labels)
            found[row] = found.get(row, 0.0) + value
        return found
