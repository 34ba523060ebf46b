"""A part of the event log: an immutable file with the events of some time, in order of time.

docs/formats/eventlog.md has the bytes. Times, sequence numbers and label sets of all rows are read as
columns; messages and fields a row group at a time, and only for rows that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from security.eventlog.pieces import Pieces, write_pieces
from security.eventlog.query import EventQuery, has_words, search_text
from security.eventlog.rowgroup import GROUP_ROWS, Row, decode_rows, encode_rows
from security.eventlog.tokens import TokenIndex, may_hold, write_tokens
from security.output import EventOutput
from security.record import EventRecord
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.sectionfile import SectionFile, SectionWriter

KIND = 64
META, ROWS, ORIGINS, GROUPS, GROUP_DIRECTORY = 1, 2, 3, 4, 5
"""Numbers of sections; the token index has 8, 9 and 10."""
SUFFIX = ".events"
VERSION = 1

Entry = tuple[int, EventRecord]
"""Sequence number in order of arrival, and the event."""


@dataclass(frozen=True, slots=True)
class PartMeta:
    """What is known of a part without reading its rows.

    `segment` is the segment of the write-ahead log whose predecessors it stands for, 0 for a merged part;
    `sources` are the names of the parts it was merged from.
    """

    name: str
    min_time_ns: int
    max_time_ns: int
    count: int
    last_sequence: int
    segment: int
    sources: tuple[str, ...] = ()

    @property
    def max_time(self) -> int:
        """The newest event's time in ms, as `tsdb.retention` wants it."""
        return self.max_time_ns // 1_000_000


def write_part(
    fs: FileSystem,
    directory: Path,
    name: str,
    entries: Iterable[Entry],
    *,
    segment: int = 0,
    sources: tuple[str, ...] = (),
) -> PartMeta:
    """Write a part so that it is there whole or not at all. Raises StorageError, OSError."""
    ordered = sorted(entries, key=lambda entry: (entry[1].output.time_ns, entry[0]))
    records = [record for _, record in ordered]
    meta = PartMeta(
        name,
        records[0].output.time_ns,
        records[-1].output.time_ns,
        len(records),
        max(sequence for sequence, _ in ordered),
        segment,
        sources,
    )
    temporary = directory / f"{name}.tmp"
    if fs.exists(temporary):
        fs.remove(temporary)
    writer = SectionWriter(fs, temporary, KIND)
    try:
        writer.add(META, _encode_meta(meta))
        origins: dict[str, int] = {}
        codes = [origins.setdefault(_origin(record), len(origins)) for record in records]
        columns: list[npt.NDArray[np.integer]] = [
            np.array([record.output.time_ns for record in records], np.int64),
            np.array([sequence for sequence, _ in ordered], np.uint64),
            np.array(codes, np.uint32),
        ]
        writer.add(ROWS, pack_columns(columns))
        writer.add(ORIGINS, pack_columns([np.frombuffer("\n".join(origins).encode(), np.uint8)]))
        rows = [(record.output.message, dict(record.output.fields)) for record in records]
        groups = (encode_rows(rows[start : start + GROUP_ROWS]) for start in range(0, len(rows), GROUP_ROWS))
        write_pieces(writer, GROUPS, GROUP_DIRECTORY, groups)
        write_tokens(writer, (search_text(record) for record in records))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    path = directory / f"{name}{SUFFIX}"
    try:
        fs.rename(temporary, path)
    except BaseException:
        # The name may be there and only its sync have failed; the events will be written again.
        fs.remove(path)
        raise
    return meta


def _encode_meta(meta: PartMeta) -> bytes:
    return orjson.dumps(
        {
            "version": VERSION,
            "minTimeNs": meta.min_time_ns,
            "maxTimeNs": meta.max_time_ns,
            "count": meta.count,
            "lastSequence": meta.last_sequence,
            "segment": meta.segment,
            "sources": meta.sources,
        }
    )


