"""Processes by pid and start time: filled from `/proc` once, then kept by events.

A pid is given to a new process soon after the old one ended, so a process is pid and start time together; the
time is compared in hundredths of a second, which is what `/proc` gives. Ended processes stay some minutes:
for events that come late and for ancestors of processes that are still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent import procfiles
from agent.events import Events, execution_flags
from agent.probe.layout import (
    ARGS,
    CGROUP,
    CWD,
    ENV,
    EXE,
    KIND_CALL,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
    PROCESS,
)
from agent.probe.ringbuffer import names_to_path
from agent.procfiles import TICK_NS
from security.fields.containerids import ContainerPath, container_of

PROCESSES_LIMIT = 262_144
KEEP_ENDED_NS = 180 * 1_000_000_000
ANCESTORS_LIMIT = 64
IDENTITY_CALLS = (
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"),
    "capset",
)
"""Calls after which the record tells users, groups and capabilities anew."""
STATE_CALLS = ("chdir", "fchdir", "setsid", "setpgid", "prctl", *IDENTITY_CALLS)
"""Calls that change what the table holds; to be enabled even when no rule asks for them."""

Key = tuple[int, int]


@dataclass(slots=True, eq=False)
class Process:
    """One state of a process: a change makes a new one, so that an event keeps the state of its moment.

    Texts may hold any bytes, as surrogates.
    """

    pid: int
    start_ns: int
    ppid: int
    parent_start_ns: int
    comm: str
    arguments: bytes = b""
    environment: bytes = b""
    exe_path: str = ""
    cwd: str = ""
    cgroup: str = ""
    container: ContainerPath | None = None
    uid: int = 0
    euid: int = 0
    gid: int = 0
    egid: int = 0
    loginuid: int = -1
    tty: int = 0
    pgid: int = 0
    sid: int = 0
    vpid: int = 0
    vpgid: int = 0
    capabilities: tuple[int, int, int] = (0, 0, 0)
    """Inheritable, permitted, effective."""
    namespace_start_ns: int = 0
    """Start of the first process of its pid namespace: start of the container."""
    exe_inode: int = 0
    exe_ctime_ns: int = 0
    exe_mtime_ns: int = 0
    exe_flags: int = 0
    """`flagnames.EXECUTION_BITS`."""
    started_ns: int = 0
    """Time of the last execution, 0 if it was before the agent."""
    ended_ns: int = 0
    """0 while it runs."""
    complete: bool = True
    """False when only the header of a record told of it: its program is not known."""
    superseded: bool = False
    """Whether a later state of the process is in the table."""
    previous: Process | None = None
    """The state before, as long as the batch in which it changed is the last one."""
    since_row: int = -1
    """Row of that batch from which on this state holds."""
    number: int = -1
    """Place among those that columns were made for (`agent.fields.subjects`), and when that was counted."""
    epoch: int = -1

    @property
    def key(self) -> Key:
        return self.pid, self.start_ns // TICK_NS

    @property
    def argument_list(self) -> list[str]:
        text = self.arguments.decode("utf-8", "surrogateescape")
        return text.removesuffix("\0").split("\0") if text else []

    @property
    def exe(self) -> str:
        """The first argument (`proc.exe`)."""
        return (self.argument_list or [""])[0]

    @property
    def command_line(self) -> str:
        """Name and arguments (`proc.cmdline`); the name is the kernel's, not the first argument."""
        return " ".join([self.comm, *self.argument_list[1:]])


