"""Values of `proc.*`, `thread.*`, `user.*` and `group.*` from the context of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from security.capture.state import Context
from security.capture.threads import UNKNOWN_NAME, Thread
from security.fields.flagnames import EXECUTION_BITS, capability_names

Extract = Callable[[Context, str | None], Any]
ThreadValue = Callable[[Thread], Any]
_WRITABLE, _UPPER, _MEMFD, _LOWER = (bit for _, bit in EXECUTION_BITS)


def _cwd(thread: Thread) -> str | None:
    if not thread.cwd:
        return None
    return thread.cwd if thread.cwd.endswith("/") else f"{thread.cwd}/"


def _bit(bit: int) -> ThreadValue:
    return lambda thread: None if thread.exe_flags is None else bool(thread.exe_flags & bit)


def _capabilities(member: str) -> ThreadValue:
    def names(thread: Thread) -> str | None:
        mask = getattr(thread, member)
        return None if mask is None else capability_names(mask)

    return names


def _same(first: str, second: str) -> ThreadValue:
    def leads(thread: Thread) -> bool | None:
        one, other = getattr(thread, first), getattr(thread, second)
        return None if one is None or other is None else bool(one == other)

    return leads


def _since(start: str) -> ThreadValue:
    """Time from the last change of the executable's inode to a start."""

    def duration(thread: Thread) -> int | None:
        begin, change = getattr(thread, start), thread.exe_ctime_ns
        return begin - change if begin and change and begin > change else None

    return duration


# Members of a process that its parent and its ancestors have fields for, too.
_FAMILY: dict[str, ThreadValue] = {
    "exe": lambda thread: thread.exe,
    "exepath": lambda thread: thread.exepath,
    "name": lambda thread: thread.comm,
    "cmdline": lambda thread: thread.command_line,
}
_OF_MAIN: dict[str, ThreadValue] = {
    **{f"proc.{name}": value for name, value in _FAMILY.items()},
    "proc.cmdnargs": lambda thread: len(thread.arguments),
    "proc.cmdlenargs": lambda thread: sum(map(len, thread.arguments)),
    "proc.exeline": lambda thread: " ".join((thread.exe, *thread.arguments)),
    "proc.cwd": _cwd,
    "proc.tty": lambda thread: thread.tty,
    "proc.pid": lambda thread: thread.pid,
    "proc.ppid": lambda thread: thread.ptid,
    "proc.vpid": lambda thread: thread.vpid,
    "proc.sid": lambda thread: thread.sid,
    "proc.pgid": lambda thread: thread.pgid,
    "proc.vpgid": lambda thread: thread.vpgid,
    "proc.pid.ts": lambda thread: thread.start_ns,
    "proc.is_exe_writable": _bit(_WRITABLE),
    "proc.is_exe_upper_layer": _bit(_UPPER),
    "proc.is_exe_lower_layer": _bit(_LOWER),
    "proc.is_exe_from_memfd": _bit(_MEMFD),
    "proc.is_sid_leader": _same("sid", "vpid"),
    "proc.is_vpgid_leader": _same("vpgid", "vpid"),
    "proc.is_pgid_leader": _same("pgid", "pid"),
    "proc.exe_ino": lambda thread: thread.exe_inode,
    "proc.exe_ino.ctime": lambda thread: thread.exe_ctime_ns,
    "proc.exe_ino.mtime": lambda thread: thread.exe_mtime_ns,
    "proc.exe_ino.ctime_duration_proc_start": _since("start_ns"),
    "proc.exe_ino.ctime_duration_pidns_start": _since("namespace_start_ns"),
    "proc.pidns_init_start_ts": lambda thread: thread.namespace_start_ns,
    "proc.fdlimit": lambda thread: thread.fd_limit,
    "proc.vmsize": lambda thread: thread.vm_size,
    "proc.vmrss": lambda thread: thread.vm_rss,
    "proc.vmswap": lambda thread: thread.vm_swap,
}
_OF_THREAD: dict[str, ThreadValue] = {
    "thread.cap_permitted": _capabilities("cap_permitted"),
    "thread.cap_inheritable": _capabilities("cap_inheritable"),
    "thread.cap_effective": _capabilities("cap_effective"),
    "thread.pfmajor": lambda thread: thread.major_faults,
    "thread.pfminor": lambda thread: thread.minor_faults,
    "thread.tid": lambda thread: thread.tid,
    "thread.ismain": lambda thread: thread.is_main,
    "thread.vtid": lambda thread: thread.vtid,
    "thread.nametid": lambda thread: f"{thread.comm}{thread.tid}",
    "thread.cgroups": lambda thread: " ".join(thread.cgroups) if thread.cgroups else None,
    "thread.vmsize": lambda thread: thread.vm_size if thread.is_main else 0,
    "thread.vmrss": lambda thread: thread.vm_rss if thread.is_main else 0,
    "user.uid": lambda thread: thread.uid,
    "user.loginuid": lambda thread: thread.loginuid,
    "group.gid": lambda thread: thread.gid,
}
_OF_PARENT: dict[str, ThreadValue] = {
    **{f"proc.p{name}": value for name, value in _FAMILY.items()},
    "proc.pvpid": lambda thread: thread.vpid,
    "proc.ppid.ts": lambda thread: thread.start_ns,
}
_OF_ANCESTORS: dict[str, ThreadValue] = {
    **{f"proc.a{name}": value for name, value in _FAMILY.items()},
    "proc.apid": lambda thread: thread.pid,
    "proc.aargs": lambda thread: " ".join(thread.arguments),
}
_LEADERS = ("exe", "exepath")


