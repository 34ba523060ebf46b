"""Every family of Debian's node exporter on this machine, compared with ours of the same moment."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from agent.hostmetrics.registry import HostSource
from ingest.gathered import Gathered
from tests.agent import nodeexporter
from tsdb.labels import Labels

PORT = 19571

LACKING = {
    r"(go|process|promhttp)_.*": "about the exporter's own process, not about the host",
    r"node_exporter_build_info": "names the program; ours is vedette_build_info",
    r"node_(btrfs|xfs|zfs|bcache)_.*": "counters of single file systems: not built",
    r"node_(nfs|nfsd|ipvs|infiniband|fibrechannel|tape|md|power_supply|systemd)_.*": "hardware or service"
    " that the machine of the project has not: not built, because it could not be compared",
}
"""What the exporter may show and ours does not, and why."""

COLLECTORS_LACKING = {
    *("bcache", "btrfs", "fibrechannel", "infiniband", "ipvs", "mdadm", "nfs", "nfsd"),
    *("powersupplyclass", "systemd", "tapestats", "xfs", "zfs"),
}

TOLERANCES = {
    r"node_(entropy_available_bits|procs_running|procs_blocked|disk_io_now)": (1.0, 4096.0),
    r"node_(load\d+)": (0.5, 2.0),
    r"node_scrape_collector_duration_seconds": (0.0, 60.0),
    r"node_(memory|vmstat|sockstat|netstat|filefd|filesystem|udp|nf_conntrack|arp)_.*": (0.3, 64 << 20),
    r"node_(cpu|schedstat|pressure)_.*": (0.05, 5.0),
    r"node_(time_seconds|timex_.*)": (1e-6, 5.0),
    r".*": (0.05, 1000.0),
}
"""Relative and absolute difference allowed, for what moves between two readings; the first match counts."""

STEADY = re.compile(
    r"node_(boot_time_seconds|network_(mtu|flags|iface|info|up|type|speed|protocol|address|name|carrier).*"
    r"|disk_info|os_.*|uname_info|filesystem_(size_bytes|files|readonly|device_error)|filefd_maximum"
    r"|memory_(MemTotal|SwapTotal|CommitLimit|VmallocTotal|Hugepagesize)_bytes|time_zone.*|time_clock.*"
    r"|timex_(tick|status|sync).*|selinux.*|nf_conntrack_entries_limit|entropy_pool_size_bits|textfile.*"
    r"|cpu_(frequency|scaling).*_(min|max)_hertz)"
)
"""Values that must be equal to the last bit."""


@pytest.fixture(scope="module")
def pages() -> tuple[dict[Labels, float], Gathered, dict[str, str]]:
    if not nodeexporter.installed():
        pytest.skip("Debian's prometheus-node-exporter is not installed")
    source = HostSource()
    source.collect(Gathered())
    with nodeexporter.running(PORT) as url:
        theirs = nodeexporter.scrape(url)
        ours = Gathered()
        source.collect(ours)
        types = nodeexporter.types(url)
    assert not source.errors
    return theirs, ours, types


def lacking(name: str) -> str | None:
    return next((why for pattern, why in LACKING.items() if re.fullmatch(pattern, name)), None)


def by_name(rows: dict[Labels, float]) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for labels, value in rows.items():
        found[labels.metric_name][labels] = value
    return found


def test_every_family_of_node_exporter_is_there_or_has_a_reason(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    theirs, ours = by_name(pages[0]), by_name(dict(pages[1].labelled()))
    missing = sorted(name for name in theirs if name not in ours)
    for name in missing:
        print(f"lacking {name}: {lacking(name)}")
    assert len(theirs) > 150
    assert [name for name in missing if lacking(name) is None] == []
    assert sorted(name for name in ours if name not in theirs) == []


def test_label_sets_are_those_of_node_exporter(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours, wrong = by_name(dict(pages[1].labelled())), []
    for name, rows in by_name(pages[0]).items():
        if name in ours:
            theirs = {row for row in rows if row.get("collector") not in COLLECTORS_LACKING}
            wrong += [str(labels) for labels in theirs ^ set(ours[name])]
    assert wrong == []


def test_values_are_those_of_node_exporter_within_tolerance(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours, wrong = dict(pages[1].labelled()), []
    compared = 0
    for labels, value in pages[0].items():
        if labels not in ours:
            continue
        compared += 1
        name = labels.metric_name
        relative, absolute = next(t for pattern, t in TOLERANCES.items() if re.fullmatch(pattern, name))
        if STEADY.fullmatch(name):
            relative = absolute = 0.0
        if abs(ours[labels] - value) > max(relative * abs(value), absolute):
            wrong.append(f"{labels}: theirs {value}, ours {ours[labels]}")
    assert wrong == []
    assert compared > 300


def test_types_are_those_of_node_exporter(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours = {name: family.type for name, family in pages[1].families.items()}
    assert {n: t for n, t in pages[2].items() if n in ours and ours[n] != t} == {}
