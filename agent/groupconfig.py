"""The parts of the `agent:` section about process groups, connections and found endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import re2
from pydantic import Field, field_validator

from ingest.config.durations import Duration
from ingest.config.section import Section

if TYPE_CHECKING:
    from agent.processgroups import GroupRule


class GroupRuleConfig(Section):
    """Processes that fit all given parts belong to the group `name`."""

    name: str = Field(min_length=1, max_length=64)
    comm: list[str] = Field(default_factory=list)
    exe: list[str] = Field(default_factory=list)
    cmdline: str = ""
    """A regular expression (RE2) that is searched in name and arguments."""

    @field_validator("cmdline")
    @classmethod
    def _cmdline(cls, value: str) -> str:
        try:
            re2.compile(value)
        except re2.error as error:
            raise ValueError(f"cmdline {value!r}: {error}") from None
        return value

    def rule(self) -> GroupRule:
        """The rule as the agent applies it."""
        # With all that watches processes behind it: not for those who only read the configuration.
        from agent.processgroups import GroupRule

        expression = re2.compile(self.cmdline) if self.cmdline else None
        return GroupRule(self.name, frozenset(self.comm), frozenset(self.exe), expression)


class CallsConfig(Section):
    """Calls that the kernel program adds up by process group: number, errors, bytes, durations."""

    enabled: bool = True
    data: bool = True
    """Also those that move bytes: read, write, send, receive. Costs each such call some 120 ns."""
    limit: int = Field(default=100, ge=1, le=2000)
    """Groups; what exceeds it is counted under `other`. A group has up to 19 series an operation."""


class ProcessesConfig(Section):
    """Metrics of process groups, from `/proc` and from the event stream."""

    enabled: bool = True
    limit: int = Field(default=1000, ge=1, le=20_000)
    """Groups; what exceeds it is counted under the group `other`."""
    calls: CallsConfig = CallsConfig.model_construct()
    groups: list[GroupRuleConfig] = Field(default_factory=list)
    """The first one that fits names a process; otherwise its own name, and its script for interpreters."""


class ConnectionsConfig(Section):
    """Edges between services."""

    enabled: bool = True
    limit: int = Field(default=2000, ge=1, le=50_000)
    """Edges; what exceeds it is counted under the edge `other`."""


class DiscoveryConfig(Section):
    """Prometheus endpoints that are found on the host and scraped."""

    exporters: bool = True
    """Listening programs that are known as exporters."""
    annotations: bool = True
    """Containers with `prometheus.io/scrape` among the annotations of their pod or their labels."""
    interval: Duration = Duration(15_000)
    """Between two scrapes of a target."""
    sample_limit: int = Field(default=50_000, ge=1)
    """Samples of one target; a scrape with more is refused."""

    @field_validator("interval")
    @classmethod
    def _interval(cls, value: Duration) -> Duration:
        if value < 1000:
            raise ValueError(f"interval of {value} is below 1s")
        return value
