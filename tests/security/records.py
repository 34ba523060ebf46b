"""Event records for tests."""

from __future__ import annotations

from typing import Any

from security.output import EventOutput
from security.record import EventRecord
from security.rules.items import PRIORITIES

T0_NS = 1_764_295_200_000_000_000


def record(
    rule: str = "Shell in container",
    *,
    priority: str = "Warning",
    time_ns: int = T0_NS,
    message: str = "A shell started",
    fields: dict[str, Any] | None = None,
    hostname: str = "node-1",
    source: str = "syscall",
    tags: tuple[str, ...] = ("container",),
    **labels: str,
) -> EventRecord:
    """A record; `labels` besides rule, priority, source and hostname."""
    output = EventOutput(
        rule=rule,
        source=source,
        priority=PRIORITIES.index(priority),
        tags=tags,
        time_ns=time_ns,
        message=message,
        fields={"proc.name": "bash", "fd.num": 3} if fields is None else fields,
    )
    pairs = {"rule": rule, "priority": priority, "source": source, "hostname": hostname, **labels}
    return EventRecord(output, tuple(sorted(pairs.items())), hostname)
