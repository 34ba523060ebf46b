"""Memory that was freed goes back to the kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsdb.allocator import release_free_memory

PIECE_BYTES = 100_000
"""Below the size that glibc maps apart."""
PIECES = 1_000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_free_pages_below_a_used_one_are_given_back() -> None:
    pieces = [np.ones(PIECE_BYTES, dtype=np.uint8) for _ in range(PIECES)]
    kept = pieces[-1]
    del pieces
    before = resident_bytes()
    release_free_memory()
    assert before - resident_bytes() > PIECE_BYTES * PIECES // 2
    assert kept.all()
