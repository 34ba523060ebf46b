"""The series of one target by their text, and which of them went stale.

A steady scrape only runs kernels here: text to slot, slot to ref, slots to marks. Loop order of a scrape:
`lookup`, `add` for what is unknown, `observe`, then `commit` or `fail`. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ingest.kernels import seriescache as kernels
from ingest.scrape.text import Scanned

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]

SERIES_COUNT_LIMIT = 50_000_000
"""Series texts of one target."""
_SLOTS_MIN = 64
_DEAD_SLACK = 1000
"""Slots not seen any more are kept until there are this many more of them than twice the seen ones."""

_T = TypeVar("_T", bound=np.generic)

NO_REF = np.uint32(0xFFFFFFFF)


class SeriesLimitError(ValueError):
    """A target exposes more series than one cache holds."""


@dataclass(frozen=True, slots=True)
class Observed:
    """`keep` u8[N]: 1 kept, 0 dropped by relabelling, 2 repeated. Counts of samples."""

    keep: U8Array
    kept_count: int
    post_relabel_count: int
    repeated_count: int
    added_count: int


class SeriesCache:
    """Slots of the series texts of one target. Not for concurrent use."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.count = 0
        self.iteration = 1
        self._succeeded = 0
        self._tracked = 0
        self._table = np.full(2 * _SLOTS_MIN, kernels.EMPTY, np.int32)
        self._hash: U64Array = np.zeros(_SLOTS_MIN, np.uint64)
        self._start: I64Array = np.zeros(_SLOTS_MIN, np.int64)
        self._length: I32Array = np.zeros(_SLOTS_MIN, np.int32)
        self.refs: U32Array = np.zeros(_SLOTS_MIN, np.uint32)
        self._state: U8Array = np.zeros(_SLOTS_MIN, np.uint8)
        self.kinds: U8Array = np.zeros(_SLOTS_MIN, np.uint8)
        self._seen: I64Array = np.zeros(_SLOTS_MIN, np.int64)
        self._tracked_at: I64Array = np.zeros(_SLOTS_MIN, np.int64)
        self._arena: U8Array = np.zeros(64 * _SLOTS_MIN, np.uint8)
        self._arena_used = 0

    def lookup(self, scanned: Scanned) -> tuple[I32Array, int]:
        """Slots i32[N] of the samples, -1 where unknown, and how many are unknown."""
        slots = np.empty(scanned.count, np.int32)
        misses = kernels.lookup(
            scanned.bytes_array, scanned.starts, scanned.ends, scanned.hashes, scanned.count,
            self._table, self._hash, self._start, self._length, self._arena, slots,
        )  # fmt: skip
        return slots, misses

    def text(self, slot: int) -> bytes:
        """The series text of a slot."""
        start = int(self._start[slot])
        return self._arena[start : start + int(self._length[slot])].tobytes()

    def add(self, texts: Sequence[bytes], hashes: U64Array, refs: U32Array, kinds: U8Array) -> I32Array:
        """Slots of new series texts; a ref of NO_REF marks a series that relabelling drops.

        `kinds` u8[N] is kept beside the slot for whoever reads the text again.
        """
        first, last = self.count, self.count + len(texts)
        if last > SERIES_COUNT_LIMIT:
            raise SeriesLimitError(f"target exposes more than {SERIES_COUNT_LIMIT} series")
        joined = np.frombuffer(b"".join(texts), dtype=np.uint8)
        self._reserve(last, self._arena_used + len(joined))
        lengths = np.fromiter((len(text) for text in texts), np.int32, len(texts))
        self._arena[self._arena_used : self._arena_used + len(joined)] = joined
        self._start[first:last] = self._arena_used + np.cumsum(lengths, dtype=np.int64) - lengths
        self._arena_used += len(joined)
        self._length[first:last] = lengths
        self._hash[first:last] = hashes
        self.refs[first:last] = refs
        self.kinds[first:last] = kinds
        self._state[first:last] = np.where(refs == NO_REF, kernels.DROPPED, kernels.ACTIVE)
        self._seen[first:last] = -1
        self._tracked_at[first:last] = 0
        self.count = last
        kernels.insert(self._table, self._hash, first, last)
        return np.arange(first, last, dtype=np.int32)

    def observe(self, slots: I32Array, timed: U8Array, track_timed: bool) -> Observed:
        """Mark the samples' series as seen in this scrape."""
        keep, counts = np.empty(len(slots), np.uint8), np.zeros(3, np.int64)
        kept = kernels.observe(
            slots, timed, len(slots), int(track_timed), self.iteration, self._succeeded, self._state,
            self._seen, self._tracked_at, keep, counts,
        )  # fmt: skip
        return Observed(keep, kept, int(counts[0]), int(counts[1]), int(counts[2]))

    def tracked_refs(self) -> U32Array:
        """Refs that get a stale marker unless they are seen again; call before `observe`."""
        if self._tracked == 0:
            return np.empty(0, np.uint32)
        tracked: U32Array = self.refs[: self.count][self._tracked_at[: self.count] == self._tracked]
        return tracked

    def vanished_refs(self, before: U32Array) -> U32Array:
        """Those of `before` that this scrape, now observed, does not track any more."""
        now = self.refs[: self.count][self._tracked_at[: self.count] == self.iteration]
        if len(before) == len(now) and np.array_equal(before, now):
            return np.empty(0, np.uint32)
        vanished: U32Array = np.setdiff1d(before, now)
        return vanished

    def commit(self) -> bool:
        """The scrape succeeded: what it saw is what the next one is compared with.

        True when unused slots were removed because they had become the most.
        """
        self._succeeded = self._tracked = self.iteration
        live = self._seen[: self.count] == self.iteration
        live_count = int(np.count_nonzero(live))
        crowded = self.count - live_count > 2 * live_count + _DEAD_SLACK
        if crowded:
            self._keep_only(live)
        self.iteration += 1
        return crowded

    def fail(self) -> None:
        """The scrape failed: nothing is tracked any more."""
        self._tracked = 0
        self.iteration += 1

    def _reserve(self, slots: int, arena_bytes: int) -> None:
        if arena_bytes > len(self._arena):
            self._arena = _grown(self._arena, arena_bytes)
        if slots > len(self.refs):
            for name in ("_hash", "_start", "_length", "refs", "_state", "kinds", "_seen", "_tracked_at"):
                setattr(self, name, _grown(getattr(self, name), slots))
        if 2 * slots > len(self._table):
            self._rebuild_table(slots)

    def _rebuild_table(self, slots: int) -> None:
        self._table = np.full(1 << (2 * slots - 1).bit_length(), kernels.EMPTY, np.int32)
        kernels.insert(self._table, self._hash, 0, self.count)

    def _keep_only(self, live: npt.NDArray[np.bool_]) -> None:
        slots = np.flatnonzero(live)
        arena = b"".join(self.text(int(slot)) for slot in slots)
        for name in ("_hash", "_length", "refs", "_state", "kinds", "_seen", "_tracked_at"):
            setattr(self, name, _grown(getattr(self, name)[slots], _SLOTS_MIN))
        self.count = len(slots)
        self._start = np.zeros(len(self.refs), np.int64)
        lengths = self._length[: self.count]
        self._start[: self.count] = np.cumsum(lengths, dtype=np.int64) - lengths
        self._arena = np.frombuffer(bytearray(arena or b"\0"), dtype=np.uint8)
        self._arena_used = len(arena)
        self._rebuild_table(max(self.count, _SLOTS_MIN))


def _grown(array: npt.NDArray[_T], size: int) -> npt.NDArray[_T]:
    if size <= len(array):
        return array
    grown = np.zeros(max(size, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown
