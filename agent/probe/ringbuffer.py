"""Reads the kernel's ring buffer in batches, without a call into Python for each record.

The map's first page holds the consumer position, the second the producer position, then come the data, mapped
twice. A batch is copied out as one piece and the space is given back before anything is decoded.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.kernels.ring import DAMAGED, scan, split
from agent.probe.layout import HEADER, SLOTS

PAGE_BYTES = 4096
BATCH_RECORDS_LIMIT = 65_536
ORDER_WINDOW_NS = 10_000_000
"""How long a record waits for older ones from other CPUs. Records reach the ring microseconds after their
time stamp: a program is not preempted in between."""
WAITING_RECORDS_LIMIT = 262_144


class RingError(RuntimeError):
    """A length in the ring makes no sense; reading cannot go on."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in order of time. `header` is `layout.HEADER`, `offset` and `length` are (records, slots)."""

    data: npt.NDArray[np.uint8]
    header: npt.NDArray[Any]
    offset: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.header)

    def field(self, row: int, slot: int) -> bytes | None:
        """Bytes of a record's field, None when it has none."""
        length = int(self.length[row, slot])
        if length < 0:
            return None
        offset = int(self.offset[row, slot])
        return self.data[offset : offset + length].tobytes()

    def structs(self, slot: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """One struct a record, zeros where a record has none: a column for fields of fixed size."""
        found = np.zeros(len(self), dtype)
        rows = np.flatnonzero(self.length[:, slot] == dtype.itemsize)
        at = self.offset[rows, slot, None] + np.arange(dtype.itemsize)
        found[rows] = self.data[at].view(dtype).reshape(-1)
        return found

    def select(self, rows: npt.NDArray[np.intp]) -> Batch:
        """The records at `rows`, in that order; the bytes are shared."""
        return Batch(self.data, self.header[rows], self.offset[rows], self.length[rows])


def decode(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> Batch:
    """Split the records that begin at `starts`, in that order. Raises `RingError` on damage."""
    count = len(starts)
    header = np.zeros(count, HEADER)
    offset, length = np.empty((2, count, len(SLOTS)), np.int32)
    if count and split(data, starts, header.view(np.uint8).reshape(count, -1), offset, length) == DAMAGED:
        raise RingError("a record of the probe is longer than its place in the ring")
    return Batch(data, header, offset, length)


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of all records, bytes copied together, in the given order."""
    bases = np.cumsum([0, *(len(batch.data) for batch in batches[:-1])])
    return Batch(
        np.concatenate([batch.data for batch in batches]),
        # As plain bytes: numpy would compare the types field by field, at each call.
        np.concatenate([batch.header.view(f"V{HEADER.itemsize}") for batch in batches]).view(HEADER),
        np.concatenate([batch.offset + np.int32(base) for batch, base in zip(batches, bases, strict=True)]),
        np.concatenate([batch.length for batch in batches]),
    )


class RingReader:
    """The mapped ring of one BPF map. One thread reads."""

    def __init__(self, descriptor: int, ring_bytes: int) -> None:
        self._ring_bytes = ring_bytes
        self._consumer_map = mmap.mmap(descriptor, PAGE_BYTES, mmap.MAP_SHARED)
        self._data_map = mmap.mmap(
            descriptor, PAGE_BYTES + 2 * ring_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE_BYTES
        )
        self._consumer = np.frombuffer(self._consumer_map, np.int64, 1)
        self._producer = np.frombuffer(self._data_map, np.int64, 1)
        self._ring = np.frombuffer(self._data_map, np.uint8, 2 * ring_bytes, PAGE_BYTES)
        self._starts = np.empty(BATCH_RECORDS_LIMIT, np.int64)
        self._end = np.zeros(1, np.int64)

    @property
    def fill_ratio(self) -> float:
        """Share of the ring that waits to be read."""
        return float(self._producer[0] - self._consumer[0]) / self._ring_bytes

    def read(self) -> Batch | None:
        """What is in the ring now, up to `BATCH_RECORDS_LIMIT` records; None when there is nothing.

        Does not wait. Raises `RingError` on damage.
        """
        consumer, producer = int(self._consumer[0]), int(self._producer[0])
        count = scan(self._ring, self._ring_bytes, consumer, producer, self._starts, self._end)
        if count == DAMAGED:
            raise RingError(f"the ring has a record past its end at position {consumer}")
        end = int(self._end[0])
        if end == consumer:
            return None
        at = consumer & (self._ring_bytes - 1)
        data = self._ring[at : at + end - consumer].copy()
        self._consumer[0] = end
        return decode(data, self._starts[:count].copy())

    def close(self) -> None:
        """Unmap. Batches that were read stay valid."""
        del self._consumer, self._producer, self._ring
        self._consumer_map.close()
        self._data_map.close()


class TimeOrder:
    """Puts batches into order of time: a record is given out once it is older than the window. One thread."""

    def __init__(self, window_ns: int = ORDER_WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._waiting: Batch | None = None

    def push(self, batch: Batch | None, now_ns: int) -> Batch | None:
        """Add what was read and take what is due at `now_ns` (CLOCK_BOOTTIME); None when nothing is.

        With more than `WAITING_RECORDS_LIMIT` records waiting all are given out at once.
        """
        parts = [part for part in (self._waiting, batch) if part is not None and len(part)]
        self._waiting = None
        if not parts:
            return None
        whole = parts[0] if len(parts) == 1 else concatenate(parts)
        times = whole.header["time_ns"]
        order = np.argsort(times, kind="stable")
        due = len(order)
        if due <= WAITING_RECORDS_LIMIT:
            due = int(np.searchsorted(times[order], max(now_ns - self._window_ns, 0), "right"))
        if due < len(order):
            self._waiting = _compact(whole.select(order[due:]))
        return whole.select(order[:due]) if due else None


def _compact(batch: Batch) -> Batch:
    """The same records without bytes that belong to none of them."""
    present = batch.length >= 0
    begin = int(batch.offset[present].min()) if present.any() else 0
    end = int((batch.offset + batch.length)[present].max()) if present.any() else 0
    offset = np.where(present, batch.offset - np.int32(begin), np.int32(0)).astype(np.int32)
    return Batch(batch.data[begin:end].copy(), batch.header, offset, batch.length)


def names_to_path(names: bytes) -> str:
    """A path from its names, leaf first and each with its NUL, as the program writes them."""
    parts = names.split(b"\0")[:-1]
    return "/" + b"/".join(reversed(parts)).decode("utf-8", "surrogateescape")
