"""Counters of one cgroup from v1 or v2 files, in the units of cAdvisor's metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.hostmetrics.paths import read_number, read_optional
from agent.hostmetrics.pressure import pressure_totals

UNLIMITED_BYTES = 1 << 62
"""Limits above this mean none and are shown as 0."""
_NANOSECONDS = 1e9
_MICROSECONDS = 1e6
_TICKS_PER_SECOND = 100.0

DeviceCounts = dict[tuple[str, str], float]
"""Counts by device (`8:0`) and operation."""


@dataclass(slots=True)
class CgroupStats:
    """What one cgroup's files say. `values` by the short names used in `containermetrics`.

    `device_bytes` and `device_operations` by device and operation (`Read`, `Write`, …). `per_cpu` in seconds,
    v1 only.
    """

    values: dict[str, float] = field(default_factory=dict)
    device_bytes: DeviceCounts = field(default_factory=dict)
    device_operations: DeviceCounts = field(default_factory=dict)
    pressure: dict[tuple[str, str], float] = field(default_factory=dict)
    created_seconds: float | None = None

    def put(self, name: str, value: float | None) -> None:
        """Set a value that may be missing."""
        if value is not None:
            self.values[name] = value


def read_v1(directories: Mapping[str, str]) -> CgroupStats:
    """Stats from v1 directories by controller; controllers without a directory are left out."""
    stats = CgroupStats()
    if directory := directories.get("cpuacct"):
        _cpuacct_v1(stats, directory)
    if directory := directories.get("cpu"):
        _cpu_v1(stats, directory)
    if directory := directories.get("memory"):
        _memory_v1(stats, directory)
    if directory := directories.get("blkio"):
        stats.device_bytes = _blkio(directory, "io_service_bytes")
        stats.device_operations = _blkio(directory, "io_serviced")
    if directory := directories.get("pids"):
        _pids(stats, directory)
    stats.created_seconds = _created(directories, "cgroup.clone_children")
    return stats


def read_v2(directory: str) -> CgroupStats:
    """Stats from a v2 directory; controllers that it has not are left out."""
    stats = CgroupStats()
    cpu = _fields(directory, "cpu.stat")
    for name, key in (("cpu_usage", "usage"), ("cpu_user", "user"), ("cpu_system", "system")):
        if f"{key}_usec" in cpu:
            stats.values[name] = cpu[f"{key}_usec"] / _MICROSECONDS
    quota, _, period = (read_optional(f"{directory}/cpu.max") or "").partition(" ")
    if period:
        stats.values["cpu_period"] = float(period)
    if quota.isdigit():
        stats.values["cpu_quota"] = float(quota)
        _throttling(stats, cpu, "throttled_usec", _MICROSECONDS)
    if (weight := read_number(f"{directory}/cpu.weight")) is not None:
        stats.values["cpu_shares"] = float(2 + int(weight - 1) * 262142 // 9999)
    _memory_v2(stats, directory)
    _io_v2(stats, directory)
    _pids(stats, directory)
    for resource in ("cpu", "memory", "io"):
        if text := read_optional(f"{directory}/{resource}.pressure"):
            totals = pressure_totals(text)
            stats.pressure.update(((resource, kind), seconds) for kind, seconds in totals.items())
    stats.created_seconds = _created({"": directory}, "cgroup.events")
    return stats


def _fields(directory: str, file: str) -> dict[str, float]:
    """Lines of a name and a number; other lines are skipped."""
    found: dict[str, float] = {}
    for line in (read_optional(f"{directory}/{file}") or "").splitlines():
        name, _, value = line.partition(" ")
        if value.lstrip("-").isdigit():
            found[name] = float(value)
    return found


def _created(directories: Mapping[str, str], file: str) -> float | None:
    times = []
    for directory in directories.values():
        try:
            times.append(os.stat(f"{directory}/{file}").st_mtime)
        except OSError:
            continue
    return min(times, default=None)


def _cpuacct_v1(stats: CgroupStats, directory: str) -> None:
    if (usage := read_number(f"{directory}/cpuacct.usage")) is not None:
        stats.values["cpu_usage"] = usage / _NANOSECONDS
    ticks = _fields(directory, "cpuacct.stat")
    for mode in ("user", "system"):
        if mode in ticks:
            stats.values[f"cpu_{mode}"] = ticks[mode] / _TICKS_PER_SECOND


def _cpu_v1(stats: CgroupStats, directory: str) -> None:
    stats.put("cpu_shares", read_number(f"{directory}/cpu.shares"))
    stats.put("cpu_period", read_number(f"{directory}/cpu.cfs_period_us"))
    quota = read_number(f"{directory}/cpu.cfs_quota_us")
    if quota is not None and quota > 0:
        stats.values["cpu_quota"] = quota
        _throttling(stats, _fields(directory, "cpu.stat"), "throttled_time", _NANOSECONDS)


def _throttling(stats: CgroupStats, cpu: Mapping[str, float], time_field: str, unit: float) -> None:
    stats.put("cpu_periods", cpu.get("nr_periods"))
    stats.put("cpu_throttled_periods", cpu.get("nr_throttled"))
    if time_field in cpu:
        stats.values["cpu_throttled"] = cpu[time_field] / unit


def _memory_v1(stats: CgroupStats, directory: str) -> None:
    usage = read_number(f"{directory}/memory.usage_in_bytes")
    stats.put("memory_usage", usage)
    stats.put("memory_max_usage", read_number(f"{directory}/memory.max_usage_in_bytes"))
    stats.put("memory_failcnt", read_number(f"{directory}/memory.failcnt"))
    detail = _fields(directory, "memory.stat")
    for name in ("cache", "rss", "swap", "mapped_file"):
        stats.put(f"memory_{name}", detail.get(f"total_{name}", detail.get(name)))
    if usage is not None and detail:
        inactive = detail.get("total_inactive_file", detail.get("inactive_file", 0.0))
        stats.values["memory_working_set"] = max(usage - inactive, 0.0)
    for name in ("pgfault", "pgmajfault"):
        stats.put(f"container_{name}", detail.get(name))
        stats.put(f"hierarchy_{name}", detail.get(f"total_{name}"))
    stats.put("oom_kills", _fields(directory, "memory.oom_control").get("oom_kill"))
    limits = {
        "memory_limit": "memory.limit_in_bytes",
        "memory_swap_limit": "memory.memsw.limit_in_bytes",
        "memory_reservation": "memory.soft_limit_in_bytes",
    }
    for name, file in limits.items():
        stats.put(name, _limit(f"{directory}/{file}"))


def _memory_v2(stats: CgroupStats, directory: str) -> None:
    usage = read_number(f"{directory}/memory.current")
    detail = _fields(directory, "memory.stat")
    if usage is None:
        return
    stats.values["memory_usage"] = usage
    stats.values["memory_working_set"] = max(usage - detail.get("inactive_file", 0.0), 0.0)
    for name, key in (("cache", "file"), ("rss", "anon"), ("mapped_file", "file_mapped")):
        stats.put(f"memory_{name}", detail.get(key))
    for name in ("pgfault", "pgmajfault"):
        stats.put(f"container_{name}", detail.get(name))
        stats.put(f"hierarchy_{name}", detail.get(name))
    stats.put("memory_max_usage", read_number(f"{directory}/memory.peak"))
    stats.put("memory_swap", read_number(f"{directory}/memory.swap.current"))
    events = _fields(directory, "memory.events")
    stats.put("memory_failcnt", events.get("max"))
    stats.put("oom_kills", events.get("oom_kill"))
    stats.put("memory_limit", _limit(f"{directory}/memory.max"))
    stats.put("memory_swap_limit", _limit(f"{directory}/memory.swap.max"))
    stats.put("memory_reservation", _limit(f"{directory}/memory.low"))


def _limit(path: str) -> float | None:
    if read_optional(path) == "max":
        return 0.0
    value = read_number(path)
    return 0.0 if value is not None and value > UNLIMITED_BYTES else value


def _pids(stats: CgroupStats, directory: str) -> None:
    stats.put("threads", read_number(f"{directory}/pids.current"))
    stats.put("threads_max", _limit(f"{directory}/pids.max"))


def _blkio(directory: str, name: str) -> DeviceCounts:
    for file in (f"blkio.throttle.{name}_recursive", f"blkio.throttle.{name}", f"blkio.{name}_recursive"):
        text = read_optional(f"{directory}/{file}")
        rows = [line.split() for line in (text or "").splitlines()]
        found = {(row[0], row[1]): float(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()}
        if found:
            return found
    return {}


def _io_v2(stats: CgroupStats, directory: str) -> None:
    for line in (read_optional(f"{directory}/io.stat") or "").splitlines():
        device, *fields = line.split()
        counts = dict(field.split("=", 1) for field in fields if "=" in field)
        for letter, operation in (("r", "Read"), ("w", "Write"), ("d", "Discard")):
            for unit, target in (("bytes", stats.device_bytes), ("ios", stats.device_operations)):
                text = counts.get(f"{letter}{unit}", "")
                if text.isdigit():
                    target[device, operation] = float(text)
