"""Resident memory of this process's mappings of a file."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(part_of_path: str) -> int:
    """Resident bytes of the mappings whose file's path has a part."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if not line.split(maxsplit=1)[0].endswith(":"):
            inside = part_of_path in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found
