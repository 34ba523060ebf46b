"""The budget governor: what the agent may cost, and what it leaves out before it costs more.

Steps are engaged one by one, the least valuable work first, and released in reverse. Engaging looks at the
last half minute; releasing wants calm for minutes, and longer each time a release turned out too early.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

TICK_SECONDS = 5.0
WINDOW_SECONDS = 30.0
"""Over which the use of processor time is averaged."""
GRACE_SECONDS = 60.0
"""After the start, when rules and kernels are compiled."""
ENGAGE_AT = 0.9
"""Part of the budget from which on a step is engaged: before the budget is exceeded, not after."""
RELEASE_BELOW = 0.5
MEMORY_RELEASE_BELOW = 0.75
EXTREME = 3.0
"""From this multiple of the budget on the next step does not wait for the effect of the one before."""
CALM_SECONDS = 120.0
CALM_SECONDS_MAX = 3600.0
EARLY_SECONDS = 600.0
"""A step that is engaged again within this time after its release was released too early."""

_log = logging.getLogger("vedette.agent")


@dataclass(frozen=True, slots=True)
class Step:
    """Work that can be left out. `engage` and `release` are called on the governor's thread."""

    name: str
    engage: Callable[[], None]
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds since some start, and resident bytes; None where those are not the agent's alone."""

    cpu_seconds: float
    resident_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Percent of one core, and bytes."""

    cpu_percent: float
    memory_bytes: int


class GovernorMetrics:
    """What the governor measures and does. Any thread."""

    def __init__(self, registry: CollectorRegistry | None, budget: Budget, steps: Sequence[Step]) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vedette_agent_budget_{name}", text, registry=registry)

        self.level = gauge("level", "Steps of saving that are engaged; 0 is all work done.")
        self.cpu = gauge("cpu_percent", "Percent of one core used, averaged over half a minute.")
        self.memory = gauge("resident_bytes", "Resident memory that the budget counts.")
        gauge("cpu_percent_limit", "Percent of one core that the agent may use.").set(budget.cpu_percent)
        gauge("resident_bytes_limit", "Memory that the agent may use.").set(budget.memory_bytes)
        self.engaged = Gauge(
            "vedette_agent_budget_step_engaged",
            "Whether a kind of work is left out to stay within the budget.",
            ("step",),
            registry=registry,
        )
        for step in steps:
            self.engaged.labels(step.name).set(0)
        self.changes = Counter(
            "vedette_agent_budget_changes_total",
            "Steps engaged and released.",
            ("direction",),
            registry=registry,
        )


@dataclass(slots=True)
class _StepState:
    calm_seconds: float
    released_at: float = float("-inf")


@dataclass
class Governor:
    """Decides. `tick` is called every TICK_SECONDS by one thread; time is `clock`'s."""

    budget: Budget
    steps: Sequence[Step]
    metrics: GovernorMetrics
    clock: Callable[[], float] = time.monotonic
    level: int = 0

    _samples: deque[tuple[float, float]] = field(default_factory=deque)
    _states: list[_StepState] = field(default_factory=list)
    _changed_at: float = 0.0
    _calm_since: float | None = None

    def __post_init__(self) -> None:
        self._states = [_StepState(CALM_SECONDS) for _ in self.steps]
        self._changed_at = self.clock() + GRACE_SECONDS - WINDOW_SECONDS

    def tick(self, usage: Usage) -> None:
        """Judge the use of resources, and engage or release at most one step."""
        now = self.clock()
        self._samples.append((now, usage.cpu_seconds))
        while now - self._samples[0][0] > WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        cpu = self._cpu_share()
        memory = (usage.resident_bytes or 0) / self.budget.memory_bytes
        self.metrics.cpu.set(cpu * self.budget.cpu_percent)
        self.metrics.memory.set(usage.resident_bytes or 0)
        since_change = now - self._changed_at
        if max(cpu, memory) >= ENGAGE_AT:
            self._calm_since = None
            waited = TICK_SECONDS if cpu >= EXTREME else WINDOW_SECONDS
            if since_change >= waited and self.level < len(self.steps):
                self._engage(now, cpu, memory)
        elif cpu < RELEASE_BELOW and memory < MEMORY_RELEASE_BELOW and self.level:
            if self._calm_since is None:
                self._calm_since = now
            if now - self._calm_since >= self._states[self.level - 1].calm_seconds:
                self._release(now, cpu, memory)
        else:
            self._calm_since = None

    def _cpu_share(self) -> float:
        """Use of the budget over the window: 1 is all of it."""
        (began, before), (ended, after) = self._samples[0], self._samples[-1]
        if ended - began < TICK_SECONDS:
            return 0.0
        return (after - before) / (ended - began) * 100 / self.budget.cpu_percent

    def _engage(self, now: float, cpu: float, memory: float) -> None:
        state = self._states[self.level]
        if now - state.released_at < EARLY_SECONDS:
            state.calm_seconds = min(state.calm_seconds * 2, CALM_SECONDS_MAX)
        else:
            state.calm_seconds = CALM_SECONDS
        step = self.steps[self.level]
        step.engage()
        self.level += 1
        self._changed(now, step, "engaged", cpu, memory)

    def _release(self, now: float, cpu: float, memory: float) -> None:
        self.level -= 1
        step = self.steps[self.level]
        step.release()
        self._states[self.level].released_at = now
        self._changed(now, step, "released", cpu, memory)

    def _changed(self, now: float, step: Step, direction: str, cpu: float, memory: float) -> None:
        self._changed_at, self._calm_since = now, None
        # What was used before the change says nothing about the time after it.
        while len(self._samples) > 1:
            self._samples.popleft()
        self.metrics.level.set(self.level)
        self.metrics.engaged.labels(step.name).set(direction == "engaged")
        self.metrics.changes.labels(direction).inc()
        _log.warning(
            "agent does less to stay within its budget"
            if direction == "engaged"
            else "agent does more again",
            extra={
                "step": step.name,
                "engaged_steps": self.level,
                "cpu_percent": round(cpu * self.budget.cpu_percent, 2),
                "cpu_percent_limit": self.budget.cpu_percent,
                "memory_mib": round(memory * self.budget.memory_bytes / (1 << 20)),
                "memory_mib_limit": self.budget.memory_bytes >> 20,
            },
        )

    def release_all(self) -> None:
        """Undo every engaged step, as when the configuration changes."""
        while self.level:
            self.level -= 1
            self.steps[self.level].release()


def process_usage() -> Usage:
    """Use of the whole process."""
    fields = Path("/proc/self/statm").read_text().split()
    return Usage(time.process_time(), int(fields[1]) * os.sysconf("SC_PAGE_SIZE"))


def threads_usage(prefixes: tuple[str, ...]) -> Usage:
    """Processor time of the threads whose names begin so; memory is the process's and not told."""
    nanoseconds = 0
    for thread in threading.enumerate():
        if thread.name.startswith(prefixes) and thread.native_id is not None:
            try:
                text = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
            except OSError:
                continue
            nanoseconds += int(text.split()[0])
    return Usage(nanoseconds / 1e9)


class BudgetKeeper:
    """The governor as a part of the service: a thread that ticks."""

    def __init__(self, governor: Governor, measure: Callable[[], Usage]) -> None:
        self.governor = governor
        self._measure = measure
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Begin to watch."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="agent-budget", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End; what was left out is done again."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(TICK_SECONDS)
            self._thread = None
            self.governor.release_all()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            try:
                self.governor.tick(self._measure())
            except Exception:
                _log.exception("the budget could not be judged")
