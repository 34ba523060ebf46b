"""Which process, in which state and with which ancestors, an event belongs to: one small number for each.

Columns of `proc.*` are gathered by these numbers, so that a process costs its texts once, however many events
it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.fields.vocabulary import Lasting
from agent.processes import ANCESTORS_LIMIT, Process, ProcessTable
from agent.procfiles import TICK_NS

NUMBERS_LIMIT = 131_072
"""States and lines of ancestors that are numbered before the next batch begins anew."""
PROCESS = "process"
LINEAGE = "lineage"
Lineage = tuple[Process, ...]
_PID_BITS = 22
_ROW_BITS = 32


class Subjects:
    """Numbers of process states and of lines of ancestors. One thread; `begin_batch` before each batch."""

    def __init__(self, lasting: Lasting) -> None:
        self._lasting = lasting
        self.processes: list[Process] = []
        self.lineages: list[Lineage] = []
        self._lineage_numbers: dict[tuple[int, ...], int] = {}
        self._by_parent: dict[int, int] = {}
        self._epoch = 0

    def begin_batch(self) -> None:
        """Begin anew when there are too many numbers: those of ended processes are never needed again."""
        if len(self.processes) >= NUMBERS_LIMIT or len(self.lineages) >= NUMBERS_LIMIT:
            self._epoch += 1
            self.processes.clear()
            self.lineages.clear()
            self._lineage_numbers.clear()
            self._by_parent.clear()
            self._lasting.clear(PROCESS)
            self._lasting.clear(LINEAGE)

    def number(self, process: Process) -> int:
        """The number of a state."""
        if process.epoch != self._epoch:
            process.epoch, process.number = self._epoch, len(self.processes)
            self.processes.append(process)
        return process.number

    def of_events(
        self, header: NDArray[Any], rows: NDArray[np.int64], table: ProcessTable
    ) -> NDArray[np.int32]:
        """State numbers of events, int32; `rows` are their places in the batch the table has applied."""
        pids, starts = header["pid"], header["start_ns"]
        keys = (starts // np.uint64(TICK_NS)).astype(np.int64) << _PID_BITS | pids

        def find(place: int) -> Process:
            process = table.get(int(pids[place]), int(starts[place]))
            return table.of_record(header[place]) if process is None else process

        return self._numbered(keys, rows, find, self.number)

    def ancestors_of_events(
        self,
        header: NDArray[Any],
        rows: NDArray[np.int64],
        states: NDArray[np.int32],
        table: ProcessTable,
    ) -> NDArray[np.int32]:
        """Numbers of the lines of ancestors of events, int32, -1 where the parent is not known."""
        pids, starts = header["ppid"], header["parent_start_ns"]
        keys = states.astype(np.int64) << _PID_BITS | pids

        def find(place: int) -> Process | None:
            return table.get(int(pids[place]), int(starts[place]))

        return self._numbered(keys, rows, find, lambda parent: self._line(parent, table))

    def _numbered(
        self,
        keys: NDArray[np.int64],
        rows: NDArray[np.int64],
        find: Callable[[int], Process | None],
        number: Callable[[Any], int],
    ) -> NDArray[np.int32]:
        """A number an event: by key, and by the state at its row for a process that changed in the batch.

        `find` gives the latest state for the place of an event.
        """
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        found = [find(place) for place in first.tolist()]
        changed = [place for place, process in enumerate(found) if process and process.previous is not None]
        numbers = np.fromiter((number(process) for process in found), np.int32, len(found))
        result = numbers[inverse]
        if changed:
            is_changed = np.zeros(len(found), np.bool_)
            is_changed[changed] = True
            places = np.flatnonzero(is_changed[inverse])
            states = [(group, state) for group in changed for state in _states_of_batch(found[group])]
            bounds = np.array([(group << _ROW_BITS) + max(state.since_row, 0) for group, state in states])
            wanted = (inverse[places].astype(np.int64) << _ROW_BITS) + rows[places]
            at = np.searchsorted(bounds, wanted, "right") - 1
            used, inside = np.unique(at, return_inverse=True)
            of_used = np.fromiter((number(states[place][1]) for place in used.tolist()), np.int32, len(used))
            result[places] = of_used[inside]
        return result

    def _line(self, parent: Process | None, table: ProcessTable) -> int:
        """Number of the line that begins with a parent."""
        if parent is None:
            return -1
        start = self.number(parent)
        known = self._by_parent.get(start)
        if known is not None and not any(process.superseded for process in self.lineages[known]):
            return known
        line = [parent]
        row = parent.since_row if parent.superseded else 1 << 62
        while len(line) < ANCESTORS_LIMIT:
            above = table.at(line[-1].ppid, line[-1].parent_start_ns, row)
            if above is None or above in line:
                break
            line.append(above)
        key = tuple([self.number(process) for process in line])
        found = self._lineage_numbers.get(key)
        if found is None:
            found = self._lineage_numbers[key] = len(self.lineages)
            self.lineages.append(tuple(line))
        self._by_parent[start] = found
        return found


def _states_of_batch(latest: Process | None) -> list[Process]:
    """The states a process had within the batch, the oldest first."""
    states = []
    while latest is not None:
        states.append(latest)
        latest = latest.previous
    return states[::-1]
