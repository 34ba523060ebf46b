"""What events do to processes: clone, execution, end, and changes of directory, users and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from security.capture.events import Event
from security.capture.state import State
from security.capture.threads import Thread, container_in
from security.fields.flagnames import CAPTURE_CLONE_BITS
from security.fields.paths import absolute_path

AT_FDCWD = -100
_CLONE = dict(CAPTURE_CLONE_BITS)
_O_CLOEXEC = 1 << 12
_PR_SET_NAME = 15
_INIT = 1
_NO_ID = 0xFFFFFFFF
_INVERTED_NS = 2_000_000_000
"""Both returns from a clone, the child's and the parent's, come within this time."""

_NUMBERS = {
    "fd_limit": "fdlimit",
    "vm_size": "vm_size",
    "vm_rss": "vm_rss",
    "vm_swap": "vm_swap",
    "major_faults": "pgft_maj",
    "minor_faults": "pgft_min",
    "uid": "uid",
    "gid": "gid",
    "vtid": "vtid",
    "vpid": "vpid",
    "pgid": "pgid",
    "vpgid": "vpgid",
    "tty": "tty",
    "loginuid": "loginuid",
    "cap_inheritable": "cap_inheritable",
    "cap_permitted": "cap_permitted",
    "cap_effective": "cap_effective",
    "exe_flags": "flags",
    "exe_inode": "exe_ino",
    "exe_ctime_ns": "exe_ino_ctime",
    "exe_mtime_ns": "exe_ino_mtime",
    "namespace_start_ns": "pidns_init_start_ts",
}
"""Members of a thread that are parameters of clone or execve."""
_CLONE_ONLY = ("exe_flags",)


def directory_of(state: State, event: Event, thread: Thread, name: str) -> str | None:
    """The directory that a relative path starts from, None when it is not known."""
    number = event.number(name)
    if number is None or number == AT_FDCWD:
        return thread.cwd or None
    found = state.files(thread).get(number)
    return found.name if found else None


def _described(event: Event, thread: Thread, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Members of a thread that an event gives."""
    members: dict[str, Any] = {}
    for member, name in _NUMBERS.items():
        number = event.number(name)
        if number is not None and member not in leave_out:
            members[member] = number
    for name in ("comm", "exe", "cwd"):
        text = event.text(name)
        if text is not None and (name != "cwd" or text):
            members[name] = text
    for member, name in (("arguments", "args"), ("environment", "env"), ("cgroups", "cgroups")):
        value = event.values.get(name)
        if isinstance(value, tuple):
            members[member] = value
    cgroups = members.get("cgroups", thread.cgroups)
    if cgroups != thread.cgroups:
        members["container"] = container_in(cgroups)
    return members


def _clone(state: State, event: Event, thread: Thread) -> None:
    result = event.number("res")
    if result is None or result < 0:
        return
    if result == 0:
        _child_returned(state, event)
    elif thread.vtid in (None, thread.tid):
        # In a pid namespace the number is that of the namespace: only the child's own return tells its id.
        _parent_returned(state, event, thread, result)


def _just_made(state: State, tid: int, time_ns: int) -> Thread | None:
    """A thread whose other return from the same clone was seen; an older one of that number has ended."""
    known = state.known(tid)
    if known is None or known.start_ns is None or time_ns - known.start_ns >= _INVERTED_NS:
        return None
    return known


def _parent_returned(state: State, event: Event, thread: Thread, tid: int) -> None:
    if _just_made(state, tid, event.time_ns) is not None:
        return
    caller = replace(thread, **_described(event, thread, _CLONE_ONLY))
    shares = bool((event.number("flags") or 0) & _CLONE["CLONE_THREAD"])
    pid = caller.pid if shares else tid
    child = replace(
        caller,
        tid=tid,
        pid=pid,
        ptid=caller.ptid if shares else caller.pid,
        vtid=tid,
        vpid=caller.vpid if shares else tid,
        start_ns=event.time_ns,
    )
    state.put(child)
    state.copy_files(caller, child)


