"""Series like those of hosts with a node exporter and one web service: labels, and values over time.

Ten labels a series on average. Kinds of values: integer counters, cpu seconds (two decimals), gauges in pages
of 4,096 bytes, gauges with two decimals, constants, and classic histograms whose buckets grow together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64Array = npt.NDArray[np.float64]
LabelPairs = tuple[tuple[str, str], ...]

CPUS, MODES = 8, ("idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user")
DISKS = ("nvme0n1", "nvme1n1", "sda")
DEVICES = ("eth0", "eth1", "lo", "docker0")
MOUNTS = (("/dev/nvme0n1p1", "ext4", "/"), ("/dev/nvme1n1p1", "xfs", "/data"), ("tmpfs", "tmpfs", "/run"))
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
HANDLERS = (("/api/query", "200"), ("/api/query", "500"), ("/api/write", "204"), ("/login", "200"))

_NETWORK = ("receive_bytes", "receive_drop", "receive_errs", "receive_packets")
_DISK = ("read_bytes", "reads_completed", "written_bytes", "writes_completed")
_MEMORY = (
    *("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active", "Inactive"),
    *("Active_anon", "Inactive_anon", "Active_file", "Inactive_file", "SwapTotal", "SwapFree", "Dirty"),
    *("Writeback", "AnonPages", "Mapped", "Shmem", "Slab", "SReclaimable", "SUnreclaim", "KernelStack"),
    *("PageTables", "CommitLimit", "Committed_AS", "VmallocTotal", "VmallocUsed", "HugePages_Total"),
)
_VMSTAT = ("pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout", "oom_kill")
_NETSTAT = (
    *("Icmp_InMsgs", "Icmp_OutMsgs", "Ip_Forwarding", "Tcp_ActiveOpens", "Tcp_CurrEstab", "Tcp_InSegs"),
    *("Tcp_OutSegs", "Tcp_PassiveOpens", "Tcp_RetransSegs", "Udp_InDatagrams", "Udp_OutDatagrams"),
)
_CONSTANT = ("boot_time_seconds", "exporter_build_info", "os_info", "time_zone_offset_seconds", "uname_info")


@dataclass(frozen=True, slots=True)
class SeriesSet:
    """Labels of all series in order, `host` i32[S] of each, and the positions of each kind of value."""

    labels: list[LabelPairs]
    host: npt.NDArray[np.int32]
    kinds: dict[str, npt.NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.labels)


def _host_series() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(kind, metric, own labels) of one host."""
    for cpu in range(CPUS):
        for mode in MODES:
            yield "seconds", "node_cpu_seconds_total", {"cpu": str(cpu), "mode": mode}
    for device in DEVICES:
        for name in (*_NETWORK, *(text.replace("receive", "transmit") for text in _NETWORK)):
            yield "counter", f"node_network_{name}_total", {"device": device}
        yield "constant", "node_network_up", {"device": device}
        yield "constant", "node_network_mtu_bytes", {"device": device}
    for disk in DISKS:
        for name in _DISK:
            yield "counter", f"node_disk_{name}_total", {"device": disk}
        for name in ("read_time", "write_time", "io_time"):
            yield "seconds", f"node_disk_{name}_seconds_total", {"device": disk}
        yield "gauge", "node_disk_io_now", {"device": disk}
    for device, kind, mount in MOUNTS:
        labels = {"device": device, "fstype": kind, "mountpoint": mount}
        for name in ("avail_bytes", "free_bytes"):
            yield "bytes", f"node_filesystem_{name}", labels
        for name in ("size_bytes", "files", "readonly"):
            yield "constant", f"node_filesystem_{name}", labels
    for name in _MEMORY:
        constant = name.endswith("Total") or name == "CommitLimit"
        yield "constant" if constant else "bytes", f"node_memory_{name}_bytes", {}
    for name in _VMSTAT:
        yield "counter", f"node_vmstat_{name}", {}
    for name in _NETSTAT:
        yield "counter", f"node_netstat_{name}", {}
    for name in ("load1", "load5", "load15"):
        yield "gauge", f"node_{name}", {}
    for name in _CONSTANT:
        yield "constant", f"node_{name}", {}
    for handler, code in HANDLERS:
        labels = {"code": code, "handler": handler}
        for bound in BOUNDS:
            yield "bucket", "http_request_duration_seconds_bucket", {**labels, "le": bound}
        yield "seconds", "http_request_duration_seconds_sum", labels
        yield "counter", "http_request_duration_seconds_count", labels
    yield "constant", "up", {}
    yield "gauge", "scrape_duration_seconds", {}


def host_name(number: int) -> str:
    """Value of `instance` of a host."""
    return f"host-{number:05d}.example.internal:9100"


def make_series(host_count: int, first_host: int = 0) -> SeriesSet:
    """All series of a number of hosts, numbered from `first_host` on."""
    labels: list[LabelPairs] = []
    kinds: dict[str, list[int]] = {}
    host = []
    for number in range(first_host, first_host + host_count):
        common = {
            "cluster": f"production-{number % 4}",
            "datacenter": f"eu-west-1{'abc'[number % 3]}",
            "environment": "production",
            "instance": host_name(number),
            "job": "node",
            "role": ("web", "worker", "database", "cache")[number % 4],
            "team": ("platform", "search", "payments")[number % 3],
        }
        for kind, metric, own in _host_series():
            kinds.setdefault(kind, []).append(len(labels))
            labels.append(tuple(sorted({"__name__": metric, **common, **own}.items())))
            host.append(number - first_host)
    return SeriesSet(
        labels,
        np.array(host, dtype=np.int32),
        {kind: np.array(places, dtype=np.int64) for kind, places in kinds.items()},
    )


class Values:
    """Values of all series, one step after the other; the same seed gives the same load."""

    def __init__(self, series: SeriesSet, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._kinds = series.kinds
        self._now: F64Array = np.zeros(len(series), dtype=np.float64)
        self._rate = self._random.gamma(1.0, 200.0, len(series))
        gauges = (series.kinds["bytes"], 4096 * self._random.integers(1 << 12, 1 << 21, len(series)))
        self._now[gauges[0]] = gauges[1][gauges[0]]
        constants = series.kinds["constant"]
        self._now[constants] = self._random.integers(0, 3, len(constants)) * 1024

    def step(self) -> F64Array:
        """Values at the next scrape, f64[S]; valid until the next call."""
        random, now, kinds = self._random, self._now, self._kinds
        counters = kinds["counter"]
        now[counters] += random.poisson(self._rate[counters])
        seconds = kinds["seconds"]
        now[seconds] = np.round(now[seconds] + random.random(len(seconds)) * 2, 2)
        sizes = kinds["bytes"]
        now[sizes] = np.maximum(now[sizes] + 4096 * random.integers(-64, 65, len(sizes)), 4096)
        gauges = kinds["gauge"]
        now[gauges] = np.round(random.gamma(2.0, 0.6, len(gauges)), 2)
        buckets = kinds["bucket"]
        observed = random.poisson(3.0, (len(buckets) // len(BOUNDS), len(BOUNDS)))
        now[buckets] += np.cumsum(observed, axis=1).reshape(-1)
        return now
