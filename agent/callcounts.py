"""Bytes, errors and durations of calls by process group, from what the kernel program counted.

Reads, writes, sends and receives are too many to report each; the program adds them up by process
(`agent.probe.callcosts`) and they are taken once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.containermetrics import NamesOf
from agent.counttable import CountTable
from agent.eventcounts import FOLDED
from agent.grouplabels import GROUP_LABELS, group_labels
from agent.probe.callcosts import CALLS, CLASSES, DURATION_BUCKETS, FIRST_BOUND_SECONDS, NO_BYTES
from agent.processes import ProcessTable
from agent.processgroups import OTHER, Group, GroupNames
from ingest.gathered import Family, Gathered, counter

GROUPS_LIMIT = 100
DATA_CLASSES = CLASSES[:5]
"""What moves bytes; measuring it costs every such call of the host some 120 ns."""
_STEP = 2
"""Powers of two between two bounds of the histogram."""
_BOUNDS = tuple(FIRST_BOUND_SECONDS * 2.0**n for n in range(0, DURATION_BUCKETS - 1, _STEP))
_COUNT, _ERRORS, _BYTES, _TIMED, _SECONDS, _BUCKETS = range(6)
_WIDTH = _BUCKETS + len(_BOUNDS)
"""Columns of a class."""

_LABELS = (*GROUP_LABELS, "operation")
_CALLS = counter("vedette_process_calls_total", "Measured calls.", *_LABELS)
_FAILED = counter("vedette_process_call_errors_total", "Measured calls that failed.", *_LABELS)
_MOVED = counter("vedette_process_call_bytes_total", "Bytes that measured calls moved.", *_LABELS)
_DURATION = Family(
    "vedette_process_call_duration_seconds", "histogram", "Time in measured calls, waiting included.", _LABELS
)


def measured_calls(data: bool) -> frozenset[str]:
    """The calls to measure, by name; `data` with those that move bytes."""
    first = 0 if data else len(DATA_CLASSES)
    return frozenset(call for call, number in CALLS.items() if (number & ~NO_BYTES) - 1 >= first)


class CallCounts:
    """Consumer of a `Watcher`'s measured calls and source of a `HostCollector`; both may run at once."""

    name = "calls"

    def __init__(
        self,
        names: GroupNames,
        names_of: NamesOf = lambda _: None,
        limit: int = GROUPS_LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = names
        self._labels = group_labels(names_of)
        self._monotonic = monotonic
        self._counts: CountTable[Group] = CountTable(OTHER, limit, len(CLASSES) * _WIDTH)
        self._lock = threading.Lock()
        self.errors: dict[str, str] = {}

    def consume(self, costs: NDArray[Any], table: ProcessTable) -> None:
        """Count entries of `callcosts.COST`. What no process is known of is counted under `other`."""
        keys = costs[["pid", "start_ns"]]
        distinct, inverse = np.unique(keys, return_inverse=True)
        groups = [self._group(table, int(key["pid"]), int(key["start_ns"])) for key in distinct]
        added = _columns(costs)
        now = self._monotonic()
        with self._lock:
            rows = np.array([self._counts.row(group, now) if group else 0 for group in groups], np.intp)
            first = costs["class"].astype(np.intp) * _WIDTH
            columns = first[:, None] + np.arange(_WIDTH)
            np.add.at(self._counts.values, (rows[inverse][:, None], columns), added)

    def collect(self, out: Gathered) -> None:
        """Add the series of all groups; classes without a call are left out."""
        with self._lock:
            self._counts.forget(self._monotonic())
            found = [(group, values.copy()) for group, values in self._counts.items()]
            folded = self._counts.folded_count
        out.add(FOLDED, folded, "measured_group")
        for group, values in found:
            labels = self._labels(group)
            for name, part in zip(CLASSES, values.reshape(len(CLASSES), _WIDTH), strict=True):
                if part[_COUNT]:
                    _add_class(out, part, (*labels, name))

    def _group(self, table: ProcessTable, pid: int, start_ns: int) -> Group | None:
        process = table.get(pid, start_ns)
        return None if process is None else self._names.group(process)


def _columns(costs: NDArray[Any]) -> NDArray[np.float64]:
    """The amounts of each entry, (entries, `_WIDTH`)."""
    found = np.empty((len(costs), _WIDTH))
    for column, name in ((_COUNT, "calls"), (_ERRORS, "errors"), (_BYTES, "bytes"), (_TIMED, "timed")):
        found[:, column] = costs[name]
    found[:, _SECONDS] = costs["duration_ns"] / 1e9
    # Bucket n holds what is below bound n; the last one has no bound.
    bounded = costs["buckets"][:, : DURATION_BUCKETS - 1].astype(np.float64)
    found[:, _BUCKETS:] = np.add.reduceat(bounded, _FIRST_OF_BOUND, axis=1)
    return found


_FIRST_OF_BOUND = [max(n - _STEP + 1, 0) for n in range(0, DURATION_BUCKETS - 1, _STEP)]
"""First bucket of the kernel that counts for each bound."""


def _add_class(out: Gathered, part: NDArray[np.float64], labels: tuple[str, ...]) -> None:
    out.add(_CALLS, part[_COUNT], *labels)
    if part[_ERRORS]:
        out.add(_FAILED, part[_ERRORS], *labels)
    if part[_BYTES]:
        out.add(_MOVED, part[_BYTES], *labels)
    if not part[_TIMED]:
        return
    bucket, names = f"{_DURATION.name}_bucket", (*_LABELS, "le")
    for bound, value in zip(_BOUNDS, np.cumsum(part[_BUCKETS:]).tolist(), strict=True):
        out.add_series(_DURATION, value, (bucket, names, (*labels, repr(bound))))
    out.add_series(_DURATION, part[_TIMED], (bucket, names, (*labels, "+Inf")))
    out.add_series(_DURATION, part[_SECONDS], (f"{_DURATION.name}_sum", _LABELS, labels))
    out.add_series(_DURATION, part[_TIMED], (f"{_DURATION.name}_count", _LABELS, labels))
