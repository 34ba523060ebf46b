"""Series of the head: identity (labels and refs) and the tables that find them.

A series ref is a slot (low 24 bits) and the slot's generation (high 8 bits). A slot is reused only after the
series in it was garbage collected, with the next generation, oldest free slot first: a ref that somebody kept
too long is then refused as unknown instead of writing into another series.

Two ways lead to a ref. The alias table maps the hash of raw label bytes, as a sender spells them, to a ref;
receivers read it without a lock. The canonical table holds slots by the hash of a label set's symbol ids,
compares the ids themselves, and is used under the table's lock only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import LimitError, SeriesLimitError
from tsdb.kernels.identity import find_slots, insert_slots
from tsdb.kernels.labels import copy_pairs
from tsdb.labels import Labels
from tsdb.reftable import RefTable, TableArrays
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

SLOT_BITS = 24
SLOT_MASK = (1 << SLOT_BITS) - 1
SERIES_LIMIT = SLOT_MASK
"""Series that fit in one head; slot 0 is never used."""

_PAIRS_PER_SERIES_LIMIT = 32
_NAME_SETS_REMEMBERED = 1 << 16
"""Beyond these, label names that nobody had are kept a series: names made up without end find no others."""
ALIASES_PER_SERIES = 8
ALIASES_FLOOR = 1 << 20
_GENERATIONS = 256
_CANONICAL_INITIAL = 1024
_CANONICAL_LOAD = 0.75


class SeriesTable:
    """Labels, refs and hash tables of all series of a head. One writer (its lock), many readers."""

    def __init__(
        self, symbols: SymbolTable, seeds: tuple[int, int], series_limit: int = SERIES_LIMIT
    ) -> None:
        """`seeds` are two random uint64 of this process; `series_limit` bounds the address space reserved."""
        slot_count = min(series_limit, SERIES_LIMIT) + 1
        self.slot_capacity = slot_count
        self.symbols = symbols
        self.seeds = seeds
        self.lock = threading.RLock()
        self.alive: U8Array = reserve(np.uint8, slot_count)
        self.generation: U8Array = reserve(np.uint8, self.slot_capacity)
        # Label names of series are mostly those of other series too, and kept once.
        self._values_start: U64Array = reserve(np.uint64, self.slot_capacity)
        self._names_start: U32Array = reserve(np.uint32, self.slot_capacity)
        self._pairs_count: U32Array = reserve(np.uint32, self.slot_capacity)
        self._values: U32Array = reserve(np.uint32, self.slot_capacity * _PAIRS_PER_SERIES_LIMIT)
        self._values_end = 0
        self._names: U32Array = reserve(np.uint32, self.slot_capacity * _PAIRS_PER_SERIES_LIMIT)
        self._names_end = 0
        self._name_sets: dict[bytes, int] = {}
        self._most_pairs = 0
        self.slots_used = 1
        self.free_slots: deque[int] = deque()
        self.series_count = 0
        self._aliases = RefTable()
        self._canonical: U32Array = np.zeros(_CANONICAL_INITIAL, dtype=np.uint32)
        self._canonical_tags: U8Array = np.zeros(_CANONICAL_INITIAL, dtype=np.uint8)
        self._canonical_used = 0
        self._announced = 0
        """Series whose slots are taken and whose label sets are still to come."""

    # Aliases: raw label bytes of a sender to a ref.

    def snapshot(self) -> TableArrays:
        """Alias arrays: `(keys u64[], checks u32[], refs u32[])` for `kernels.table.lookup`."""
        return self._aliases.snapshot()

    def insert_alias(self, hash_value: int, check: int, ref: int) -> None:
        """Let the hash and check of raw label bytes find a series; replaces an older ref."""
        self.insert_aliases(
            np.array([hash_value], dtype=np.uint64),
            np.array([check], dtype=np.uint32),
            np.array([ref], dtype=np.uint32),
        )

    def insert_aliases(self, hashes: U64Array, checks: U32Array, refs: U32Array) -> None:
        """`insert_alias` for many: three arrays of one length.

        A series may have many spellings, but not without end: beyond the limit the table starts anew, and
        what is still sent comes back through the slow way.
        """
        with self.lock:
            if len(self._aliases) + len(hashes) > max(ALIASES_FLOOR, ALIASES_PER_SERIES * self.series_count):
                self._aliases = RefTable()
            self._aliases.insert(hashes, checks, refs)

    # Identity.

    def ids_of(self, rows: Sequence[Labels]) -> tuple[I64Array, U32Array]:
        """Interned pairs of label sets as CSR: offsets i64[R+1] in pairs, ids u32[2P] as name, value, ..."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        texts = [text for row in rows for pair in row.pairs for text in pair]
        return offsets, self.symbols.intern_many(texts)

    def find(self, offsets: I64Array, ids: U32Array) -> I64Array:
        """Refs i64[R] of label sets given as interned pairs, -1 where new."""
        found = np.empty(len(offsets) - 1, dtype=np.int64)
        seed0, seed1 = self.seeds
        find_slots(
            ids,
            ids.view(np.uint8),
            offsets,
            seed0,
            seed1,
            self._canonical,
            self._canonical_tags,
            self._values_start,
            self._pairs_count,
            self._values,
            self._names_start,
            self._names,
            found,
        )
        known = np.flatnonzero(found >= 0)
        found[known] = self.refs_of(found[known].astype(np.uint32))
        return found

    def _insert_canonical(self, slots: U32Array) -> None:
        """Let the pairs of slots find them."""
        size = len(self._canonical)
        # With room for all that are announced: growing step by step, a replay would insert most twice.
        coming = max(len(slots), self._announced)
        while self._canonical_used + coming > size * _CANONICAL_LOAD:
            size *= 2
        if size != len(self._canonical):
            self._rebuild_canonical(self._canonical, size)
        self._canonical_used += self._put_canonical(slots)

    def _rebuild_canonical(self, slots: U32Array, size: int) -> None:
        self._canonical = np.zeros(size, dtype=np.uint32)
        self._canonical_tags = np.zeros(size, dtype=np.uint8)
        self._canonical_used = self._put_canonical(slots)

    def _put_canonical(self, slots: U32Array) -> int:
        seed0, seed1 = self.seeds
        ids = np.empty(2 * self._most_pairs, dtype=np.uint32)
        return int(
            insert_slots(
                slots,
                seed0,
                seed1,
                self._canonical,
                self._canonical_tags,
                self._values_start,
                self._pairs_count,
                self._values,
                self._names_start,
                self._names,
                ids,
                ids.view(np.uint8),
            )
        )

    def create(self, offsets: I64Array, ids: U32Array) -> U32Array:
        """Refs of new, distinct label sets. Raises LimitError, having created none. Caller holds the lock."""
        count = len(offsets) - 1
        if self.series_count + count > self.slot_capacity - 1:
            raise SeriesLimitError(
                f"the head holds {self.series_count} series, {count} more exceed the limit of "
                f"{self.slot_capacity - 1}"
            )
        if max(self._values_end, self._names_end) + len(ids) // 2 > len(self._values):
            raise LimitError(f"label pairs of the head exceed the limit of {len(self._values)}")
        fresh = min(count, self.slot_capacity - self.slots_used)
        slots = np.arange(self.slots_used, self.slots_used + fresh, dtype=np.uint32)
        if len(self.free_slots) >= count:
            slots = np.array([self.free_slots.popleft() for _ in range(count)], dtype=np.uint32)
        elif fresh < count:
            reused = [self.free_slots.popleft() for _ in range(count - fresh)]
            slots = np.concatenate((slots, np.array(reused, dtype=np.uint32)))
        self.slots_used = max(self.slots_used, int(slots.max()) + 1) if count else self.slots_used
        refs = slots | (self.generation[slots].astype(np.uint32) << np.uint32(SLOT_BITS))
        self.install(refs, offsets, ids)
        return refs

    def announce(self, refs: U32Array) -> None:
        """Take the slots of given refs, which are free, for label sets that `install` brings."""
        self._take(refs)
        self._announced += len(refs)

    def _take(self, refs: U32Array) -> None:
        slots = refs & np.uint32(SLOT_MASK)
        self.generation[slots] = (refs >> np.uint32(SLOT_BITS)).astype(np.uint8)
        self.alive[slots] = 1
        self.slots_used = max(self.slots_used, int(slots.max()) + 1) if len(slots) else self.slots_used

    def install(self, refs: U32Array, offsets: I64Array, ids: U32Array) -> None:
        """Put label sets into the slots of given refs, which are free; used by `create` and by replay."""
        slots = refs & np.uint32(SLOT_MASK)
        self._put_pairs(slots, offsets, ids)
        self._take(refs)
        self.series_count += len(slots)
        self._insert_canonical(slots)
        self._announced = max(self._announced - len(slots), 0)

    def _put_pairs(self, slots: U32Array, offsets: I64Array, ids: U32Array) -> None:
        base, values = self._values_end, ids[1::2]
        self._values_end = base + len(values)
        self._values[base : self._values_end] = values
        self._values_start[slots] = (base + offsets[:-1]).astype(np.uint64)
        counts = np.diff(offsets)
        self._pairs_count[slots] = counts.astype(np.uint32)
        self._most_pairs = max(self._most_pairs, int(counts.max(initial=0)))
        if len(slots):
            self._names_start[slots] = self._name_sets_of(np.ascontiguousarray(ids[0::2]), offsets, counts)

    def _name_sets_of(self, names: U32Array, offsets: I64Array, counts: I64Array) -> U32Array:
        """Where the names of each of some series are. Series side by side mostly have the same, which is seen
        without looking each one up."""
        count = len(counts)
        other = np.ones(count, dtype=np.bool_)
        # Behind the last name of all no series begins, and one of no names has none to compare.
        named = offsets[:-1] < len(names)
        equal = names == names[np.arange(len(names)) - np.repeat(np.roll(counts, 1), counts)]
        if named.any():
            other[named] = ~np.logical_and.reduceat(equal, offsets[:-1][named])
        other[1:] |= counts[1:] != counts[:-1]
        other[0] = True
        raw = names.tobytes()
        lows, highs = (4 * offsets[:-1][other]).tolist(), (4 * offsets[1:][other]).tolist()
        starts = [self._name_set(raw[lo:hi]) for lo, hi in zip(lows, highs, strict=True)]
        places: U32Array = np.array(starts, dtype=np.uint32)[np.cumsum(other) - 1]
        return places

    def _name_set(self, names: bytes) -> int:
        """Where the ids of some names, in this order, are."""
        start = self._name_sets.get(names)
        if start is None:
            start = self._names_end
            self._names_end = start + len(names) // 4
            self._names[start : self._names_end] = np.frombuffer(names, dtype=np.uint32)
            if len(self._name_sets) < _NAME_SETS_REMEMBERED:
                self._name_sets[names] = start
        return start

    def remove(self, slots: U32Array) -> None:
        """Free the slots of dead series. Label pairs are reclaimed once more than half are dead."""
        self.alive[slots] = 0
        self.generation[slots] += np.uint8(1)
        self.series_count -= len(slots)
        self.free_slots.extend(slots.tolist())
        refs = self._aliases.snapshot()[2]
        slot = refs & np.uint32(SLOT_MASK)
        inside = slot < np.uint32(self.slots_used)
        slot = np.where(inside, slot, np.uint32(0))
        current = (refs >> np.uint32(SLOT_BITS)) == self.generation[slot]
        self._aliases.rebuild(inside & (self.alive[slot] == 1) & current)
        left = self._canonical[self.alive[self._canonical] == 1]
        size = _CANONICAL_INITIAL
        while len(left) > size * _CANONICAL_LOAD:
            size *= 2
        self._rebuild_canonical(left, size)
        self._reclaim_pairs()

    def find_free_slots(self) -> None:
        """Free slots after a replay: all below the highest one used that hold no series."""
        free = np.flatnonzero(self.alive[1 : self.slots_used] == 0) + 1
        self.free_slots = deque(free.tolist())

    def _reclaim_pairs(self) -> None:
        live = np.flatnonzero(self.alive[: self.slots_used]).astype(np.uint32)
        if 2 * int(self._pairs_count[live].astype(np.int64).sum()) >= self._values_end:
            return
        offsets, ids = self.pairs_of(live)
        self._values_end = self._names_end = 0
        self._name_sets.clear()
        self._put_pairs(live, offsets, ids)

    def slots_of(self, refs: U32Array) -> tuple[U32Array, npt.NDArray[np.bool_]]:
        """Slots of refs (0 where the ref is dead) and a mask of the living."""
        slots = refs & np.uint32(SLOT_MASK)
        slots = np.where(slots < self.slots_used, slots, np.uint32(0))
        generation = (refs >> np.uint32(SLOT_BITS)).astype(np.uint8)
        known = (self.alive[slots] == 1) & (self.generation[slots] == generation)
        return np.where(known, slots, np.uint32(0)), known

    def refs_of(self, slots: U32Array) -> U32Array:
        """Current refs of living slots."""
        return slots | (self.generation[slots].astype(np.uint32) << np.uint32(SLOT_BITS))

    # Labels.

    def _pairs(self, slots: U32Array) -> tuple[I64Array, U32Array, U32Array]:
        """Interned pairs of living slots: offsets i64[R+1], names and values u32[P]."""
        offsets = np.zeros(len(slots) + 1, dtype=np.int64)
        self._pairs_count[slots].cumsum(out=offsets[1:])
        names = np.empty(int(offsets[-1]), dtype=np.uint32)
        values = np.empty(len(names), dtype=np.uint32)
        starts = self._names_start, self._values_start
        copy_pairs(slots, offsets, *starts, self._names, self._values, names, values)
        return offsets, names, values

    def pairs_of(self, slots: U32Array) -> tuple[I64Array, U32Array]:
        """Interned pairs of living slots as CSR, as `ids_of` gives them."""
        offsets, names, values = self._pairs(slots)
        ids = np.empty(2 * len(names), dtype=np.uint32)
        ids[0::2], ids[1::2] = names, values
        return offsets, ids

    def labels_of(self, slots: U32Array) -> SeriesLabels:
        """Label sets of living slots, in the given order."""
        with self.lock:
            offsets, names, values = self._pairs(slots)
        return SeriesLabels(offsets, names, values, self.symbols)
