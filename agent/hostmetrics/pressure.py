"""Time lost for want of a resource (PSI): the collector pressure."""

from __future__ import annotations

from agent.hostmetrics.paths import HostPaths, NoDataError
from ingest.gathered import Family, Gathered, counter

FAMILIES: dict[tuple[str, str], Family] = {
    ("cpu", "some"): counter("node_pressure_cpu_waiting_seconds_total", "Seconds some task lacked a CPU."),
    ("io", "some"): counter("node_pressure_io_waiting_seconds_total", "Seconds some task waited for I/O."),
    ("io", "full"): counter("node_pressure_io_stalled_seconds_total", "Seconds all tasks waited for I/O."),
    ("memory", "some"): counter(
        "node_pressure_memory_waiting_seconds_total", "Seconds some task waited for memory."
    ),
    ("memory", "full"): counter(
        "node_pressure_memory_stalled_seconds_total", "Seconds all tasks waited for memory."
    ),
}


def pressure_totals(text: str) -> dict[str, float]:
    """Seconds by `some` and `full` of one pressure file."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        for field in rest.split():
            name, _, value = field.partition("=")
            if name == "total":
                found[kind] = float(value) / 1000.0 / 1000.0
    return found


def collect_pressure(paths: HostPaths, out: Gathered) -> None:
    """Add the totals of the three resources. Raises NoDataError where the kernel keeps none."""
    found = 0
    for resource in ("cpu", "io", "memory"):
        try:
            totals = pressure_totals(paths.read_proc(f"pressure/{resource}"))
        except NoDataError:
            continue
        for kind, seconds in totals.items():
            if family := FAMILIES.get((resource, kind)):
                out.add(family, seconds)
                found += 1
    if not found:
        raise NoDataError("the kernel keeps no pressure information")
