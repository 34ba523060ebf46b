"""Load averages and totals of the kernel: the collectors loadavg, stat, entropy and filefd."""

from __future__ import annotations

from agent.hostmetrics.paths import HostPaths, NoDataError, read_number
from ingest.gathered import Gathered, counter, gauge

LOADS = tuple(gauge(f"node_load{minutes}", f"Load average of {minutes} min.") for minutes in (1, 5, 15))

STAT = {
    "intr": counter("node_intr_total", "Interrupts handled."),
    "ctxt": counter("node_context_switches_total", "Context switches."),
    "processes": counter("node_forks_total", "Processes and threads started."),
    "btime": gauge("node_boot_time_seconds", "Unix time of the last start."),
    "procs_running": gauge("node_procs_running", "Threads that run or could run."),
    "procs_blocked": gauge("node_procs_blocked", "Threads that wait for a disk."),
}

ENTROPY = {
    "entropy_avail": gauge("node_entropy_available_bits", "Entropy in the pool."),
    "poolsize": gauge("node_entropy_pool_size_bits", "Size of the entropy pool."),
}

FILES_ALLOCATED = gauge("node_filefd_allocated", "Open files of the whole system.")
FILES_MAXIMUM = gauge("node_filefd_maximum", "Most open files that the system allows.")


def collect_load(paths: HostPaths, out: Gathered) -> None:
    """Add the three load averages."""
    for family, text in zip(LOADS, paths.read_proc("loadavg").split(), strict=False):
        out.add(family, float(text))


def collect_stat(paths: HostPaths, out: Gathered) -> None:
    """Add interrupts, switches, forks, boot time and run queue."""
    for line in paths.read_proc("stat").splitlines():
        name, _, rest = line.partition(" ")
        if family := STAT.get(name):
            out.add(family, float(rest.split(" ", 1)[0]))


def collect_entropy(paths: HostPaths, out: Gathered) -> None:
    """Add entropy available and pool size."""
    for file, family in ENTROPY.items():
        value = read_number(f"{paths.proc}/sys/kernel/random/{file}")
        if value is None:
            raise NoDataError(f"no {file}")
        out.add(family, value)


def collect_open_files(paths: HostPaths, out: Gathered) -> None:
    """Add allocated and maximum open files."""
    fields = paths.read_proc("sys/fs/file-nr").split()
    out.add(FILES_ALLOCATED, float(fields[0]))
    out.add(FILES_MAXIMUM, float(fields[2]))
