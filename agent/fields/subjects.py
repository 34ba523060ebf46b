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
Phases = list[tuple[int, int]]
_LAST_ROW = 1 << 62
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
        self._lines_of_batch: dict[int, Phases] = {}
        self._epoch = 0

    def begin_batch(self) -> None:
        """Begin anew when there are too many numbers: those of ended processes are never needed again."""
        self._lines_of_batch.clear()
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

        def phases(place: int) -> Phases:
            return [(state.since_row, self.number(state)) for state in _states_of_batch(find(place))]

        return _numbered(keys, rows, phases)

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

        def phases(place: int) -> Phases:
            parent = table.get(int(pids[place]), int(starts[place]))
            return [(0, -1)] if parent is None else self._lines(parent, table)

        return _numbered(keys, rows, phases)

    def _lines(self, parent: Process, table: ProcessTable) -> Phases:
        """Lines that begin with a parent, by the row of the batch from which on they hold."""
        start = self.number(parent)
        if start in self._lines_of_batch:
            return self._lines_of_batch[start]
        known = self._by_parent.get(start)
        if known is not None and not any(
            process.superseded or process.previous for process in self.lineages[known]
        ):
            return [(0, known)]
        latest = _walk(parent, table, _LAST_ROW)
        if not any(process.previous for process in latest):
            found = self._by_parent[start] = self._line_number(latest)
            return [(0, found)]
        found_at: dict[int, int] = {}
        waiting = {0, *_rows_of_changes(latest, table)}
        while waiting:
            row = waiting.pop()
            line = _walk(table.at(parent.pid, parent.start_ns, row) or parent, table, row)
            found_at[row] = self._line_number(line)
            # A process may have had other ancestors then, and these may have changed too.
            waiting |= _rows_of_changes(line, table) - found_at.keys()
        lines = sorted(found_at.items())
        self._lines_of_batch[start] = lines
        return lines

    def _line_number(self, line: list[Process]) -> int:
        key = tuple([self.number(process) for process in line])
        found = self._lineage_numbers.get(key)
        if found is None:
            found = self._lineage_numbers[key] = len(self.lineages)
            self.lineages.append(tuple(line))
        return found


def _walk(parent: Process, table: ProcessTable, row: int) -> list[Process]:
    """A parent and its ancestors as they were at a row of the batch."""
    line = [parent]
    while len(line) < ANCESTORS_LIMIT:
        above = table.at(line[-1].ppid, line[-1].parent_start_ns, row)
        if above is None or above in line:
            break
        line.append(above)
    return line


def _numbered(
    keys: NDArray[np.int64], rows: NDArray[np.int64], phases: Callable[[int], Phases]
) -> NDArray[np.int32]:
    """A number an event: by its key, and by its row where there are several phases within the batch.

    `phases` gives, for the place of an event, numbers in order of the rows from which on they hold.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found = [phases(place) for place in first.tolist()]
    result = np.fromiter((phase[-1][1] for phase in found), np.int32, len(found))[inverse]
    several = [group for group, phase in enumerate(found) if len(phase) > 1]
    if several:
        is_several = np.zeros(len(found), np.bool_)
        is_several[several] = True
        places = np.flatnonzero(is_several[inverse])
        bounds = [(group << _ROW_BITS) + max(row, 0) for group in several for row, _ in found[group]]
        numbers = np.array([number for group in several for _, number in found[group]], np.int32)
        wanted = (inverse[places].astype(np.int64) << _ROW_BITS) + rows[places]
        result[places] = numbers[np.searchsorted(np.array(bounds), wanted, "right") - 1]
    return result


def _rows_of_changes(line: list[Process], table: ProcessTable) -> set[int]:
    """Rows of the batch at which any of some processes changed."""
    latest = (table.get(process.pid, process.start_ns) for process in line)
    states = (state for process in latest for state in _states_of_batch(process))
    return {max(state.since_row, 0) for state in states}


def _states_of_batch(latest: Process | None) -> list[Process]:
    """The states a process had within the batch, the oldest first."""
    states = []
    while latest is not None:
        states.append(latest)
        latest = latest.previous
    return states[::-1]
