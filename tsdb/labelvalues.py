"""Values of one label name and the series that carry each.

Most values of a label like `path` or `pod` belong to one series or a few. Those are two columns of u32 sorted
by value, 8 bytes a series, with a small dictionary of what arrived out of order; values of more series are
roaring bitmaps, which take 250 bytes at least.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

FEW = 8
"""Most series of a value that has no bitmap."""

GONE = 0xFFFFFFFF
"""Ref in the columns of a value that has become a bitmap since."""

RECENT_FLOOR, RECENT_SHARE = 1024, 8
"""Series out of order wait in a dictionary until they are this many and this part of the sorted ones."""


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

    __slots__ = (
        "_recent",
        "_recent_count",
        "_refs",
        "_values",
        "any",
        "epoch",
        "generation",
        "many",
        "order",
    )

    def __init__(self) -> None:
        self.order = array("I")
        """Every value in order of arrival."""
        self.many: dict[int, BitMap] = {}
        self._values, self._refs = array("I"), array("I")
        self._recent: dict[int, list[int]] = {}
        self._recent_count = 0
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
        lo, hi = self._range(value)
        known = self._few(value, lo, hi)
        if not known:
            self.order.append(value)
        fresh = [ref for ref in refs if ref not in known] if known else refs
        if len(known) + len(fresh) > FEW:
            self._promote(value, lo, hi, BitMap([*known, *fresh]))
        elif hi == len(self._values):
            # The largest value so far, as new ones are.
            self._values.extend([value] * len(fresh))
            self._refs.extend(fresh)
        else:
            self._recent.setdefault(value, []).extend(fresh)
            self._recent_count += len(fresh)
            if self._recent_count > max(RECENT_FLOOR, len(self._values) // RECENT_SHARE):
                self._sort_in()

    def _promote(self, value: int, lo: int, hi: int, series: BitMap) -> None:
        self.many[value] = series
        for place in range(lo, hi):
            self._refs[place] = GONE
        self._recent_count -= len(self._recent.pop(value, ()))

    def _range(self, value: int) -> tuple[int, int]:
        """Places of a value in the columns."""
        count = len(self._values)
        if not count or value > self._values[-1]:
            return count, count
        lo = bisect_left(self._values, value)
        return lo, bisect_right(self._values, value, lo)

    def _few(self, value: int, lo: int, hi: int) -> list[int]:
        """Series of a value that has no bitmap."""
        found = [ref for ref in self._refs[lo:hi] if ref != GONE]
        found.extend(self._recent.get(value, ()))
        return found

    def _sort_in(self) -> None:
        waiting = sorted((value, ref) for value, refs in self._recent.items() for ref in refs)
        fresh = np.array(waiting, dtype=np.uint32).reshape(-1, 2)
        values, refs = self._columns()
        there = refs != GONE
        values, refs = values[there], refs[there]
        places = np.searchsorted(values, fresh[:, 0])
        self._set_columns(np.insert(values, places, fresh[:, 0]), np.insert(refs, places, fresh[:, 1]))

    def _columns(self) -> tuple[U32Array, U32Array]:
        """Views of the sorted columns; to be dropped before anything is added."""
        return np.frombuffer(self._values, dtype=np.uint32), np.frombuffer(self._refs, dtype=np.uint32)

    def _set_columns(self, values: U32Array, refs: U32Array) -> None:
        self._values, self._refs = array("I", values.tobytes()), array("I", refs.tobytes())
        self._recent, self._recent_count = {}, 0

    def few(self) -> tuple[U32Array, U32Array]:
        """Values without a bitmap, ascending, once for each of their series, and the series."""
        if self._recent:
            self._sort_in()
        values, refs = self._columns()
        there = refs != GONE
        return values[there], refs[there]

    def counts(self) -> tuple[U32Array, I64Array]:
        """Every value and how many series it has."""
        values, counts = np.unique(self.few()[0], return_counts=True)
        many = np.fromiter(self.many, dtype=np.uint32, count=len(self.many))
        held = np.fromiter(map(len, self.many.values()), dtype=np.int64, count=len(self.many))
        return np.concatenate([many, values]), np.concatenate([held, counts.astype(np.int64)])

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
        values, refs = self.few()
        doomed = _among(refs, dead)
        left = values[~doomed]
        lost = np.concatenate([np.setdiff1d(values[doomed], left), np.array(gone, dtype=np.uint32)])
        if len(left) < len(self._values):
            self._set_columns(left, refs[~doomed])
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
        return held if held is not None else BitMap(self._few(value, *self._range(value)))

    def union(self, values: Iterable[int] | None = None) -> BitMap:
        """Series of some values, or of all."""
        if values is None:
            return BitMap.union(as_bitmap(self.few()[1]), *self.many.values())
        wanted = np.array(values if isinstance(values, array) else list(values), dtype=np.uint32)
        if self._recent:
            self._sort_in()
        columns = self._columns()
        lo = np.searchsorted(columns[0], wanted, side="left")
        lengths = np.searchsorted(columns[0], wanted, side="right") - lo
        before = np.cumsum(lengths) - lengths
        refs = columns[1][np.repeat(lo - before, lengths) + np.arange(int(lengths.sum()))]
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
        values, refs = self.few()
        found: list[int] = np.unique(values[_among(refs, wanted)]).tolist()
        found.extend(value for value, entry in self.many.items() if entry.intersect(wanted))
        return found

    def meets(self, wanted: BitMap) -> bool:
        """Whether one of the series has the label."""
        if self.any is not None:
            return bool(self.any.intersect(wanted))
        if any(entry.intersect(wanted) for entry in self.many.values()):
            return True
        return bool(_among(self.few()[1], wanted).any())
