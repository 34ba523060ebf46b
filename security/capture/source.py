"""A capture as batches of events of the source `syscall`: columns are made when a rule asks for them.

Values of a process are computed once for each state of it in a batch, not for each event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from security.capture import blocks
from security.capture.blocks import Block, read_blocks
from security.capture.containerfields import CONTAINER_FIELDS
from security.capture.cursor import CaptureError
from security.capture.descriptors import read_descriptors
from security.capture.effects import apply
from security.capture.eventfields import EVENT_FIELDS
from security.capture.events import Event, EventReader
from security.capture.filefields import DESCRIPTOR_FIELDS
from security.capture.host import Host, read_interfaces, read_machine, read_users
from security.capture.processfields import CONTEXT_FIELDS
from security.capture.state import State
from security.capture.threads import read_threads
from security.columns import (
    AnyColumn,
    Column,
    ColumnKey,
    Dictionary,
    EventBatch,
    ListColumn,
    NumberColumn,
    list_column,
    text_column,
)
from security.fields.table import NUMBER_TYPES, FieldInfo, field_table

SOURCE = "syscall"
BATCH_EVENTS = 65_536
BATCH_BYTES = 64 << 20
"""Of the blocks of one batch."""
_INT64_LIMIT = 1 << 63
_SECOND_NS = 1_000_000_000


class Capture:
    """Reads one capture. `batches` is used once; the counters are of what it has read so far."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self.host = Host()
        self.state = State(self.host)
        self.events_count = 0
        self._reader = EventReader()
        self._types = Dictionary()
        self._first_ns: int | None = None
        self._last_ns: int | None = None

    @property
    def unknown_count(self) -> int:
        """Events of numbers that this reader does not know; they are left out."""
        return self._reader.unknown.total()

    @property
    def left_out_count(self) -> int:
        """Threads, descriptors, containers and entries of calls that were over a limit."""
        return self.state.left_out + self._reader.left_out

    def batches(self, size: int = BATCH_EVENTS) -> Iterator[EventBatch]:
        """The events in order, at most `size` in one batch.

        Raises CaptureError where the capture cannot be read further, after a batch of what came before.
        """
        events: list[Event] = []
        bytes_count = 0
        try:
            for event, length in self._events():
                events.append(event)
                bytes_count += length
                if len(events) >= size or bytes_count >= BATCH_BYTES:
                    yield self._batch(events)
                    events, bytes_count = [], 0
        except CaptureError:
            if events:
                yield self._batch(events)
            raise
        if events:
            yield self._batch(events)

    def _events(self) -> Iterator[tuple[Event, int]]:
        """Events and the bytes of their blocks."""
        for block in read_blocks(self._stream):
            if block.type not in blocks.EVENTS:
                self._take(block)
                continue
            event = self._reader.read(block)
            if event is None:
                continue
            apply(self.state, event)
            if not event.is_hidden:
                yield event, len(block.body)

    def _take(self, block: Block) -> None:
        """Lists of the capture; blocks of other types are skipped, as upstream does."""
        if block.type in blocks.MACHINE:
            read_machine(block, self.host)
            self._reader.machine = self.host.machine
        elif block.type in blocks.INTERFACES:
            read_interfaces(block, self.host)
        elif block.type in blocks.USERS:
            read_users(block, self.host)
        elif block.type in blocks.PROCESSES:
            for thread in read_threads(block):
                self.state.put(thread)
        elif block.type in blocks.DESCRIPTORS:
            tid, found = read_descriptors(block)
            thread = self.state.thread(tid)
            for _, descriptor in found:
                self.state.open(thread, descriptor)

    def _batch(self, events: list[Event]) -> EventBatch:
        first_number = self.events_count + 1
        self.events_count += len(events)
        times = np.fromiter((event.time_ns for event in events), np.int64, len(events))
        if self._first_ns is None:
            self._first_ns = int(times[0])
        before = np.concatenate(([times[0] if self._last_ns is None else self._last_ns], times[:-1]))
        self._last_ns = int(times[-1])
        clocks = {"evt.reltime": times - self._first_ns, "evt.deltatime": times - before}
        columns = _Columns(events, self.host, clocks)
        return EventBatch(
            SOURCE,
            times,
            columns.load,
            text_column([event.name for event in events], self._types),
            first_number,
            self.host.hostname,
            narrow=columns.narrow,
        )


class _Columns:
    """Makes the columns of some events."""

    def __init__(self, events: Sequence[Event], host: Host, clocks: dict[str, NDArray[np.int64]]) -> None:
        self._events = events
        self._host = host
        self._clocks = clocks
        self._shared: dict[str, tuple[list[Any], NDArray[np.int64]]] = {}

    def narrow(self, rows: NDArray[np.int64]) -> Callable[[ColumnKey], AnyColumn | None]:
        """A loader for some of the events."""
        events = [self._events[row] for row in rows.tolist()]
        return _Columns(events, self._host, {name: clock[rows] for name, clock in self._clocks.items()}).load

    def load(self, key: ColumnKey) -> AnyColumn | None:
        """The column of a field, None for a field that captures do not have."""
        name, argument = key
        info = field_table(SOURCE).fields.get(name)
        if info is None:
            return None
        if name in EVENT_FIELDS:
            extract = EVENT_FIELDS[name]
            return _column(info, argument, [extract(event, argument) for event in self._events])
        if name in DESCRIPTOR_FIELDS:
            of_descriptor = DESCRIPTOR_FIELDS[name]
            found, places = self._distinct("descriptor")
            values = [None if item is None else of_descriptor(item, self._host) for item in found]
            return _column(info, argument, values).take(places)
        of_context = CONTEXT_FIELDS.get(name) or CONTAINER_FIELDS.get(name)
        if of_context is not None:
            found, places = self._distinct("context")
            values = [None if item is None else of_context(item, argument) for item in found]
            return _column(info, argument, values).take(places)
        return self._clock(name)

    def _distinct(self, member: str) -> tuple[list[Any], NDArray[np.int64]]:
        """The distinct objects that the events hold, and which one each of them has."""
        if member not in self._shared:
            found: list[Any] = []
            places: dict[int, int] = {}
            chosen = np.empty(len(self._events), np.int64)
            for row, event in enumerate(self._events):
                item = getattr(event, member)
                place = places.get(id(item))
                if place is None:
                    place = places[id(item)] = len(found)
                    found.append(item)
                chosen[row] = place
            self._shared[member] = (found, chosen)
        return self._shared[member]

    def _clock(self, name: str) -> AnyColumn | None:
        base, _, unit = name.rpartition(".")
        clock = self._clocks.get(name if unit not in ("s", "ns") else base)
        if clock is None:
            return None
        if unit == "s":
            return NumberColumn(clock // _SECOND_NS)
        return NumberColumn(clock % _SECOND_NS if unit == "ns" else clock)


def _column(info: FieldInfo, argument: str | None, values: list[Any]) -> Column | NumberColumn | ListColumn:
    many = "E" in info.flags or ("Y" in info.flags and argument is None)
    if many:
        return list_column(values)
    if info.type == "BOOL" or info.type in NUMBER_TYPES:
        present = np.fromiter((_fits(value) for value in values), np.bool_, len(values))
        dtype = np.bool_ if info.type == "BOOL" else np.int64
        numbers = (value if there else 0 for value, there in zip(values, present.tolist(), strict=True))
        return NumberColumn(np.fromiter(numbers, dtype, len(values)), present)
    return text_column(values)


def _fits(value: int | None) -> bool:
    """Whether a number is there and has 63 bits; a capture may hold any."""
    return value is not None and -_INT64_LIMIT <= value < _INT64_LIMIT
