"""Gives memory back that only loading needed: pages of the compiler's library, and freed heap."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

COMPILER = "libllvmlite.so"
_MADV_DONTNEED = 4
_MAPPING = re.compile(r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<mode>\S{4}) .*?(?P<path>/\S.*)?$")


def release_after_load(smaps: Path = Path("/proc/self/smaps")) -> int:
    """Release what compiled kernels do not need any more; returns the bytes of library pages given back.

    The kernel reads a page again from the file when it is used after all. Only mappings that cannot be
    written and of which no page was changed (relocations are) are given back.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    released = 0
    for start, size, resident in unchanged_mappings(smaps.read_text(errors="replace"), COMPILER):
        if libc.madvise(start, size, _MADV_DONTNEED) == 0:
            released += resident
    libc.malloc_trim(0)
    return released


def unchanged_mappings(smaps: str, library: str) -> list[tuple[int, int, int]]:
    """Start, size and resident bytes of the mappings of a library that are as in the file."""
    found: list[tuple[int, int, int]] = []
    start = end = resident = 0
    wanted = False
    for line in smaps.splitlines():
        match = _MAPPING.match(line)
        if match:
            start, end = int(match["start"], 16), int(match["end"], 16)
            wanted = "w" not in match["mode"] and (match["path"] or "").rpartition("/")[2] == library
        elif wanted and line.startswith("Rss:"):
            resident = int(line.split()[1]) << 10
        elif wanted and line.startswith("Anonymous:"):
            # This line comes after that of Rss.
            if int(line.split()[1]) == 0 and resident:
                found.append((start, end - start, resident))
            wanted = False
    return found
