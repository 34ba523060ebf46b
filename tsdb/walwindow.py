"""Order of a window of the log in the replay: what belongs to the same series comes together.

Scrapes follow each other in the log, so that storing it as it comes fetches the row of every series from
memory again for every sample. Records without a series in common may be exchanged; a window is therefore
taken apart into bundles of records whose series fit the processor's cache, and each series still sees its
samples in their order. Records that end a window (`ENDS_WINDOW`) are applied between what was before and
after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import CorruptionError
from tsdb.kernels.append import SLOT_MASK
from tsdb.kernels.recordgroups import group_records
from tsdb.kernels.walcodec import read_keys
from tsdb.walrecords import RecordType, SamplesPayload, series_refs

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

BUNDLE_SERIES = 2048
"""Their rows and open chunks are half a megabyte."""
WINDOW_LIMITS = (1 << 18, 1 << 24)
"""Samples of a window, at least and at most; between these 64 for each slot."""
SAMPLES_PER_SLOT = 64
REFS_KEPT = 1 << 22
"""Refs of lists that are remembered from window to window."""
ENDS_WINDOW = frozenset(
    (RecordType.LATE_SAMPLES, RecordType.HISTOGRAMS, RecordType.TRUNCATED, RecordType.STARTS)
)
"""What changes the rows of series in a way that samples depend on. The others only say what series there are,
or go to tables of their own."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Samples of one or several records. `lists` are their refs, where those were read, each list once;
    `listed` says which one a record has."""

    parts: Sequence[SamplesPayload]
    lists: Sequence[U32Array] = ()
    listed: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One record: its unpacked payload, or its samples, or the error to raise when its turn comes.

    `samples` are bundles that have no series in common.
    """

    kind: int
    sequence: int
    payload: U8Array
    samples: tuple[Bundle, ...] = ()
    error: CorruptionError | None = None


Portion = list[ReadRecord]


class WindowOrder:
    """Puts the records of windows in order, one window after the other. One thread at a time."""

    def __init__(self, slot_capacity: int) -> None:
        """Raises MemoryError."""
        self._owners: U32Array = reserve(np.uint32, slot_capacity)
        self._marks = 0
        self._lists: dict[bytes, U32Array] = {}
        """Refs by how a record spells them: scrapes of a target have the same ones again and again."""
        self._kept = 0
        self.sample_limit = WINDOW_LIMITS[0]
        """Samples of the next window."""

    def arrange(self, window: Sequence[ReadRecord]) -> Portion:
        """The same records: first all that are no samples, then the samples in bundles, as one record.

        Raises CorruptionError for refs that do not decode.
        """
        sampled = [record for record in window if record.samples]
        others = [record for record in window if not record.samples]
        if not sampled:
            return others
        parts = [part for record in sampled for bundle in record.samples for part in bundle.parts]
        numbers: dict[bytes, int] = {}
        spelt = [part.keys[: part.refs_size].tobytes() for part in parts]
        listed = np.array([numbers.setdefault(text, len(numbers)) for text in spelt])
        _, firsts = np.unique(listed, return_index=True)
        lists = [self._refs(spelt[i], parts[i]) for i in firsts.tolist()]
        refs = np.concatenate(lists)
        low, high = WINDOW_LIMITS
        newest_slot = int((refs & np.uint32(SLOT_MASK)).max()) if len(refs) else 0
        self.sample_limit = min(max(low, SAMPLES_PER_SLOT * newest_slot), high)
        if _replaces_a_series(others, refs):
            return list(window)
        bundles = self._bundles(refs, lists)[listed]
        order = np.argsort(bundles, kind="stable")
        ends = np.searchsorted(bundles[order], np.arange(int(bundles.max()) + 1), side="right")
        joined = np.split(order, ends[:-1])
        first = sampled[0]
        packed = []
        for places in joined:
            own, places_of = np.unique(listed[places], return_inverse=True)
            packed.append(
                Bundle(
                    [parts[i] for i in places.tolist()], [lists[i] for i in own.tolist()], places_of.tolist()
                )
            )
        return [*others, ReadRecord(first.kind, first.sequence, first.payload, tuple(packed))]

    def _refs(self, spelt: bytes, part: SamplesPayload) -> U32Array:
        refs = self._lists.get(spelt)
        if refs is None or len(refs) != part.count:
            refs, _ = read_refs_and_times([part])
            if self._kept > REFS_KEPT:
                self._lists.clear()
                self._kept = 0
            self._lists[spelt] = refs
            self._kept += len(refs)
        return refs

    def _bundles(self, refs: U32Array, lists: Sequence[U32Array]) -> I64Array:
        """The bundle of each list."""
        count = len(lists)
        if self._marks + count >= 1 << 32:
            self._owners[:] = 0
            self._marks = 0
        ends = np.cumsum([len(each) for each in lists])
        parents, sizes, bundles = (np.empty(count, dtype=np.int64) for _ in range(3))
        group_records(refs, ends, self._marks, BUNDLE_SERIES, self._owners, parents, sizes, bundles)
        self._marks += count
        return bundles


def read_refs_and_times(parts: Sequence[SamplesPayload]) -> tuple[U32Array, I64Array]:
    """Refs and times of records one after the other. Raises CorruptionError."""
    count = sum(part.count for part in parts)
    refs, t_ms = np.empty(count, dtype=np.uint32), np.empty(count, dtype=np.int64)
    at = 0
    for part in parts:
        end = at + part.count
        if read_keys(part.keys, part.count, part.refs_size, part.times_size, refs[at:end], t_ms[at:end]):
            raise CorruptionError("samples record does not decode although its checksum is right")
        at = end
    return refs, t_ms


def _replaces_a_series(records: Sequence[ReadRecord], refs: U32Array) -> bool:
    """Whether a series record puts a younger series in a slot that samples of an elder one are for."""
    young = [series_refs(record.payload) for record in records if record.kind == RecordType.SERIES]
    made = np.concatenate(young) if young else refs[:0]
    made = made[made > SLOT_MASK]
    if not len(made):
        return False
    slots = made & np.uint32(SLOT_MASK)
    table = np.zeros(int(slots.max()) + 2, dtype=np.uint32)
    table[slots] = made
    found = table[np.minimum(refs & np.uint32(SLOT_MASK), len(table) - 1)]
    return bool(((found != 0) & (found != refs)).any())
