"""`proc.*` and `thread.*` of the process itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.fields.view import Loader, View, booleans, numbers_where
from agent.processes import Process
from security.columns import AnyColumn, Column, ColumnKey, NumberColumn
from security.fields.flagnames import capability_names

EXE_WRITABLE, EXE_UPPER_LAYER, EXE_FROM_MEMFD, EXE_LOWER_LAYER = 1, 2, 4, 8
_SHELLS = frozenset(("ash", "bash", "csh", "ksh", "sh", "tcsh", "zsh", "dash", "fish"))


def arguments(process: Process) -> str | None:
    """Arguments without the first (`proc.args`)."""
    return " ".join(process.argument_list[1:]) if process.complete else None


def command_line(process: Process) -> str | None:
    """Name and arguments (`proc.cmdline`)."""
    return process.command_line if process.complete else None


def environment(process: Process, name: str | None) -> str | None:
    """All variables joined by blanks, or the value of one (`proc.env`)."""
    if not process.complete:
        return None
    text = process.environment.decode("utf-8", "surrogateescape").removesuffix("\0")
    variables = text.split("\0") if text else []
    if name is None:
        return " ".join(variables)
    start = f"{name}="
    return next((item[len(start) :] for item in variables if item.startswith(start)), None)


def argument(process: Process, index: str) -> str | None:
    """One argument, counted from 0 behind the program's own name (`proc.args[n]`)."""
    rest = process.argument_list[1:]
    return rest[int(index)] if int(index) < len(rest) else None


def working_directory(process: Process) -> str | None:
    """With a slash at its end (`proc.cwd`)."""
    if not process.cwd:
        return None
    return process.cwd if process.cwd.endswith("/") else f"{process.cwd}/"


def exe(process: Process) -> str | None:
    """The first argument (`proc.exe`)."""
    return process.exe if process.complete else None


def exe_path(process: Process) -> str | None:
    """The file that runs (`proc.exepath`)."""
    return process.exe_path if process.complete else None


TEXTS: dict[str, Callable[[Process], str | None]] = {
    "proc.name": lambda process: process.comm,
    "proc.exe": exe,
    "proc.exepath": exe_path,
    "proc.cmdline": command_line,
    "proc.exeline": lambda process: " ".join(process.argument_list) if process.complete else None,
    "proc.cwd": working_directory,
    "thread.cap_permitted": lambda process: capability_names(process.capabilities[1]),
    "thread.cap_inheritable": lambda process: capability_names(process.capabilities[0]),
    "thread.cap_effective": lambda process: capability_names(process.capabilities[2]),
    "thread.cgroups": lambda process: process.cgroup or None,
}
NUMBERS: dict[str, Callable[[Process], int | None]] = {
    "proc.tty": lambda process: process.tty,
    "proc.vpid": lambda process: process.vpid or None,
    "proc.sid": lambda process: process.sid,
    "proc.pgid": lambda process: process.pgid,
    "proc.vpgid": lambda process: process.vpgid or None,
    "proc.cmdnargs": lambda process: len(process.argument_list[1:]),
    "proc.cmdlenargs": lambda process: len("".join(process.argument_list[1:])),
    "proc.exe_ino": lambda process: process.exe_inode or None,
    "proc.exe_ino.ctime": lambda process: process.exe_ctime_ns or None,
    "proc.exe_ino.mtime": lambda process: process.exe_mtime_ns or None,
    "proc.pidns_init_start_ts": lambda process: process.namespace_start_ns or None,
    "user.loginuid": lambda process: process.loginuid,
}
TRUTHS: dict[str, Callable[[Process], int | None]] = {
    "proc.is_exe_writable": lambda process: process.exe_flags & EXE_WRITABLE,
    "proc.is_exe_upper_layer": lambda process: process.exe_flags & EXE_UPPER_LAYER,
    "proc.is_exe_lower_layer": lambda process: process.exe_flags & EXE_LOWER_LAYER,
    "proc.is_exe_from_memfd": lambda process: process.exe_flags & EXE_FROM_MEMFD,
    "proc.is_sid_leader": lambda process: process.sid == process.pid,
    "proc.is_pgid_leader": lambda process: process.pgid == process.pid,
    "proc.is_vpgid_leader": lambda process: process.vpgid == process.vpid,
}


def _text(make: Callable[[Process], str | None]) -> Loader:
    return lambda view, key: view.of_state(key, make)


