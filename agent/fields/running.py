"""`proc.*` and `thread.*` that no event tells: memory, threads, descriptors, processor time.

An execution's record holds memory, page faults and limit of its moment. For all other events they are read
from `/proc` when the column is made, some milliseconds later; a process that has ended by then has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.fields.view import Loader, View, numbers_where
from agent.probe.layout import KIND_EXEC
from agent.processnow import ProcessNow
from agent.procfiles import TICK_NS
from security.columns import AnyColumn, ColumnKey, NumberColumn

PAGE_KIB = 4
_STREAMS = ("stdin", "stdout", "stderr")
_MEMORY = {
    "vmsize": ("VmSize", "size_pages"),
    "vmrss": ("VmRSS", "rss_pages"),
    "vmswap": ("VmSwap", "swap_pages"),
}
Pick = Callable[[ProcessNow], float | None]


def _now(view: View, row: int) -> ProcessNow:
    head = view.header[row]
    return view.known.process_now(int(head["pid"]), int(head["start_ns"]))


def _groups(view: View, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A row of each process or thread (`name` is `pid` or `tid`), and the group of each event."""
    starts = (view.header["start_ns"] // np.uint64(TICK_NS)).astype(np.int64)
    pairs = np.stack([starts, view.header[name].astype(np.int64)], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _numbers(
    view: View, name: str, make: Callable[[int], float | None], kind: type = np.int64
) -> NumberColumn:
    """A number for each process or thread, made from one of its rows."""
    first, inverse = _groups(view, name)
    found = [make(row) for row in first.tolist()]
    values: NDArray[Any] = np.array([item or 0 for item in found], kind)[inverse]
    return numbers_where(values, np.array([item is not None for item in found], np.bool_)[inverse])


def _with_executions(view: View, column: NumberColumn, name: str, factor: int = 1) -> NumberColumn:
    """The column, with what the records of executions say of their own moment."""
    executed = view.header["kind"] == KIND_EXEC
    if not executed.any():
        return column
    told = view.events.process[name].astype(np.int64) * factor
    values = np.where(executed, told, column.values)
    return (
        NumberColumn(values) if column.present is None else numbers_where(values, column.present | executed)
    )


def _of_process(pick: Pick, kind: type = np.int64) -> Loader:
    return lambda view, key: _numbers(view, "pid", lambda row: pick(_now(view, row)), kind)


def _memory(name: str) -> Loader:
    status, told = _MEMORY[name]

    def load(view: View, key: ColumnKey) -> AnyColumn:
        column = _numbers(view, "pid", lambda row: _now(view, row).memory_kib(status))
        return _with_executions(view, column, told, PAGE_KIB)

    return load


def _memory_of_main(name: str) -> Loader:
    """0 for threads that are not the main one, as in Falco."""
    load = _memory(name)

    def of_main(view: View, key: ColumnKey) -> AnyColumn:
        column = load(view, key)
        assert isinstance(column, NumberColumn)
        main = view.header["tid"] == view.header["pid"]
        present = np.ones(len(view), np.bool_) if column.present is None else column.present
        return numbers_where(np.where(main, column.values, 0), present | ~main)

    return of_main


def _limit(view: View, key: ColumnKey) -> AnyColumn:
    return _with_executions(
        view, _numbers(view, "pid", lambda row: _now(view, row).descriptors_limit), "fd_limit"
    )


def _usage(process: ProcessNow) -> float | None:
    count, limit = process.open_count, process.descriptors_limit
    return None if count is None or limit is None or limit <= 0 else 100 * count / limit


def _children(process: ProcessNow) -> int | None:
    return None if process.threads is None else process.threads - 1


def _faults(name: str) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        def count(row: int) -> int | None:
            times = _now(view, row).thread(int(view.header["tid"][row]))
            return None if times is None else int(getattr(times, name))

        return _with_executions(view, _numbers(view, "tid", count), name)

    return load


def _use(pick: Callable[[float, float], float]) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        def use(row: int) -> float | None:
            head = view.header[row]
            pid, tid, start = int(head["pid"]), int(head["tid"]), int(head["start_ns"])
            times = _now(view, row).thread(tid)
            if times is None:
                return None
            found = view.known.thread_use.of(
                (pid, tid, start // TICK_NS), time.clock_gettime_ns(time.CLOCK_BOOTTIME), times
            )
            return None if found is None else pick(*found)

        return _numbers(view, "tid", use, np.float64)

    return load


def _stream(number: int, part: str) -> Loader:
    def load(view: View, key: ColumnKey) -> AnyColumn:
        def text(row: int) -> str | None:
            found = _now(view, row).open_file(number)
            return None if found is None else getattr(found, part)

        return view.of_groups(key, _groups(view, "pid")[1], text)

    return load


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    streams = {
        f"proc.{stream}.{part}": _stream(number, part)
        for number, stream in enumerate(_STREAMS)
        for part in ("type", "name")
    }
    return {f"proc.{name}": _memory(name) for name in _MEMORY} | {
        "thread.vmsize": _memory_of_main("vmsize"),
        "thread.vmrss": _memory_of_main("vmrss"),
        "thread.pfmajor": _faults("major_faults"),
        "thread.pfminor": _faults("minor_faults"),
        "thread.cpu": _use(lambda user, system: user + system),
        "thread.cpu.user": _use(lambda user, system: user),
        "thread.cpu.system": _use(lambda user, system: system),
        "proc.fdopencount": _of_process(lambda process: process.open_count),
        "proc.fdlimit": _limit,
        "proc.fdusage": _of_process(_usage, np.float64),
        "proc.nthreads": _of_process(lambda process: process.threads),
        "proc.nchilds": _of_process(_children),
        **streams,
    }
