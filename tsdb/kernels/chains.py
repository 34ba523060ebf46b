"""Chains of the head that are linked backwards through one array: link new entries, walk from the newest.

Entry 0 ends a chain. `newest` u32[slots] has the newest entry of each series.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import kernel

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]


@kernel("int64(uint32[::1], int64, uint32[::1], uint32[::1], int64[::1])", group="write")
def link_histograms(slots: U32Array, first: int, newest: U32Array, previous: U32Array, t_ms: I64Array) -> int:
    """Entry `first + i` becomes the newest of the series in `slots[i]`. Returns how many are older than the
    one that came before."""
    late = 0
    for i in range(len(slots)):
        before = newest[slots[i]]
        if before != 0 and t_ms[first + i] < t_ms[before]:
            late += 1
        previous[first + i] = before
        newest[slots[i]] = np.uint32(first + i)
    return late


@kernel(
    "int64(uint32[::1], int64, int64, boolean, uint32[::1], uint32[::1], int64[::1], int64[::1])",
    group="read",
)
def count_histograms(
    slots: U32Array,
    mint: int,
    maxt: int,
    ordered: bool,
    newest: U32Array,
    previous: U32Array,
    t_ms: I64Array,
    counts: I64Array,
) -> int:
    """Entries of each series with mint <= t <= maxt; of `ordered` chains only what is not older is looked
    at. Returns their sum."""
    total = 0
    for i in range(len(slots)):
        at: Word = np.int64(newest[slots[i]])
        found = 0
        while at != 0 and not (ordered and t_ms[at] < mint):
            if mint <= t_ms[at] <= maxt:
                found += 1
            at = np.int64(previous[at])
        counts[i] = found
        total += found
    return total


@kernel(
    "void(uint32[::1], int64, int64, boolean, uint32[::1], uint32[::1], int64[::1], int64[::1])", group="read"
)
def walk_histograms(
    slots: U32Array,
    mint: int,
    maxt: int,
    ordered: bool,
    newest: U32Array,
    previous: U32Array,
    t_ms: I64Array,
    entries: I64Array,
) -> None:
    """The entries that `count_histograms` counted, row after row, each row newest arrival first."""
    out = 0
    for i in range(len(slots)):
        at: Word = np.int64(newest[slots[i]])
        while at != 0 and not (ordered and t_ms[at] < mint):
            if mint <= t_ms[at] <= maxt:
                entries[out] = at
                out += 1
            at = np.int64(previous[at])


@kernel(
    "int64(uint32[::1], int64, int64, boolean, uint32[::1], uint32[::1], int64[::1], int64[::1])",
    group="read",
)
def latest_histograms(
    slots: U32Array,
    mint: int,
    maxt: int,
    ordered: bool,
    newest: U32Array,
    previous: U32Array,
    t_ms: I64Array,
    entries: I64Array,
) -> int:
    """The entry of each series with the greatest mint <= t <= maxt, of equal ones the first to arrive; 0 for
    none. Returns how many series have one."""
    total = 0
    for i in range(len(slots)):
        at: Word = np.int64(newest[slots[i]])
        best: Word = np.int64(0)
        while at != 0 and not (ordered and t_ms[at] < mint):
            if mint <= t_ms[at] <= maxt and (best == 0 or t_ms[at] >= t_ms[best]):
                best = at
            at = np.int64(previous[at])
        entries[i] = best
        total += best != 0
    return total
