"""Makes an `EventBatch` of each batch of events; columns come into being when a rule asks for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.events import Events
from agent.eventtypes import FORK_EVENT
from agent.probe.layout import CALL_LIMIT
from agent.processes import ProcessTable
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, Dictionary, EventBatch

_CODES = CALL_LIMIT + 8
_UNKNOWN = -2


class SyscallSource:
    """What is kept between batches. One thread uses it."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._types = Dictionary()
        self._type_codes: NDArray[np.int32] = np.full(_CODES, _UNKNOWN, np.int32)
        self._events_count = 0

    def batch(self, events: Events, table: ProcessTable) -> EventBatch:
        """The events as columns. The batch must be used before the table takes the next one."""
        first = self._events_count + 1
        self._events_count += len(events)

        def load(key: ColumnKey) -> AnyColumn | None:
            return None

        return EventBatch(
            "syscall",
            events.time_unix_ns,
            load,
            Column(self._types_of(events), self._types),
            first,
            self._hostname,
        )

    def _types_of(self, events: Events) -> NDArray[np.int32]:
        """Codes of the event types; a new process's own record has none, since it is no event for rules."""
        codes = self._type_codes[events.codes]
        for row in np.flatnonzero(codes == _UNKNOWN).tolist():
            code = int(events.codes[row])
            if self._type_codes[code] == _UNKNOWN:
                name = events.type(row)
                self._type_codes[code] = MISSING_CODE if name == FORK_EVENT else self._types.code(name)
        return codes if (codes != _UNKNOWN).all() else self._type_codes[events.codes]