def _child_returned(state: State, event: Event) -> None:
    pid, ptid = event.number("pid"), event.number("ptid")
    if pid is None or ptid is None:
        return
    known = _just_made(state, event.tid, event.time_ns)
    # A new thread is like the main one of its process, a new process like its parent.
    maker = state.known(ptid if pid == event.tid else pid)
    base = known or maker or Thread(event.tid, pid, ptid)
    start_ns = known.start_ns if known else event.time_ns
    members = _described(event, base, _CLONE_ONLY)
    child = replace(base, **members, tid=event.tid, pid=pid, ptid=ptid, start_ns=start_ns)
    state.put(child)
    if known is None:
        state.copy_files(base, child)


def _execute(state: State, event: Event, thread: Thread) -> None:
    if event.number("res") != 0:
        return
    pid, ptid = event.number("pid"), event.number("ptid")
    members = _described(event, thread)
    path = event.text("trusted_exepath")
    given = event.text("filename") or event.text("pathname")
    cwd = str(members.get("cwd") or thread.cwd) or None
    if not path:
        if given:
            directory = directory_of(state, event, thread, "dirfd") if "dirfd" in event.values else cwd
            path = absolute_path(given, directory)
        else:
            exe = event.text("exe") or ""
            path = exe if exe.startswith("/") else None
    program = replace(
        thread,
        **members,
        exepath=path,
        pid=thread.pid if pid is None else pid,
        ptid=thread.ptid if ptid is None else ptid,
    )
    state.put(program)
    closing = [number for number, item in state.files(program).items() if item.open_flags & _O_CLOEXEC]
    for number in closing:
        state.close(program, number)


def end(state: State, event: Event) -> None:
    """Forget a thread after the event of its end."""
    reaper = event.number("reaper_tid")
    state.remove(event.tid, reaper if reaper is not None and reaper > 0 else _INIT)


def _change_directory(state: State, event: Event, thread: Thread) -> None:
    if event.number("res") != 0:
        return
    path = event.text("path")
    if path is not None:
        state.put(replace(thread, cwd=absolute_path(path, thread.cwd or None)))
    elif event.descriptor is not None and event.descriptor.name:
        state.put(replace(thread, cwd=event.descriptor.name))


def _session(state: State, event: Event, thread: Thread) -> None:
    result = event.number("res")
    if result is not None and result >= 0:
        state.put(replace(thread, sid=result, vpgid=result))


def _group(state: State, event: Event, thread: Thread) -> None:
    if event.number("res") != 0:
        return
    pid, pgid = event.number("pid"), event.number("pgid")
    target = state.known(pid) if pid else thread
    if target is not None and pgid is not None:
        state.put(replace(target, vpgid=pgid or target.vpid))


def _ids(state: State, event: Event, thread: Thread) -> None:
    if event.number("res") != 0:
        return
    changed: dict[str, Any] = {}
    for member, names in (("uid", ("uid", "euid")), ("gid", ("gid", "egid"))):
        for name in names:
            value = event.number(name)
            if value is not None and value != _NO_ID:
                changed[member] = value
    state.put(replace(thread, **changed))


def _capabilities(state: State, event: Event, thread: Thread) -> None:
    if event.number("res") != 0:
        return
    names = ("cap_inheritable", "cap_permitted", "cap_effective")
    changed: dict[str, Any] = {name: event.number(name) for name in names if name in event.values}
    state.put(replace(thread, **changed))


def _control(state: State, event: Event, thread: Thread) -> None:
    name = event.text("arg2_str")
    if event.number("res") == 0 and event.number("option") == _PR_SET_NAME and name:
        state.put(replace(thread, comm=name))


HANDLERS: Mapping[str, Callable[[State, Event, Thread], None]] = {
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), _clone),
    **dict.fromkeys(("execve", "execveat"), _execute),
    **dict.fromkeys(("chdir", "fchdir"), _change_directory),
    "setsid": _session,
    "setpgid": _group,
    **dict.fromkeys(("setuid", "setgid", "setresuid", "setresgid", "setreuid", "setregid"), _ids),
    "capset": _capabilities,
    "prctl": _control,
}
