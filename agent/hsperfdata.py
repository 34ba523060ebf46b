"""Reads the performance counters of a Java virtual machine, the file `hsperfdata_USER/PID` that it maps.

The file belongs to the user of the virtual machine: everything in it may be wrong, so each length and offset
is checked before it is used. Layout: 32 bytes of header, then entries with name and value, see `parse`.
"""

from __future__ import annotations

import struct

MAGIC = b"\xca\xfe\xc0\xc0"
FILE_BYTES_LIMIT = 1 << 20
ENTRIES_LIMIT = 4096
NAME_BYTES_LIMIT = 256
TEXT_BYTES_LIMIT = 4096
_HEADER_BYTES = 32
_ENTRY_BYTES = 20
_LONG, _BYTE = ord("J"), ord("B")


class PerfDataError(ValueError):
    """The bytes are no performance data."""


def parse(data: bytes) -> dict[str, int | str]:
    """Counters and texts by name. Raises PerfDataError; an entry that makes no sense ends the list.

    Header: magic, byte order (0 big, 1 little), major, minor, accessible, used, overflow, time of change,
    offset of the first entry, number of entries. Entry: its length, offset of the name, number of elements (0
    for a single value), type, flags, unit, variability, offset of the value; offsets count from the entry.
    """
    if len(data) < _HEADER_BYTES or data[:4] != MAGIC:
        raise PerfDataError("no performance data of a Java virtual machine")
    if data[4] not in (0, 1) or data[5] != 2:
        raise PerfDataError(f"performance data of byte order {data[4]} and version {data[5]} is not known")
    order = "><"[data[4]]
    at, count = struct.unpack_from(f"{order}ii", data, 24)
    found: dict[str, int | str] = {}
    for _ in range(min(max(count, 0), ENTRIES_LIMIT)):
        if not _HEADER_BYTES <= at <= len(data) - _ENTRY_BYTES:
            break
        length, name_at, elements, kind, _, _, _, value_at = struct.unpack_from(f"{order}iii4Bi", data, at)
        if length < _ENTRY_BYTES or at + length > len(data):
            break
        entry = data[at : at + length]
        name = _text(entry, name_at, NAME_BYTES_LIMIT)
        value = _value(entry, order, kind, elements, value_at)
        if name and value is not None:
            found[name] = value
        at += length
    return found


def _value(entry: bytes, order: str, kind: int, elements: int, at: int) -> int | str | None:
    if kind == _LONG and elements == 0 and _ENTRY_BYTES <= at <= len(entry) - 8:
        return int(struct.unpack_from(f"{order}q", entry, at)[0])
    if kind == _BYTE and elements > 0 and _ENTRY_BYTES <= at <= len(entry):
        return _text(entry, at, min(elements, TEXT_BYTES_LIMIT))
    return None


def _text(entry: bytes, at: int, limit: int) -> str:
    """Text up to its NUL, the limit or the end of the entry; empty for an offset outside."""
    if not _ENTRY_BYTES <= at < len(entry):
        return ""
    return entry[at : at + limit].split(b"\0", 1)[0].decode("utf-8", "replace")
