"""Events on disk while a receiver is down: one file of records, a line each, and how far it was read.

Lines have a checksum, so that a torn one after a crash is skipped. An event may be delivered twice after a
crash, never lost: the file is synced when something is added.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from security.record import EventRecord, InvalidRecordError

_NAME = "events.spool"
_COMPACT_BYTES = 1 << 20
"""The read part is cut off once it is that large."""


class SpoolFullError(Exception):
    """The spool has its limit of bytes."""


class Spool:
    """One output's spool. One thread."""

    def __init__(self, directory: Path, bytes_limit: int) -> None:
        """Open or create the spool in a folder of its own. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._limit = directory / _NAME, bytes_limit
        self.unreadable_count = 0
        self._records: deque[tuple[int, EventRecord]] = deque()
        """Bytes and record of the next events; the rest is read from the file when needed."""
        self._file = self._path.open("a+b")
        self._read_at = 0
        self._size = self._path.stat().st_size
        self.count = sum(1 for _ in self._lines(0))
        if self.count == 0:
            self._clear()

    @property
    def size_bytes(self) -> int:
        """Bytes not delivered yet."""
        return self._size - self._read_at

    def add(self, records: Sequence[EventRecord]) -> None:
        """Append records and sync. Raises SpoolFullError, having added none, or OSError."""
        lines = [_line(record) for record in records]
        size = sum(map(len, lines))
        if self.size_bytes + size > self._limit:
            raise SpoolFullError(
                f"spool {self._path} has {self.size_bytes} bytes, the limit is {self._limit}"
            )
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += size
        self.count += len(records)

    def peek(self, count: int) -> list[EventRecord]:
        """The next records, oldest first."""
        if len(self._records) < count:
            start = self._read_at + sum(size for size, _ in self._records)
            for entry in self._lines(start):
                self._records.append(entry)
                if len(self._records) >= count:
                    break
        return [self._records[at][1] for at in range(min(count, len(self._records)))]

    def drop(self, count: int) -> None:
        """Forget records that were delivered."""
        for _ in range(count):
            size, _record = self._records.popleft()
            self._read_at += size
            self.count -= 1
        if self.count == 0:
            self._clear()
        elif self._read_at >= _COMPACT_BYTES and self._read_at * 2 > self._size:
            self._cut()

    def _lines(self, start: int) -> Iterator[tuple[int, EventRecord]]:
        """Bytes and record of each good line; bytes of bad ones are added to the next."""
        skipped = 0
        with self._path.open("rb") as file:
            file.seek(start)
            for line in file:
                record = _record(line)
                if record is None:
                    self.unreadable_count += 1
                    skipped += len(line)
                    continue
                yield skipped + len(line), record
                skipped = 0

    def _clear(self) -> None:
        self._file.truncate(0)
        self._size = self._read_at = 0
        self._records.clear()

    def _cut(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        with self._path.open("rb") as old, temporary.open("wb") as new:
            old.seek(self._read_at)
            while piece := old.read(1 << 20):
                new.write(piece)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, self._path)
        self._file.close()
        self._file = self._path.open("a+b")
        self._size -= self._read_at
        self._read_at = 0

    def close(self) -> None:
        """Keep what is there for the next start; delivered events are cut off."""
        if self._read_at:
            self._cut()
        self._file.close()


def _line(record: EventRecord) -> bytes:
    wire = record.to_wire()
    return b"%08x %s\n" % (zlib.crc32(wire), wire)


def _record(line: bytes) -> EventRecord | None:
    wire = line[9:-1]
    if not line.endswith(b"\n") or line[:8] != b"%08x" % zlib.crc32(wire):
        return None
    try:
        return EventRecord.from_wire(wire)
    except InvalidRecordError:
        return None
