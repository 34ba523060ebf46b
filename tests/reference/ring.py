"""Slow twins of the walks over a ring buffer and its records."""

from __future__ import annotations

import struct


def scan(data: bytes, limit: int) -> tuple[list[bytes], int] | None:
    """Finished records from position 0 on, and the bytes consumed; None for damage. `data` does not wrap."""
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) < limit:
        word = struct.unpack_from("<I", data, at)[0]
        if word >> 31:
            break
        size = word & 0x3FFFFFFF
        step = (8 + size + 7) // 8 * 8
        if at + step > len(data):
            return None
        if not word >> 30 & 1:
            found.append(data[at + 8 : at + 8 + size])
        at += step
    return found, at


def fields(record: bytes, slots: int) -> dict[int, bytes] | None:
    """Bytes by slot of one record; None for damage."""
    if len(record) < 128:
        return None
    end = struct.unpack_from("<I", record, 100)[0]
    if not 128 <= end <= len(record):
        return None
    found = {}
    at = 128
    while at + 8 <= end:
        slot, length = struct.unpack_from("<II", record, at)
        if slot >= slots or at + 8 + length > end:
            return None
        found[slot] = record[at + 8 : at + 8 + length]
        at += (8 + length + 7) // 8 * 8
    return found
