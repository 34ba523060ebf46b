"""Makes an `EventBatch` of each batch of events; columns come into being when a rule asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.events import Events
from agent.eventtypes import FORK_EVENT
from agent.fields import ancestors, arguments, connections, containers, event, files, process, running, users
from agent.fields.view import CODES_LIMIT, ContainerInfos, Known, Loader, View
from agent.processes import ProcessTable
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, Dictionary, EventBatch

_UNKNOWN = -2


@lru_cache(maxsize=1)
def loaders() -> dict[str, Loader]:
    """How the column of each field is made, by field. Fields that are not here are always missing."""
    found: dict[str, Loader] = {}
    for module in (ancestors, arguments, connections, containers, event, files, process, running, users):
        found |= module.loaders()
    return found


class SyscallSource:
    """What is kept between batches. One thread uses it."""

    def __init__(
        self,
        hostname: str,
        *,
        container_info: ContainerInfos = lambda identity: None,
        address_names: Callable[[str], str | None] = lambda address: None,
    ) -> None:
        """`container_info` is what the runtime says of a container, `address_names` the names in rules."""
        self._hostname = hostname
        self._types = Dictionary()
        self._type_codes: NDArray[np.int32] = np.full(CODES_LIMIT, _UNKNOWN, np.int32)
        self._events_count = 0
        self.known = Known(container_info, address_names)

    def batch(self, events: Events, table: ProcessTable) -> EventBatch:
        """The events as columns. The batch must be used before the table takes the next one."""
        self.known.begin_batch()
        first = self._events_count + 1
        self._events_count += len(events)
        whole = View(self.known, events, table)
        return EventBatch(
            "syscall",
            events.time_unix_ns,
            _loader(whole),
            Column(self._types_of(events), self._types),
            first,
            self._hostname,
            narrow=lambda rows: _loader(whole.take(rows)),
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


def _loader(view: View) -> Callable[[ColumnKey], AnyColumn | None]:
    table = loaders()

    def load(key: ColumnKey) -> AnyColumn | None:
        make = table.get(key[0])
        return None if make is None else make(view, key)

    return load
