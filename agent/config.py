"""The `agent:` section of the configuration file: what the host agent does, and what it may cost."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agent.checks.config import ChecksConfig
from agent.groupconfig import ConnectionsConfig, DiscoveryConfig, ProcessesConfig
from agent.hostcollector import INTERVAL_SECONDS_MIN
from ingest.config.address import parse_address
from ingest.config.document import LoadedConfig, read_extension
from ingest.config.durations import ByteSize, Duration
from ingest.config.section import FilePath, Section, fault

_MIB = 1 << 20


class StatsdConfig(Section):
    """The StatsD listener; `udp` and `unix` empty turn it off."""

    udp: str = "127.0.0.1:9125"
    unix: FilePath = ""
    observer: Literal["summary", "histogram"] = "summary"
    flush_interval: Duration = Duration(10_000)

    @field_validator("udp")
    @classmethod
    def _udp(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value

    @field_validator("flush_interval")
    @classmethod
    def _flush_interval(cls, value: Duration) -> Duration:
        if value < 1000:
            raise fault(f"flush_interval of {value} is below 1s")
        return value


class BudgetConfig(Section):
    """What the agent may use of the host before it does less."""

    cpu_percent: float = Field(default=20.0, gt=0, le=100)
    """Percent of one core over half a minute; inside `vedette serve` only the agent's threads count.

    A ceiling, not what an ordinary host costs: with less, a host that builds software would lose file events.
    """
    memory: ByteSize = ByteSize(512 * _MIB)


class PushConfig(Section):
    """What a server pushes to its agents: a configuration file and rule files or folders of them."""

    config: FilePath = ""
    rules: list[FilePath] = Field(default_factory=list)


class AgentConfig(Section):
    """`agent:`. Values are those of the file; defaults need no file."""

    interval: Duration = Duration(15_000)
    """Between two collections of host and container metrics."""
    instance: str = ""
    """Label `instance` of all own series; the node name where empty."""
    statsd: StatsdConfig = StatsdConfig.model_construct()
    processes: ProcessesConfig = ProcessesConfig.model_construct()
    connections: ConnectionsConfig = ConnectionsConfig.model_construct()
    checks: ChecksConfig = ChecksConfig.model_construct()
    discovery: DiscoveryConfig = DiscoveryConfig.model_construct()
    budget: BudgetConfig = BudgetConfig.model_construct()
    push: PushConfig = PushConfig.model_construct()

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.interval.seconds < INTERVAL_SECONDS_MIN:
            raise fault(f"interval of {self.interval} is below {INTERVAL_SECONDS_MIN:g}s", "interval")
        if self.connections.enabled and not self.processes.enabled:
            raise fault("connections need processes.enabled", "connections")
        return self


def read_agent_config(loaded: LoadedConfig) -> AgentConfig:
    """The section of a loaded file, or the defaults. Raises ConfigError with file and line."""
    return read_extension(loaded, "agent", AgentConfig)
