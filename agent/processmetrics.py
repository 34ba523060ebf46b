"""Metrics of process groups from `/proc`, under process-exporter's names."""

from __future__ import annotations

import os
import re
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
from agent.processgroups import OTHER, Group
from agent.processscan import ProcessScan, ScannedProcess
from ingest.gathered import Family, Gathered, counter, gauge

GROUPS_LIMIT = 1000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")

FILE_BYTES_LIMIT = 16 << 10
_IO = re.compile(rb"^\w+: (\d+)", re.MULTILINE)
_SWAP_OF = re.compile(rb"^VmSwap:\s*(\d+)", re.MULTILINE)
_SWITCHES_OF = re.compile(rb"^(?:non)?voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)
_LIMIT_OF = re.compile(rb"^Max open files\s+(\d+)", re.MULTILINE)
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
        self._descriptor_limits: dict[tuple[int, int], int] = {}
        """Read once a process: they hardly ever change, and the file is slow to read."""
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
        descriptor_limits, self._descriptor_limits = self._descriptor_limits, {}
        for process in processes:
            row = self._counts.row(process.group, now)
            groups[row] = process.group if row else OTHER
            status = self._read(process.pid, "status")
            values = self._counters(process, status)
            key = (process.pid, process.start_ticks)
            before = last.get(key)
            self._counts.values[row] += values if before is None else np.maximum(values - before, 0)
            self._last[key] = values
            if key not in descriptor_limits:
                descriptor_limits[key] = self._descriptor_limit(process.pid)
            self._descriptor_limits[key] = descriptor_limits[key]
            self._add(gauges.setdefault(row, _Gauges()), process, status)
        self._counts.forget(now)
        out.add(FOLDED, self._counts.folded_count, "process_group")
        boot_seconds = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for row, found in gauges.items():
            self._show(out, self._labels(groups[row]), found, self._counts.values[row], boot_seconds)

    def _counters(self, process: ScannedProcess, status: bytes) -> NDArray[np.float64]:
        stat = process.stat
        # rchar, wchar, syscr, syscw, read_bytes, write_bytes; nothing of a process that is gone.
        io = [int(value) for value in _IO.findall(self._read(process.pid, "io"))] or [0] * 6
        switches = [int(value) for value in _SWITCHES_OF.findall(status)] or [0, 0]
        cpu = (int(stat[11]) / TICKS, int(stat[12]) / TICKS)
        return np.array([*cpu, int(stat[7]), int(stat[9]), io[4], io[5], io[0], io[1], *switches])

    def _read(self, pid: int, name: str) -> bytes:
        try:
            descriptor = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(descriptor, FILE_BYTES_LIMIT)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def _add(self, found: _Gauges, process: ScannedProcess, status: bytes) -> None:
        stat = process.stat
        found.processes += 1
        found.threads += int(stat[17])
        found.virtual += int(stat[20])
        found.resident += int(stat[21]) * PAGE_BYTES
        found.swapped += sum(int(value) for value in _SWAP_OF.findall(status)) << 10
        found.oldest_ticks = min(found.oldest_ticks, process.start_ticks)
        found.states[_STATES.get(stat[0], "Other")] += 1
        count = self._descriptor_count(process.pid)
        found.descriptors += count
        limit = self._descriptor_limits[process.pid, process.start_ticks]
        if limit:
            found.worst_ratio = max(found.worst_ratio, count / limit)

    def _descriptor_count(self, pid: int) -> int:
        """Since Linux 6.2 the folder's size is the number of descriptors; a look into it costs far more."""
        folder = f"{self._proc}/{pid}/fd"
        try:
            return os.stat(folder).st_size or len(os.listdir(folder))
        except OSError:
            return 0

    def _descriptor_limit(self, pid: int) -> int:
        found = _LIMIT_OF.search(self._read(pid, "limits"))
        return int(found[1]) if found else 0

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
