"""Metrics of containers from cgroup files, under cAdvisor's names and labels."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.cgroups import UNIFIED, ContainerGroup, Layout, detect_layout, find_containers
from agent.cgroupstats import CgroupStats, read_v1, read_v2
from agent.hostmetrics.network import device_counters
from agent.hostmetrics.paths import HostPaths, NoDataError, list_names, read_optional
from ingest.gathered import Family, Gathered, counter, gauge

CONTAINER_COUNT_LIMIT = 2000
PROCESS_COUNT_LIMIT = 512
"""Processes of a container whose descriptors are counted."""
INTERFACE_COUNT_LIMIT = 32

LABELS = ("id", "name", "image", "container_id", "namespace", "pod", "container")

VALUES: dict[str, Family] = {
    name: make(f"container_{metric}", text, *LABELS)
    for name, make, metric, text in (
        ("cpu_user", counter, "cpu_user_seconds_total", "Seconds in user mode."),
        ("cpu_system", counter, "cpu_system_seconds_total", "Seconds in the kernel."),
        ("cpu_periods", counter, "cpu_cfs_periods_total", "Periods with a quota."),
        ("cpu_throttled_periods", counter, "cpu_cfs_throttled_periods_total", "Periods throttled."),
        ("cpu_throttled", counter, "cpu_cfs_throttled_seconds_total", "Seconds throttled."),
        ("cpu_shares", gauge, "spec_cpu_shares", "CPU shares."),
        ("cpu_period", gauge, "spec_cpu_period", "CPU period in microseconds."),
        ("cpu_quota", gauge, "spec_cpu_quota", "CPU quota in microseconds a period."),
        ("memory_usage", gauge, "memory_usage_bytes", "Memory in use, caches included."),
        ("memory_working_set", gauge, "memory_working_set_bytes", "Memory without inactive file pages."),
        ("memory_max_usage", gauge, "memory_max_usage_bytes", "Most memory ever in use."),
        ("memory_failcnt", counter, "memory_failcnt", "Times that the limit was hit."),
        ("memory_cache", gauge, "memory_cache", "Bytes of page cache."),
        ("memory_rss", gauge, "memory_rss", "Bytes of anonymous memory."),
        ("memory_swap", gauge, "memory_swap", "Bytes in swap."),
        ("memory_mapped_file", gauge, "memory_mapped_file", "Bytes of mapped files."),
        ("memory_limit", gauge, "spec_memory_limit_bytes", "Memory limit, 0 for none."),
        ("memory_swap_limit", gauge, "spec_memory_swap_limit_bytes", "Swap limit, 0 for none."),
        ("memory_reservation", gauge, "spec_memory_reservation_limit_bytes", "Memory kept free of reclaim."),
        ("oom_kills", counter, "oom_events_total", "Kills for lack of memory."),
        ("threads", gauge, "threads", "Threads."),
        ("threads_max", gauge, "threads_max", "Most threads allowed, 0 for no limit."),
    )
}
CPU_USAGE = counter("container_cpu_usage_seconds_total", "Seconds of CPU used.", *LABELS, "cpu")
FAILURES = counter("container_memory_failures_total", "Page faults.", *LABELS, "failure_type", "scope")
LAST_SEEN = gauge("container_last_seen", "Unix time of the collection.", *LABELS)
START_TIME = gauge("container_start_time_seconds", "Unix time of the start.", *LABELS)
PROCESSES = gauge("container_processes", "Processes.", *LABELS)
DESCRIPTORS = gauge("container_file_descriptors", "Open files.", *LABELS)
BLKIO = counter(
    "container_blkio_device_usage_total", "Bytes by device and operation.",
    *LABELS, "device", "major", "minor", "operation",
)  # fmt: skip
FS = {
    (kind, operation): counter(f"container_fs_{name}_total", text, *LABELS, "device")
    for kind, operation, name, text in (
        ("bytes", "Read", "reads_bytes", "Bytes read."),
        ("bytes", "Write", "writes_bytes", "Bytes written."),
        ("operations", "Read", "reads", "Reads."),
        ("operations", "Write", "writes", "Writes."),
    )
}
NETWORK: tuple[tuple[int, Family], ...] = tuple(
    (column, counter(f"container_network_{name}_total", text, *LABELS, "interface"))
    for column, name, text in (
        (0, "receive_bytes", "Bytes received."),
        (1, "receive_packets", "Packets received."),
        (2, "receive_errors", "Errors on receiving."),
        (3, "receive_packets_dropped", "Received packets dropped."),
        (8, "transmit_bytes", "Bytes sent."),
        (9, "transmit_packets", "Packets sent."),
        (10, "transmit_errors", "Errors on sending."),
        (11, "transmit_packets_dropped", "Packets dropped on sending."),
    )
)
"""Columns of /proc/net/dev."""
PRESSURE = {
    (resource, kind): counter(
        f"container_pressure_{resource}_{word}_seconds_total", f"Seconds {word} for {resource}.", *LABELS
    )
    for resource in ("cpu", "memory", "io")
    for kind, word in (("some", "waiting"), ("full", "stalled"))
}
LEFT_OUT = gauge("vedette_agent_containers_left_out", "Containers beyond the limit, not shown.")


@dataclass(frozen=True, slots=True)
class ContainerNames:
    """What a container runtime says of a container; empty where unknown."""

    name: str = ""
    image: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""


NamesOf = Callable[[str], ContainerNames | None]
"""Names of a container by its whole id, None as long as they are not known. Must not block."""


class ContainerSource:
    """Containers and the machine's root cgroup as one source. One thread at a time.

    A container whose runtime did not tell its name has the shown id as its name.
    """

    name = "cadvisor"

    def __init__(
        self,
        paths: HostPaths | None = None,
        names_of: NamesOf | None = None,
        container_limit: int = CONTAINER_COUNT_LIMIT,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths or HostPaths()
        self._names_of = names_of or (lambda _: None)
        self._limit = container_limit
        self._now_seconds = now_seconds
        self._devices: dict[str, str] = {}
        self.errors: dict[str, str] = {}

    def collect(self, out: Gathered) -> None:
        """Add every container's series and those of the root cgroup (`id="/"`)."""
        layout = detect_layout(self._paths.sys)
        if layout.name == "none":
            self.errors = {"cgroups": f"no cgroup hierarchy below {self._paths.sys}/fs/cgroup"}
            return
        self.errors = {}
        containers, left_out = find_containers(layout, self._limit)
        out.add(LEFT_OUT, left_out)
        self._read_devices()
        self._add_stats(out, ("/", *[""] * 6), _read(layout, layout.root_directories()))
        out.add(LAST_SEEN, int(self._now_seconds()), "/", *[""] * 6)
        namespaces: dict[str, tuple[float, int, tuple[str, ...]]] = {}
        for group in containers.values():
            labels = self._labels(group)
            self._add_stats(out, labels, _read(layout, group.directories))
            out.add(LAST_SEEN, int(self._now_seconds()), *labels)
            self._add_processes(out, labels, _pids_of(group), namespaces)
        self._add_networks(out, namespaces)

    def _labels(self, group: ContainerGroup) -> tuple[str, ...]:
        names = self._names_of(group.identity.id) or ContainerNames()
        shown = group.identity.shown_id
        name = names.name or shown
        return (group.path, name, names.image, shown, names.namespace, names.pod, names.container)

    def _add_stats(self, out: Gathered, labels: tuple[str, ...], stats: CgroupStats) -> None:
        for name, family in VALUES.items():
            if name in stats.values:
                out.add(family, stats.values[name], *labels)
        if "cpu_usage" in stats.values:
            out.add(CPU_USAGE, stats.values["cpu_usage"], *labels, "total")
        for scope in ("container", "hierarchy"):
            for kind in ("pgfault", "pgmajfault"):
                if (value := stats.values.get(f"{scope}_{kind}")) is not None:
                    out.add(FAILURES, value, *labels, kind, scope)
        for key, seconds in stats.pressure.items():
            if key in PRESSURE:
                out.add(PRESSURE[key], seconds, *labels)
        if stats.created_seconds is not None:
            out.add(START_TIME, int(stats.created_seconds), *labels)
        for kind, counts in (("bytes", stats.device_bytes), ("operations", stats.device_operations)):
            for (numbers, operation), value in counts.items():
                device = self._devices.get(numbers, "")
                if transfer := FS.get((kind, operation)):
                    out.add(transfer, value, *labels, device)
                if kind == "bytes":
                    major, _, minor = numbers.partition(":")
                    out.add(BLKIO, value, *labels, device, major, minor, operation)

    def _add_processes(
        self,
        out: Gathered,
        labels: tuple[str, ...],
        pids: list[int],
        namespaces: dict[str, tuple[float, int, tuple[str, ...]]],
    ) -> None:
        out.add(PROCESSES, len(pids), *labels)
        counted = pids[:PROCESS_COUNT_LIMIT]
        out.add(DESCRIPTORS, sum(len(list_names(f"{self._paths.proc}/{p}/fd")) for p in counted), *labels)
        for pid in pids[:1]:
            namespace = _link(f"{self._paths.proc}/{pid}/ns/net")
            if not namespace or namespace == _link(f"{self._paths.proc}/1/ns/net"):
                continue
            entry = (_start_ticks(self._paths, pid), pid, labels)
            if namespace not in namespaces or entry < namespaces[namespace]:
                namespaces[namespace] = entry

    def _add_networks(self, out: Gathered, namespaces: dict[str, tuple[float, int, tuple[str, ...]]]) -> None:
        """Traffic of a network namespace belongs to the container that entered it first (a pod's sandbox)."""
        for _, pid, labels in namespaces.values():
            try:
                devices = device_counters(self._paths.read_proc(f"{pid}/net/dev"))
            except (NoDataError, OSError, ValueError):
                continue
            for interface in sorted(devices.keys() - {"lo"})[:INTERFACE_COUNT_LIMIT]:
                for column, family in NETWORK:
                    out.add(family, devices[interface][column], *labels, interface)

    def _read_devices(self) -> None:
        rows = (read_optional(f"{self._paths.proc}/diskstats") or "").splitlines()
        fields = (row.split(None, 3) for row in rows)
        self._devices = {f"{row[0]}:{row[1]}": f"/dev/{row[2]}" for row in fields if len(row) > 2}


