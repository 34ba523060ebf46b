"""Metrics of process groups from `/proc`, under process-exporter's names."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.containermetrics import NamesOf
from agent.counttable import CountTable
from agent.eventcounts import FOLDED
from agent.grouplabels import GROUP_LABELS, group_labels
from agent.hostmetrics.paths import read_optional
from agent.processgroups import OTHER, Group
from agent.processscan import ProcessScan, ScannedProcess
from ingest.gathered import Family, Gathered, counter, gauge

GROUPS_LIMIT = 1000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")

_STATES = {"R": "Running", "S": "Sleeping", "D": "Waiting", "Z": "Zombie"}
_NAME = "namedprocess_namegroup"


def _counter(name: str, text: str, *labels: str) -> Family:
    return counter(f"{_NAME}_{name}", text, *GROUP_LABELS, *labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return gauge(f"{_NAME}_{name}", text, *GROUP_LABELS, *labels)


_CPU = _counter("cpu_seconds_total", "Seconds of CPU used.", "mode")
_SWITCHES = _counter("context_switches_total", "Context switches.", "ctxswitchtype")
_COUNTERS: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (_CPU, ("user",)),
    (_CPU, ("system",)),
    (_counter("minor_page_faults_total", "Page faults without reading."), ()),
    (_counter("major_page_faults_total", "Page faults that read from a disk."), ()),
    (_counter("read_bytes_total", "Bytes read from storage."), ()),
    (_counter("write_bytes_total", "Bytes written to storage."), ()),
    (_counter("read_characters_total", "Bytes of all read calls, files, sockets and pipes."), ()),
    (_counter("write_characters_total", "Bytes of all write calls, files, sockets and pipes."), ()),
    (_SWITCHES, ("voluntary",)),
    (_SWITCHES, ("nonvoluntary",)),
)
_PROCESSES = _gauge("num_procs", "Processes.")
_THREADS = _gauge("num_threads", "Threads.")
_MEMORY = _gauge("memory_bytes", "Bytes of memory.", "memtype")
_DESCRIPTORS = _gauge("open_filedesc", "Open file descriptors.")
_WORST_RATIO = _gauge("worst_fd_ratio", "Open descriptors as a share of their limit, of the worst process.")
_OLDEST = _gauge("oldest_start_time_seconds", "Unix time of the oldest start.")
_STATE = _gauge("states", "Processes by state.", "state")


@dataclass(slots=True)
class _Gauges:
    """What the processes of a group are now."""

    processes: int = 0
    threads: int = 0
    resident: int = 0
    virtual: int = 0
    swapped: int = 0
    descriptors: int = 0
    worst_ratio: float = 0.0
    oldest_ticks: float = float("inf")
    states: Counter[str] = field(default_factory=Counter)


class ProcessGroupSource:
    """Process groups as one source. One thread at a time.

    Counters of a group keep what its ended processes had used when they were last seen.
    """

    name = "process"

    def __init__(
        self,
        scan: ProcessScan,
        names_of: NamesOf = lambda _: None,
        limit: int = GROUPS_LIMIT,
        proc: str = "/proc",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scan = scan
        self._labels = group_labels(names_of)
        self._proc = proc
        self._monotonic = monotonic
        self._counts: CountTable[Group] = CountTable(OTHER, limit, len(_COUNTERS))
        self._last: dict[tuple[int, int], NDArray[np.float64]] = {}
        self.errors: dict[str, str] = {}

    def collect(self, out: Gathered) -> None:
        """Add the series of all groups that have processes."""
        now = self._monotonic()
        processes = self._scan.run()
        text = f"{self._scan.left_out_count} processes beyond the limit" if self._scan.left_out_count else ""
        self.errors = {"processes": text} if text else {}
        gauges: dict[int, _Gauges] = {}
        groups: dict[int, Group] = {}
        last, self._last = self._last, {}
        for process in processes:
            row = self._counts.row(process.group, now)
            groups[row] = process.group if row else OTHER
            status = _fields(read_optional(f"{self._proc}/{process.pid}/status"))
            values = self._counters(process, status)
            key = (process.pid, process.start_ticks)
            before = last.get(key)
            self._counts.values[row] += values if before is None else np.maximum(values - before, 0)
            self._last[key] = values
            self._add(gauges.setdefault(row, _Gauges()), process, status)
        self._counts.forget(now)
        out.add(FOLDED, self._counts.folded_count, "process_group")
        boot_seconds = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for row, found in gauges.items():
            self._show(out, self._labels(groups[row]), found, self._counts.values[row], boot_seconds)

    def _counters(self, process: ScannedProcess, status: dict[str, str]) -> NDArray[np.float64]:
        stat = process.stat
        io = _fields(read_optional(f"{self._proc}/{process.pid}/io"))
        return np.array(
            [
                int(stat[11]) / TICKS,
                int(stat[12]) / TICKS,
                *(int(stat[at]) for at in (7, 9)),
                *(_number(io.get(name)) for name in ("read_bytes", "write_bytes", "rchar", "wchar")),
                *(_number(status.get(f"{name}_ctxt_switches")) for name in ("voluntary", "nonvoluntary")),
            ]
        )

    def _add(self, found: _Gauges, process: ScannedProcess, status: dict[str, str]) -> None:
        stat = process.stat
        found.processes += 1
        found.threads += int(stat[17])
        found.virtual += int(stat[20])
        found.resident += int(stat[21]) * PAGE_BYTES
        found.swapped += _number(status.get("VmSwap")) * 1024
        found.oldest_ticks = min(found.oldest_ticks, process.start_ticks)
        found.states[_STATES.get(stat[0], "Other")] += 1
        count = self._descriptor_count(process.pid, _number(status.get("FDSize")))
        found.descriptors += count
        limit = self._descriptor_limit(process.pid) if count else 0
        if limit:
            found.worst_ratio = max(found.worst_ratio, count / limit)

    def _descriptor_count(self, pid: int, table_size: int) -> int:
        """Since Linux 6.2 the folder's size is the number of descriptors; a look into it costs far more."""
        try:
            size = os.stat(f"{self._proc}/{pid}/fd").st_size
            return size or (len(os.listdir(f"{self._proc}/{pid}/fd")) if table_size else 0)
        except OSError:
            return 0

    def _descriptor_limit(self, pid: int) -> int:
        text = read_optional(f"{self._proc}/{pid}/limits") or ""
        line = next((line for line in text.splitlines() if line.startswith("Max open files")), "")
        return _number(line.removeprefix("Max open files"))

    def _show(
        self,
        out: Gathered,
        labels: tuple[str, ...],
        found: _Gauges,
        counters: NDArray[np.float64],
        boot_seconds: float,
    ) -> None:
        for (family, further), value in zip(_COUNTERS, counters.tolist(), strict=True):
            out.add(family, value, *labels, *further)
        out.add(_PROCESSES, found.processes, *labels)
        out.add(_THREADS, found.threads, *labels)
        for kind in ("resident", "virtual", "swapped"):
            out.add(_MEMORY, getattr(found, kind), *labels, kind)
        out.add(_DESCRIPTORS, found.descriptors, *labels)
        out.add(_WORST_RATIO, found.worst_ratio, *labels)
        out.add(_OLDEST, round(boot_seconds + found.oldest_ticks / TICKS, 2), *labels)
        for state in (*_STATES.values(), "Other"):
            out.add(_STATE, found.states[state], *labels, state)


def _fields(text: str | None) -> dict[str, str]:
    lines = (line.partition(":") for line in (text or "").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _number(text: str | None) -> int:
    """The first word as a number, 0 when there is none (a process that is gone, a kernel thread)."""
    word = (text or "").split(None, 1)[:1]
    return int(word[0]) if word and word[0].isdigit() else 0
