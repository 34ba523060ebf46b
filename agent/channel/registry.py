"""The server's side of the channel: who is connected, what has arrived, what is pushed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.channel.arrivals import Arrivals
from agent.channel.protocol import (
    FRAME_EVENTS_LIMIT,
    EventsAnswer,
    ProtocolError,
    Report,
    ReportAnswer,
    check_envelope,
)
from agent.channel.pushedfiles import PushedFiles
from ingest.clock import Clock, SystemClock
from security.record import EventRecord, InvalidRecordError

AGENTS_COUNT_LIMIT = 10_000
FORGET_AFTER_SECONDS = 7 * 86_400.0
"""An agent that did not report for this long gives way to a new one, when there are too many."""
EVENTS_PER_SECOND_LIMIT = 20_000.0
EVENTS_BURST_LIMIT = 100_000.0

_log = logging.getLogger("vedette.agents")


class ChannelError(Exception):
    """A request of an agent that is refused: status, text, and when to try again (seconds, 0 for never)."""

    def __init__(self, status: int, text: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(slots=True)
class _Agent:
    report: Report | None = None
    address: str = ""
    seen_ms: int = 0
    events_count: int = 0
    allowance: float = EVENTS_BURST_LIMIT
    allowance_at: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.agents = Gauge("vedette_agents", "Agents that are known.", registry=registry)
        self.frames = Counter(
            "vedette_agents_frames_total",
            "Requests with events by outcome: stored, repeated, refused (a limit or a fault), failed.",
            ("outcome",),
            registry=registry,
        )
        self.events = Counter("vedette_agents_events_total", "Events taken from agents.", registry=registry)
        self.invalid = Counter(
            "vedette_agents_invalid_events_total",
            "Events from agents that were no valid records.",
            registry=registry,
        )
        self.skipped = Counter(
            "vedette_agents_skipped_frames_total",
            "Requests that agents gave up before they were sent, seen as gaps in their numbers.",
            registry=registry,
        )


class AgentRegistry:
    """Agents of this server. Event loop only.

    Events are acknowledged when `deliver`'s result is done, that is, durable; `arrivals` remembers how far
    each agent's numbers were stored, across restarts.
    """

    def __init__(
        self,
        deliver: Callable[[Sequence[EventRecord]], Future[None]],
        folder: Path,
        registry: CollectorRegistry,
        *,
        clock: Clock | None = None,
    ) -> None:
        """`folder` is made when the first agent sends events. Raises StorageError, OSError."""
        self._deliver = deliver
        self._arrivals = Arrivals(folder)
        self._metrics = _Metrics(registry)
        self._clock = clock or SystemClock()
        self._agents: dict[str, _Agent] = {}
        self.pushed = PushedFiles()
        """What agents shall have; replaced as a whole."""

    async def report(self, report: Report, address: str) -> ReportAnswer:
        """Take an agent's report. Raises ChannelError."""
        agent = self._agent(report.agent)
        agent.report, agent.address, agent.seen_ms = report, address, self._clock.now_ms()
        acknowledged = self._arrivals.sequence(report.agent, report.epoch)
        return ReportAnswer(acknowledged=acknowledged, set=self.pushed.hash, files=list(self.pushed.files))

    def _agent(self, name: str) -> _Agent:
        agent = self._agents.get(name)
        if agent is None:
            if len(self._agents) >= AGENTS_COUNT_LIMIT:
                self._forget_one()
            agent = self._agents[name] = _Agent(allowance_at=self._clock.monotonic())
            self._metrics.agents.set(len(self._agents))
        return agent

    def _forget_one(self) -> None:
        name, oldest = min(self._agents.items(), key=lambda item: item[1].seen_ms)
        if self._clock.now_ms() - oldest.seen_ms < FORGET_AFTER_SECONDS * 1000:
            raise ChannelError(429, f"there are {AGENTS_COUNT_LIMIT} agents, which is the limit", 60.0)
        del self._agents[name]

    async def events(self, name: str, epoch: str, sequence: str, body: bytes) -> EventsAnswer:
        """Store the events of one request once, however often it is sent. Raises ChannelError."""
        try:
            name, epoch, number = check_envelope(name, epoch, sequence)
        except ProtocolError as error:
            self._metrics.frames.labels("refused").inc()
            raise ChannelError(400, str(error)) from None
        agent = self._agent(name)
        async with agent.turn:
            stored = self._arrivals.sequence(name, epoch)
            if number <= stored:
                self._metrics.frames.labels("repeated").inc()
                return EventsAnswer(acknowledged=stored)
            return await self._store(agent, name, epoch, number, stored, body)

    async def _store(
        self, agent: _Agent, name: str, epoch: str, number: int, stored: int, body: bytes
    ) -> EventsAnswer:
        lines = body.split(b"\n")
        if len(lines) > FRAME_EVENTS_LIMIT:
            # Our agents never send so many.
            self._metrics.frames.labels("refused").inc()
            raise ChannelError(413, f"{len(lines)} events in one request, the limit is {FRAME_EVENTS_LIMIT}")
        self._take_allowance(agent, len(lines))
        records, refused, error = await asyncio.to_thread(_records, lines)
        if records:
            try:
                done = await asyncio.to_thread(self._deliver, records)
                await asyncio.wrap_future(done)
            except Exception as failure:
                # Whatever failed, the agent still has the events and sends them again.
                self._metrics.frames.labels("failed").inc()
                raise ChannelError(503, f"events were not stored: {failure}", 1.0) from failure
        await asyncio.to_thread(self._arrivals.store, name, epoch, number)
        self._metrics.frames.labels("stored").inc()
        self._metrics.events.inc(len(records))
        self._metrics.invalid.inc(refused)
        self._metrics.skipped.inc(max(0, number - stored - 1) if stored else 0)
        agent.events_count += len(records)
        agent.seen_ms = self._clock.now_ms()
        if refused:
            _log.warning(
                "agent sent invalid events", extra={"agent": name, "events": refused, "error": error}
            )
        return EventsAnswer(acknowledged=number, refused=refused, error=error)

    def _take_allowance(self, agent: _Agent, count: int) -> None:
        now = self._clock.monotonic()
        grown = agent.allowance + (now - agent.allowance_at) * EVENTS_PER_SECOND_LIMIT
        agent.allowance, agent.allowance_at = min(grown, EVENTS_BURST_LIMIT), now
        if agent.allowance < count:
            self._metrics.frames.labels("refused").inc()
            wait = (count - agent.allowance) / EVENTS_PER_SECOND_LIMIT
            raise ChannelError(
                429, f"more than {EVENTS_PER_SECOND_LIMIT:.0f} events a second, which is the limit", wait
            )
        agent.allowance -= count

    def content(self, sha256: str) -> bytes:
        """A pushed file by its hash. Raises ChannelError."""
        content = self.pushed.contents.get(sha256)
        if content is None:
            raise ChannelError(404, f"no file with hash {sha256[:64]} is pushed")
        return content

    def rows(self) -> list[dict[str, Any]]:
        """What /api/v1/agents shows, by host name."""
        now_ms = self._clock.now_ms()
        rows = [
            {
                **agent.report.model_dump(exclude={"epoch"}),
                "address": agent.address,
                "last_seen_ms": agent.seen_ms,
                "silent_seconds": round((now_ms - agent.seen_ms) / 1000, 3),
                "events": agent.events_count,
                "up_to_date": agent.report.files.set == self.pushed.hash,
            }
            for agent in self._agents.values()
            if agent.report is not None
        ]
        return sorted(rows, key=lambda row: (row["hostname"], row["agent"]))


def _records(lines: Sequence[bytes]) -> tuple[list[EventRecord], int, str]:
    """Valid records, the number of invalid ones, and what is wrong with the first."""
    records, refused, error = [], 0, ""
    for line in lines:
        try:
            records.append(EventRecord.from_wire(line))
        except InvalidRecordError as failure:
            refused += 1
            error = error or str(failure)[:500]
    return records, refused, error
