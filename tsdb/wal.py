"""The write-ahead log: records in segments, written by one thread in groups, each group synced once.

Format: docs/formats/wal.md. A batch is one or more records that follow each other without a gap in one
segment; all but the last carry CONTINUES, and a reader applies all of them or none.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsdb.errors import ClosedError, DiskFullError, StorageError, UnknownVersionError
from tsdb.fs import SECTOR_BYTES, AppendFile, FileSystem

U8Array = npt.NDArray[np.uint8]

log = logging.getLogger("tsdb.wal")

SEGMENT_BYTES = 128 << 20
QUEUE_BYTES_LIMIT = 64 << 20
"""Bytes of batches that wait for the disk; an append beyond that waits too."""
GROUP_BYTES_LIMIT = 4 << 20
INTERVAL_S = 0.1
GATHER_S = 0.002
"""How long a group waits for batches that are known to be on their way."""
GATHER_BATCHES = 16
DISK_FULL_RETRY_S = 1.0

MAGIC = b"VDWL"
VERSION = 2
FILE_HEADER = struct.Struct("<4sBxHII")
RECORD_HEADER = struct.Struct("<IIQBBH")
CONTINUES, COMPRESSED = 1, 2
PAYLOAD_LIMIT = 1 << 30

SYNC_MODES = ("batch", "interval", "never")


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}"


def segment_numbers(fs: FileSystem, directory: Path) -> list[int]:
    """Ascending numbers of the segments in a directory."""
    return [int(name) for name in fs.list(directory) if len(name) == 8 and name.isdigit()]


def file_header(number: int, padding: int = 0) -> bytes:
    """The 16 bytes at the start of a segment or checkpoint, and zeros before the first record."""
    head = FILE_HEADER.pack(MAGIC, VERSION, padding, number, 0)[:12]
    return head + struct.pack("<I", google_crc32c.value(head)) + bytes(padding)


def record_bytes(kind: int, flags: int, sequence: int, payload: bytes, padding: int = 0) -> list[bytes]:
    """Header and payload of one record, and zeros before the next one."""
    rest = struct.pack("<QBBH", sequence, kind, flags, padding)
    checksum = google_crc32c.extend(google_crc32c.value(rest), payload)
    return [struct.pack("<II", len(payload), checksum) + rest, payload, bytes(padding)]


@dataclass(frozen=True, slots=True)
class Record:
    """One record read back; `payload` u8[] is still packed."""

    kind: int
    flags: int
    sequence: int
    payload: U8Array


@dataclass(slots=True)
class SegmentRead:
    """Batches of one segment and where they end."""

    good_bytes: int = 0
    """Length of the part that holds whole batches."""
    damage: str = ""
    """What is wrong behind that part; empty for a segment that ends cleanly."""
    sequence: int = 0
    """Number of the last record of that part."""


def read_segment(data: U8Array, number: int, state: SegmentRead) -> Iterator[list[Record]]:
    """Batches of a segment in order, up to the first damage; `state` tells where that was.

    Raises UnknownVersionError for a file written by a newer program.
    """
    if read_header(data, number, state):
        yield from read_batches(data, state)


def read_header(data: U8Array, number: int, state: SegmentRead) -> bool:
    """Whether a segment's header is right, and what is wrong or where its records begin.

    Raises UnknownVersionError for a file written by a newer program.
    """
    size = FILE_HEADER.size
    if len(data) < size or data[: size - 4].tobytes()[:4] != MAGIC:
        state.damage = "no segment header"
        return False
    if data[4] != VERSION:
        raise UnknownVersionError(f"WAL segment {number} has format version {data[4]}, known is {VERSION}")
    padding = int(FILE_HEADER.unpack_from(data.data, 0)[2])
    if data[:size].tobytes() != file_header(number, padding)[:size]:
        state.damage = "segment header does not match its checksum"
        return False
    state.good_bytes = min(size + padding, len(data))
    return True


def read_batches(data: U8Array, state: SegmentRead) -> Iterator[list[Record]]:
    """Batches from `state.good_bytes` on, up to the first damage."""
    at = state.good_bytes
    batch: list[Record] = []
    while at < len(data):
        if at + RECORD_HEADER.size > len(data):
            state.damage = f"{len(data) - at} bytes of a record header"
            return
        length, checksum, sequence, kind, flags, padding = RECORD_HEADER.unpack_from(data.data, at)
        end = at + RECORD_HEADER.size + length
        if end > len(data):
            state.damage = f"record of {length} bytes, {len(data) - at - RECORD_HEADER.size} are there"
            return
        if google_crc32c.value(data[at + 8 : end]) != checksum:
            state.damage = f"record of {length} bytes does not match its checksum"
            return
        if state.sequence and sequence != state.sequence + 1 + len(batch):
            state.damage = f"record {sequence} follows record {state.sequence + len(batch)}"
            return
        batch.append(Record(kind, flags, sequence, data[at + RECORD_HEADER.size : end]))
        # Padding says nothing, so it may be cut off.
        at = min(end + padding, len(data))
        if not flags & CONTINUES:
            state.sequence = sequence
            state.good_bytes = at
            yield batch
            batch = []
    if batch:
        state.damage = f"batch of {len(batch)} records without its end"


def _nobody() -> int:
    return 0


class WalObserver(Protocol):
    """What the log tells the metrics."""

    def fsync(self, seconds: float) -> None: ...
    def written(self, size: int) -> None: ...
    def write_failed(self) -> None: ...
    def segment(self, number: int) -> None: ...


@dataclass(slots=True)
class _Batch:
    segment: int
    records: Sequence[tuple[int, bytes, bool]]
    size: int
    future: Future[None] = field(default_factory=Future)
    waits: bool = True


class Wal:
    """Writer of the log. `log` may be called by one thread at a time (the head's lock); `close` by any."""

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        *,
        segment: int,
        sequence: int,
        sync: str,
        clock: Callable[[], float],
        observer: WalObserver,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Begin segment `segment`, which must not exist; the first record gets number `sequence` + 1."""
        if sync not in SYNC_MODES:
            raise ValueError(f"unknown WAL sync mode {sync!r}")
        self._fs, self._directory, self._sync_mode = fs, directory, sync
        self._clock, self._observer = clock, observer
        self._segment_bytes = segment_bytes
        # What is synced at once goes to the disk in whole sectors; the rest is better off in the page cache.
        self._direct = sync == "batch"
        self.segment = segment
        """Number of the segment the next batch goes to."""
        self.expected: Callable[[], int] = _nobody
        """How many requests are in the house, those whose batches are queued among them. Any thread."""
        self._wanted = 1
        self._segment_fill = FILE_HEADER.size
        self._sequence = sequence
        self._changed = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._queued_bytes = 0
        self._closing = False
        self._disk_full: DiskFullError | None = None
        self._before: tuple[int, int] | None = None
        """Size of the file and number of the record before the last group was written."""
        self._waiting: list[_Batch] = []
        """Batches that the disk had no room for."""
        self._failure: StorageError | None = None
        self._file: AppendFile | None = None
        self._file_number = 0
        self._dirty = False
        try:
            self._open_segment(segment)
        except DiskFullError as error:
            # The store opens for readers; the thread waits for space.
            self._disk_full = error
        self._thread = threading.Thread(target=self._run, name="wal-writer", daemon=True)
        self._thread.start()

    # Called by appenders.

    def check(self) -> None:
        """Raise what keeps the log from taking batches: DiskFullError, StorageError or ClosedError; wait
        while the queue is full."""
        # Read without the lock, as nearly always nothing is wrong; `log` looks again.
        if not (self._failure or self._closing or self._disk_full or self._queued_bytes > QUEUE_BYTES_LIMIT):
            return
        with self._changed:
            self._check_locked()
            while self._queued_bytes > QUEUE_BYTES_LIMIT:
                self._changed.wait(1.0)
                self._check_locked()

    def _check_locked(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise ClosedError("the database is closing")
        if self._disk_full is not None:
            raise DiskFullError(str(self._disk_full))

    def log(self, records: Sequence[tuple[int, bytes, bool]]) -> Future[None]:
        """Queue one batch of (type, payload, compressed); the result is done when it is durable.

        The batch goes to segment `segment`; values in it were coded for that segment.
        """
        size = sum(RECORD_HEADER.size + len(payload) for _, payload, _ in records)
        with self._changed:
            batch = _Batch(self.segment, records, size)
            if self._failure is not None or self._closing:
                batch.future.set_exception(self._failure or ClosedError("the database is closing"))
                return batch.future
            if self._disk_full is not None:
                # The disk filled up since `check`. The head takes the batch, so it is written later.
                batch.future.set_exception(DiskFullError(str(self._disk_full)))
            self._queue.append(batch)
            self._queued_bytes += size
            self._segment_fill += size
            if self._segment_fill >= self._segment_bytes:
                self._next_segment()
            if len(self._queue) == 1 or len(self._queue) >= self._wanted:
                self._changed.notify_all()
            return batch.future

    def withdraw(self, future: Future[None]) -> None:
        """Forget a batch that was refused because the disk is full: it would be written later otherwise."""
        with self._changed:
            for batch in self._queue:
                if batch.future is future:
                    self._queued_bytes -= batch.size
                    batch.records, batch.size = (), 0
            for batch in self._waiting:
                if batch.future is future:
                    batch.records, batch.size = (), 0

    def cut(self) -> int:
        """Let the next batch begin a segment; returns its number."""
        with self._changed:
            self._next_segment()
            return self.segment

    def _next_segment(self) -> None:
        self.segment += 1
        self._segment_fill = FILE_HEADER.size

    def flush(self) -> None:
        """Wait until everything logged so far is durable. Raises what went wrong."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._disk_full is not None:
                raise DiskFullError(str(self._disk_full))
            batch = _Batch(self.segment, (), 0)
            self._queue.append(batch)
            self._changed.notify_all()
        batch.future.result()

    def close(self) -> None:
        """Write and sync what is queued, then stop. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def sequence(self) -> int:
        """Number of the last record written."""
        return self._sequence

    # The writer thread.

    def _run(self) -> None:
        if self._disk_full is not None and not self._wait_for_space([], self._disk_full):
            self._shut()
            return
        last_sync = self._clock()
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    if not self._changed.wait(INTERVAL_S if self._dirty else None):
                        break
                self._gather()
                group = self._take_group()
                if not group and self._closing and not self._dirty:
                    break
            try:
                self._write_group(group)
                due = self._sync_mode == "interval" and self._clock() - last_sync >= INTERVAL_S
                asked = any(not batch.records for batch in group)
                if self._sync_mode == "batch" or due or asked or (not group and self._sync_mode != "never"):
                    self._sync()
                    last_sync = self._clock()
                elif not group:
                    self._dirty = False
            except DiskFullError as error:
                if self._wait_for_space(group, error):
                    continue
                break
            except BaseException as error:
                # Whatever it is: callers wait for this thread.
                self._fail(group, error)
                break
            for batch in group:
                if not batch.future.done():
                    batch.future.set_result(None)
        self._shut()

    def _gather(self) -> None:
        """Wait a moment for batches of requests that came at the same time: they share a sync and the rest of
        a sector, which at one request of 2,000 samples is a seventh of what is written."""
        if not self._queue or self._sync_mode != "batch":
            return
        self._wanted = min(self.expected(), GATHER_BATCHES)
        if len(self._queue) < self._wanted and not self._closing and self._queue[-1].records:
            self._changed.wait(GATHER_S)
        self._wanted = 1

    def _take_group(self) -> list[_Batch]:
        group: list[_Batch] = []
        size = 0
        while self._queue and size < GROUP_BYTES_LIMIT:
            batch = self._queue[0]
            if group and batch.segment != group[0].segment:
                break
            group.append(self._queue.popleft())
            size += batch.size
        self._queued_bytes -= size
        if size:
            self._changed.notify_all()
        return group

    def _write_group(self, group: list[_Batch]) -> None:
        self._before = None
        if not any(batch.records for batch in group):
            return
        if group[0].segment != self._file_number:
            self._open_segment(group[0].segment)
        buffers: list[bytes] = []
        sequence = self._sequence
        with self._changed:
            batches = [batch.records for batch in group]
            left = sum(batch.size for batch in group)
        padding = self._padding(left)
        for records in batches:
            last = len(records) - 1
            for i, (kind, payload, compressed) in enumerate(records):
                sequence += 1
                flags = (CONTINUES if i < last else 0) | (COMPRESSED if compressed else 0)
                left -= RECORD_HEADER.size + len(payload)
                buffers.extend(record_bytes(kind, flags, sequence, payload, 0 if left else padding))
        assert self._file is not None
        good = self._file.size
        self._before = good, self._sequence
        try:
            self._observer.written(self._file.write(buffers))
        except DiskFullError:
            self._observer.write_failed()
            self._file.truncate(good)
            raise
        except OSError:
            self._observer.write_failed()
            raise
        self._sequence = sequence
        self._dirty = True

    def _padding(self, size: int) -> int:
        return -size % SECTOR_BYTES if self._direct else 0

    def _open_segment(self, number: int) -> None:
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None
        path = self._directory / segment_name(number)
        if self._fs.exists(path):
            # Left by an attempt that ran out of space before the first record.
            self._fs.remove(path)
        file = self._fs.append_file(path, direct=self._direct)
        try:
            file.write([file_header(number, self._padding(FILE_HEADER.size))])
        except DiskFullError:
            file.close()
            self._fs.remove(path)
            raise
        self._file, self._file_number = file, number
        self._fs.sync_directory(self._directory)
        self._dirty = True
        self._observer.segment(number)

    def _sync(self) -> None:
        if self._file is None or not self._dirty:
            return
        began = self._clock()
        self._file.sync()
        self._dirty = False
        self._observer.fsync(self._clock() - began)

    def _wait_for_space(self, group: list[_Batch], error: DiskFullError) -> bool:
        """Keep the group for another try; its callers are told now. False when the log closes meanwhile."""
        if self._before is not None and self._file is not None:
            # Written, but there was no room for the sync: the group may be withdrawn.
            size, self._sequence = self._before
            if self._file.size > size:
                self._file.truncate(size)
        log.error("Disk full: writes are refused until there is space", extra={"err": str(error)})
        with self._changed:
            self._disk_full, self._waiting = error, group
            for batch in (*group, *self._queue):
                if not batch.future.done():
                    batch.future.set_exception(DiskFullError(str(error)))
            self._changed.notify_all()
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, DISK_FULL_RETRY_S):
                    return False
            try:
                if self._file is None and not group:
                    self._open_segment(self._queue[0].segment if self._queue else self.segment)
                self._write_group(group)
                self._sync()
            except DiskFullError:
                continue
            except BaseException as failure:
                self._fail(group, failure)
                return False
            with self._changed:
                self._disk_full, self._waiting = None, []
            log.info("There is space on the disk again: writes are taken")
            return True

    def _fail(self, group: list[_Batch], error: BaseException) -> None:
        """A write or sync failed: nothing more is taken, because what the disk holds is no longer known."""
        with self._changed:
            self._failure = StorageError(f"the write-ahead log failed, restart to recover: {error}")
            for batch in (*group, *self._queue):
                if not batch.future.done():
                    batch.future.set_exception(self._failure)
            self._queue.clear()
            self._changed.notify_all()

    def _shut(self) -> None:
        with self._changed:
            self._closing = True
            for batch in self._queue:
                if not batch.future.done():
                    batch.future.set_exception(self._failure or ClosedError("the database is closing"))
            self._queue.clear()
            self._changed.notify_all()
        if self._file is not None:
            self._file.close()
