"""Fields of the parent and of further ancestors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.fields.process import TEXTS, arguments, command_line, environment, exe, exe_path
from agent.fields.view import Loader, View, numbers_where
from agent.processes import Process
from security.columns import AnyColumn, ColumnKey, ListColumn

Make = Callable[[Process], str | None]

PARENTS: dict[str, Make] = {
    "proc.pname": TEXTS["proc.name"],
    "proc.pexe": exe,
    "proc.pexepath": exe_path,
    "proc.pcmdline": command_line,
}
ANCESTORS: dict[str, Make] = {
    "proc.aname": TEXTS["proc.name"],
    "proc.aexe": exe,
    "proc.aexepath": exe_path,
    "proc.acmdline": command_line,
    "proc.aargs": arguments,
}


def _parent(make: Make) -> Loader:
    return lambda view, key: view.of_lineage(key, lambda line: make(line[0]))


def _ancestor(make: Make) -> Callable[[View, ColumnKey], AnyColumn]:
    """With a number that ancestor, 0 being the process itself; without one all of them."""

    def load(view: View, key: ColumnKey) -> AnyColumn:
        if key[1] is None:
            return _all(view, key, make)
        level = int(key[1])
        if level == 0:
            return view.of_state(key, make)
        return view.of_lineage(key, lambda line: make(line[level - 1]) if level <= len(line) else None)

    return load


def _all(view: View, key: ColumnKey, make: Make) -> ListColumn:
    vocabulary = view.known.lasting.vocabulary(key)
    numbers, inverse = np.unique(view.lineages, return_inverse=True)
    codes: list[int] = []
    offsets = [0]
    for number in numbers.tolist():
        line = view.known.subjects.lineages[number] if number >= 0 else ()
        codes += [vocabulary.code(value) for value in map(make, line) if value is not None]
        offsets.append(len(codes))
    distinct = ListColumn(
        np.array(codes, np.int32), np.array(offsets, np.int64), numbers >= 0, vocabulary.dictionary
    )
    return distinct.take(inverse.astype(np.int64))


def _environments(view: View, key: ColumnKey) -> AnyColumn:
    """The value of a variable, or the whole environment, in any ancestor; with a number that of one."""
    argument = key[1]
    if argument is not None and argument.isdigit():
        return _ancestor(lambda process: environment(process, None))(view, key)
    return _all(view, key, lambda process: environment(process, argument))


def _parent_number(name: str) -> Loader:
    memo_name = f"parent {name}"

    def load(view: View, key: ColumnKey) -> AnyColumn:
        lineages = view.known.subjects.lineages
        memo = view.known.lasting.number_memo("lineage", memo_name)
        return memo.column(view.lineages, lambda number: getattr(lineages[number][0], name) or None)

    return load


def _ancestor_pid(view: View, key: ColumnKey) -> AnyColumn:
    if key[1] is None:
        numbers = [tuple(item.pid for item in view.lineage(row)) for row in range(len(view))]
        vocabulary = view.known.lasting.vocabulary(key)
        offsets = np.cumsum([0, *map(len, numbers)]).astype(np.int64)
        codes = np.array([vocabulary.code(pid) for line in numbers for pid in line], np.int32)
        return ListColumn(codes, offsets, view.lineages >= 0, vocabulary.dictionary)
    level = int(key[1])
    lines = [(view.process(row), *view.lineage(row)) for row in range(len(view))]
    present = np.array([level < len(line) for line in lines], np.bool_)
    values = np.array([line[level].pid if level < len(line) else 0 for line in lines], np.int64)
    return numbers_where(values, present)


def _parent_duration(view: View, key: ColumnKey) -> AnyColumn:
    since = (view.header["time_ns"] - view.header["parent_start_ns"]).astype(np.int64)
    return numbers_where(since, view.lineages >= 0)


def _parent_start(view: View, key: ColumnKey) -> AnyColumn:
    start = view.header["parent_start_ns"].astype(np.int64) + view.events.boot_unix_ns
    return numbers_where(start, view.lineages >= 0)


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    found: dict[str, Loader] = {name: _parent(make) for name, make in PARENTS.items()}
    found |= {name: _ancestor(make) for name, make in ANCESTORS.items()}
    return found | {
        "proc.aenv": _environments,
        "proc.apid": _ancestor_pid,
        "proc.pvpid": _parent_number("vpid"),
        "proc.ppid.duration": _parent_duration,
        "proc.ppid.ts": _parent_start,
    }
