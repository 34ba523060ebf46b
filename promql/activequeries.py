"""The log of running queries, which survives a crash.

A file of fixed slots, mapped into memory: a query's text and start time stand in its slot while it runs. What
is found in the file when it is opened was running when the process died, and is handed to the caller to be
logged. The file is a JSON array, so that it can be read by other tools:

    [ slot 0 (1000 bytes: JSON object, comma, zero bytes) | slot 1 | ...
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

SLOT_BYTES = 1000
"""As Prometheus: longer queries are cut."""

FILE_NAME = "queries.active"


_FREE = bytes(SLOT_BYTES)


class ActiveQueries:
    """Slots of running queries. Any thread may enter and leave; close it at the end."""

    def __init__(self, folder: Path, slots: int, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds. `unfinished` holds what the last process left running."""
        path = folder / FILE_NAME
        self.unfinished: list[dict[str, Any]] = read_unfinished(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._free = list(range(slots - 1, -1, -1))
        size = 1 + slots * SLOT_BYTES
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            # Not sparse: a page of the mapping that the disk has no room for would end the process.
            os.posix_fallocate(self._fd, 0, size)
            self._map = mmap.mmap(self._fd, size)
        except OSError:
            os.close(self._fd)
            raise
        self._map[0:1] = b"["

    def enter(self, query: str) -> int:
        """Write a query into a free slot and return it; -1 where none is free (the query is not logged)."""
        with self._lock:
            if not self._free:
                return -1
            slot = self._free.pop()
        self._write(slot, entry(query, int(self._clock())))
        return slot

    def leave(self, slot: int) -> None:
        """Clear a slot. -1 is ignored."""
        if slot < 0:
            return
        self._write(slot, _FREE)
        with self._lock:
            self._free.append(slot)

    def _write(self, slot: int, data: bytes) -> None:
        at = 1 + slot * SLOT_BYTES
        self._map[at : at + SLOT_BYTES] = data.ljust(SLOT_BYTES, b"\0")

    def close(self) -> None:
        """Unmap and close the file."""
        self._map.close()
        os.close(self._fd)


class Entered:
    """`with Entered(log, query):` around an evaluation; `log` may be None."""

    def __init__(self, log: ActiveQueries | None, query: str) -> None:
        self._log = log
        self._query = query
        self._slot = -1

    def __enter__(self) -> None:
        if self._log is not None:
            self._slot = self._log.enter(self._query)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.leave(self._slot)


def entry(query: str, started_s: int) -> bytes:
    """One slot: the query is cut until its JSON fits, with a byte left for the comma."""
    text = query
    while True:
        try:
            raw = orjson.dumps({"query": text, "timestamp_sec": started_s}) + b","
        except orjson.JSONEncodeError:
            text = text.encode("utf-8", "replace").decode("utf-8")
            continue
        if len(raw) <= SLOT_BYTES:
            return raw
        text = text[: len(text) - max(1, (len(raw) - SLOT_BYTES + 5) // 6)]


def read_unfinished(path: Path) -> list[dict[str, Any]]:
    """Entries of a file that a process left behind; what cannot be read is skipped."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    found = []
    for at in range(1, len(data), SLOT_BYTES):
        slot = data[at : at + SLOT_BYTES].rstrip(b"\0").rstrip(b",")
        if not slot:
            continue
        try:
            item = json.loads(slot)
        except ValueError:
            continue
        if isinstance(item, dict):
            found.append(item)
    return found
