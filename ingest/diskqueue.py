"""A bounded queue on disk: what waits for a server survives the end of the process.

Format: docs/formats/queue.md and `queueframing`. A record is durable when `append` returns. Sequence numbers
grow by one over the life of the folder, across restarts, so that a receiver can tell what is a repetition.
"""

from __future__ import annotations

import bisect
import logging
import secrets
import struct
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from ingest.queueframing import (
    RECORD_HEADER,
    checksum_is_right,
    read_places,
    record_bytes,
    segment_header,
)
from tsdb.errors import ClosedError, CorruptionError, LimitError, UnknownVersionError
from tsdb.fs import AppendFile, FileSystem
from tsdb.wal import segment_name, segment_numbers

SEGMENT_BYTES = 8 << 20
PAYLOAD_BYTES_LIMIT = 16 << 20
POSITION_SECONDS = 1.0
"""Least time between two writes of the acknowledged position; what is lost of it is sent again."""

_POSITION = struct.Struct("<4sB3x16sQ")
_POSITION_MAGIC, _POSITION_VERSION = b"VDQP", 1
_POSITION_NAME, _LOCK_NAME = "position", "lock"

_log = logging.getLogger("vedette.queue")


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One record. `item_count` is what it counts for (samples, events)."""

    sequence: int
    created_ms: int
    item_count: int
    payload: bytes


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    first: int
    size: int
    offsets: array[int] = field(default_factory=lambda: array("I"))
    counts: array[int] = field(default_factory=lambda: array("I"))

    @property
    def last(self) -> int:
        """Sequence of the last record; `first` - 1 while there is none."""
        return self.first + len(self.offsets) - 1

    def items_between(self, after: int, upto: int) -> int:
        """Items of the records behind one sequence, up to another."""
        return sum(self.counts[max(0, after + 1 - self.first) : max(0, upto + 1 - self.first)])


class DiskQueue:
    """Writers on any thread, one reader at a time.

    When the queue is full its oldest segment is given up, and `on_drop` is told how many items were in it.
    """

    def __init__(
        self,
        directory: Path,
        bytes_limit: int,
        *,
        on_drop: Callable[[int], None] = lambda items: None,
        fs: FileSystem | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open or create. Raises LockedError, UnknownVersionError, StorageError, OSError."""
        self._fs = fs or FileSystem()
        self._directory = directory
        self.bytes_limit = bytes_limit
        self._segment_bytes = min(segment_bytes, max(bytes_limit // 4, 1))
        self._on_drop = on_drop
        self._clock = clock
        self._guard = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._fs.make_directory(directory)
        self._lock = self._fs.lock(directory / _LOCK_NAME)
        self.damaged_bytes = 0
        """Bytes found at opening that were no whole records."""
        self._segments: list[_Segment] = []
        self._file: AppendFile | None = None
        self._mapped: tuple[int, npt.NDArray[np.uint8]] = (-1, np.empty(0, np.uint8))
        self.epoch, self._acknowledged = self._read_position()
        """`epoch`: 32 hexadecimal digits that name this folder's run of sequence numbers."""
        self._persisted, self._persisted_at = self._acknowledged, clock()
        try:
            for number in segment_numbers(self._fs, directory):
                self._open_segment(number)
        except BaseException:
            self._lock.close()
            raise
        self._next = max(self._acknowledged, self._segments[-1].last if self._segments else 0) + 1
        self._write_position()
        self._bytes = sum(segment.size for segment in self._segments)
        self.pending_items = sum(s.items_between(self._acknowledged, s.last) for s in self._segments)
        """Items of the records that wait."""

    # Opening.

    def _read_position(self) -> tuple[str, int]:
        path = self._directory / _POSITION_NAME
        data = self._fs.read_file(path) if self._fs.exists(path) else b""
        if len(data) == _POSITION.size + 4 and data[:4] == _POSITION_MAGIC:
            _, version, epoch, sequence = _POSITION.unpack_from(data)
            if version != _POSITION_VERSION:
                raise UnknownVersionError(
                    f"{path} has format version {version}, known is {_POSITION_VERSION}"
                )
            if google_crc32c.value(data[:-4]) == int.from_bytes(data[-4:], "little"):
                return epoch.hex(), sequence
        if data:
            _log.warning("position of a queue is damaged: all of it is sent again", extra={"file": str(path)})
        # Numbers of an epoch that could repeat would be taken for repetitions: begin a new one.
        return secrets.token_hex(16), 0

    def _open_segment(self, number: int) -> None:
        path = self._directory / segment_name(number)
        data = self._fs.map_file(path)
        segment = _Segment(number, path, 0, 0)
        for place in read_places(data, number):
            segment.first = segment.first or place.sequence
            segment.offsets.append(place.offset)
            segment.counts.append(place.item_count)
            segment.size = place.end
        lost_bytes = len(data) - max(segment.size, min(len(data), len(segment_header(number))))
        if lost_bytes:
            self.damaged_bytes += lost_bytes
            _log.warning("end of a queue segment is lost", extra={"file": str(path), "bytes": lost_bytes})
        if segment.last <= self._acknowledged:
            self._fs.remove(path)
            return
        self._segments.append(segment)

    # Writing.

    def append(self, payload: bytes, item_count: int, created_ms: int) -> int:
        """Add a record, durably; its sequence.

        Raises LimitError for one that is too large, DiskFullError, OSError, ClosedError.
        """
        limit = min(PAYLOAD_BYTES_LIMIT, self.bytes_limit // 2)
        if len(payload) > limit:
            raise LimitError(f"queue record of {len(payload)} bytes, the limit is {limit} bytes")
        with self._guard:
            if self._next == 0:
                raise ClosedError("the queue is closed")
            sequence = self._next
            buffers = record_bytes(sequence, created_ms, item_count, payload)
            size = sum(map(len, buffers))
            self._make_room(size)
            segment = self._writable(sequence)
            assert self._file is not None
            try:
                self._file.write(buffers)
                self._file.sync()
            except BaseException:
                self._file.truncate(segment.size)
                raise
            segment.offsets.append(segment.size)
            segment.counts.append(item_count)
            segment.size += size
            self._bytes += size
            self.pending_items += item_count
            self._next = sequence + 1
        for listener in self._listeners:
            listener()
        return sequence

    def _make_room(self, size: int) -> None:
        while self._segments and self._bytes + size > self.bytes_limit:
            oldest = self._segments[0]
            lost = oldest.items_between(self._acknowledged, oldest.last)
            self.pending_items -= lost
            self._acknowledged = max(self._acknowledged, oldest.last)
            self._forget_acknowledged(also_active=True)
            if lost:
                self._on_drop(lost)

    def _writable(self, sequence: int) -> _Segment:
        if self._file is not None and self._segments and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1]
        self._close_file()
        numbers = segment_numbers(self._fs, self._directory)
        number = (numbers[-1] if numbers else 0) + 1
        header = segment_header(number)
        path = self._directory / segment_name(number)
        self._file = self._fs.append_file(path)
        self._file.write([header])
        self._fs.sync_directory(self._directory)
        self._segments.append(_Segment(number, path, sequence, len(header)))
        self._bytes += len(header)
        return self._segments[-1]

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # Reading.

    def next(self, after: int) -> QueueItem | None:
        """The first record behind a sequence, None when there is none. Raises CorruptionError, OSError."""
        with self._guard:
            after = max(after, self._acknowledged)
            at = bisect.bisect_left(self._segments, after + 1, key=lambda segment: segment.last)
            if at == len(self._segments):
                return None
            segment = self._segments[at]
            index = max(0, after + 1 - segment.first)
            sequence, offset = segment.first + index, segment.offsets[index]
            if self._mapped[0] != segment.number or len(self._mapped[1]) < segment.size:
                self._mapped = (segment.number, self._fs.map_file(segment.path))
            data = self._mapped[1]
        length, _, found, created_ms, item_count = RECORD_HEADER.unpack_from(data.data, offset)
        end = offset + RECORD_HEADER.size + length
        if found != sequence or not checksum_is_right(data, offset, end):
            raise CorruptionError(f"record {sequence} of {segment.path} does not match its checksum")
        payload = data[offset + RECORD_HEADER.size : end].tobytes()
        return QueueItem(sequence, created_ms, item_count, payload)

    def acknowledge(self, sequence: int) -> None:
        """Everything up to a sequence has arrived; numbers that were not given out yet are ignored."""
        with self._guard:
            if not self._acknowledged < sequence < self._next:
                return
            arrived = [segment for segment in self._segments if segment.first <= sequence]
            self.pending_items -= sum(s.items_between(self._acknowledged, sequence) for s in arrived)
            self._acknowledged = sequence
            self._forget_acknowledged()
            if self._clock() - self._persisted_at >= POSITION_SECONDS:
                self._write_position()

    def _forget_acknowledged(self, *, also_active: bool = False) -> None:
        done = [
            segment
            for segment in self._segments
            if segment.last <= self._acknowledged
            and (also_active or self._file is None or segment is not self._segments[-1])
        ]
        if not done:
            return
        # First the position, so that the numbers of removed records are never given out again.
        self._write_position()
        for segment in done:
            if segment is self._segments[-1]:
                self._close_file()
            if self._mapped[0] == segment.number:
                # The next segment may get the same number.
                self._mapped = (-1, np.empty(0, np.uint8))
            self._segments.remove(segment)
            self._bytes -= segment.size
            self._fs.remove(segment.path)

    def _write_position(self) -> None:
        head = _POSITION.pack(
            _POSITION_MAGIC, _POSITION_VERSION, bytes.fromhex(self.epoch), self._acknowledged
        )
        path = self._directory / _POSITION_NAME
        temporary = path.with_suffix(".tmp")
        self._fs.write_file(temporary, [head, google_crc32c.value(head).to_bytes(4, "little")])
        self._fs.rename(temporary, path)
        self._persisted, self._persisted_at = self._acknowledged, self._clock()

    # Looking.

    def on_append(self, listener: Callable[[], None]) -> None:
        """Call `listener`, on the writer's thread, after each record."""
        self._listeners.append(listener)

    @property
    def acknowledged(self) -> int:
        """The last sequence that has arrived, or was given up."""
        return self._acknowledged

    @property
    def bytes(self) -> int:
        """Bytes of the segments on disk."""
        return self._bytes

    @property
    def record_count(self) -> int:
        """Records that wait."""
        return max(0, self._next - 1 - self._acknowledged)

    def close(self) -> None:
        """Write the position and let go of the folder. May be called twice."""
        with self._guard:
            if self._next == 0:
                return
            if self._persisted != self._acknowledged:
                self._write_position()
            self._next = 0
            self._close_file()
            self._mapped = (-1, np.empty(0, np.uint8))
            self._lock.close()
