"""Metrics of Java virtual machines that run on the host or in its containers, without any change to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.containermetrics import NamesOf
from agent.containers import list_inside, read_inside
from agent.grouplabels import GROUP_LABELS, group_labels
from agent.hostmetrics.paths import read_optional
from agent.hsperfdata import PerfDataError, parse
from agent.processscan import ProcessScan, ScannedProcess
from ingest.gathered import Family, Gathered, counter, gauge

MACHINES_LIMIT = 200
USERS_LIMIT = 64
"""Folders `hsperfdata_USER` of one root folder that are looked into."""
INDEX_LIMIT = 16
"""Collectors, generations and spaces of one virtual machine."""

LABELS = (*GROUP_LABELS, "pid")
Values = Mapping[str, int | str]

_SINGLE: tuple[tuple[str, Family, bool], ...] = tuple(
    (name, make(f"jvm_{metric}", text, *LABELS), ticks)
    for name, make, metric, text, ticks in (
        ("java.threads.live", gauge, "threads_current", "Threads.", False),
        ("java.threads.daemon", gauge, "threads_daemon", "Daemon threads.", False),
        ("java.threads.livePeak", gauge, "threads_peak", "Most threads ever.", False),
        ("java.threads.started", counter, "threads_started_total", "Threads started.", False),
        ("java.cls.loadedClasses", counter, "classes_loaded_total", "Classes loaded.", False),
        ("java.cls.unloadedClasses", counter, "classes_unloaded_total", "Classes unloaded.", False),
        ("java.ci.totalTime", counter, "compilation_time_seconds_total", "Seconds of compilation.", True),
        ("sun.rt.safepoints", counter, "safepoints_total", "Pauses of all threads.", False),
        ("sun.rt.safepointTime", counter, "safepoint_seconds_total", "Seconds of such pauses.", True),
    )
)
_COLLECTIONS = counter("jvm_gc_collection_seconds_count", "Garbage collections.", *LABELS, "gc")
_COLLECTION_TIME = counter("jvm_gc_collection_seconds_sum", "Seconds of collections.", *LABELS, "gc")
_POOL = {
    part: gauge(f"jvm_memory_pool_{name}_bytes", text, *LABELS, "pool")
    for part, name, text in (
        ("used", "used", "Bytes in use, as of the last collection."),
        ("capacity", "committed", "Bytes reserved from the system."),
        ("maxCapacity", "max", "Most bytes allowed."),
    )
}
_INFO = gauge("jvm_runtime_info", "The virtual machine.", *LABELS, "version", "vendor", "runtime")
_MACHINES = gauge("vedette_agent_java_machines", "Java virtual machines whose counters are read.")


class JvmSource:
    """Java virtual machines as one source. One thread at a time; `scan` is run by an earlier source."""

    name = "jvm"

    def __init__(self, scan: ProcessScan, names_of: NamesOf = lambda _: None, proc: str = "/proc") -> None:
        self._scan = scan
        self._labels = group_labels(names_of)
        self._proc = proc
        self.errors: dict[str, str] = {}

    def collect(self, out: Gathered) -> None:
        """Add the series of all virtual machines."""
        self.errors = {}
        count = 0
        for process in self._scan.processes:
            if process.comm != "java" or count >= MACHINES_LIMIT:
                continue
            try:
                values = self._read(process)
            except PerfDataError as error:
                self.errors[f"process {process.pid}"] = str(error)
                continue
            if values:
                count += 1
                add_machine(out, values, (*self._labels(process.group), str(process.pid)))
        out.add(_MACHINES, count)

    def _read(self, process: ScannedProcess) -> Values | None:
        """The counters of a process; a container's virtual machine names its file by the pid inside."""
        root = Path(self._proc) / str(process.pid) / "root"
        status = read_optional(f"{self._proc}/{process.pid}/status") or ""
        line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
        pid = (line.split() or [""])[-1]
        folders = [name for name in list_inside(root, "tmp") if name.startswith("hsperfdata_")]
        for folder in folders[:USERS_LIMIT]:
            data = read_inside(root, f"tmp/{folder}/{pid}")
            if data:
                return parse(data)
        return None


def add_machine(out: Gathered, values: Values, labels: tuple[str, ...]) -> None:
    """Add the series of one virtual machine from its counters."""
    frequency = _number(values, "sun.os.hrt.frequency") or 1_000_000_000
    for name, family, ticks in _SINGLE:
        value = _number(values, name)
        if value is not None:
            out.add(family, value / frequency if ticks else value, *labels)
    for index in range(INDEX_LIMIT):
        gc = values.get(f"sun.gc.collector.{index}.name")
        invocations = _number(values, f"sun.gc.collector.{index}.invocations")
        if isinstance(gc, str) and invocations is not None:
            time = _number(values, f"sun.gc.collector.{index}.time") or 0
            out.add(_COLLECTIONS, invocations, *labels, gc)
            out.add(_COLLECTION_TIME, time / frequency, *labels, gc)
    for prefix, pool in _pools(values):
        for part, family in _POOL.items():
            value = _number(values, f"{prefix}.{part}")
            if value is not None:
                out.add(family, value, *labels, pool)
    facts = ("java.property.java.version", "java.property.java.vm.vendor", "java.property.java.vm.name")
    out.add(_INFO, 1, *labels, *(str(values.get(name, "")) for name in facts))


def _pools(values: Values) -> Iterator[tuple[str, str]]:
    """Memory pools as prefix of their counters and name."""
    for generation in range(INDEX_LIMIT):
        for space in range(INDEX_LIMIT):
            prefix = f"sun.gc.generation.{generation}.space.{space}"
            name = values.get(f"{prefix}.name")
            if isinstance(name, str):
                yield prefix, name
    yield "sun.gc.metaspace", "metaspace"
    yield "sun.gc.compressedclassspace", "compressed class space"


def _number(values: Values, name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) else None
