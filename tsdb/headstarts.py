"""Start timestamps of the head's float samples; an empty one costs address space only.

Written under the head's lock; a reader captures a copy under the same lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import LimitError
from tsdb.headhistograms import offsets_of, runs
from tsdb.kernels.append import LATE, LATE_T
from tsdb.kernels.starts import (
    CHANGE_WORDS,
    compact_starts,
    copy_changes,
    copy_late_starts,
    count_changes,
    fill_starts,
    note_starts,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

CHANGES_PER_SLOT = 8
"""Address space a slot: a cumulative counter changes at a restart, a delta one with every sample."""
_CHANGES_FLOOR = 4096
_UNSET: I64Array = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class CapturedStarts:
    """Changes of the captured rows as CSR, and the starts of their loose samples (only late ones count)."""

    offsets: I64Array
    change_t: I64Array
    change_start: I64Array
    loose_start: I64Array

    def take(self, rows: npt.NDArray[np.integer], loose: I64Array) -> CapturedStarts:
        """The given rows in the given order; `loose` are their loose samples."""
        counts = np.diff(self.offsets)[rows]
        picked = runs(self.offsets[:-1][rows], counts)
        starts = self.loose_start[loose]
        return CapturedStarts(offsets_of(counts), self.change_t[picked], self.change_start[picked], starts)

    def fill(
        self,
        lo: int,
        offsets: I64Array,
        t_ms: I64Array,
        loose_offsets: I64Array,
        tail_counts: I64Array,
        loose_t: I64Array,
        late_used: U8Array,
    ) -> I64Array | None:
        """Starts of decoded rows from captured row `lo` on; None where all are unset."""
        out = np.empty(len(t_ms), dtype=np.int64)
        fill_starts(
            offsets,
            t_ms,
            lo,
            self.offsets,
            self.change_t,
            self.change_start,
            loose_offsets,
            tail_counts,
            loose_t,
            self.loose_start,
            late_used,
            out,
        )
        return out if out.any() else None


class HeadStarts:
    """Changes of the in-order samples by series, and one start a late sample."""

    def __init__(self, slot_capacity: int, late_limit: int) -> None:
        """Raises MemoryError."""
        self.newest: U32Array = reserve(np.uint32, slot_capacity)
        self.last: I64Array = reserve(np.int64, slot_capacity)
        limit = CHANGES_PER_SLOT * slot_capacity + _CHANGES_FLOOR
        self.changes: I64Array = reserve(np.int64, limit * CHANGE_WORDS).reshape(-1, CHANGE_WORDS)
        self.late: I64Array = reserve(np.int64, late_limit)
        self.end = 1
        self.used = False
        """Whether any sample ever had a start."""

    def check_room(self, count: int) -> None:
        """Raise LimitError where `count` more samples may not fit."""
        if self.end + count > len(self.changes):
            raise LimitError(
                f"{self.end} changes of start timestamps in the head, the limit is {len(self.changes)}"
            )

    def store(
        self, refs: U32Array, t_ms: I64Array, codes: U8Array, starts: I64Array | None, late_end: int
    ) -> None:
        """Note the starts (None: all unset) of samples that the head stored; `late_end` is the end of the
        head's late samples after them."""
        if not self.used:
            if starts is None or not starts.any():
                return
            self.used = True
        given = _UNSET if starts is None else np.ascontiguousarray(starts, dtype=np.int64)
        self.check_room(len(refs))
        self.end = note_starts(refs, t_ms, codes, given, self.newest, self.last, self.changes, self.end)
        late = np.flatnonzero(codes == LATE)
        if len(late):
            self.late[late_end - len(late) : late_end] = given[late] if len(given) else 0

    def forget(self, slots: U32Array) -> None:
        """Drop what is known of some slots."""
        if self.used:
            self.newest[slots] = 0
            self.last[slots] = 0

    def compact_late(self, oldest: int, late: U64Array, late_end: int) -> None:
        """Keep the starts of late samples at `oldest` or later; `late` is still as it was."""
        if self.used:
            kept = self.late[1:late_end][late[1:late_end, LATE_T].view(np.int64) >= oldest]
            self.late[1 : 1 + len(kept)] = kept

    def compact(self, oldest: int, alive: U8Array, slots_used: int) -> None:
        """Drop changes that no sample at `oldest` or later needs, and those of dead series."""
        if self.used:
            moved = np.zeros(self.end, dtype=np.uint32)
            self.end = compact_starts(
                oldest, slots_used, alive, self.newest, self.last, self.changes, self.end, moved
            )

    def capture(
        self,
        slots: U32Array,
        mint: int,
        maxt: int,
        rows: U64Array,
        late: U64Array,
        loose_offsets: I64Array,
        tail_counts: I64Array,
    ) -> CapturedStarts | None:
        """Copy what the samples of some slots need; None where nothing was ever stored.

        Loose samples of a row are its tail, then its late ones by time and arrival.
        """
        if not self.used:
            return None
        counts = np.empty(len(slots), dtype=np.int64)
        count_changes(slots, self.newest, self.changes, counts)
        offsets = offsets_of(counts)
        change_t = np.empty(int(offsets[-1]), dtype=np.int64)
        change_start = np.empty(len(change_t), dtype=np.int64)
        copy_changes(slots, self.newest, self.changes, offsets, change_t, change_start)
        total = int(loose_offsets[-1])
        # Places of the tails keep the smallest time, so that sorting leaves them in front.
        times = np.full(total, np.iinfo(np.int64).min)
        starts = np.zeros(total, dtype=np.int64)
        copy_late_starts(slots, mint, maxt, rows, late, self.late, loose_offsets[1:], times, starts)
        late_counts = np.diff(loose_offsets) - tail_counts
        if late_counts.any():
            rows = np.repeat(np.arange(len(slots)), np.diff(loose_offsets))
            starts = starts[np.lexsort((times, rows))]
        return CapturedStarts(offsets, change_t, change_start, starts)
