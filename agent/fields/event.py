"""`evt.*` except the parameters: type, result, and what the flags of an open say."""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from agent.fields.view import Loader, View, numbers_where
from agent.probe.layout import CALL_LIMIT, DATA, EXTRA, FILE_CREATED
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, NumberColumn
from security.fields.flagnames import error_name

OPENS = frozenset(("open", "openat", "openat2"))
OPEN_CALLS = OPENS | {"creat"}
"""Calls that open a file by its name."""
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}
_MODE_ARGUMENT = {"open": 2, "openat": 3, "creat": 1}
_OPEN_HOW = np.dtype([("flags", "<i8"), ("mode", "<i8"), ("resolve", "<i8")])
Numbers = NDArray[np.int64]
Truths = NDArray[np.bool_]
_ACCESS, _CREAT, _TMPFILE, _EXECUTE = 3, 0o100, 0o20200000, 0o111
_CREATES_FLAGS = 0o1101
_READS = frozenset(("read", "readv", "pread64", "preadv", "recvfrom", "recvmsg", "recvmmsg"))
_WRITES = frozenset(("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "sendmmsg"))
_CATEGORIES: dict[str, str] = {
    **dict.fromkeys(OPEN_CALLS, "file"),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "rename", "renameat"), "file"),
    **dict.fromkeys(("renameat2", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmod"), "file"),
    **dict.fromkeys(("fchmodat", "chown", "fchown", "lchown", "fchownat", "mount", "umount2"), "file"),
    **dict.fromkeys(("chdir", "fchdir", "chroot", "mknod", "mknodat"), "file"),
    **dict.fromkeys(("connect", "accept", "accept4", "listen", "bind", "socket"), "net"),
    **dict.fromkeys(("sendto", "sendmsg"), "io-write"),
    **dict.fromkeys(("recvfrom", "recvmsg"), "io-read"),
    **dict.fromkeys(("execve", "execveat", "clone", "clone3", "fork", "vfork", "procexit"), "process"),
    **dict.fromkeys(("setns", "unshare", "prctl", "ptrace", "setsid", "setpgid"), "process"),
    **dict.fromkeys(("setuid", "setgid", "setresuid", "setresgid", "capset"), "user"),
    **dict.fromkeys(("setreuid", "setregid", "setfsuid", "setfsgid"), "user"),
    **dict.fromkeys(("kill",), "signal"),
    **dict.fromkeys(("init_module", "finit_module", "bpf", "userfaultfd"), "system"),
    **dict.fromkeys(("dup", "dup2", "dup3", "memfd_create"), "IPC"),
}


def flags_of(view: View, call: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kernel flags and mode of an open, for all events of the view as if they were of that call."""
    args = view.header["args"].astype(np.int64)
    if call == "creat":
        return np.full(len(view), _CREATES_FLAGS, np.int64), args[:, _MODE_ARGUMENT[call]]
    if call == "openat2":
        how = view.events.batch.structs(EXTRA, _OPEN_HOW)
        return how["flags"], how["mode"]
    return args[:, _FLAGS_ARGUMENT[call]], args[:, _MODE_ARGUMENT[call]]


def _opened(
    calls: frozenset[str], test: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
) -> Loader:
    """A truth about the flags and the mode of opens, false for all other events."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        holds = np.zeros(len(view), np.bool_)
        for name in calls & set(view.type_names.values()):
            flags, mode = flags_of(view, name)
            holds |= test(flags, mode) & view.rows_of(frozenset((name,)))
        return NumberColumn(holds)

    return load


def _reads(flags: Numbers, mode: Numbers) -> Truths:
    access = flags & _ACCESS
    return np.asarray((access == 0) | (access == 2))


def _writes(flags: Numbers, mode: Numbers) -> Truths:
    access = flags & _ACCESS
    return np.asarray((access == 1) | (access == 2))


def _creates_program(flags: Numbers, mode: Numbers) -> Truths:
    creates = ((flags & _CREAT) != 0) | ((flags & _TMPFILE) == _TMPFILE)
    return np.asarray(creates & ((mode & _EXECUTE) != 0))


def _created(view: View, key: ColumnKey) -> AnyColumn:
    """Whether an open made its file, as the kernel noted it: `O_CREAT` of a file that is there makes none."""
    made = view.has_descriptor & (view.descriptors["open_mode"] & FILE_CREATED != 0)
    for name in OPEN_CALLS & set(view.type_names.values()):
        flags, _ = flags_of(view, name)
        made |= view.rows_of(frozenset((name,))) & ((flags & _TMPFILE) == _TMPFILE)
    return NumberColumn(made & view.rows_of(OPEN_CALLS) & (view.header["result"] >= 0))


def _is_call(view: View) -> NDArray[np.bool_]:
    """Whether an event has a result: the end of a process has none."""
    return view.events.codes < CALL_LIMIT


def _result_text(view: View, key: ColumnKey) -> AnyColumn:
    results = view.header["result"]
    numbers = np.where(results < 0, np.clip(-results, 0, 4096), 0).astype(np.int32)
    numbers[~_is_call(view)] = MISSING_CODE
    memo = view.known.lasting.memo("errno", key)
    return memo.column(
        numbers, lambda number: error_name(-number) or ("SUCCESS" if number == 0 else str(number))
    )


def _failed(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn((view.header["result"] < 0) & _is_call(view))


def _constant(value: Hashable) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        vocabulary = view.known.lasting.vocabulary(key)
        return Column(np.full(len(view), vocabulary.code(value), np.int32), vocabulary.dictionary)

    return load


def _of_type(make: Callable[[str], Hashable]) -> Loader:
    """A value that follows from the type of the event."""
    return lambda view, key: view.of_groups(key, view.events.codes, lambda row: make(view.events.type(row)))


def _truth_of_type(types: frozenset[str]) -> Loader:
    return lambda view, key: NumberColumn(view.rows_of(types))


def _bytes(view: View, key: ColumnKey) -> AnyColumn:
    present = view.events.batch.length[:, DATA] >= 0
    return view.of_bytes(key, (DATA,), lambda row: view.events.batch.field(row, DATA), present=present)


def _length(types: frozenset[str]) -> Loader:
    """Bytes of a call that moves data."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        results = view.header["result"].astype(np.int64)
        return numbers_where(np.maximum(results, 0), view.rows_of(types) & (results >= 0))

    return load


def _network_length(types: frozenset[str]) -> Loader:
    """Bytes of a call that moves data over IPv4 or IPv6."""
    load = _length(types)

    def of_network(view: View, key: ColumnKey) -> AnyColumn:
        column = load(view, key)
        assert isinstance(column, NumberColumn)
        if not view.has_socket:
            return NumberColumn(column.values, np.zeros(len(view), np.bool_))
        present = np.isin(view.sockets.family, (socket.AF_INET, socket.AF_INET6))
        return numbers_where(column.values, present if column.present is None else present & column.present)

    return of_network


def _other_error(view: View, key: ColumnKey) -> AnyColumn:
    """1 for a failed call that is about neither files nor the network."""
    named = frozenset(name for name, kind in _CATEGORIES.items() if kind in ("file", "net"))
    failed = (view.header["result"] < 0) & _is_call(view) & ~view.rows_of(named)
    return NumberColumn(failed.astype(np.int64))


def _time_between(view: View, key: ColumnKey) -> AnyColumn:
    """Nanoseconds since the event before in the batch; 0 for the first one."""
    times = view.events.time_unix_ns
    between = np.diff(times, prepend=times[:1])
    part = {"evt.deltatime.s": between // 1_000_000_000, "evt.deltatime.ns": between % 1_000_000_000}
    return NumberColumn(part.get(key[0], between))


def _is_type(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn(view.rows_of(frozenset((key[1] or "",))).astype(np.int64))


def _ones(view: View, key: ColumnKey) -> AnyColumn:
    return NumberColumn(np.ones(len(view), np.int64))


def _count_error(category: str | None) -> Loader:
    """1 for a failed call, of one category where one is given."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        failed = (view.header["result"] < 0) & _is_call(view)
        if category is not None:
            failed &= view.rows_of(frozenset(name for name, kind in _CATEGORIES.items() if kind == category))
        return NumberColumn(failed.astype(np.int64))

    return load


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    moves = _READS | _WRITES
    return {
        "evt.is_open_read": _opened(OPENS, _reads),
        "evt.is_open_write": _opened(OPENS, _writes),
        "evt.is_open_exec": _opened(OPEN_CALLS, _creates_program),
        "evt.rawres": lambda view, key: numbers_where(view.header["result"], _is_call(view)),
        "evt.res": _result_text,
        "evt.failed": _failed,
        "evt.dir": _constant("<"),
        "evt.cpu": lambda view, key: NumberColumn(view.header["cpu"].astype(np.int64)),
        "evt.type.is": _is_type,
        "syscall.type": _of_type(lambda name: None if name == "procexit" else name),
        "evt.category": _of_type(lambda name: _CATEGORIES.get(name, "other")),
        "evt.buffer": _bytes,
        "evt.buflen": _length(moves),
        "evt.buflen.in": _length(_READS),
        "evt.buflen.out": _length(_WRITES),
        "evt.is_io": _truth_of_type(moves),
        "evt.is_io_read": _truth_of_type(_READS),
        "evt.is_io_write": _truth_of_type(_WRITES),
        "evt.io_dir": _of_type(lambda name: "r" if name in _READS else "w" if name in _WRITES else None),
        "evt.deltatime": _time_between,
        "evt.deltatime.s": _time_between,
        "evt.deltatime.ns": _time_between,
        "evt.count": _ones,
        "evt.count.exit": _ones,
        "evt.count.error": _count_error(None),
        "evt.count.error.file": _count_error("file"),
        "evt.count.error.net": _count_error("net"),
        "evt.count.error.other": _other_error,
        "evt.is_open_create": _created,
        "evt.buflen.net": _network_length(moves),
        "evt.buflen.net.in": _network_length(_READS),
        "evt.buflen.net.out": _network_length(_WRITES),
        # No call that waits for descriptors or time is traced.
        "evt.is_wait": lambda view, key: NumberColumn(np.zeros(len(view), np.bool_)),
        "evt.is_async": lambda view, key: NumberColumn(np.zeros(len(view), np.bool_)),
    }
