"""Software RAID: the collector mdadm."""

from __future__ import annotations

import re

from agent.hostmetrics.paths import HostPaths
from ingest.gathered import Gathered, gauge

STATES = ("active", "inactive", "recovering", "resync", "check")
_RUNNING = {"recovery": "recovering", "resync": "resync", "check": "check", "reshape": "reshaping"}
_SLOTS = re.compile(r"\[(\d+)/(\d+)\]\s+\[[U_]+\]")
_DONE = re.compile(r"(recovery|resync|check|reshape)\s*=\s*(?:[\d.]+%\s+\((\d+)/\d+\))?")

BLOCKS = gauge("node_md_blocks", "Blocks of the device.", "device")
BLOCKS_SYNCED = gauge("node_md_blocks_synced", "Blocks in step.", "device")
DISKS_REQUIRED = gauge("node_md_disks_required", "Disks that the device needs.", "device")
DISKS = gauge("node_md_disks", "Disks of the device by state.", "device", "state")
STATE = gauge("node_md_state", "Whether the device is in a state.", "device", "state")


def collect_raid(paths: HostPaths, out: Gathered) -> None:
    """Add blocks, disks and state of every md device. Raises NoDataError without the driver."""
    lines = paths.read_proc("mdstat").splitlines()
    for at, line in enumerate(lines):
        name, separator, rest = line.partition(" : ")
        if separator and name.startswith("md"):
            _add_device(out, name.strip(), rest.split(), _details(lines[at + 1 : at + 5]))


def _details(lines: list[str]) -> str:
    """The indented lines of a device."""
    found = []
    for line in lines:
        if not line.startswith(" "):
            break
        found.append(line)
    return "\n".join(found)


def _add_device(out: Gathered, name: str, words: list[str], details: str) -> None:
    members = [word for word in words if "[" in word]
    failed = sum("(F)" in word for word in members)
    spare = sum("(S)" in word for word in members)
    blocks = float(match[1]) if (match := re.search(r"(\d+) blocks", details)) else 0.0
    slots = _SLOTS.search(details)
    active = words[0] == "active"
    required = up = len(members) - failed - spare
    if not active:
        required = up = 0
    elif slots:
        required, up = int(slots[1]), int(slots[2])
    running = _DONE.search(details)
    state = _RUNNING[running[1]] if running else words[0]
    synced = float(running[2] or 0) if running else blocks
    out.add(BLOCKS, blocks, name)
    out.add(BLOCKS_SYNCED, synced, name)
    out.add(DISKS_REQUIRED, required, name)
    for kind, count in (("active", up), ("failed", failed), ("spare", spare)):
        out.add(DISKS, count, name, kind)
    for known in STATES:
        out.add(STATE, float(known == state), name, known)
