"""Some events of a batch, and what columns of their fields are made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.containers import UserNames
from agent.events import Events
from agent.fields.interning import RowInterner
from agent.fields.sockets import Sockets
from agent.fields.subjects import LINEAGE, PROCESS, Lineage, Subjects
from agent.fields.vocabulary import Lasting
from agent.probe.layout import CALL_LIMIT, DESCRIPTOR_STRUCT, FD, SOCKET
from agent.processes import Process, ProcessTable
from agent.processnow import ProcessNow, ThreadUse
from agent.runtimes.info import ContainerInfo
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, Dictionary, NumberColumn
from security.fields.containerids import ContainerPath

ContainerInfos = Callable[[str], ContainerInfo | None]
CODES_LIMIT = CALL_LIMIT + 8
"""Above every code of an event's type."""
CONTAINERS_LIMIT = 65_536
HOST_NUMBER = 0


@dataclass
class Known:
    """What is kept from batch to batch. One thread."""

    container_info: ContainerInfos = field(default=lambda identity: None)
    address_names: Callable[[str], str | None] = field(default=lambda address: None)
    users: UserNames = field(default_factory=UserNames)
    lasting: Lasting = field(default_factory=Lasting)
    destinations: dict[int, bytes] = field(default_factory=dict)
    """Last other end of each datagram socket, by inode (`fd.name_changed`)."""
    sources: dict[str, Dictionary] = field(default_factory=dict)
    """The dictionary whose codes a derived field's memo is about."""
    thread_use: ThreadUse = field(default_factory=ThreadUse)

    def __post_init__(self) -> None:
        self.subjects = Subjects(self.lasting)
        self._interners: dict[Hashable, RowInterner] = {}
        self.containers: list[ContainerPath | None] = [None]
        self._container_numbers: dict[str, int] = {}
        self._running: dict[tuple[int, int], ProcessNow] = {}

    def process_now(self, pid: int, start_ns: int) -> ProcessNow:
        """A process as `/proc` shows it, read once a batch."""
        found = self._running.get((pid, start_ns))
        if found is None:
            found = self._running[pid, start_ns] = ProcessNow(pid, start_ns)
        return found

    def begin_batch(self) -> None:
        """Let go of what has become too large; columns of earlier batches are not used any more."""
        self.lasting.begin_batch()
        self._running.clear()
        self.subjects.begin_batch()
        for interner in self._interners.values():
            interner.begin_batch()
        if len(self.containers) >= CONTAINERS_LIMIT:
            del self.containers[1:]
            self._container_numbers.clear()
            self.lasting.clear(PROCESS)

    def interner(self, key: Hashable, name: Hashable, slots: tuple[int, ...]) -> RowInterner:
        """The interner of a field (`name` is that of its dictionary) for one way of making its key."""
        found = self._interners.get(key)
        if found is None:
            found = self._interners[key] = RowInterner(self.lasting.vocabulary(name), slots)
        return found

    def container_number(self, process: Process) -> int:
        """A small number for the container of a process, `HOST_NUMBER` outside of containers."""
        path = process.container
        if path is None:
            return HOST_NUMBER
        known = self._container_numbers.get(path.id)
        if known is None:
            known = self._container_numbers[path.id] = len(self.containers)
            self.containers.append(path)
        return known


