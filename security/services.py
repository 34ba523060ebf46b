"""The parts of security that the HTTP side uses, and the metrics collector reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from security.eventlog.log import EventLog
from security.eventseries import EventSeries
from security.feed import LiveFeed
from security.output import OutputOptions
from security.outputs.group import OutputGroup
from security.pipeline import Pipeline
from security.sources.receiver import BodyReceiver


@dataclass(slots=True)
class SecurityServices:
    """One server's parts. `receivers` are by name of the source; `open_to_http` has those that take bodies.

    A reload replaces `output_options` and `open_to_http`.
    """

    pipeline: Pipeline
    log: EventLog
    series: EventSeries
    feed: LiveFeed
    outputs: OutputGroup
    receivers: Mapping[str, BodyReceiver]
    open_to_http: frozenset[str]
    output_options: OutputOptions
