"""Counts of what processes do, from the event stream: executions, opens, connections, errors by group.

Each batch is counted in columns: a group is looked up once a process and batch, never once an event.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.containermetrics import NamesOf
from agent.counttable import CountTable
from agent.events import Events
from agent.grouplabels import GROUP_LABELS, group_labels
from agent.probe.layout import (
    CALL_LIMIT,
    KIND_CALL,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
    SOCKET,
    TUPLE_STRUCT,
)
from agent.processes import Process, ProcessTable
from agent.processgroups import OTHER, Group, GroupNames
from ingest.gathered import Family, Gathered, counter
from security.fields.parameters import escape

GROUPS_LIMIT = 1000
CALLS = ("open", "openat", "openat2", "creat", "connect", "accept", "accept4", "execve", "execveat")
"""System calls to enable for these metrics; more are counted when others enable them."""

OPERATIONS = ("execute", "open", "connect", "accept", "send", "receive", "other")
_OPERATION_OF = {
    **dict.fromkeys(("execve", "execveat"), 0),
    **dict.fromkeys(("open", "openat", "openat2", "creat"), 1),
    "connect": 2,
    **dict.fromkeys(("accept", "accept4"), 3),
    **dict.fromkeys(("sendto", "sendmsg"), 4),
    **dict.fromkeys(("recvfrom", "recvmsg"), 5),
}
_EXECUTE, _OPEN, _CONNECT, _ACCEPT, _SEND, _RECEIVE, _OTHER = range(len(OPERATIONS))
PROTOCOLS = ("tcp", "udp", "unix", "other")

ERROR_CLASSES = (
    "permission",
    "not_found",
    "exists",
    "network",
    "resources",
    "interrupted",
    "invalid",
    "other",
)
_ERRORS: tuple[tuple[str, ...], ...] = (
    ("EPERM", "EACCES", "EROFS"),
    ("ENOENT", "ENOTDIR", "ESRCH", "ENODEV", "ENXIO"),
    ("EEXIST", "EISDIR", "ENOTEMPTY", "EBUSY", "ETXTBSY"),
    (
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"),
        *("ENETDOWN", "EHOSTDOWN", "EPIPE", "ENOTCONN", "EADDRINUSE", "EADDRNOTAVAIL"),
    ),
    ("ENOMEM", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "ENOBUFS", "EAGAIN"),
    ("EINTR", "ECANCELED"),
    ("EINVAL", "EBADF", "EFAULT", "ENOSYS", "EOPNOTSUPP", "ENOTSOCK", "ENAMETOOLONG", "ELOOP", "ENOEXEC"),
)
_ERRNO_LIMIT = 4096
_RESTARTS = range(512, 517)
"""What the kernel notes for an interrupted call that starts again."""

(
    _EXECUTIONS,
    _FORKS,
    _EXITS,
    _LIFETIME,
    _OPENS,
    _OUTGOING,
    _INCOMING,
    _SENT,
    _RECEIVED,
    _FAILURES,
) = np.cumsum([0, 1, 1, 3, 1, 1, len(PROTOCOLS), len(PROTOCOLS), 1, 1]).tolist()
"""First column of each metric."""
_COLUMN_COUNT = _FAILURES + len(OPERATIONS) * len(ERROR_CLASSES)
_EXIT_CLASSES = ("success", "failure", "signal")

Column = tuple[Family, int, tuple[str, ...]]


def _columns() -> list[Column]:
    """Family, column and further label values of every series of a group."""

    def family(name: str, text: str, *labels: str) -> Family:
        return counter(f"vedette_process_{name}_total", text, *GROUP_LABELS, *labels)

    outgoing = family("connections", "Connections that succeeded or were begun.", "direction", "protocol")
    exits = family("exits", "Processes that ended.", "result")
    errors = family("errors", "Calls that failed.", "operation", "error")
    found: list[Column] = [
        (family("executions", "Programs started."), _EXECUTIONS, ()),
        (family("forks", "Processes created."), _FORKS, ()),
        (family("lifetime_seconds", "Seconds that ended processes had lived."), _LIFETIME, ()),
        (family("opens", "Files opened."), _OPENS, ()),
        (family("sent_bytes", "Bytes of the reported send calls."), _SENT, ()),
        (family("received_bytes", "Bytes of the reported receive calls."), _RECEIVED, ()),
    ]
    found += [(exits, _EXITS + at, (name,)) for at, name in enumerate(_EXIT_CLASSES)]
    for at, name in enumerate(PROTOCOLS):
        found += [(outgoing, _OUTGOING + at, ("out", name)), (outgoing, _INCOMING + at, ("in", name))]
    for operation, name in enumerate(OPERATIONS):
        for kind, text in enumerate(ERROR_CLASSES):
            found.append((errors, _FAILURES + operation * len(ERROR_CLASSES) + kind, (name, text)))
    return found


def _error_classes() -> NDArray[np.int64]:
    """Class by errno, -1 for what is no error: not yet, would wait, starts again."""
    classes = np.full(_ERRNO_LIMIT, len(ERROR_CLASSES) - 1, np.int64)
    for kind, names in enumerate(_ERRORS):
        for name in names:
            classes[getattr(errno, name)] = kind
    classes[[0, errno.EINPROGRESS, errno.EALREADY, *_RESTARTS]] = -1
    return classes


class EventCounts:
    """Consumer of a `Watcher` and source of a `HostCollector`; `consume` and `collect` may run at once."""

    name = "events"

    def __init__(
        self,
        names: GroupNames,
        names_of: NamesOf = lambda _: None,
        limit: int = GROUPS_LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = names
        self._labels = group_labels(names_of)
        self._monotonic = monotonic
        self._counts: CountTable[Group] = CountTable(OTHER, limit, _COLUMN_COUNT)
        self._lock = threading.Lock()
        self._columns = _columns()
        self._error_classes = _error_classes()
        self._operations: NDArray[np.int64] = np.full(CALL_LIMIT + 8, -1, np.int64)
        self.errors: dict[str, str] = {}

    def consume(self, events: Events, table: ProcessTable) -> None:
        """Count a batch; the table is as after it."""
        header = events.batch.header
        fork = header["kind"] == KIND_FORK
        pids = np.where(fork, header["ppid"], header["pid"])
        starts = np.where(fork, header["parent_start_ns"], header["start_ns"])
        first, inverse = distinct(starts, pids)
        groups = [
            self._group(table.get(int(pids[row]), int(starts[row])), header["comm"][row])
            for row in first.tolist()
        ]
        added = _Added(events, self._operations_of(events), self._error_classes)
        now = self._monotonic()
        with self._lock:
            rows = np.array([self._counts.row(group, now) for group in groups], np.intp)[inverse]
            for column, at, amount in added.parts():
                np.add.at(self._counts.values, (rows[at], column), amount)

    def collect(self, out: Gathered) -> None:
        """Add the series of all groups; those that are 0 are left out."""
        with self._lock:
            self._counts.forget(self._monotonic())
            found = [(group, values.copy()) for group, values in self._counts.items()]
            folded = self._counts.folded_count
        out.add(FOLDED, folded, "process_group")
        for group, values in found:
            labels = self._labels(group)
            for family, column, further in self._columns:
                if values[column]:
                    out.add(family, values[column], *labels, *further)

    def _group(self, process: Process | None, comm: bytes) -> Group:
        if process is None:
            return Group(escape(comm.decode("utf-8", "surrogateescape")), "")
        return self._names.group(process)

    def _operations_of(self, events: Events) -> NDArray[np.int64]:
        """Operation by row; the type of a call is looked up once."""
        found = self._operations[events.codes]
        for code in np.unique(events.codes[found < 0]).tolist():
            row = int((events.codes == code).argmax())
            self._operations[code] = _OPERATION_OF.get(events.type(row), _OTHER)
        return self._operations[events.codes]


FOLDED = counter(
    "vedette_agent_folded_keys_total", "Look-ups of keys beyond a limit, counted as `other`.", "kind"
)


def distinct(*columns: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First row of each distinct combination of integer columns, and for each row its combination's number.

    Compares 64-bit mixtures of the columns: of a million combinations two meet with a chance of 3 in 10^8.
    """
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    return first, inverse