class ProcessTable:
    """All processes the agent knows. One thread uses it.

    Holds at most `limit` processes; when it is full of running ones, new ones are left out and counted.
    """

    def __init__(self, proc: Path | None = Path("/proc"), limit: int = PROCESSES_LIMIT) -> None:
        """`proc` None: there is none with the numbers that records have, so that only events tell."""
        self._proc = proc
        self._limit = limit
        self._processes: dict[Key, Process] = {}
        self._current: dict[int, Key] = {}
        self._changed: list[Process] = []
        self.left_out_count = 0

    def __len__(self) -> int:
        return len(self._processes)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes.values())

    def seed(self) -> int:
        """Add what runs now and no event has told yet; call it with tracing on. Returns the number added."""
        added = 0
        for pid in [] if self._proc is None else procfiles.pids(self._proc):
            if pid not in self._current:
                added += self._read(pid) is not None
        for process in self._processes.values():
            parent = self.current(process.ppid)
            if parent is not None and not process.parent_start_ns:
                process.parent_start_ns = parent.start_ns
        return added

    def forgo_proc(self) -> None:
        """Do not read `/proc`: its numbers are those of another pid namespace than the records'."""
        self._proc = None

    def get(self, pid: int, start_ns: int) -> Process | None:
        """The process of that pid that started then."""
        return self._processes.get((pid, start_ns // TICK_NS))

    def current(self, pid: int) -> Process | None:
        """The last process of that pid, which may have ended."""
        key = self._current.get(pid)
        return None if key is None else self._processes.get(key)

    def at(self, pid: int, start_ns: int, row: int) -> Process | None:
        """The process as it was at a row of the last batch that was applied."""
        process = self._processes.get((pid, start_ns // TICK_NS))
        while process is not None and process.since_row > row and process.previous is not None:
            process = process.previous
        return process

    def of_record(self, header: Any) -> Process:
        """The process of a record as it is now; what only the record tells when there is no more."""
        process = self._known(header)
        if process is None:
            process = Process(
                int(header["pid"]),
                int(header["start_ns"]),
                int(header["ppid"]),
                int(header["parent_start_ns"]),
                _text(header["comm"]),
                euid=int(header["uid"]),
                egid=int(header["gid"]),
                complete=False,
            )
            self._add(process)
        return process

    def parent(self, process: Process) -> Process | None:
        """The parent, None when it is not known."""
        return self.get(process.ppid, process.parent_start_ns)

    def ancestors(self, process: Process) -> list[Process]:
        """Parent, its parent and so on, at most `ANCESTORS_LIMIT`; never another process of a reused pid."""
        found: list[Process] = []
        at = self.parent(process)
        while at is not None and len(found) < ANCESTORS_LIMIT and at is not process:
            found.append(at)
            at = self.parent(at)
        return found

    def apply(self, events: Events) -> None:
        """Follow the events of a batch, which are in order of time."""
        for process in self._changed:
            process.previous, process.since_row = None, -1
        self._changed.clear()
        header = events.batch.header
        kinds = header["kind"]
        state_rows = np.zeros(len(events), np.bool_)
        state_rows[events.rows_of(*STATE_CALLS)] = True
        state_rows &= (kinds == KIND_CALL) & (header["result"] >= 0)
        for row in np.flatnonzero((kinds != KIND_CALL) | state_rows | _may_tell_of_parents(header)).tolist():
            kind = int(kinds[row])
            self._follow_parent(header[row], row)
            if kind == KIND_FORK:
                self._fork(events, row)
            elif kind == KIND_EXEC:
                self._exec(events, row)
            elif kind == KIND_EXIT:
                self._exit(header[row])
            elif state_rows[row]:
                self._change(events, row)

    def purge(self, now_ns: int) -> int:
        """Forget processes that ended `KEEP_ENDED_NS` before `now_ns` (CLOCK_BOOTTIME). Returns how many."""
        return self._forget(now_ns - KEEP_ENDED_NS)

    def sweep(self, now_ns: int) -> int:
        """Mark those as ended that are gone from `/proc`: their last record was lost. Returns the number."""
        if self._proc is None:
            return 0
        running = set(procfiles.pids(self._proc))
        gone = [p for p in self._processes.values() if not p.ended_ns and p.pid not in running]
        for process in gone:
            process.ended_ns = now_ns
        return len(gone)

    def _forget(self, before_ns: int) -> int:
        old = [key for key, item in self._processes.items() if 0 < item.ended_ns <= before_ns]
        for key in old:
            del self._processes[key]
            if self._current.get(key[0]) == key:
                del self._current[key[0]]
        return len(old)

    def _add(self, process: Process) -> Process | None:
        key = process.key
        if len(self._processes) >= self._limit and key not in self._processes:
            self._forget(1 << 62)
            if len(self._processes) >= self._limit:
                self.left_out_count += 1
                return None
        before = self.current(process.pid)
        if before is not None and before.key == key:
            before.superseded = True
        elif before is not None and not before.ended_ns:
            before.ended_ns = process.start_ns
        self._processes[key] = process
        self._current[process.pid] = key
        return process

    def _read(self, pid: int) -> Process | None:
        """Add a process as `/proc` shows it."""
        files = None if self._proc is None else procfiles.read(pid, self._proc)
        if files is None:
            return None
        parent = self.current(files.ppid)
        containers = (container_of(path) for path in files.cgroups)
        process = Process(
            pid=pid,
            start_ns=files.start_ns,
            ppid=files.ppid,
            parent_start_ns=parent.start_ns if parent else 0,
            comm=files.comm,
            arguments=files.arguments,
            environment=files.environment,
            exe_path=files.exe_path,
            cwd=files.cwd,
            cgroup=(*files.cgroups, "")[0],
            container=next((found for found in containers if found), None),
            loginuid=files.loginuid,
            tty=files.tty,
            pgid=files.pgid,
            sid=files.sid,
            vpid=files.vpid,
            vpgid=files.vpgid,
            capabilities=files.capabilities,
        )
        process.uid, process.euid = files.uids
        process.gid, process.egid = files.gids
        return self._add(process)

    def _known(self, header: Any) -> Process | None:
        """The process of a record; read from `/proc` when no event told of it and it is still the same."""
        pid, start_ns = int(header["pid"]), int(header["start_ns"])
        process = self.get(pid, start_ns)
        if process is None and self._read(pid) is not None:
            process = self.get(pid, start_ns)
        if process is not None:
            process.start_ns = start_ns
        return process

    def _successor(self, process: Process, row: int) -> Process:
        """A new state of a process from a row on, to be changed by the caller."""
        new = _copy(process)
        process.superseded = True
        new.previous, new.since_row = process, row
        self._processes[process.key] = new
        self._changed.append(new)
        return new

    def _fork(self, events: Events, row: int) -> None:
        header, info = events.batch.header[row], events.process[row]
        maker = self.current(int(header["args"][1]))
        child = _copy(maker) if maker else Process(0, 0, 0, 0, "", complete=False)
        child.pid, child.start_ns = int(header["pid"]), int(header["start_ns"])
        child.ppid, child.parent_start_ns = int(header["ppid"]), int(header["parent_start_ns"])
        child.comm = _text(header["comm"])
        child.started_ns = child.ended_ns = 0
        _take_numbers(child, info)
        self._add(child)

    def _exec(self, events: Events, row: int) -> None:
        header, info, batch = events.batch.header[row], events.process[row], events.batch
        process = self._known(header)
        if process is None:
            process = Process(int(header["pid"]), int(header["start_ns"]), 0, 0, "")
            if self._add(process) is None:
                return
        else:
            process = self._successor(process, row)
        process.complete = True
        process.ppid, process.parent_start_ns = int(header["ppid"]), int(header["parent_start_ns"])
        process.comm = _text(header["comm"])
        process.started_ns = int(header["time_ns"])
        process.arguments = batch.field(row, ARGS) or b""
        process.environment = batch.field(row, ENV) or b""
        names = {slot: batch.field(row, slot) for slot in (EXE, CWD, CGROUP)}
        paths = {slot: names_to_path(data) for slot, data in names.items() if data is not None}
        process.cwd = paths.get(CWD, process.cwd)
        exe_path = paths.get(EXE, "")
        process.exe_path = exe_path.removeprefix("/") if info["exe_pseudo"] else exe_path
        process.cgroup = paths.get(CGROUP, process.cgroup)
        process.container = container_of(process.cgroup)
        process.exe_inode = int(info["exe_inode"])
        process.exe_ctime_ns, process.exe_mtime_ns = int(info["exe_ctime_ns"]), int(info["exe_mtime_ns"])
        process.exe_flags = execution_flags(info, process.exe_path)
        _take_numbers(process, info)

    def _exit(self, header: Any) -> None:
        process = self.get(int(header["pid"]), int(header["start_ns"]))
        if process is not None:
            process.ended_ns = int(header["time_ns"])

    def _change(self, events: Events, row: int) -> None:
        header = events.batch.header[row]
        process = self._known(header)
        if process is None:
            return
        process = self._successor(process, row)
        if header["tid"] == header["pid"]:
            process.comm = _text(header["comm"])
        first, second = int(header["args"][0]), int(header["args"][1])
        match events.type(row):
            case "chdir":
                process.cwd = events.path(row, 1) or process.cwd
            case "fchdir":
                found = events.descriptor(row)
                process.cwd = found.name if found else process.cwd
            case "setsid":
                process.sid = process.pgid = process.pid
            case "setpgid" if first in (0, process.pid):
                process.pgid = second or process.pid
            case "setpgid":
                other = self.current(first)
                if other is not None:
                    self._successor(other, row).pgid = second or first
            case call if call in IDENTITY_CALLS and events.batch.length[row, PROCESS] >= 0:
                _take_identity(process, events.process[row])

    def _follow_parent(self, record: Any, row: int) -> None:
        """A process whose parent ended has another one; every record names the parent of its moment."""
        process = self.get(int(record["pid"]), int(record["start_ns"]))
        if process is not None and process.ppid != record["ppid"]:
            process = self._successor(process, row)
            process.ppid = int(record["ppid"])
            process.parent_start_ns = int(record["parent_start_ns"])


def _may_tell_of_parents(header: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """bool[n]: the first record of each process, and those whose parent is not that of the one before."""
    order = np.argsort(header["pid"], kind="stable")
    pids, parents = header["pid"][order], header["ppid"][order]
    telling = np.ones(len(header), np.bool_)
    telling[order[1:]] = (pids[1:] != pids[:-1]) | (parents[1:] != parents[:-1])
    return telling


_FIELDS = tuple(item.name for item in fields(Process))


def _copy(process: Process) -> Process:
    """A state of its own with the same values; `dataclasses.replace` takes three times as long."""
    new = object.__new__(Process)
    for name in _FIELDS:
        setattr(new, name, getattr(process, name))
    new.superseded, new.previous, new.since_row, new.number, new.epoch = False, None, -1, -1, -1
    return new


def _text(comm: bytes) -> str:
    return comm.decode("utf-8", "surrogateescape")


def _take_identity(process: Process, info: Any) -> None:
    """Users, groups and capabilities as the kernel had them at the moment of a record."""
    for name in ("uid", "euid", "gid", "egid"):
        setattr(process, name, int(info[name]))
    process.capabilities = (
        int(info["cap_inheritable"]),
        int(info["cap_permitted"]),
        int(info["cap_effective"]),
    )


def _take_numbers(process: Process, info: Any) -> None:
    """Credentials and numbers from the record of an execution or a fork."""
    _take_identity(process, info)
    for name in ("tty", "pgid", "sid", "vpid", "vpgid", "namespace_start_ns"):
        setattr(process, name, int(info[name]))
    process.loginuid = int(info["loginuid"].astype(np.int32))
