"""Start timestamps of float samples in the head: noted where they change, spread over samples when read.

The in-order samples of a series mostly share one start timestamp, so the head keeps a chain of changes: from
time t on, samples started at s. Entry 0 ends a chain. Late samples each have their own, beside their entry.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import ACCEPTED, CHAINS, LATE_PREVIOUS, LATE_T, SLOT_MASK
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import kernel

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Columns of `changes` i64[entries, 3].
CHANGE_T, CHANGE_START, CHANGE_PREVIOUS = range(3)
CHANGE_WORDS = 3

_SLOT_MASK = np.uint32(SLOT_MASK)
_U32 = np.uint64(32)
_ZERO = np.uint64(0)


@kernel(
    "int64(uint32[::1], int64[::1], uint8[::1], int64[::1], uint32[::1], int64[::1], int64[:,::1], int64)",
    group="write",
)
def note_starts(
    refs: U32Array,
    t_ms: I64Array,
    codes: U8Array,
    starts: I64Array,
    newest: U32Array,
    last: I64Array,
    changes: I64Array,
    end: int,
) -> Word:
    """Chain a change for every accepted sample that starts at another time than the one before in its series.

    `starts` may be empty: all unset (0). `newest` and `last` are a slot's newest change and its start.
    Returns the new end of `changes`, which has room for all samples.
    """
    at: Word = end
    for i in range(len(refs)):
        if codes[i] != ACCEPTED:
            continue
        slot = refs[i] & _SLOT_MASK
        start = starts[i] if len(starts) else np.int64(0)
        if start == last[slot]:
            continue
        changes[at, CHANGE_T] = t_ms[i]
        changes[at, CHANGE_START] = start
        changes[at, CHANGE_PREVIOUS] = newest[slot]
        newest[slot] = np.uint32(at)
        last[slot] = start
        at += 1
    return np.int64(at)


@kernel(
    "int64(int64, int64, uint8[::1], uint32[::1], int64[::1], int64[:,::1], int64, uint32[::1])",
    group="write",
)
def compact_starts(
    oldest: int,
    slots_used: int,
    alive: U8Array,
    newest: U32Array,
    last: I64Array,
    changes: I64Array,
    end: int,
    moved: U32Array,
) -> Word:
    """Keep of each living series the changes after `oldest` and the one in force then; return the new end.

    `moved` u32[end], zeroed, becomes the map from old entries to new ones (0 = gone).
    """
    for slot in range(1, slots_used):
        if alive[slot] == 0:
            newest[slot] = 0
            last[slot] = 0
            continue
        entry = np.int64(newest[slot])
        while entry != 0:
            moved[entry] = 1
            if changes[entry, CHANGE_T] <= oldest:
                break
            entry = changes[entry, CHANGE_PREVIOUS]
    kept = 1
    for i in range(1, end):
        if moved[i] == 0:
            continue
        moved[i] = kept
        changes[kept, CHANGE_T] = changes[i, CHANGE_T]
        changes[kept, CHANGE_START] = changes[i, CHANGE_START]
        changes[kept, CHANGE_PREVIOUS] = moved[changes[i, CHANGE_PREVIOUS]]
        kept += 1
    for slot in range(1, slots_used):
        newest[slot] = moved[newest[slot]]
    return np.int64(kept)


@kernel("void(uint32[::1], uint32[::1], int64[:,::1], int64[::1])", group="read")
def count_changes(slots: U32Array, newest: U32Array, changes: I64Array, counts: I64Array) -> None:
    """Changes of each series."""
    for i in range(len(slots)):
        entry = np.int64(newest[slots[i]])
        found = 0
        while entry != 0:
            found += 1
            entry = changes[entry, CHANGE_PREVIOUS]
        counts[i] = found


@kernel("void(uint32[::1], uint32[::1], int64[:,::1], int64[::1], int64[::1], int64[::1])", group="read")
def copy_changes(
    slots: U32Array,
    newest: U32Array,
    changes: I64Array,
    offsets: I64Array,
    change_t: I64Array,
    change_start: I64Array,
) -> None:
    """The changes that `count_changes` counted, each row ascending in time."""
    for i in range(len(slots)):
        entry = np.int64(newest[slots[i]])
        at = offsets[i + 1]
        while entry != 0:
            at -= 1
            change_t[at] = changes[entry, CHANGE_T]
            change_start[at] = changes[entry, CHANGE_START]
            entry = changes[entry, CHANGE_PREVIOUS]


@kernel(
    "void(uint32[::1], int64, int64, uint64[:,::1], uint64[:,::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1])",
    group="read",
)
def copy_late_starts(
    slots: U32Array,
    mint: int,
    maxt: int,
    rows: U64Array,
    late: U64Array,
    starts: I64Array,
    places: I64Array,
    times: I64Array,
    out: I64Array,
) -> None:
    """Time and start of the late samples of each series in [mint, maxt], oldest arrival first.

    `places[i]` is the place after the last one of row i; `starts` belongs to the entries of `late`.
    """
    for i in range(len(slots)):
        at = places[i]
        entry = rows[slots[i], CHAINS] >> _U32
        while entry != _ZERO:
            t = np.int64(late[entry, LATE_T])
            if mint <= t <= maxt:
                at -= 1
                times[at] = t
                out[at] = starts[entry]
            entry = late[entry, LATE_PREVIOUS]


@kernel(
    "void(int64[::1], int64[::1], int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], uint8[::1], int64[::1])",
    group="read",
)
def fill_starts(
    offsets: I64Array,
    t_ms: I64Array,
    lo: int,
    change_offsets: I64Array,
    change_t: I64Array,
    change_start: I64Array,
    loose_offsets: I64Array,
    tail_counts: I64Array,
    loose_t: I64Array,
    loose_start: I64Array,
    late_used: U8Array,
    out: I64Array,
) -> None:
    """Start of every decoded sample: that of its late entry where one was merged, else the one in force.

    Row r of `offsets` and `t_ms` is captured row lo + r. `late_used` marks the late entries that
    `decode_rows` merged; empty where no row has any.
    """
    for row in range(len(offsets) - 1):
        source = lo + row
        change, changes_end = change_offsets[source], change_offsets[source + 1]
        late: Word = loose_offsets[source] + tail_counts[source]
        late_end = loose_offsets[source + 1] if len(late_used) else late
        start = np.int64(0)
        for i in range(offsets[row], offsets[row + 1]):
            t = t_ms[i]
            while change < changes_end and change_t[change] <= t:
                start = change_start[change]
                change += 1
            out[i] = start
            while late < late_end and (loose_t[late] < t or (loose_t[late] == t and late_used[late] == 0)):
                late += 1
            if late < late_end and loose_t[late] == t:
                out[i] = loose_start[late]