def _main(value: ThreadValue) -> Extract:
    return lambda context, _: value(context.main)


def _thread(value: ThreadValue) -> Extract:
    return lambda context, _: value(context.thread)


def _parent(value: ThreadValue) -> Extract:
    return lambda context, _: None if context.parent is None else value(context.parent)


def _leader(member: str, value: ThreadValue) -> Extract:
    def extract(context: Context, _: str | None) -> Any:
        leader = getattr(context, member)
        return None if leader is None else value(leader)

    return extract


def _ancestor(context: Context, index: int) -> Thread | None:
    if index == 0:
        return context.main
    return context.ancestors[index - 1] if index <= len(context.ancestors) else None


def _ancestors(value: ThreadValue) -> Extract:
    def extract(context: Context, argument: str | None) -> Any:
        if argument is None:
            return tuple(value(thread) for thread in context.ancestors)
        thread = _ancestor(context, int(argument))
        return None if thread is None else value(thread)

    return extract


def _arguments(context: Context, argument: str | None) -> str | None:
    arguments = context.main.arguments
    if argument is None:
        return " ".join(arguments)
    return arguments[int(argument)] if int(argument) < len(arguments) else None


def _variable(thread: Thread, name: str) -> str | None:
    return next(
        (text[len(name) + 1 :] for text in thread.environment if text.startswith(f"{name}=")),
        None,
    )


def _environment(context: Context, argument: str | None) -> str | None:
    variables = context.main.environment
    if argument is None:
        return " ".join(variables)
    if argument.isdigit():
        return variables[int(argument)] if int(argument) < len(variables) else None
    return _variable(context.main, argument)


def _ancestors_environment(context: Context, argument: str | None) -> Any:
    if argument is None:
        return tuple(" ".join(thread.environment) for thread in context.ancestors)
    if argument.isdigit():
        thread = _ancestor(context, int(argument))
        return None if thread is None else " ".join(thread.environment)
    found = (_variable(thread, argument) for thread in context.ancestors)
    return next((value for value in found if value is not None), None)


def _login_shell(context: Context, _: str | None) -> int | None:
    shells = [thread.pid for thread in (context.main, *context.ancestors) if thread.comm.endswith("sh")]
    return shells[-1] if shells else None


def _cgroup(context: Context, argument: str | None) -> str | None:
    start = f"{argument}="
    return next(
        (text[len(start) :] for text in context.thread.cgroups if text.startswith(start)),
        None,
    )


CONTEXT_FIELDS: dict[str, Extract] = {
    **{name: _main(value) for name, value in _OF_MAIN.items()},
    **{name: _thread(value) for name, value in _OF_THREAD.items()},
    **{name: _parent(value) for name, value in _OF_PARENT.items()},
    **{name: _ancestors(value) for name, value in _OF_ANCESTORS.items()},
    **{f"proc.sid.{name}": _leader("session", _FAMILY[name]) for name in _LEADERS},
    **{f"proc.vpgid.{name}": _leader("group", _FAMILY[name]) for name in (*_LEADERS, "name")},
    "proc.sname": _leader("session", _FAMILY["name"]),
    "proc.args": _arguments,
    "proc.env": _environment,
    "proc.aenv": _ancestors_environment,
    "proc.loginshellid": _login_shell,
    "thread.cgroup": _cgroup,
    "user.name": lambda context, _: context.user.name if context.user else UNKNOWN_NAME,
    "user.homedir": lambda context, _: context.user.home if context.user else None,
    "user.shell": lambda context, _: context.user.shell if context.user else None,
    "user.loginname": lambda context, _: context.login.name if context.login else UNKNOWN_NAME,
    "group.name": lambda context, _: context.group_name,
}
"""By field: the value for a context and an argument, None where it is missing."""
