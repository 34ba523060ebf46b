"""Memory and paging: the collectors meminfo and vmstat."""

from __future__ import annotations

import re
from functools import lru_cache

from agent.hostmetrics.paths import HostPaths
from ingest.gathered import Family, Gathered, counter, gauge, untyped

VMSTAT_FIELDS = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault).*")
_BRACKETS = re.compile(r"\((.*)\)")


def collect_meminfo(paths: HostPaths, out: Gathered) -> None:
    """Add every field of meminfo; those in kB become bytes."""
    for line in paths.read_proc("meminfo").splitlines():
        fields = line.split()
        if len(fields) < 2:
            continue
        key, value = fields[0].rstrip(":"), float(fields[1])
        in_kb = len(fields) > 2 and fields[2] == "kB"
        out.add(_meminfo_family(key, in_kb), value * 1024.0 if in_kb else value)


@lru_cache(maxsize=512)
def _meminfo_family(key: str, in_kb: bool) -> Family:
    name = _BRACKETS.sub(r"_\1", key) + ("_bytes" if in_kb else "")
    make = counter if name.endswith("_total") else gauge
    return make(f"node_memory_{name}", f"Field {key} of meminfo.")


def collect_vmstat(paths: HostPaths, out: Gathered) -> None:
    """Add the fields of vmstat about paging, swapping, faults and kills for lack of memory."""
    for line in paths.read_proc("vmstat").splitlines():
        key, _, value = line.partition(" ")
        if VMSTAT_FIELDS.match(key):
            out.add(_vmstat_family(key), float(value))


@lru_cache(maxsize=512)
def _vmstat_family(key: str) -> Family:
    return untyped(f"node_vmstat_{key}", f"Field {key} of vmstat.")