def _read(layout: Layout, directories: dict[str, str]) -> CgroupStats:
    """Stats of a cgroup from its directories by hierarchy."""
    v1 = {
        controller: directories[hierarchy.key]
        for hierarchy in layout.hierarchies
        if not hierarchy.unified and hierarchy.key in directories
        for controller in hierarchy.controllers
    }
    unified = directories.get(UNIFIED)
    if not v1:
        return read_v2(unified) if unified else CgroupStats()
    stats = read_v1(v1)
    if unified and layout.hierarchies[-1].controllers:
        below = read_v2(unified)
        for name, value in below.values.items():
            stats.values.setdefault(name, value)
        stats.device_bytes = stats.device_bytes or below.device_bytes
        stats.device_operations = stats.device_operations or below.device_operations
        stats.pressure = below.pressure
    return stats


def _pids_of(group: ContainerGroup) -> list[int]:
    """A process can be in a container's cgroup in some hierarchies only."""
    directories = (*group.directories.values(), *group.inner)
    return sorted({pid for directory in directories for pid in _pids_in(directory)})


def _pids_in(directory: str) -> Iterable[int]:
    text = read_optional(f"{directory}/cgroup.procs") or ""
    return (int(line) for line in text.split() if line.isdigit())


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _start_ticks(paths: HostPaths, pid: int) -> float:
    """Start time of a process in ticks since the machine's; infinite where it is gone."""
    fields = (read_optional(f"{paths.proc}/{pid}/stat") or "").rpartition(")")[2].split()
    return float(fields[19]) if len(fields) > 19 else float("inf")
