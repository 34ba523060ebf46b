"""The event log: newest events in memory and in a write-ahead log, older ones in parts.

One writer, any number of readers. A background thread turns the events in memory into parts, merges small
parts, and deletes old ones by the retention of the store. Files: docs/formats/eventlog.md.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from security.eventlog.part import SUFFIX, Entry, Part, write_part
from security.eventlog.query import LIMIT_MAX, EventQuery
from security.eventlog.recovery import EVENTS, encode_events, open_parts, replay_segments
from security.record import EventRecord
from tsdb.errors import ClosedError, CorruptionError, LimitError, StorageError
from tsdb.fs import FileSystem
from tsdb.retention import beyond_age, beyond_size
from tsdb.ulid import make_ulid
from tsdb.wal import Wal, segment_name, segment_numbers
from tsdb.walrecords import PayloadCodec
from tsdb.walrepair import quarantine_path

log = logging.getLogger("security.eventlog")

DIRECTORY = "events"
WAL_DIRECTORY = "wal"
MEMORY_RECORDS = 16_384
"""Events in memory that make a part due; a search reads them one by one, 16,384 in some 50 ms."""
MEMORY_AGE_S = 2 * 3600.0
MEMORY_RECORDS_LIMIT = 262_144
"""Events in memory when parts cannot be written; further ones are refused."""
MERGE_PARTS = 8
PART_RECORDS_LIMIT = 65_536
MAINTENANCE_S = 60.0


@dataclass(frozen=True, slots=True)
class EventLogOptions:
    """Retention in ms and bytes, 0 for none; `wal_sync` as --storage.wal.sync."""

    retention_ms: int = 0
    retention_bytes: int = 0
    wal_sync: str = "batch"
    memory_records: int = MEMORY_RECORDS
    background: bool = True


class EventLog:
    """Made with the path of the store. `write` by one thread, everything else by any."""

    name = "eventlog"

    def __init__(
        self,
        root: Path,
        options: EventLogOptions = EventLogOptions(),
        *,
        fs: FileSystem | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the log below `root`, replaying what is not in parts. Raises StorageError, OSError."""
        self._root, self._directory = root, root / DIRECTORY
        self._options, self._clock = options, clock
        self._fs = fs if fs is not None else FileSystem()
        self.counts: Counter[str] = Counter()
        """What happened: events, torn_tails, quarantined, parts_written, parts_merged, parts_deleted."""
        self._wal_directory = self._directory / WAL_DIRECTORY
        self._fs.make_directory(self._wal_directory)
        self._parts = open_parts(self._fs, root, self._directory, self.counts)
        after = max((part.meta.segment for part in self._parts), default=0)
        replayed = replay_segments(self._fs, root, self._wal_directory, after, self.counts)
        self._memory: list[Entry] = replayed.entries
        stored = max((part.meta.last_sequence for part in self._parts), default=0)
        self._sequence = max(stored, replayed.last_sequence)
        self._wal = Wal(
            self._fs,
            self._wal_directory,
            segment=replayed.last_segment + 1,
            sequence=replayed.wal_sequence,
            sync=options.wal_sync,
            clock=time.monotonic,
            observer=_WalCounts(self.counts),
        )
        self._codec = PayloadCodec()
        self._oldest_s = clock()
        """When the oldest event in memory came."""
        self._lock = threading.Lock()
        """Guards memory, parts and the sequence."""
        self._work_lock = threading.Lock()
        """One flush, merge or deletion at a time."""
        self._superseded: list[Path] = []
        self._closed = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        if options.background:
            self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
            self._thread.start()

    # Writing.

    def set_retention(self, retention_ms: int, retention_bytes: int) -> None:
        """Other limits, from the next round of background work on; 0 for none."""
        self._options = replace(self._options, retention_ms=retention_ms, retention_bytes=retention_bytes)

    def write(self, records: Sequence[EventRecord]) -> Future[None]:
        """Take events; the result is done when they are on disk. Raises StorageError."""
        self._wal.check()
        lines = [record.to_wire() for record in records]
        with self._lock:
            if self._closed:
                raise ClosedError("the event log is closed")
            if len(self._memory) + len(records) > MEMORY_RECORDS_LIMIT:
                raise LimitError(
                    f"event log has {len(self._memory)} events in memory, limit {MEMORY_RECORDS_LIMIT}"
                )
            if not self._memory:
                self._oldest_s = self._clock()
            payload = encode_events(self._sequence + 1, lines)
            durable = self._wal.log([(EVENTS, *self._codec.pack(payload))])
            for record in records:
                self._sequence += 1
                self._memory.append((self._sequence, record))
            due = len(self._memory) >= self._options.memory_records
        self.counts["events"] += len(records)
        if due:
            self._wake.set()
        return durable

    def tick(self) -> None:
        """Nothing: the log has a thread of its own."""

    # Reading.

    def select(self, query: EventQuery) -> list[Entry]:
        """Wanted events with their sequence numbers, newest first. Blocks; for worker threads."""
        limit = min(query.limit, LIMIT_MAX)
        with self._lock:
            memory, parts = list(self._memory), list(self._parts)
        found = [entry for entry in memory if query.accepts(entry[1])]
        found.sort(key=_age, reverse=True)
        return list(itertools.islice(self._newest_first(iter(found), parts, query), limit))

    def _newest_first(
        self, memory: Iterator[Entry], parts: Sequence[Part], query: EventQuery
    ) -> Iterator[Entry]:
        """Entries of all sources by age. A part is read only when it may have the next one."""
        waiting = sorted(parts, key=lambda part: part.meta.max_time_ns)
        heads: list[tuple[tuple[int, int], Entry, Iterator[Entry]]] = []

        def push(source: Iterator[Entry]) -> None:
            entry = next(source, None)
            if entry is not None:
                time_ns, sequence = _age(entry)
                heapq.heappush(heads, ((-time_ns, -sequence), entry, source))

        push(memory)
        while heads or waiting:
            if waiting and (not heads or waiting[-1].meta.max_time_ns >= -heads[0][0][0]):
                push(self._of_part(waiting.pop(), query))
                continue
            _, entry, source = heapq.heappop(heads)
            yield entry
            push(source)

    def _of_part(self, part: Part, query: EventQuery) -> Iterator[Entry]:
        try:
            yield from part.select(query)
        except CorruptionError as error:
            self._set_aside(part, error)

    def _set_aside(self, part: Part, error: CorruptionError) -> None:
        """A damaged part is moved away; the events of the others are still found."""
        with self._lock:
            if part not in self._parts:
                return
            self._parts = [known for known in self._parts if known is not part]
        self.counts["quarantined"] += 1
        log.error("Part of the event log is damaged and set aside", extra={"err": str(error)})
        target = quarantine_path(self._fs, self._root, f"events-{part.path.name}")
        try:
            self._fs.rename(part.path, target)
        except OSError as failure:
            log.error("Damaged part could not be moved", extra={"err": str(failure)})

    @property
    def records_count(self) -> int:
        """Events in memory and in parts."""
        with self._lock:
            return len(self._memory) + sum(part.meta.count for part in self._parts)

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        with self._lock:
            return sum(part.size for part in self._parts)

    @property
    def parts_count(self) -> int:
        """Parts."""
        return len(self._parts)

    # Background work.

    def _run(self) -> None:
        while True:
            self._wake.wait(MAINTENANCE_S)
            self._wake.clear()
            if self._closed:
                return
            try:
                self.maintain()
            except (StorageError, OSError) as error:
                log.error("Background work of the event log failed", extra={"err": str(error)})
            except Exception:
                log.exception("Background work of the event log failed")

    def maintain(self) -> None:
        """One round of what is due. Raises StorageError, OSError."""
        age_s = self._clock() - self._oldest_s
        if len(self._memory) >= self._options.memory_records or (self._memory and age_s >= MEMORY_AGE_S):
            self.flush()
        self.merge()
        self.retain()

    def flush(self) -> None:
        """Write the events in memory as a part and drop their segments of the log."""
        with self._work_lock:
            with self._lock:
                entries = list(self._memory)
                if not entries:
                    return
                segment = self._wal.cut()
            meta = write_part(self._fs, self._directory, self._new_name(), entries, segment=segment)
            part = Part(self._fs, self._directory / f"{meta.name}{SUFFIX}")
            with self._lock:
                self._parts = [*self._parts, part]
                self._memory = self._memory[len(entries) :]
                self._oldest_s = self._clock()
            self.counts["parts_written"] += 1
            self._wal.flush()
            for number in segment_numbers(self._fs, self._wal_directory):
                if number < segment:
                    self._fs.remove(self._wal_directory / segment_name(number))
            self._fs.sync_directory(self._wal_directory)

    def merge(self) -> None:
        """Merge runs of MERGE_PARTS small parts that follow each other in time."""
        with self._work_lock:
            # A part names only those it was made of: all of these must be gone before it is merged itself.
            self._remove_superseded()
            while chosen := self._run_to_merge():
                # The newest segment number stays known: it tells which of the log is in parts.
                segment = max(part.meta.segment for part in chosen)
                entries = itertools.chain.from_iterable(part.select(_EVERYTHING) for part in chosen)
                names = tuple(part.meta.name for part in chosen)
                name = self._new_name()
                write_part(self._fs, self._directory, name, entries, segment=segment, sources=names)
                merged = Part(self._fs, self._directory / f"{name}{SUFFIX}")
                self._replace(chosen, [merged])
                self.counts["parts_merged"] += len(chosen)

    def _run_to_merge(self) -> list[Part]:
        parts = sorted(self._parts, key=lambda part: part.meta.max_time_ns)
        for start in range(len(parts) - MERGE_PARTS + 1):
            run = parts[start : start + MERGE_PARTS]
            if sum(part.meta.count for part in run) <= PART_RECORDS_LIMIT:
                return run
        return []

    def retain(self) -> None:
        """Delete parts beyond the retention."""
        with self._work_lock:
            parts = {part.meta.name: part for part in self._parts}
            metas = [part.meta for part in parts.values()]
            now_ms = int(self._clock() * 1000)
            doomed = beyond_age(metas, now_ms, self._options.retention_ms)
            kept = [meta for meta in metas if meta not in doomed]
            sizes = [parts[meta.name].size for meta in kept]
            doomed += beyond_size(kept, sizes, 0, self._options.retention_bytes)
            if doomed:
                self._replace([parts[meta.name] for meta in doomed], [])
                self.counts["parts_deleted"] += len(doomed)

    def _replace(self, old: Sequence[Part], new: Sequence[Part]) -> None:
        with self._lock:
            self._parts = [part for part in self._parts if part not in old] + list(new)
        self._superseded += [part.path for part in old]
        self._remove_superseded()

    def _remove_superseded(self) -> None:
        """Remove files of parts that are no longer in force; readers that hold a mapping keep it."""
        while self._superseded:
            self._fs.remove(self._superseded[-1])
            self._superseded.pop()
        self._fs.sync_directory(self._directory)

    def _new_name(self) -> str:
        return make_ulid(int(self._clock() * 1000), secrets.token_bytes(10))

    def close(self) -> None:
        """Sync the log and stop. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._wal.close()


def _age(entry: Entry) -> tuple[int, int]:
    return entry[1].output.time_ns, entry[0]


_EVERYTHING = EventQuery()


class _WalCounts:
    """What the log's writer tells."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def fsync(self, seconds: float) -> None:
        self._counts["fsyncs"] += 1

    def written(self, size: int) -> None:
        self._counts["wal_bytes"] += size

    def write_failed(self) -> None:
        self._counts["wal_failures"] += 1

    def segment(self, number: int) -> None:
        self._counts["wal_segments"] += 1
