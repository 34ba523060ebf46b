"""Time of the processors, their frequency and scheduling: the collectors cpu, cpufreq and schedstat."""

from __future__ import annotations

import os
import re

from agent.hostmetrics.paths import HostPaths, read_number
from ingest.gathered import Gathered, counter, gauge

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_IDLE = MODES.index("idle")
IDLE_JUMP_BACK_SECONDS = 3.0
"""An idle time that falls by more than this means that the processor was taken out and put back."""

_CPU_NAME = re.compile(r"cpu(\d+)$")

SECONDS = counter("node_cpu_seconds_total", "Seconds of each processor by mode.", "cpu", "mode")
GUEST = counter("node_cpu_guest_seconds_total", "Seconds given to virtual machines.", "cpu", "mode")
CORE_THROTTLES = counter(
    "node_cpu_core_throttles_total", "Times a core was throttled by heat.", "package", "core"
)
PACKAGE_THROTTLES = counter(
    "node_cpu_package_throttles_total", "Times a package was throttled by heat.", "package"
)

FREQUENCIES = {
    "cpuinfo_cur_freq": gauge("node_cpu_frequency_hertz", "Frequency that the hardware reports.", "cpu"),
    "cpuinfo_min_freq": gauge("node_cpu_frequency_min_hertz", "Lowest frequency of the hardware.", "cpu"),
    "cpuinfo_max_freq": gauge("node_cpu_frequency_max_hertz", "Highest frequency of the hardware.", "cpu"),
    "scaling_cur_freq": gauge("node_cpu_scaling_frequency_hertz", "Frequency chosen by scaling.", "cpu"),
    "scaling_min_freq": gauge("node_cpu_scaling_frequency_min_hertz", "Lowest scaled frequency.", "cpu"),
    "scaling_max_freq": gauge("node_cpu_scaling_frequency_max_hertz", "Highest scaled frequency.", "cpu"),
}

SCHEDSTAT = (
    counter("node_schedstat_running_seconds_total", "Seconds spent running processes.", "cpu"),
    counter("node_schedstat_waiting_seconds_total", "Seconds that processes waited to run.", "cpu"),
    counter("node_schedstat_timeslices_total", "Time slices run.", "cpu"),
)


class CpuCollector:
    """Keeps the last values, because the kernel's idle and iowait times may step back a little."""

    def __init__(self) -> None:
        self._last: dict[str, list[float]] = {}
        self._ticks = float(os.sysconf("SC_CLK_TCK"))

    def __call__(self, paths: HostPaths, out: Gathered) -> None:
        """Add seconds by mode, guest seconds and thermal throttles."""
        seen: dict[str, list[float]] = {}
        for line in paths.read_proc("stat").splitlines():
            name, _, rest = line.partition(" ")
            match = _CPU_NAME.match(name)
            if match is None:
                continue
            now = [float(field) / self._ticks for field in rest.split()[:10]]
            seen[match[1]] = self._monotonic(match[1], now + [0.0] * (10 - len(now)))
        self._last = seen
        for cpu, times in seen.items():
            for mode, seconds in zip(MODES, times, strict=False):
                out.add(SECONDS, seconds, cpu, mode)
            out.add(GUEST, times[8], cpu, "user")
            out.add(GUEST, times[9], cpu, "nice")
        _add_throttles(paths, out)

    def _monotonic(self, cpu: str, now: list[float]) -> list[float]:
        last = self._last.get(cpu)
        if last is None or last[_IDLE] - now[_IDLE] > IDLE_JUMP_BACK_SECONDS:
            return now
        return [max(new, old) for new, old in zip(now, last, strict=True)]


def _add_throttles(paths: HostPaths, out: Gathered) -> None:
    for name in paths.list_sys("devices/system/cpu"):
        directory = f"{paths.sys}/devices/system/cpu/{name}"
        if not _CPU_NAME.match(name) or not os.path.isdir(f"{directory}/thermal_throttle"):
            continue
        package = read_number(f"{directory}/topology/physical_package_id")
        core = read_number(f"{directory}/topology/core_id")
        if package is None or core is None:
            continue
        core_count = read_number(f"{directory}/thermal_throttle/core_throttle_count")
        package_count = read_number(f"{directory}/thermal_throttle/package_throttle_count")
        if core_count is not None:
            out.add(CORE_THROTTLES, core_count, str(int(package)), str(int(core)))
        if package_count is not None:
            out.add(PACKAGE_THROTTLES, package_count, str(int(package)))


def collect_frequency(paths: HostPaths, out: Gathered) -> None:
    """Add current and limit frequencies in hertz (the kernel's are in kHz)."""
    for name in paths.list_sys("devices/system/cpu"):
        match = _CPU_NAME.match(name)
        if match is None:
            continue
        for file, family in FREQUENCIES.items():
            khz = read_number(f"{paths.sys}/devices/system/cpu/{name}/cpufreq/{file}")
            if khz is not None:
                out.add(family, khz * 1000.0, match[1])


def collect_schedstat(paths: HostPaths, out: Gathered) -> None:
    """Add run and wait times of the scheduler."""
    for line in paths.read_proc("schedstat").splitlines():
        fields = line.split()
        match = _CPU_NAME.match(fields[0]) if fields else None
        if match is None or len(fields) < 10:
            continue
        running, waiting, slices = (float(field) for field in fields[7:10])
        for family, value in zip(SCHEDSTAT, (running / 1e9, waiting / 1e9, slices), strict=True):
            out.add(family, value, match[1])
