"""`agent.checks`: which checks run, how often, and what they may use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import orjson
from pydantic import Field, model_validator

from ingest.config.durations import ByteSize, Duration
from ingest.config.section import FilePath, Secret, Section, Url, fault

CHECKS_LIMIT = 200
SETTINGS_BYTES_LIMIT = 32 << 10
"""They must fit into a pipe."""
NAME_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CheckProgram:
    """One check as it is run. It reads `settings` from standard input, so that no secret is an argument."""

    name: str
    instance: str
    command: tuple[str, ...]
    settings: bytes
    user: str
    interval_seconds: float
    timeout_seconds: float
    memory_bytes: int


class CheckConfig(Section):
    """What all checks have."""

    interval: Duration = Duration(30_000)
    timeout: Duration = Duration(10_000)
    memory: ByteSize = ByteSize(512 * _MIB)
    """Address space of the program."""
    user: str = ""
    """Who runs it; the agent's own user where empty."""
    instance: str = ""

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.interval < 1000 or not 0 < self.timeout <= self.interval:
            raise fault("interval must be at least 1s and timeout at most the interval", "interval")
        if self.memory < 32 * _MIB:
            raise fault("memory is below 32MiB", "memory")
        return self

    def program(self, name: str, instance: str, command: tuple[str, ...], settings: object) -> CheckProgram:
        """The program with this section's limits."""
        return CheckProgram(
            name=name,
            instance=self.instance or instance,
            command=command,
            settings=_bounded(orjson.dumps(settings)),
            user=self.user,
            interval_seconds=self.interval.seconds,
            timeout_seconds=self.timeout.seconds,
            memory_bytes=self.memory,
        )


class ProgramConfig(CheckConfig):
    """A check of one's own: any program that prints metrics in the text format and ends with status 0."""

    name: str = Field(pattern=NAME_PATTERN)
    command: list[str] = Field(min_length=1)
    settings: dict[str, str] = Field(default_factory=dict)


class RedisConfig(CheckConfig):
    """Redis and its relatives, by INFO."""

    address: str = "127.0.0.1:6379"
    """Host and port, or the path of a Unix socket."""
    username: str = ""
    password: Secret = Secret("")


class NginxConfig(CheckConfig):
    """nginx, by its page stub_status."""

    url: Url = "http://127.0.0.1/nginx_status"


class PostgresqlConfig(CheckConfig):
    """PostgreSQL, by its statistics views. A role with pg_monitor is enough."""

    address: str = "/var/run/postgresql"
    """Host and port, or the folder of the Unix socket."""
    username: str = "postgres"
    password: Secret = Secret("")
    database: str = "postgres"


class ChecksConfig(Section):
    """All checks. Each program in `directory` is one, named as the file."""

    directory: FilePath = "/etc/vedette/checks.d"
    programs: list[ProgramConfig] = Field(default_factory=list)
    redis: list[RedisConfig] = Field(default_factory=list)
    nginx: list[NginxConfig] = Field(default_factory=list)
    postgresql: list[PostgresqlConfig] = Field(default_factory=list)

    def configured(self) -> Iterator[CheckProgram]:
        """Every check that the configuration names."""
        for own in self.programs:
            yield own.program(own.name, "", tuple(own.command), own.settings)
        for redis in self.redis:
            yield redis.program("redis", redis.address, _ours("redis"), _login(redis))
        for nginx in self.nginx:
            yield nginx.program("nginx", nginx.url, _ours("nginx"), {"url": nginx.url})
        for database in self.postgresql:
            settings = {**_login(database), "database": database.database}
            yield database.program("postgresql", database.address, _ours("postgresql"), settings)


def _bounded(settings: bytes) -> bytes:
    if len(settings) > SETTINGS_BYTES_LIMIT:
        raise ValueError(f"settings of {len(settings)} bytes exceed {SETTINGS_BYTES_LIMIT}")
    return settings


def _ours(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"agent.checks.{name}")


def _login(section: RedisConfig | PostgresqlConfig) -> dict[str, str]:
    password = section.password.get_secret_value()
    return {"address": section.address, "username": section.username, "password": password}
