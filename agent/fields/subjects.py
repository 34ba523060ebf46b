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
        starts = header["start_ns"] // np.uint64(TICK_NS)
        keys = (starts.astype(np.int64) << _PID_BITS) | header["pid"]

        def state(first: int, row: int) -> tuple[Process, bool]:
            record = header[first]
            process = table.at(int(record["pid"]), int(record["start_ns"]), row)
            if process is None:
                process = table.of_record(record)
            changing = process.previous is not None or process.superseded
            return process, changing

        return self._numbered(keys, rows, state, self.number)

    def ancestors_of_events(
        self,
        header: NDArray[Any],
        rows: NDArray[np.int64],
        states: NDArray[np.int32],
        table: ProcessTable,
    ) -> NDArray[np.int32]:
        """Numbers of the lines of ancestors of events, int32, -1 where the parent is not known."""
        keys = (states.astype(np.int64) << _PID_BITS) | header["ppid"]

        def parent(first: int, row: int) -> tuple[Process | None, bool]:
            record = header[first]
            process = table.at(int(record["ppid"]), int(record["parent_start_ns"]), row)
            return process, process is not None and (process.previous is not None or process.superseded)

        return self._numbered(keys, rows, parent, lambda process: self._line(process, table))

    def _numbered(
        self,
        keys: NDArray[np.int64],
        rows: NDArray[np.int64],
        find: Callable[[int, int], tuple[Any, bool]],
        number: Callable[[Any], int],
    ) -> NDArray[np.int32]:
        """A number a key, or an event where `find` says that this process changed within the batch."""
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        numbers = np.empty(len(first), np.int32)
        changing: list[int] = []
        for group, place in enumerate(first.tolist()):
            found, changes = find(place, int(rows[place]))
            numbers[group] = number(found)
            if changes:
                changing.append(group)
        result = numbers[inverse]
        if changing:
            for place in np.flatnonzero(np.isin(inverse, changing)).tolist():
                result[place] = number(find(place, int(rows[place]))[0])
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
