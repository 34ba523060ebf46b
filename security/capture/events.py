"""Events of a capture: from their blocks, with the entry of a call merged into its exit.

Today's events are exits that have all parameters. In older captures some stand in the entry only; it is kept
until the exit of the same thread.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from security.capture.blocks import EVENTS, Block
from security.capture.cursor import CaptureError
from security.capture.descriptors import Descriptor
from security.capture.eventtable import ENTER, EXIT, HIDDEN, EventSpec, current_events, event_table
from security.capture.parametertypes import DECODERS, Value
from security.capture.state import Context
from security.fields import syscalls

PARAMETERS_LIMIT = 64
ENTRIES_LIMIT = 65_536
"""Calls that have begun and not ended, one a thread."""
ENTRY_BYTES_LIMIT = 16_384
_TIME_LIMIT_NS = 1 << 63
_HEADER = struct.Struct("<QQIH")
_HEADER_COUNTED = struct.Struct("<QQIHI")
_GENERIC = "syscall"
_RESULTS = ("res", "fd")
"""The first parameter of an exit, where it is what the call returned."""


@dataclass(slots=True)
class Event:
    """One event. The state of the capture fills in the last members."""

    time_ns: int
    tid: int
    cpu: int
    name: str
    spec: EventSpec
    values: dict[str, Value] = field(default_factory=dict)
    context: Context | None = None
    descriptor: Descriptor | None = None
    name_changed: bool = False
    files: dict[int, Descriptor] = field(default_factory=dict)
    """The descriptors that parameters name, as they were."""

    def number(self, name: str) -> int | None:
        """A parameter that is a number."""
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def text(self, name: str) -> str | None:
        """A parameter that is a text."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    @property
    def result(self) -> int | None:
        """What the call returned (`evt.rawres`)."""
        first = self.spec.parameters[0].name if self.spec.parameters else ""
        return self.number(first) if first in _RESULTS else None

    @property
    def is_hidden(self) -> bool:
        """Whether it only changes the state."""
        return self.spec.direction == HIDDEN


class EventReader:
    """Reads the event blocks of one capture in order."""

    def __init__(self, machine: str = "x86_64") -> None:
        self.machine = machine
        self.unknown: Counter[int] = Counter()
        """Events of numbers that are not in the table, by number."""
        self.left_out = 0
        """Entries of calls that were over a limit; their exits have fewer parameters."""
        self._table = event_table()
        self._current = current_events()
        self._entries: dict[int, tuple[int, dict[str, Value]]] = {}

    def read(self, block: Block) -> Event | None:
        """The event of a block, None for the entry of a call and for unknown numbers."""
        cpu, time_ns, tid, code, parameters = _parse(block)
        spec = self._table.get(code)
        if spec is None:
            self.unknown[code] += 1
            return None
        values: dict[str, Value] = {}
        for item, data in zip(spec.parameters, parameters, strict=False):
            value = DECODERS[item.type](data)
            if value is not None:
                values[item.name] = value
        if spec.direction == ENTER:
            self._enter(tid, code, values, len(block.body))
            return None
        if spec.direction == EXIT:
            entered, earlier = self._entries.pop(tid, (-1, values))
            if entered == code - 1:
                values = {**earlier, **values}
        name = self._call(values) if spec.name == _GENERIC else spec.name
        current = spec if spec.direction == HIDDEN else self._current[spec.name]
        return Event(time_ns, tid, cpu, name, current, values)

    def _enter(self, tid: int, code: int, values: dict[str, Value], size: int) -> None:
        """Keep the entry of a call until its exit."""
        if len(self._entries) >= ENTRIES_LIMIT:
            self.left_out += len(self._entries)
            self._entries.clear()
        if size > ENTRY_BYTES_LIMIT:
            self.left_out += 1
            self._entries.pop(tid, None)
        else:
            self._entries[tid] = (code, values)

    def _call(self, values: dict[str, Value]) -> str:
        """Name of a call that has no event of its own."""
        number = values.get("nativeID")
        try:
            known = syscalls.names(self.machine)
        except LookupError:
            return _GENERIC
        return known.get(number, _GENERIC) if isinstance(number, int) else _GENERIC


def _parse(block: Block) -> tuple[int, int, int, int, list[bytes]]:
    """CPU, time, thread, number and the bytes of the parameters."""
    has_flags, counted, large = EVENTS[block.type]
    body = block.body
    at = 6 if has_flags else 2
    header = _HEADER_COUNTED if counted else _HEADER
    if len(body) < at + header.size:
        raise CaptureError(f"event of {len(body)} bytes is less than its header", block.offset)
    count = -1
    if counted:
        time_ns, tid, length, code, count = _HEADER_COUNTED.unpack_from(body, at)
    else:
        time_ns, tid, length, code = _HEADER.unpack_from(body, at)
    if time_ns >= _TIME_LIMIT_NS or tid >= _TIME_LIMIT_NS:
        raise CaptureError(f"time {time_ns} or thread {tid} of an event is out of range", block.offset)
    end = at + length
    if end > len(body):
        raise CaptureError(f"event says {length} bytes, block has {len(body) - at}", block.offset)
    lengths = _lengths(body, at + header.size, end, count, 4 if large else 2)
    if lengths is None:
        raise CaptureError(f"lengths of parameters do not make {length} bytes", block.offset)
    place = at + header.size + len(lengths) * (4 if large else 2)
    parameters = []
    for size in lengths:
        parameters.append(body[place : place + size])
        place += size
    return int.from_bytes(body[:2], "little"), time_ns, tid, code, parameters


def _lengths(body: bytes, start: int, end: int, count: int, width: int) -> list[int] | None:
    """Lengths of the parameters, None when they do not fill the event exactly.

    Older events do not count their parameters. Each further one makes the event longer, so one number fits.
    """
    lengths: list[int] = []
    total = 0
    at = start
    while at + total < end if count < 0 else len(lengths) < count:
        if at + width > end or len(lengths) >= PARAMETERS_LIMIT:
            return None
        size = int.from_bytes(body[at : at + width], "little")
        lengths.append(size)
        total += size
        at += width
    return lengths if at + total == end else None