class _Added:
    """What a batch adds, as (column or columns, rows, amounts)."""

    def __init__(
        self, events: Events, operations: NDArray[np.int64], error_classes: NDArray[np.int64]
    ) -> None:
        self._events = events
        self._operations = operations
        self._error_classes = error_classes

    def parts(self) -> list[tuple[Any, NDArray[np.intp], Any]]:
        header = self._events.batch.header
        kind, result = header["kind"], header["result"]
        exits = np.flatnonzero(kind == KIND_EXIT)
        lived = (header["time_ns"][exits] - header["start_ns"][exits]).astype(np.int64) / 1e9
        call = kind == KIND_CALL
        done = call & (result >= 0)
        opens = np.flatnonzero(done & (self._operations == _OPEN))
        parts: list[tuple[Any, NDArray[np.intp], Any]] = [
            (_EXECUTIONS, np.flatnonzero(kind == KIND_EXEC), 1),
            (_FORKS, np.flatnonzero(kind == KIND_FORK), 1),
            (_EXITS + _exit_classes(result[exits]), exits, 1),
            (_LIFETIME, exits, np.maximum(lived, 0)),
            (_OPENS, opens, 1),
            *self._connections(call, done),
        ]
        for operation, column in ((_SEND, _SENT), (_RECEIVE, _RECEIVED)):
            rows = np.flatnonzero(done & (self._operations == operation))
            parts.append((column, rows, result[rows]))
        failed = np.flatnonzero(call & (result < 0) & (result > -_ERRNO_LIMIT))
        classes = self._error_classes[-result[failed]]
        # A socket that never waits says so at each look: no failure.
        waiting = (result[failed] == -errno.EAGAIN) & np.isin(
            self._operations[failed], (_ACCEPT, _SEND, _RECEIVE)
        )
        real = (classes >= 0) & ~waiting
        failed, classes = failed[real], classes[real]
        columns = _FAILURES + self._operations[failed] * len(ERROR_CLASSES) + classes
        parts.append((columns, failed, 1))
        return parts

    def _connections(
        self, call: NDArray[np.bool_], done: NDArray[np.bool_]
    ) -> list[tuple[Any, NDArray[np.intp], Any]]:
        result = self._events.batch.header["result"]
        begun = done | (call & (result == -errno.EINPROGRESS))
        parts: list[tuple[Any, NDArray[np.intp], Any]] = []
        for operation, column in ((_CONNECT, _OUTGOING), (_ACCEPT, _INCOMING)):
            rows = np.flatnonzero(begun & (self._operations == operation))
            if len(rows):
                sockets = self._events.batch.select(rows).structs(SOCKET, TUPLE_STRUCT)
                parts.append((column + protocols(sockets), rows, 1))
        return parts


def _exit_classes(status: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 for a success, 1 for another code, 2 for a signal, by wait status."""
    return np.where(status & 0x7F != 0, 2, np.where(status >> 8 & 0xFF != 0, 1, 0))


def protocols(sockets: NDArray[Any]) -> NDArray[np.int64]:
    """Index into `PROTOCOLS` of each `TUPLE_STRUCT`."""
    inet = np.isin(sockets["family"], (2, 10))
    choices = [inet & (sockets["protocol"] == 6), inet & (sockets["protocol"] == 17), sockets["family"] == 1]
    return np.select(choices, [0, 1, 2], 3)
