"""Protocols and sockets: the collectors netstat, sockstat, softnet, udp_queues and conntrack."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from agent.hostmetrics.paths import HostPaths, NoDataError, read_number
from ingest.gathered import Family, Gathered, counter, gauge, untyped

NETSTAT_FIELDS = re.compile(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
)

SOFTNET = (
    counter("node_softnet_processed_total", "Packets processed.", "cpu"),
    counter("node_softnet_dropped_total", "Packets dropped.", "cpu"),
    counter("node_softnet_times_squeezed_total", "Times the budget ran out.", "cpu"),
)
_SOFTNET_CPU_COLUMN = 12

UDP_QUEUES = gauge("node_udp_queues", "Bytes in the queues of UDP sockets.", "queue", "ip")

CONNTRACK_ENTRIES = gauge("node_nf_conntrack_entries", "Connections tracked.")
CONNTRACK_LIMIT = gauge("node_nf_conntrack_entries_limit", "Most connections that can be tracked.")
CONNTRACK_STATS = {
    name: gauge(f"node_nf_conntrack_stat_{name}", f"Counter {name} of connection tracking.")
    for name in (
        *("found", "invalid", "ignore", "insert", "insert_failed", "drop", "early_drop"),
        "search_restart",
    )
}


def collect_netstat(paths: HostPaths, out: Gathered) -> None:
    """Add the counters of the protocols that node_exporter shows by default."""
    for file in ("net/netstat", "net/snmp"):
        lines = paths.read_proc(file).splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            protocol = names.partition(":")[0]
            for name, value in zip(names.split()[1:], values.split()[1:], strict=False):
                _add_netstat(out, f"{protocol}_{name}", value)
    try:
        text = paths.read_proc("net/snmp6")
    except NoDataError:
        return
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        six = name.find("6") + 1
        if six and value.strip():
            _add_netstat(out, f"{name[:six]}_{name[six:]}", value.strip())


def _add_netstat(out: Gathered, name: str, value: str) -> None:
    family = _netstat_family(name)
    if family is not None:
        out.add(family, float(value))


@lru_cache(maxsize=4096)
def _netstat_family(name: str) -> Family | None:
    if not NETSTAT_FIELDS.match(name):
        return None
    return untyped(f"node_netstat_{name}", f"Counter {name} of the network stack.")


def collect_sockstat(paths: HostPaths, out: Gathered) -> None:
    """Add sockets in use by protocol; memory also in bytes."""
    for file in ("net/sockstat", "net/sockstat6"):
        try:
            text = paths.read_proc(file)
        except NoDataError:
            continue
        for line in text.splitlines():
            protocol, _, rest = line.partition(":")
            fields = rest.split()
            for key, value in zip(fields[::2], fields[1::2], strict=False):
                out.add(_sockstat_family(protocol, key), float(value))
                if key == "mem":
                    page_bytes = os.sysconf("SC_PAGE_SIZE")
                    out.add(_sockstat_family(protocol, "mem_bytes"), float(value) * page_bytes)


@lru_cache(maxsize=256)
def _sockstat_family(protocol: str, key: str) -> Family:
    return gauge(f"node_sockstat_{protocol}_{key}", f"Sockets of {protocol}: {key}.")


def collect_softnet(paths: HostPaths, out: Gathered) -> None:
    """Add packets handled in soft interrupts; newer kernels say the processor, older ones list all."""
    for row, line in enumerate(paths.read_proc("net/softnet_stat").splitlines()):
        fields = [int(field, 16) for field in line.split()]
        cpu = fields[_SOFTNET_CPU_COLUMN] if len(fields) > _SOFTNET_CPU_COLUMN else row
        for family, value in zip(SOFTNET, fields[:3], strict=True):
            out.add(family, value, str(cpu))


def collect_udp_queues(paths: HostPaths, out: Gathered) -> None:
    """Add the sums of send and receive queues over all UDP sockets, by IP version."""
    found = 0
    for version, file in (("v4", "net/udp"), ("v6", "net/udp6")):
        try:
            lines = paths.read_proc(file).splitlines()[1:]
        except NoDataError:
            continue
        queues = [line.split()[4].partition(":") for line in lines if line.strip()]
        out.add(UDP_QUEUES, sum(int(sent, 16) for sent, _, _ in queues), "tx", version)
        out.add(UDP_QUEUES, sum(int(received, 16) for _, _, received in queues), "rx", version)
        found += 1
    if not found:
        raise NoDataError("no UDP")


def collect_conntrack(paths: HostPaths, out: Gathered) -> None:
    """Add size and counters of connection tracking. Raises NoDataError where it is not loaded."""
    entries = read_number(f"{paths.proc}/sys/net/netfilter/nf_conntrack_count")
    limit = read_number(f"{paths.proc}/sys/net/netfilter/nf_conntrack_max")
    if entries is None or limit is None:
        raise NoDataError("connection tracking is not loaded")
    out.add(CONNTRACK_ENTRIES, entries)
    out.add(CONNTRACK_LIMIT, limit)
    names, *rows = (line.split() for line in paths.read_proc("net/stat/nf_conntrack").splitlines())
    for name, family in CONNTRACK_STATS.items():
        if name in names:
            column = names.index(name)
            out.add(family, sum(int(row[column], 16) for row in rows if len(row) > column))
