"""Order of a window of the log in the replay: what belongs to the same series comes together.

Scrapes follow each other in the log, so that storing it as it comes fetches the row of every series from
memory again for every sample. Records without a series in common may be exchanged; a window is therefore
taken apart into bundles of records whose series fit the processor's cache, and each series still sees its
samples in their order. Records that end a window (`ENDS_WINDOW`) are applied between what was before and
after them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.errors import CorruptionError
from tsdb.kernels.append import SLOT_MASK
from tsdb.kernels.bundletimes import (
    CODED_AT,
    CODED_SIZE,
    COUNT,
    KEYS_AT,
    KEYS_SIZE,
    LIST,
    PART_WORDS,
    REFS_SIZE,
    TIMES_SIZE,
)
from tsdb.kernels.recordgroups import group_records
from tsdb.kernels.walcodec import read_keys
from tsdb.kernels.walscan import number_lists
from tsdb.walrecords import RecordType, SamplesPayload, series_refs

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

NO_BYTES: U8Array = np.empty(0, dtype=np.uint8)

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
    """Samples of one or several records: `records` i64[P, 8] has a row for each (kernels.bundletimes), whose
    bytes are in `data`, or in `extra` where positions are below 0. `lists` are their refs, where those were
    read, each list once."""

    data: U8Array
    extra: U8Array
    records: I64Array
    lists: Sequence[U32Array] = ()

    @classmethod
    def of(cls, parts: Sequence[SamplesPayload]) -> Bundle:
        """Records that have been taken apart, each with a list of its own."""
        texts = [text for part in parts for text in (part.keys, part.coded)]
        ends = np.cumsum([0, *map(len, texts)]).tolist()
        rows = np.empty((len(parts), PART_WORDS), dtype=np.int64)
        for n, part in enumerate(parts):
            rows[n, [LIST, COUNT, REFS_SIZE, TIMES_SIZE]] = n, part.count, part.refs_size, part.times_size
            rows[n, [KEYS_SIZE, CODED_SIZE]] = len(part.keys), len(part.coded)
            rows[n, [KEYS_AT, CODED_AT]] = ends[2 * n : 2 * n + 2]
        return cls(np.concatenate(texts) if texts else NO_BYTES, NO_BYTES, rows)

    @property
    def parts(self) -> list[SamplesPayload]:
        """The records one by one."""
        return [
            SamplesPayload(
                row[COUNT],
                row[REFS_SIZE],
                row[TIMES_SIZE],
                self._bytes(row[KEYS_AT], row[KEYS_SIZE]),
                self._bytes(row[CODED_AT], row[CODED_SIZE]),
            )
            for row in self.records.tolist()
        ]

    def _bytes(self, at: int, size: int) -> U8Array:
        return self.data[at : at + size] if at >= 0 else self.extra[~at : ~at + size]


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
        # Whoever chooses label sets chooses refs, hence what records spell.
        self._seeds = (np.uint64(secrets.randbits(64)), np.uint64(secrets.randbits(64)))
        self._owners: U32Array = reserve(np.uint32, slot_capacity)
        self._marks = 0
        self._lists: dict[bytes, U32Array] = {}
        """Refs by how a record spells them: scrapes of a target have the same ones again and again."""
        self._kept = 0
        self.sample_limit = WINDOW_LIMITS[0]
        """Samples of the next window."""

    def arrange(self, window: Sequence[ReadRecord]) -> Portion:
        """The same records: first all that are no samples, then the samples in bundles, as one record.

        Bundles of the window have the same `data` and `extra`; LIST of their rows is numbered anew.
        Raises CorruptionError for refs that do not decode.
        """
        others = [record for record in window if not record.samples]
        blocks = [bundle for record in window for bundle in record.samples]
        if not blocks:
            return others
        first = next(record for record in window if record.samples)
        data, extra = blocks[0].data, blocks[0].extra
        records = np.concatenate([block.records for block in blocks])
        firsts = self._number_lists(data, extra, records)
        lists = [self._refs(part) for part in Bundle(data, extra, records[firsts]).parts]
        refs = np.concatenate(lists)
        low, high = WINDOW_LIMITS
        newest_slot = int((refs & np.uint32(SLOT_MASK)).max()) if len(refs) else 0
        self.sample_limit = min(max(low, SAMPLES_PER_SLOT * newest_slot), high)
        if _replaces_a_series(others, refs):
            return [each for record in window for each in _one_by_one(record)]
        bundles = self._bundles(refs, lists)[records[:, LIST]]
        order = np.argsort(bundles, kind="stable")
        ends = np.searchsorted(bundles[order], np.arange(int(bundles.max()) + 1), side="right")
        packed = []
        for own in np.split(records[order], ends[:-1]):
            used, own[:, LIST] = np.unique(own[:, LIST], return_inverse=True)
            packed.append(Bundle(data, extra, own, [lists[i] for i in used.tolist()]))
        return [*others, ReadRecord(first.kind, first.sequence, first.payload, tuple(packed))]

    def _number_lists(self, data: U8Array, extra: U8Array, records: I64Array) -> I64Array:
        """The first record of each list of refs; LIST of all says which one they have."""
        firsts = np.empty(len(records), dtype=np.int64)
        table = np.empty(2 << len(records).bit_length(), dtype=np.int64)
        count = number_lists(data, extra, records, *self._seeds, table, firsts)
        return firsts[:count]

    def _refs(self, part: SamplesPayload) -> U32Array:
        spelt = part.keys[: part.refs_size].tobytes()
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


def _one_by_one(record: ReadRecord) -> Portion:
    """A record with samples as one for each record of the log."""
    if not record.samples:
        return [record]
    return [
        replace(record, samples=(Bundle(each.data, each.extra, each.records[i : i + 1]),))
        for each in record.samples
        for i in range(len(each.records))
    ]


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