def _decode_meta(data: bytes, path: Path) -> PartMeta:
    try:
        found = orjson.loads(data)
        numbers = [int(found[key]) for key in ("minTimeNs", "maxTimeNs", "count", "lastSequence", "segment")]
        sources = tuple(str(source) for source in found["sources"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptionError(f"{path}: meta section is not as expected: {error}") from None
    low, high, count, last_sequence, segment = numbers
    return PartMeta(path.name.removesuffix(SUFFIX), low, high, count, last_sequence, segment, sources)


def _origin(record: EventRecord) -> str:
    """What events of one rule, host and label set have in common, as a line."""
    output = record.output
    parts = [output.rule, output.source, output.priority, output.tags, record.hostname, record.labels]
    return orjson.dumps(parts).decode()


@dataclass(frozen=True, slots=True)
class Origin:
    """The inverse of `_origin`."""

    rule: str
    source: str
    priority: int
    tags: tuple[str, ...]
    hostname: str
    labels: tuple[tuple[str, str], ...]

    @classmethod
    def of_line(cls, line: bytes) -> Origin:
        """Read one line."""
        rule, source, priority, tags, hostname, labels = orjson.loads(line)
        return cls(rule, source, priority, tuple(tags), hostname, tuple((n, v) for n, v in labels))


class Part:
    """An open part. Any thread. Methods raise CorruptionError when they meet damage."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        """Raises CorruptionError, UnknownVersionError."""
        self.path = path
        self._file = SectionFile(fs, path, KIND)
        self.meta = _decode_meta(self._file.section(META).tobytes(), path)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def select(self, query: EventQuery) -> Iterator[Entry]:
        """Wanted events, newest first; the caller stops at the limit."""
        if query.end_ns < self.meta.min_time_ns or query.start_ns > self.meta.max_time_ns:
            return
        times, sequences, codes = self._rows()
        origins = self._origins
        wanted = np.array([query.accepts_labels(origin.labels) for origin in origins], np.bool_)
        mask = wanted[codes]
        low, high = np.searchsorted(times, query.start_ns), np.searchsorted(times, query.end_ns, "right")
        mask[:low] = False
        mask[high:] = False
        words = query.words
        if words and mask.any():
            mask &= may_hold(self._tokens, words, len(times))
        group, rows = -1, list[Row]()
        for row in np.flatnonzero(mask)[::-1].tolist():
            if row // GROUP_ROWS != group:
                group = row // GROUP_ROWS
                rows = self._group(group)
            if row % GROUP_ROWS >= len(rows):
                raise CorruptionError(f"{self.path}: row group {group} has only {len(rows)} rows")
            message, fields = rows[row % GROUP_ROWS]
            record = _record(origins[codes[row]], int(times[row]), message, fields)
            if has_words(record, words):
                yield int(sequences[row]), record

    def _rows(self) -> tuple[npt.NDArray[Any], ...]:
        dtypes = (np.int64, np.uint64, np.uint32)
        columns = tuple(unpack_columns(self._file.section(ROWS), dtypes, f"{self.path}: rows"))
        if len(columns[2]) and columns[2].max() >= len(self._origins):
            raise CorruptionError(f"{self.path}: rows name an origin beyond {len(self._origins)}")
        return columns

    @cached_property
    def _origins(self) -> list[Origin]:
        (joined,) = unpack_columns(self._file.section(ORIGINS), [np.uint8], f"{self.path}: origins")
        return [Origin.of_line(line) for line in joined.tobytes().split(b"\n")]

    @cached_property
    def _tokens(self) -> TokenIndex:
        return TokenIndex(self._file)

    @cached_property
    def _groups(self) -> Pieces:
        return Pieces(self._file, GROUPS, GROUP_DIRECTORY, "row group")

    def _group(self, number: int) -> list[Row]:
        stored, where = self._groups.read(number)
        return decode_rows(stored, where)


def _record(origin: Origin, time_ns: int, message: str, fields: dict[str, Any]) -> EventRecord:
    output = EventOutput(origin.rule, origin.source, origin.priority, origin.tags, time_ns, message, fields)
    return EventRecord(output, origin.labels, origin.hostname)
