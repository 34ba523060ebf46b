"""The watch path's first stage: probe, ring, order of time and process table as one loop body.

The kernel wakes nobody up: the caller calls `step` again after `pause_seconds`.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.events import Events
from agent.probe.layout import (
    CALL_LIMIT,
    COUNT_COMPAT,
    COUNT_NO_COST,
    COUNT_NO_STASH,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
)
from agent.probe.program import Counters, Probe
from agent.probe.ringbuffer import RingReader, TimeOrder
from agent.processes import STATE_CALLS, ProcessTable
from security.fields import syscalls

PAUSE_SECONDS = 0.02
"""Between looks at a quiet ring. At 5 ms the looks alone cost 4 % of a core, at 20 ms about 1 %; the fastest
opener of files on two cores fills a quarter of the ring in 20 ms (2026-11-23)."""
BUSY_PAUSE_SECONDS = 0.002
BUSY_RECORDS = 8192
"""Records in one look from which on the ring is looked at more often. Below that larger batches are better:
rules cost 2 ms a batch, whatever its size, and the ring holds some 60,000 records."""
COST_INTERVAL_NS = 1_000_000_000
PURGE_INTERVAL_NS = 30 * 1_000_000_000

_KINDS = {
    CALL_LIMIT + KIND_EXEC: "sched_process_exec",
    CALL_LIMIT + KIND_FORK: "task_newtask",
    CALL_LIMIT + KIND_EXIT: "sched_process_exit",
    COUNT_NO_STASH: "guarded_arguments",
    COUNT_COMPAT: "compat_call",
    COUNT_NO_COST: "measured_call",
}


log = logging.getLogger("vedette.agent")


def boot_clock_ns() -> int:
    """CLOCK_BOOTTIME, the clock of all records."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _boot_unix_ns() -> int:
    return time.time_ns() - boot_clock_ns()


@dataclass(frozen=True, slots=True)
class Count:
    """One value of a counter by CPU and kind; `kind` is a system call's name or a tracepoint's."""

    cpu: int
    kind: str
    value: int


def counts(values: np.ndarray[tuple[int, ...], np.dtype[np.uint64]], machine: str) -> list[Count]:
    """The counters that are not 0, of one array of `Counters`."""
    known = syscalls.names(machine)
    cpus, kinds = np.nonzero(values)
    return [
        Count(cpu, known.get(kind) or _KINDS.get(kind) or f"syscall_{kind}", int(values[cpu, kind]))
        for cpu, kind in zip(cpus.tolist(), kinds.tolist(), strict=True)
    ]


@dataclass
class Observer:
    """Reads a probe. One thread calls `step`; `close` ends it."""

    probe: Probe
    table: ProcessTable = field(default_factory=ProcessTable)
    clock: Callable[[], int] = boot_clock_ns

    def __post_init__(self) -> None:
        self._ring = RingReader(self.probe.ring_descriptor, self.probe.ring_bytes)
        self._order = TimeOrder()
        self._machine = platform.machine()
        if self.probe.host_pid != os.getpid():
            log.warning(
                "This agent runs in a pid namespace: processes that are older than it are known by name and "
                "user only, and process metrics are those of the namespace; run it in the host's (hostPID)."
            )
            self.table.forgo_proc()
        self._purged_ns = self._costs_ns = self.clock()
        self.pause_seconds = PAUSE_SECONDS
        self.fill_ratio = 0.0
        """Share of the ring that was waiting at the last step."""

    def start(self, calls: Iterable[str]) -> None:
        """Enable calls and those the table needs; seed it with tracing on: nothing falls between."""
        self.enable(calls)
        self.table.seed()

    def enable(self, calls: Iterable[str]) -> None:
        """Report these calls from now on, and those the table needs."""
        self.probe.enable({*calls, *STATE_CALLS})

    def step(self) -> Events | None:
        """Events that are due, applied to the table; None when there are none. Never waits."""
        now = self.clock()
        self.fill_ratio = self._ring.fill_ratio
        records = self._ring.read()
        self.pause_seconds = BUSY_PAUSE_SECONDS if len(records or ()) >= BUSY_RECORDS else PAUSE_SECONDS
        batch = self._order.push(records, now)
        if now - self._purged_ns > PURGE_INTERVAL_NS:
            self._purged_ns = now
            self.table.sweep(now)
            self.table.purge(now)
        if batch is None:
            return None
        events = Events(batch, self._machine, _boot_unix_ns())
        self.table.apply(events)
        return events

    def costs(self) -> npt.NDArray[Any] | None:
        """What measured calls cost, `callcosts.COST`; None when it is not due. What it tells is 1 to 2 s old:
        the table knows those processes."""
        now = self.clock()
        if now - self._costs_ns < COST_INTERVAL_NS:
            return None
        self._costs_ns = now
        return self.probe.take_costs()

    def counters(self) -> Counters:
        """Records sent and lost since the start; `counts` names them."""
        return self.probe.counters()

    def close(self) -> None:
        """Stop reading and detach the probe."""
        self._ring.close()
        self.probe.close()
