"""Opening the event log: which parts count, and what of the write-ahead log is not in them."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from security.eventlog.part import SUFFIX, Entry, Part
from security.record import EventRecord, InvalidRecordError
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.wal import COMPRESSED, Record, SegmentRead, read_segment, segment_name, segment_numbers
from tsdb.walrecords import PayloadCodec
from tsdb.walrepair import cut_segment, quarantine_path

log = logging.getLogger("security.eventlog")

EVENTS = 64
"""Type of a record of the write-ahead log: sequence number of the first event u64, then a record a line."""
_FIRST = struct.Struct("<Q")


def encode_events(first_sequence: int, lines: Sequence[bytes]) -> list[bytes | memoryview]:
    """Payload of one record of the log; `lines` are records on the wire."""
    return [_FIRST.pack(first_sequence), b"\n".join(lines)]


def decode_events(payload: bytes) -> list[Entry]:
    """Inverse of `encode_events`. Raises CorruptionError."""
    try:
        (sequence,) = _FIRST.unpack_from(payload)
        lines = payload[_FIRST.size :].split(b"\n")
        return [(sequence + at, EventRecord.from_wire(line)) for at, line in enumerate(lines)]
    except (struct.error, InvalidRecordError) as error:
        raise CorruptionError(f"record of the event log: {error}") from None


def open_parts(fs: FileSystem, root: Path, directory: Path, counts: Counter[str]) -> list[Part]:
    """The parts in force: without those that were merged into others; damaged ones are set aside."""
    parts: dict[str, Part] = {}
    for name in fs.list(directory):
        path = directory / name
        if name.endswith(".tmp"):
            fs.remove(path)
        elif name.endswith(SUFFIX):
            try:
                part = Part(fs, path)
            except CorruptionError as error:
                counts["quarantined"] += 1
                log.error("Part of the event log is damaged and set aside", extra={"err": str(error)})
                fs.rename(path, quarantine_path(fs, root, f"events-{name}"))
            else:
                parts[part.meta.name] = part
    merged = {source for part in parts.values() for source in part.meta.sources}
    for name in merged & parts.keys():
        fs.remove(parts.pop(name).path)
    return list(parts.values())


@dataclass(slots=True)
class Replayed:
    """What the write-ahead log holds beyond the parts."""

    entries: list[Entry] = field(default_factory=list)
    last_sequence: int = 0
    last_segment: int = 0
    wal_sequence: int = 0


def replay_segments(
    fs: FileSystem, root: Path, directory: Path, after: int, counts: Counter[str]
) -> Replayed:
    """Events of the segments from `after` on; earlier ones are in parts and are deleted.

    A torn end is cut off, set aside and counted.
    """
    found, codec = Replayed(last_segment=after), PayloadCodec()
    numbers = segment_numbers(fs, directory)
    for number in numbers:
        path = directory / segment_name(number)
        if number < after:
            fs.remove(path)
            continue
        found.last_segment = number
        data, state = fs.map_file(path), SegmentRead()
        for batch in read_segment(data, number, state):
            for record in batch:
                found.entries += _entries(codec, record, counts)
        found.wal_sequence = max(found.wal_sequence, state.sequence)
        if state.damage:
            counts["torn_tails"] += 1
            last = number == numbers[-1]
            log.warning(
                "Damage in the write-ahead log of events: the part before it is kept, the rest is set aside",
                extra={"file": str(path), "damage": state.damage, "good_bytes": state.good_bytes},
            )
            aside = quarantine_path(fs, root, f"events-wal-{path.name}" + (".tail" if last else ""))
            cut_segment(fs, path, data, state.good_bytes, aside, last=last)
    found.last_sequence = max((sequence for sequence, _ in found.entries), default=0)
    return found


def _entries(codec: PayloadCodec, record: Record, counts: Counter[str]) -> list[Entry]:
    try:
        if record.kind != EVENTS:
            raise CorruptionError(f"record of the event log has unknown type {record.kind}")
        return decode_events(codec.unpack(record.payload, bool(record.flags & COMPRESSED)).tobytes())
    except CorruptionError as error:
        # The checksum holds, so it was written like this: by another version of the program.
        counts["unreadable_records"] += 1
        log.error("Record of the event log cannot be read", extra={"err": str(error)})
        return []
