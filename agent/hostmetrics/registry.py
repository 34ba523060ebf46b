"""The table of collectors, and one collection over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.hostmetrics import (
    clock,
    cpu,
    disk,
    filesystem,
    hwmon,
    identity,
    load,
    memory,
    network,
    powersupply,
    pressure,
    raid,
    sensors,
    sockets,
    textfile,
)
from agent.hostmetrics.paths import HostPaths, NoDataError
from ingest.gathered import Gathered, gauge

Collect = Callable[[HostPaths, Gathered], None]
"""Adds the series of one subject. Raises NoDataError where the machine has nothing, OSError,
ValueError, IndexError or OverflowError where what the kernel says cannot be read."""

DURATION = gauge("node_scrape_collector_duration_seconds", "Seconds a collector took.", "collector")
SUCCESS = gauge("node_scrape_collector_success", "Whether a collector found its data.", "collector")


def default_collectors() -> dict[str, Collect]:
    """New collectors under node_exporter's names, with their state."""
    return {
        "arp": network.collect_arp,
        "bonding": network.collect_bonding,
        "conntrack": sockets.collect_conntrack,
        "cpu": cpu.CpuCollector(),
        "cpufreq": cpu.collect_frequency,
        "diskstats": disk.collect_diskstats,
        "dmi": identity.collect_dmi,
        "edac": sensors.collect_edac,
        "entropy": load.collect_entropy,
        "filefd": load.collect_open_files,
        "filesystem": filesystem.FilesystemCollector(),
        "hwmon": hwmon.collect_hwmon,
        "loadavg": load.collect_load,
        "mdadm": raid.collect_raid,
        "meminfo": memory.collect_meminfo,
        "netclass": network.collect_properties,
        "netdev": network.collect_traffic,
        "netstat": sockets.collect_netstat,
        "nvme": sensors.collect_nvme,
        "os": identity.OsCollector(),
        "powersupplyclass": powersupply.collect_power_supplies,
        "pressure": pressure.collect_pressure,
        "rapl": sensors.collect_rapl,
        "schedstat": cpu.collect_schedstat,
        "selinux": identity.collect_selinux,
        "sockstat": sockets.collect_sockstat,
        "softnet": sockets.collect_softnet,
        "stat": load.collect_stat,
        "textfile": textfile.TextFileCollector(),
        "thermal_zone": sensors.collect_thermal,
        "time": clock.collect_time,
        "timex": clock.collect_timex,
        "udp_queues": sockets.collect_udp_queues,
        "uname": identity.collect_uname,
        "vmstat": memory.collect_vmstat,
    }


@dataclass(slots=True)
class HostSource:
    """All host metrics as one source. One thread at a time.

    `errors` holds the text of the last failure of each collector that failed for another reason than that
    the machine has nothing for it.
    """

    paths: HostPaths = field(default_factory=HostPaths)
    collectors: Mapping[str, Collect] = field(default_factory=default_collectors)
    name: str = "node"
    errors: dict[str, str] = field(default_factory=dict)

    def collect(self, out: Gathered) -> None:
        """Run every collector; one that fails has `node_scrape_collector_success` 0, the others go on."""
        for name, collect in self.collectors.items():
            start = time.perf_counter()
            success = True
            try:
                collect(self.paths, out)
                self.errors.pop(name, None)
            except NoDataError:
                success = False
            except (OSError, ValueError, IndexError, OverflowError) as error:
                success = False
                self.errors[name] = f"{type(error).__name__}: {error}"
            out.add(DURATION, time.perf_counter() - start, name)
            out.add(SUCCESS, float(success), name)