class View:
    """Events that columns are asked of. Lives as long as the batch."""

    def __init__(
        self,
        known: Known,
        all_events: Events,
        table: ProcessTable,
        whole: View | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """All events of the batch that the table has applied, or those at some rows of the `whole` of it."""
        self.known = known
        self.table = table
        self._all_events = all_events
        self._whole = whole
        self.rows: NDArray[np.int64] = np.arange(len(all_events)) if rows is None else rows
        self._columns: dict[ColumnKey, Column] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: NDArray[np.int64]) -> View:
        """Some of the events."""
        return View(self.known, self._all_events, self.table, self._whole or self, self.rows[places])

    @cached_property
    def events(self) -> Events:
        """The events with their records; copied when they are first asked for."""
        batch = self._all_events.batch
        chosen = batch if self._whole is None else batch.select(self.rows)
        return replace(self._all_events, batch=chosen, user_name=self.user_name)

    @property
    def header(self) -> NDArray[Any]:
        """The headers of the records."""
        return self.events.batch.header

    @cached_property
    def type_names(self) -> dict[int, str]:
        """Names of the types that occur, by code."""
        all_codes = self.events.codes
        if len(all_codes) and all_codes.min() == all_codes.max():
            return {int(all_codes[0]): self.events.type(0)}
        codes, first = np.unique(all_codes, return_index=True)
        return {code: self.events.type(row) for code, row in zip(codes.tolist(), first.tolist(), strict=True)}

    def rows_of(self, types: frozenset[str]) -> NDArray[np.bool_]:
        """Which events are of these types."""
        codes = [code for code, name in self.type_names.items() if name in types]
        if len(codes) in (0, len(self.type_names)):
            return np.full(len(self), bool(codes), np.bool_)
        wanted = np.zeros(CODES_LIMIT, np.bool_)
        wanted[codes] = True
        return np.asarray(wanted[self.events.codes])

    @cached_property
    def states(self) -> NDArray[np.int32]:
        """Numbers of the processes' states, made for the whole batch at once."""
        if self._whole is not None:
            return self._whole.states[self.rows]
        return self.known.subjects.of_events(self.header, self.rows, self.table)

    @cached_property
    def lineages(self) -> NDArray[np.int32]:
        """Numbers of the lines of ancestors, -1 where the parent is unknown."""
        if self._whole is not None:
            return self._whole.lineages[self.rows]
        return self.known.subjects.ancestors_of_events(self.header, self.rows, self.states, self.table)

    @cached_property
    def containers(self) -> NDArray[np.int32]:
        """Numbers of the containers."""
        if self._whole is not None:
            return self._whole.containers[self.rows]
        memo = self.known.lasting.number_memo(PROCESS, "container")
        processes = self.known.subjects.processes
        column = memo.column(self.states, lambda number: self.known.container_number(processes[number]))
        return column.values.astype(np.int32)

    @cached_property
    def has_socket(self) -> bool:
        """Whether any event is about a socket."""
        return bool((self.events.batch.length[:, SOCKET] >= 0).any())

    @cached_property
    def sockets(self) -> Sockets:
        """The ends of sockets."""
        return Sockets(self.events.batch, self.rows_of)

    def column(self, key: ColumnKey, make: Callable[[], Column]) -> Column:
        """A column that others are made from, made once."""
        if key not in self._columns:
            self._columns[key] = make()
        return self._columns[key]

    @cached_property
    def descriptors(self) -> NDArray[Any]:
        """`layout.DESCRIPTOR_STRUCT` an event, zeros where there is no descriptor."""
        return self.events.batch.structs(FD, DESCRIPTOR_STRUCT)

    @cached_property
    def has_descriptor(self) -> NDArray[np.bool_]:
        """Whether the kernel found the descriptor of the event."""
        return np.asarray(self.events.batch.length[:, FD] == DESCRIPTOR_STRUCT.itemsize)

    def process(self, row: int) -> Process:
        """The process of an event."""
        return self.known.subjects.processes[int(self.states[row])]

    def lineage(self, row: int) -> Lineage:
        """The ancestors of an event's process, the parent first; empty when it is unknown."""
        number = int(self.lineages[row])
        return () if number < 0 else self.known.subjects.lineages[number]

    def user_name(self, uid: int, row: int) -> str:
        """Name of a user as the process of an event sees it, empty when there is none."""
        now_ns = int(self.header["time_ns"][row])
        return self.known.users.user(uid, self.process(row), now_ns)

    # Ways of making a column.

    def of_state(self, key: ColumnKey, make: Callable[[Process], Hashable]) -> Column:
        """A value that follows from the state of the process."""
        processes = self.known.subjects.processes
        memo = self.known.lasting.memo(PROCESS, key)
        return memo.column(self.states, lambda number: make(processes[number]))

    def number_of_state(self, key: ColumnKey, make: Callable[[Process], int | None]) -> NumberColumn:
        """A number that follows from the state of the process."""
        processes = self.known.subjects.processes
        memo = self.known.lasting.number_memo(PROCESS, key)
        return memo.column(self.states, lambda number: make(processes[number]))

    def of_lineage(self, key: ColumnKey, make: Callable[[Lineage], Hashable]) -> Column:
        """A value that follows from the ancestors."""
        lineages = self.known.subjects.lineages
        memo = self.known.lasting.memo(LINEAGE, key)
        return memo.column(self.lineages, lambda number: make(lineages[number]))

    def of_groups(self, key: ColumnKey, groups: NDArray[np.int64], make: Callable[[int], Hashable]) -> Column:
        """A value that is the same for equal `groups` in this batch, but not for ever; `make` gets a row."""
        vocabulary = self.known.lasting.vocabulary(key)
        if len(groups) and groups.min() == groups.max():
            codes = np.full(len(groups), vocabulary.code(make(0)), np.int32)
            return Column(codes, vocabulary.dictionary)
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        codes = np.fromiter((vocabulary.code(make(row)) for row in first.tolist()), np.int32, len(first))
        return Column(codes[inverse], vocabulary.dictionary)

    def of_rows(
        self, key: ColumnKey, make: Callable[[int], Hashable], present: NDArray[np.bool_] | None = None
    ) -> Column:
        """A value made for each event by itself: for fields that are asked of few events."""
        vocabulary = self.known.lasting.vocabulary(key)
        codes = np.full(len(self), MISSING_CODE, np.int32)
        rows = range(len(self)) if present is None else np.flatnonzero(present).tolist()
        for row in rows:
            codes[row] = vocabulary.code(make(row))
        return Column(codes, vocabulary.dictionary)

    def of_bytes(
        self,
        key: ColumnKey,
        slots: tuple[int, ...],
        make: Callable[[int], Hashable],
        numbers: tuple[NDArray[np.int64], ...] = (),
        present: NDArray[np.bool_] | None = None,
    ) -> Column:
        """A value that follows from bytes of the record and from numbers; made once for each that is new."""
        interner = self.known.interner((key, slots, len(numbers)), key, slots)
        batch = self.events.batch
        if present is None or present.all():
            return interner.column(batch, _heads(numbers, len(self)), make)
        rows = np.flatnonzero(present)
        heads = _heads(tuple(number[rows] for number in numbers), len(rows))
        found = interner.column(batch.select(rows), heads, lambda place: make(int(rows[place])))
        codes = np.full(len(self), MISSING_CODE, np.int32)
        codes[rows] = found.codes
        return Column(codes, found.dictionary)


def _heads(numbers: tuple[NDArray[np.int64], ...], count: int) -> NDArray[np.int64]:
    if not numbers:
        return np.zeros((count, 0), np.int64)
    return np.ascontiguousarray(np.stack(numbers, axis=1).astype(np.int64))


Loader = Callable[[View, ColumnKey], AnyColumn | None]


def booleans(column: NumberColumn) -> NumberColumn:
    """Numbers as truth values."""
    return NumberColumn(column.values.astype(np.bool_), column.present)


def numbers_where(values: NDArray[Any], present: NDArray[np.bool_]) -> NumberColumn:
    """Numbers that some events lack."""
    return NumberColumn(values, None if present.all() else present)
