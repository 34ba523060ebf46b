"""Events from records: type, columns, and parameters as text in upstream's order and rendering.

Columns of numbers come straight from the header array. Text is made for the rows that are asked for, few as a
rule: those a rule could match.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.descriptors import Descriptor, descriptor
from agent.eventtypes import ALIASES, EXIT_EVENT, FORK_EVENT, ParameterSpec, parameter_table
from agent.probe.layout import (
    ADDRESS,
    ARGS,
    CALL_LIMIT,
    CGROUP,
    CWD,
    DATA,
    DIR1,
    ENV,
    EXE,
    EXTRA,
    KIND_EXIT,
    KIND_FORK,
    PATH1,
    PROCESS,
    PROCESS_STRUCT,
)
from agent.probe.ringbuffer import Batch, names_to_path
from security.fields import flagnames
from security.fields.connections import endpoint, unix_path
from security.fields.parameters import Parameter, arguments_line, described, printable
from security.fields.paths import absolute_path
from security.fields.syscalls import names

AT_FDCWD = -100
EXECUTIONS = frozenset(("execve", "execveat"))
OF_FAILED_EXECUTION = frozenset(("res", "head", "comm", "owner", "given"))
"""Kinds of parameters of an execution that a failed one has too."""
PAGE_KIB = 4
BitNames = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Events:
    """A batch of records seen as events. Not thread-safe: what was made once is kept."""

    batch: Batch
    machine: str
    boot_unix_ns: int
    """CLOCK_REALTIME minus CLOCK_BOOTTIME."""
    user_name: Callable[[int, int], str] = field(default=lambda uid, row: "")
    """Name of a user as the process of a row sees it, empty when there is none."""

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def process(self) -> npt.NDArray[Any]:
        """`layout.PROCESS_STRUCT` a row; zeros for records that are neither executions nor forks."""
        return self.batch.structs(PROCESS, PROCESS_STRUCT)

    @cached_property
    def time_unix_ns(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.batch.header["time_ns"].astype(np.int64) + self.boot_unix_ns)

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """A number a type: the system call, or `CALL_LIMIT` plus the record kind for forks and exits."""
        header = self.batch.header
        other = (header["kind"] == KIND_FORK) | (header["kind"] == KIND_EXIT)
        return np.where(other, CALL_LIMIT + header["kind"].astype(np.int64), header["nr"].astype(np.int64))

    def type(self, row: int) -> str:
        """Name of the event (`evt.type`)."""
        code = int(self.codes[row])
        if code >= CALL_LIMIT:
            return EXIT_EVENT if code == CALL_LIMIT + KIND_EXIT else FORK_EVENT
        name = names(self.machine).get(code, f"syscall_{code}")
        return ALIASES.get(name, name)

    def rows_of(self, *types: str) -> npt.NDArray[np.intp]:
        """Rows of the events of these types."""
        codes = {int(code) for code in np.unique(self.codes)}
        first = {code: int((self.codes == code).argmax()) for code in codes}
        wanted = [code for code, row in first.items() if self.type(row) in types]
        return np.flatnonzero(np.isin(self.codes, wanted))

    def parameters(self, row: int) -> tuple[Parameter, ...]:
        """All parameters of an event; none for calls without a description."""
        renderer = Renderer(self, row)
        return tuple(renderer.render(spec) for spec in self._specs(row))

    def parameter(self, row: int, name: str) -> Parameter | None:
        """One parameter of an event, None when the event has none of that name."""
        for spec in self._specs(row):
            if spec.name == name:
                return Renderer(self, row).render(spec)
        return None

    def _specs(self, row: int) -> tuple[ParameterSpec, ...]:
        """Parameters the record tells: an execution that failed has nothing of the program."""
        kind = self.type(row)
        specs = _TABLE.get(kind, ())
        if kind in EXECUTIONS and self.batch.header["result"][row] < 0:
            return tuple(spec for spec in specs if spec.kind in OF_FAILED_EXECUTION)
        return specs

    def render(self, row: int, spec: ParameterSpec) -> Parameter:
        """The parameter of an event that a description asks for."""
        return Renderer(self, row).render(spec)

    def arguments(self, row: int) -> str:
        """All parameters on one line (`evt.args`): ``name=raw(resolved)`` joined by blanks."""
        return arguments_line(self.parameters(row))

    def descriptor(self, row: int) -> Descriptor | None:
        """The descriptor an event is about, as it was then."""
        return descriptor(self.batch, row, self.type(row))

    def path(self, row: int, which: int) -> str | None:
        """Path 1 or 2 of an event made absolute and normalised; None when it could not be read.

        Symbolic links are not followed; see `descriptor` for where an open really led.
        """
        raw = self.batch.field(row, PATH1 + which - 1)
        if raw is None:
            return None
        text = raw.decode("utf-8", "surrogateescape")
        base = self.batch.field(row, DIR1 + which - 1)
        if base is None:
            base = self.batch.field(row, CWD)
        return absolute_path(text, None if base is None else names_to_path(base))


class Renderer:
    """Makes the parameters of one event. Each method is a kind of `agent.eventtypes`."""

    def __init__(self, events: Events, row: int) -> None:
        self._events = events
        self._batch = events.batch
        self._row = row
        self._header = events.batch.header[row]
        self._result = int(self._header["result"])

    def render(self, spec: ParameterSpec) -> Parameter:
        """The parameter a description asks for."""
        raw, resolved = getattr(self, spec.kind)(*([spec.which] if spec.which else []))
        return Parameter(spec.name, raw, "" if resolved == raw else resolved)

    def _argument(self, which: str) -> int:
        return int(self._header["args"][int(which)])

    def _signed(self, which: str) -> int:
        value = self._argument(which) & 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value

    def _bytes(self, slot: int) -> str:
        data = self._batch.field(self._row, slot)
        return "" if data is None else data.decode("utf-8", "surrogateescape")

    def res(self) -> tuple[str, str]:
        return str(self._result), flagnames.error_name(self._result)

    def result(self) -> tuple[str, str]:
        return str(max(self._result, 0)), ""

    def zero(self) -> tuple[str, str]:
        return "0", ""

    def number(self, which: str) -> tuple[str, str]:
        return str(self._signed(which)), ""

    def uint(self, which: str) -> tuple[str, str]:
        return str(self._argument(which)), ""

    def hexadecimal(self, which: str) -> tuple[str, str]:
        return f"{self._argument(which):X}", ""

    def octal(self, which: str) -> tuple[str, str]:
        value = self._argument(which) & 0o7777
        return f"0{value:o}" if value else "0", ""

    def mode(self, which: str) -> tuple[str, str]:
        value = self._argument(which) & 0o7777
        return f"0{value:o}", flagnames.bit_names(value, flagnames.MODE_BITS)

    def _described(self, number: int) -> tuple[str, str]:
        if number < 0:
            return str(number), flagnames.error_name(number)
        found = self._events.descriptor(self._row)
        return (str(number), "") if found is None else described(number, found.type_character, found.name)

    def new(self) -> tuple[str, str]:
        return self._described(self._result)

    def fd(self, which: str) -> tuple[str, str]:
        return self._described(self._signed(which))

    def directory(self, which: str) -> tuple[str, str]:
        number = self._signed(which)
        if number == AT_FDCWD:
            return str(number), "AT_FDCWD"
        for slot in (DIR1, DIR1 + 1):
            base = self._batch.field(self._row, slot)
            if base is not None:
                return str(number), f"<d>{names_to_path(base)}"
        return str(number), ""

    def path(self, which: str) -> tuple[str, str]:
        raw, resolved = self.given(which)[0], self._events.path(self._row, int(which))
        return raw, resolved or ""

    def given(self, which: str) -> tuple[str, str]:
        return self._bytes(PATH1 + int(which) - 1), ""

    def opening(self, which: str) -> tuple[str, str]:
        return self._open_flags(self._argument(which))

    def _open_flags(self, kernel: int) -> tuple[str, str]:
        value = flagnames.open_flags(kernel)
        found = self._events.descriptor(self._row) if self._result >= 0 else None
        if found is not None:
            value |= (0, 1 << 15, 1 << 16)[found.layer] | (1 << 14 if found.created else 0)
        return str(value), flagnames.bit_names(value, flagnames.OPEN_BITS)

    def how(self, which: str) -> tuple[str, str]:
        data = self._batch.field(self._row, EXTRA) or bytes(24)
        value = int.from_bytes(data[int(which) * 8 : int(which) * 8 + 8], "little")
        if which == "0":
            return self._open_flags(value)
        return (f"0{value:o}" if value and which == "1" else str(value)), ""

    def dev(self) -> tuple[str, str]:
        found = self._events.descriptor(self._row) if self._result >= 0 else None
        return f"{found.device if found else 0:X}", ""

    def ino(self) -> tuple[str, str]:
        found = self._events.descriptor(self._row) if self._result >= 0 else None
        return str(found.inode if found else 0), ""

    def addresses(self) -> tuple[str, str]:
        found = self._events.descriptor(self._row)
        return (found.name if found else ""), ""

    def received(self) -> tuple[str, str]:
        """Source first, whoever is the client."""
        found = self._events.descriptor(self._row)
        if found is None or found.local is None or found.remote is None or not found.remote.port:
            return (found.name if found else ""), ""
        return f"{found.remote}->{found.local}", ""

    def queue(self, which: str) -> tuple[str, str]:
        found = self._events.descriptor(self._row)
        return str(found.queue[int(which)] if found else 0), ""

    def percent(self) -> tuple[str, str]:
        found = self._events.descriptor(self._row)
        waiting, limit = found.queue if found else (0, 0)
        return str(100 * waiting // limit if limit else 0), ""

    def addr(self) -> tuple[str, str]:
        raw = self._batch.field(self._row, ADDRESS)
        found = endpoint(raw)
        return (str(found) if found else unix_path(raw)), ""

    def data(self) -> tuple[str, str]:
        raw = self._batch.field(self._row, DATA) or b""
        return printable(raw), ""

    def family(self, which: str) -> tuple[str, str]:
        return str(self._signed(which)), flagnames.FAMILIES.get(self._signed(which), "")

    def ptrace(self, which: str) -> tuple[str, str]:
        return str(self._signed(which)), flagnames.PTRACE_REQUESTS.get(self._signed(which), "")

    def bpf(self, which: str) -> tuple[str, str]:
        return str(self._signed(which)), flagnames.BPF_COMMANDS.get(self._signed(which), "")

    def clone(self, which: str) -> tuple[str, str]:
        return self._bits(which, flagnames.CLONE_BITS)

    def namespaces(self, which: str) -> tuple[str, str]:
        return self._bits(which, flagnames.NAMESPACE_BITS)

    def memfd(self, which: str) -> tuple[str, str]:
        return self._bits(which, flagnames.MEMFD_BITS)

    def at(self, which: str) -> tuple[str, str]:
        return self._bits(which, flagnames.AT_BITS)

    def rename(self, which: str) -> tuple[str, str]:
        return self._bits(which, flagnames.RENAME_BITS)

    def _bits(self, which: str, table: BitNames) -> tuple[str, str]:
        value = self._argument(which) & 0xFFFFFFFF
        return str(value), flagnames.bit_names(value, table)

    def user(self, which: str) -> tuple[str, str]:
        return str(self._signed(which)), self._events.user_name(self._argument(which) & 0xFFFFFFFF, self._row)

    def owner(self) -> tuple[str, str]:
        uid = int(self._header["uid"])
        return str(uid), self._events.user_name(uid, self._row)

    def head(self, which: str) -> tuple[str, str]:
        return str(int(self._header[which])), ""

    def of(self, which: str) -> tuple[str, str]:
        return str(int(self._events.process[self._row][which])), ""

    def kib(self, which: str) -> tuple[str, str]:
        return str(int(self._events.process[self._row][which]) * PAGE_KIB), ""

    def login(self) -> tuple[str, str]:
        return str(int(self._events.process[self._row]["loginuid"].astype(np.int32))), ""

    def capability(self, which: str) -> tuple[str, str]:
        return f"{int(self._events.process[self._row][f'cap_{which}']):X}", ""

    def comm(self) -> tuple[str, str]:
        return self._header["comm"].decode("utf-8", "surrogateescape"), ""

    def exe(self) -> tuple[str, str]:
        return self._bytes(ARGS).split("\0", 1)[0], ""

    def arguments(self) -> tuple[str, str]:
        return " ".join(self._bytes(ARGS).removesuffix("\0").split("\0")[1:]), ""

    def environment(self) -> tuple[str, str]:
        return " ".join(self._bytes(ENV).removesuffix("\0").split("\0")), ""

    def cwd(self) -> tuple[str, str]:
        return self._joined(CWD), ""

    def cgroups(self) -> tuple[str, str]:
        return self._joined(CGROUP), ""

    def exepath(self) -> tuple[str, str]:
        path = self._joined(EXE)
        return (path.removeprefix("/") if self._events.process[self._row]["exe_pseudo"] else path), ""

    def _joined(self, slot: int) -> str:
        data = self._batch.field(self._row, slot)
        return "" if data is None else names_to_path(data)

    def execution(self) -> tuple[str, str]:
        value = execution_flags(self._events.process[self._row], self.exepath()[0])
        return str(value), flagnames.bit_names(value, flagnames.EXECUTION_BITS)

    def status(self) -> tuple[str, str]:
        return str(self._result), ""

    def code(self) -> tuple[str, str]:
        return str(self._result >> 8 & 0xFF), ""

    def signal(self) -> tuple[str, str]:
        return str(self._result & 0x7F), ""

    def core(self) -> tuple[str, str]:
        return str(self._result >> 7 & 1), ""


def execution_flags(process: Any, exe_path: str) -> int:
    """`flagnames.EXECUTION_BITS` of a started program: writable, layer of an overlay, in memory."""
    mode, euid = int(process["exe_mode"]), int(process["euid"])
    if euid == 0:
        writable = True
    elif euid == int(process["exe_uid"]):
        writable = bool(mode & stat.S_IWUSR)
    elif int(process["egid"]) == int(process["exe_gid"]):
        writable = bool(mode & stat.S_IWGRP)
    else:
        writable = bool(mode & stat.S_IWOTH)
    value = (1 if writable and mode else 0) | (0, 2, 8)[int(process["exe_upper"])]
    if process["exe_pseudo"] and exe_path.startswith("memfd:") and process["exe_links"] == 0:
        value |= 4
    return value


_TABLE = parameter_table()
