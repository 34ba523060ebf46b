"""What each view of `vedette top` shows: the labels of a row, and a metric for each column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Row = tuple[tuple[str, ...], tuple[float | None, ...]]
"""Texts of the key, then one value a column; None where there is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One metric summed over all labels but the row's; `rate` asks for its increase a second."""

    metric: str
    rate: bool = False
    where: tuple[tuple[str, str], ...] = ()


Reading = Mapping[Wanted, Mapping[tuple[str, ...], float]]
"""Values by the labels of the view that asked."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the view of events."""

    time_seconds: float
    priority: str
    name: str
    text: str


class Source(Protocol):
    """Where numbers and events come from. Used by one thread."""

    title: str
    note: str
    """Why something is missing, empty when nothing is."""

    def read(self, labels: Sequence[str], wanted: Sequence[Wanted]) -> Reading:
        """Values now. Raises SourceError."""
        ...

    def happenings(self) -> list[Happening]:
        """The newest events, newest first. Raises SourceError."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class SourceError(Exception):
    """Numbers cannot be had now; the text is one line."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers and how they are written."""

    title: str
    wanted: Wanted
    show: Callable[[float], str]
    about: str


@dataclass(frozen=True, slots=True)
class View:
    """A table: its row labels with their titles, its numbers, the column to sort by at first."""

    name: str
    labels: tuple[str, ...]
    titles: tuple[str, ...]
    columns: tuple[Column, ...] = field(default=())
    sort: int = 0

    def rows(self, reading: Reading) -> list[Row]:
        """One row a label set that any column has more than 0 for. Totals have no name and are left out."""
        keys = {key for values in reading.values() for key, value in values.items() if key[0] and value}
        values = [reading.get(column.wanted, {}) for column in self.columns]
        return [(key, tuple(column.get(key) for column in values)) for key in keys]


def amount(value: float) -> str:
    """A number in few characters: 0.5, 12, 3.4k, 56M."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """Bytes in binary units: 512, 1.5K, 20M."""
    return _scaled(value, 1024, ("", "K", "M", "G", "T"))


def limit(value: float) -> str:
    """Bytes of a limit; 0 stands for none."""
    return size(value) if value else "-"


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    at = 0
    while value >= base - 0.5 and at + 1 < len(units):
        value, at = value / base, at + 1
    return f"{value:.1f}{units[at]}" if 0.05 <= value < 9.95 and value % 1 else f"{value:.0f}{units[at]}"


def percent(value: float) -> str:
    """A share of one core."""
    return f"{value * 100:.1f}"


def milliseconds(value: float) -> str:
    """Seconds in milliseconds."""
    return f"{value * 1000:.1f}"


_GROUP, _CONNECTION = "namedprocess_namegroup", "vedette_connection"
PROCESSES = View(
    "processes",
    ("groupname", "name"),
    ("GROUP", "CONTAINER"),
    (
        Column("PROCS", Wanted(f"{_GROUP}_num_procs"), amount, "processes of the group"),
        Column(
            "CPU%",
            Wanted(f"{_GROUP}_cpu_seconds_total", rate=True),
            percent,
            "processor use; 100 is one core",
        ),
        Column(
            "MEM",
            Wanted(f"{_GROUP}_memory_bytes", where=(("memtype", "resident"),)),
            size,
            "resident memory; pages that processes share count for each",
        ),
        Column("READ/s", Wanted(f"{_GROUP}_read_bytes_total", rate=True), size, "bytes read from disks"),
        Column("WRITE/s", Wanted(f"{_GROUP}_write_bytes_total", rate=True), size, "bytes written to disks"),
        Column("EXEC/s", Wanted("vedette_process_executions_total", rate=True), amount, "programs started"),
        Column("OPEN/s", Wanted("vedette_process_opens_total", rate=True), amount, "files opened"),
        Column("ERR/s", Wanted("vedette_process_errors_total", rate=True), amount, "calls that failed"),
    ),
    sort=1,
)
CONTAINERS = View(
    "containers",
    ("name", "image"),
    ("CONTAINER", "IMAGE"),
    (
        Column("PROCS", Wanted("container_processes"), amount, "processes"),
        Column(
            "CPU%",
            Wanted("container_cpu_usage_seconds_total", rate=True),
            percent,
            "processor use; 100 is one core",
        ),
        Column(
            "MEM",
            Wanted("container_memory_working_set_bytes"),
            size,
            "memory without what can be dropped at once",
        ),
        Column("LIMIT", Wanted("container_spec_memory_limit_bytes"), limit, "limit of memory, - for none"),
        Column("RX/s", Wanted("container_network_receive_bytes_total", rate=True), size, "bytes received"),
        Column("TX/s", Wanted("container_network_transmit_bytes_total", rate=True), size, "bytes sent"),
    ),
    sort=1,
)
CONNECTIONS = View(
    "connections",
    ("client", "server", "port", "protocol"),
    ("CLIENT", "SERVER", "PORT", "PROTO"),
    (
        Column("OPEN", Wanted(f"{_CONNECTION}_open"), amount, "connections that are open"),
        Column("NEW/s", Wanted(f"{_CONNECTION}_opened_total", rate=True), amount, "connections made"),
        Column("FAIL/s", Wanted(f"{_CONNECTION}_failed_total", rate=True), amount, "connections that failed"),
        Column("SENT/s", Wanted(f"{_CONNECTION}_sent_bytes_total", rate=True), size, "bytes sent"),
        Column("RECV/s", Wanted(f"{_CONNECTION}_received_bytes_total", rate=True), size, "bytes received"),
        Column(
            "RTT ms",
            Wanted(f"{_CONNECTION}_round_trip_seconds"),
            milliseconds,
            "round trip as the kernel measures it",
        ),
    ),
    sort=1,
)
EVENTS = View("events", (), ())
VIEWS = (PROCESSES, CONTAINERS, CONNECTIONS, EVENTS)
