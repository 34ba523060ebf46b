"""Network devices: the collectors netdev, netclass, bonding and arp."""

from __future__ import annotations

import os
import re
from collections import Counter

from agent.hostmetrics.paths import HostPaths, NoDataError, list_names, read_number, read_optional
from ingest.gathered import Family, Gathered, counter, gauge

DEVICES_IGNORED = re.compile(r"^lo$")
"""Debian's node exporter leaves the loopback out of the traffic counters."""
BYTES_PER_MEGABIT = 1000 * 1000 / 8

_RECEIVE = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
_TRANSMIT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")

TRAFFIC: tuple[Family, ...] = tuple(
    counter(f"node_network_{way}_{name}_total", f"Counter {name} of {way} traffic.", "device")
    for way, names in (("receive", _RECEIVE), ("transmit", _TRANSMIT))
    for name in names
)
"""Columns of /proc/net/dev in order."""
NO_HANDLER = counter("node_network_receive_nohandler_total", "Packets that no protocol took.", "device")

PROPERTIES: dict[str, Family] = {
    file: make(f"node_network_{name}", f"Attribute {file} of the device.", "device")
    for file, make, name in (
        ("addr_assign_type", gauge, "address_assign_type"),
        ("carrier", gauge, "carrier"),
        ("carrier_changes", counter, "carrier_changes_total"),
        ("carrier_up_count", counter, "carrier_up_changes_total"),
        ("carrier_down_count", counter, "carrier_down_changes_total"),
        ("dev_id", gauge, "device_id"),
        ("dormant", gauge, "dormant"),
        ("flags", gauge, "flags"),
        ("ifindex", gauge, "iface_id"),
        ("iflink", gauge, "iface_link"),
        ("link_mode", gauge, "iface_link_mode"),
        ("mtu", gauge, "mtu_bytes"),
        ("name_assign_type", gauge, "name_assign_type"),
        ("netdev_group", gauge, "net_dev_group"),
        ("speed", gauge, "speed_bytes"),
        ("tx_queue_len", gauge, "transmit_queue_length"),
        ("type", gauge, "protocol_type"),
    )
}
UP = gauge("node_network_up", "Whether the operational state is up.", "device")
INFO = gauge(
    "node_network_info",
    "Addresses and state of the device.",
    *("device", "address", "broadcast", "duplex", "operstate", "ifalias"),
)
ARP_ENTRIES = gauge("node_arp_entries", "Neighbours known on the device.", "device")
BONDING_SLAVES = gauge("node_bonding_slaves", "Devices of the bond.", "master")
BONDING_ACTIVE = gauge("node_bonding_active", "Devices of the bond that are up.", "master")


def device_counters(text: str) -> dict[str, list[float]]:
    """Sixteen counters a device of /proc/net/dev: eight received, eight sent."""
    found: dict[str, list[float]] = {}
    for line in text.splitlines()[2:]:
        device, separator, rest = line.rpartition(":")
        fields = rest.split()
        if separator and len(fields) >= 16:
            found[device.strip()] = [float(field) for field in fields[:16]]
    return found


def collect_traffic(paths: HostPaths, out: Gathered) -> None:
    """Add the traffic counters of every device but the loopback."""
    for device, values in device_counters(paths.read_proc("net/dev")).items():
        if DEVICES_IGNORED.match(device):
            continue
        for family, value in zip(TRAFFIC, values, strict=True):
            out.add(family, value, device)
        unhandled = read_number(f"{paths.sys}/class/net/{device}/statistics/rx_nohandler")
        if unhandled is not None:
            out.add(NO_HANDLER, unhandled, device)


def collect_properties(paths: HostPaths, out: Gathered) -> None:
    """Add the attributes in /sys/class/net; one that a driver refuses to tell is left out."""
    for device in paths.list_sys("class/net"):
        directory = f"{paths.sys}/class/net/{device}"
        if not os.path.isdir(directory):
            continue
        for file, family in PROPERTIES.items():
            value = read_number(f"{directory}/{file}")
            if value is not None:
                out.add(family, value * (BYTES_PER_MEGABIT if file == "speed" else 1.0), device)
        state = read_optional(f"{directory}/operstate") or ""
        out.add(UP, float(state == "up"), device)
        address, broadcast, duplex, alias = (
            read_optional(f"{directory}/{file}") or ""
            for file in ("address", "broadcast", "duplex", "ifalias")
        )
        out.add(INFO, 1.0, device, address, broadcast, duplex, state, alias)


def collect_arp(paths: HostPaths, out: Gathered) -> None:
    """Add the count of neighbours a device."""
    rows = (line.split() for line in paths.read_proc("net/arp").splitlines()[1:])
    for device, count in Counter(fields[5] for fields in rows if len(fields) >= 6).items():
        out.add(ARP_ENTRIES, count, device)


def collect_bonding(paths: HostPaths, out: Gathered) -> None:
    """Add devices and active devices a bond. Raises NoDataError without bonds."""
    masters = read_optional(f"{paths.sys}/class/net/bonding_masters")
    if masters is None:
        raise NoDataError("no bonding")
    for master in masters.split():
        slaves = (read_optional(f"{paths.sys}/class/net/{master}/bonding/slaves") or "").split()
        out.add(BONDING_SLAVES, len(slaves), master)
        out.add(BONDING_ACTIVE, sum(_slave_is_up(paths, master, slave) for slave in slaves), master)


def _slave_is_up(paths: HostPaths, master: str, slave: str) -> bool:
    directory = f"{paths.sys}/class/net/{master}"
    for link in (f"lower_{slave}", f"slave_{slave}"):
        if link in list_names(directory):
            return read_optional(f"{directory}/{link}/bonding_slave/mii_status") == "up"
    return False