def _number(make: Callable[[Process], int | None]) -> Loader:
    return lambda view, key: view.number_of_state(key, make)


def _truth(make: Callable[[Process], int | None]) -> Loader:
    return lambda view, key: booleans(view.number_of_state(key, make))


def _arguments(view: View, key: ColumnKey) -> AnyColumn:
    index = key[1]
    if index is None:
        return view.of_state(key, arguments)
    return view.of_state(key, lambda process: argument(process, index))


def _environment(view: View, key: ColumnKey) -> AnyColumn:
    return view.of_state(key, lambda process: environment(process, key[1]))


def _head(name: str) -> Loader:
    return lambda view, key: NumberColumn(view.header[name].astype(np.int64))


def _duration(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn((view.header["time_ns"] - view.header["start_ns"]).astype(np.int64))


def _start(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn(view.header["start_ns"].astype(np.int64) + view.events.boot_unix_ns)


def _is_main(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn(view.header["tid"] == view.header["pid"])


def _vtid(view: View, key: ColumnKey) -> AnyColumn:
    """Known of main threads only, whose number is that of the process."""
    column = view.number_of_state(("proc.vpid", None), NUMBERS["proc.vpid"])
    main = view.header["tid"] == view.header["pid"]
    return numbers_where(column.values, main if column.present is None else main & column.present)


def _name_tid(view: View, key: ColumnKey) -> AnyColumn:
    return view.of_rows(key, lambda row: f"{view.process(row).comm}({view.header['tid'][row]})")


def _since_exe_change(base: str) -> Loader:
    """From the last change of the program's inode to the start of the process or of its namespace."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        boot = view.events.boot_unix_ns

        def between(process: Process) -> int | None:
            start = getattr(process, base)
            if not process.exe_ctime_ns or not start:
                return None
            return max(int(start) + boot - process.exe_ctime_ns, 0)

        return view.number_of_state(key, between)

    return load


def _leader(number: Callable[[Process], int], make: Callable[[Process], str | None]) -> Loader:
    """A text of the leader of a session or group: who has its number now."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        def text(row: int) -> str | None:
            process = view.process(row)
            leader = process if number(process) == process.pid else view.table.current(number(process))
            if leader is not None:
                return make(leader)
            same = [item for item in view.lineage(row) if number(item) == number(process)]
            return make(same[-1]) if same else None

        return view.of_groups(key, view.states.astype(np.int64), text)

    return load


def _login_shell(view: View, key: ColumnKey) -> AnyColumn:
    """The oldest shell among the process and its ancestors."""

    def shell(row: int) -> int | None:
        line = (view.process(row), *view.lineage(row))
        return next((item.pid for item in reversed(line) if item.comm in _SHELLS), None)

    found = [shell(row) for row in range(len(view))]
    values = np.array([item or 0 for item in found], np.int64)
    return numbers_where(values, np.array([item is not None for item in found], np.bool_))


def _cgroup(view: View, key: ColumnKey) -> Column:
    return view.of_state(key, lambda process: process.cgroup or None)


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    found: dict[str, Loader] = {name: _text(make) for name, make in TEXTS.items()}
    found |= {name: _number(make) for name, make in NUMBERS.items()}
    found |= {name: _truth(make) for name, make in TRUTHS.items()}
    for name, number in (("sid", "sid"), ("pgid", "pgid"), ("vpgid", "pgid")):
        pick: Callable[[Process], int] = _picker(number)
        found[f"proc.{name}.exe"] = _leader(pick, exe)
        found[f"proc.{name}.exepath"] = _leader(pick, exe_path)
        found["proc.sname" if name == "sid" else f"proc.{name}.name"] = _leader(pick, TEXTS["proc.name"])
    return found | {
        "proc.args": _arguments,
        "proc.env": _environment,
        "proc.pid": _head("pid"),
        "proc.ppid": _head("ppid"),
        "thread.tid": _head("tid"),
        "thread.ismain": _is_main,
        "thread.vtid": _vtid,
        "thread.nametid": _name_tid,
        "thread.cgroup": _cgroup,
        "proc.duration": _duration,
        "proc.pid.ts": _start,
        "proc.exe_ino.ctime_duration_proc_start": _since_exe_change("start_ns"),
        "proc.exe_ino.ctime_duration_pidns_start": _since_exe_change("namespace_start_ns"),
        "proc.loginshellid": _login_shell,
    }


def _picker(name: str) -> Callable[[Process], int]:
    return lambda process: int(getattr(process, name))
