"""Values of one label name and the series that carry each.

Most values of a label like `path` or `pod` belong to one series. Those are two sorted columns of u32, 8 bytes
a value, with a small dictionary of what arrived out of order; values of several series are roaring bitmaps.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

GONE = 0xFFFFFFFF
"""Ref of a sorted value that has become a bitmap since."""

RECENT_FLOOR, RECENT_SHARE = 1024, 8
"""Values out of order wait in a dictionary until they are this many and this part of the sorted ones."""


def as_bitmap(refs: U32Array) -> BitMap:
    """A bitmap of refs."""
    return BitMap(array("I", np.asarray(refs, dtype=np.uint32).tobytes()))


def as_array(bitmap: BitMap) -> U32Array:
    """Refs of a bitmap, ascending."""
    return np.frombuffer(bitmap.to_array(), dtype=np.uint32)


def _among(refs: U32Array, wanted: BitMap) -> npt.NDArray[np.bool_]:
    """Which refs are in a bitmap; by a table of flags, since refs are slots."""
    if not len(refs) or not wanted:
        return np.zeros(len(refs), dtype=np.bool_)
    flags = np.zeros(max(int(refs.max()), wanted.max()) + 1, dtype=np.bool_)
    flags[as_array(wanted)] = True
    found: npt.NDArray[np.bool_] = flags[refs]
    return found


class LabelValues:
    """Not safe by itself: the lock of the postings is held. `epoch` changes when values go, `generation` with
    every change."""

    __slots__ = ("_recent", "_refs", "_values", "any", "epoch", "generation", "many", "order")

    def __init__(self) -> None:
        self.order = array("I")
        """Every value in order of arrival."""
        self.many: dict[int, BitMap] = {}
        self._values, self._refs = array("I"), array("I")
        self._recent: dict[int, int] = {}
        self.any: BitMap | None = None
        self.epoch = 0
        self.generation = 0

    def __len__(self) -> int:
        return len(self.order)

    def add(self, value: int, refs: array[int]) -> None:
        """Add the series `refs`, at least one, to a value."""
        held = self.many.get(value)
        if held is not None:
            held.update(refs)
            return
        single = self._take_single(value, remove=True)
        if single is None:
            self.order.append(value)
        if single is not None or len(refs) > 1:
            self.many[value] = BitMap(refs) if single is None else BitMap((single, *refs))
        elif not self._values or value > self._values[-1]:
            self._values.append(value)
            self._refs.append(refs[0])
        else:
            self._recent[value] = refs[0]
            if len(self._recent) > max(RECENT_FLOOR, len(self._values) // RECENT_SHARE):
                self._sort_in()

    def _take_single(self, value: int, remove: bool = False) -> int | None:
        """The series of a value that has one."""
        if value in self._recent:
            return self._recent.pop(value) if remove else self._recent[value]
        if not self._values or value > self._values[-1]:
            return None
        place = bisect_left(self._values, value)
        if self._values[place] != value or self._refs[place] == GONE:
            return None
        ref = self._refs[place]
        if remove:
            self._refs[place] = GONE
        return ref

    def _sort_in(self) -> None:
        fresh = np.array(sorted(self._recent.items()), dtype=np.uint32)
        values, refs = self._columns()
        there = refs != GONE
        values, refs = values[there], refs[there]
        places = np.searchsorted(values, fresh[:, 0])
        self._set_singles(np.insert(values, places, fresh[:, 0]), np.insert(refs, places, fresh[:, 1]))

    def _columns(self) -> tuple[U32Array, U32Array]:
        """Views of the sorted columns; to be dropped before anything is added."""
        return np.frombuffer(self._values, dtype=np.uint32), np.frombuffer(self._refs, dtype=np.uint32)

    def singles(self) -> tuple[U32Array, U32Array]:
        """Values of one series each, ascending, and their series."""
        if self._recent:
            self._sort_in()
        values, refs = self._columns()
        there = refs != GONE
        return values[there], refs[there]

    def _set_singles(self, values: U32Array, refs: U32Array) -> None:
        self._values, self._refs = array("I", values.tobytes()), array("I", refs.tobytes())
        self._recent = {}

    def remove(self, dead: BitMap) -> None:
        """Drop dead series and the values that have none left."""
        gone: list[int] = []
        for value, entry in self.many.items():
            if entry.intersect(dead):
                entry -= dead
                self.many[value] = entry
                if not entry:
                    gone.append(value)
        for value in gone:
            del self.many[value]
        values, refs = self.singles()
        doomed = _among(refs, dead)
        if doomed.any() or len(values) < len(self._values):
            self._set_singles(values[~doomed], refs[~doomed])
        lost = np.concatenate([values[doomed], np.array(gone, dtype=np.uint32)])
        if len(lost):
            order = np.array(self.order, dtype=np.uint32)
            self.order = array("I", order[~np.isin(order, lost)].tobytes())
            self.epoch += 1
        if self.any is not None:
            self.any -= dead
        self.generation += 1

    def of(self, value: int) -> BitMap:
        """Series of one value; not to be changed."""
        held = self.many.get(value)
        if held is not None:
            return held
        single = self._take_single(value)
        return BitMap() if single is None else BitMap((single,))

    def union(self, values: Iterable[int] | None = None) -> BitMap:
        """Series of some values, or of all."""
        if values is None:
            return BitMap.union(as_bitmap(self.singles()[1]), *self.many.values())
        wanted = np.array(values if isinstance(values, array) else list(values), dtype=np.uint32)
        if self._recent:
            self._sort_in()
        columns = self._columns()
        places = np.searchsorted(columns[0], wanted)
        inside = np.flatnonzero(places < len(columns[0]))
        places = places[inside]
        refs = columns[1][places[columns[0][places] == wanted[inside]]]
        maps = [self.many[value] for value in self._many_of(wanted)]
        return BitMap.union(as_bitmap(refs[refs != GONE]), *maps)

    def _many_of(self, wanted: U32Array) -> list[int]:
        if len(self.many) < len(wanted):
            keys = np.fromiter(self.many, dtype=np.uint32, count=len(self.many))
            kept: list[int] = keys[np.isin(keys, wanted)].tolist()
            return kept
        return [value for value in wanted.tolist() if value in self.many]

    def all(self) -> BitMap:
        """Series that have the label; kept up to date from then on, not to be changed."""
        if self.any is None:
            self.any = self.union()
        return self.any

    def meeting(self, wanted: BitMap) -> list[int]:
        """Values that one of the series has."""
        values, refs = self.singles()
        found: list[int] = values[_among(refs, wanted)].tolist()
        found.extend(value for value, entry in self.many.items() if entry.intersect(wanted))
        return found

    def meets(self, wanted: BitMap) -> bool:
        """Whether one of the series has the label."""
        if self.any is not None:
            return bool(self.any.intersect(wanted))
        if any(entry.intersect(wanted) for entry in self.many.values()):
            return True
        return bool(_among(self.singles()[1], wanted).any())
