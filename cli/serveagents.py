"""The server's end of the agents' channel: who may come in, and what is pushed to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from prometheus_client import CollectorRegistry

from agent.channel.pushedfiles import PushedFiles, PushError, read_pushed_files
from agent.channel.registry import AgentRegistry
from ingest.config.document import LoadedConfig
from ingest.config.errors import ConfigError, Problem
from security.record import EventRecord

TOKEN_BYTES_LIMIT = 4096
TOKEN_BYTES_MIN = 16


def read_token(path: str) -> str:
    """The token in a file, empty without a file. Raises ValueError, OSError."""
    if not path:
        return ""
    with open(path, encoding="utf-8") as file:
        token = file.read(TOKEN_BYTES_LIMIT + 1).strip()
    if not TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_LIMIT:
        raise ValueError(
            f"token in {path} has {len(token)} characters, not {TOKEN_BYTES_MIN} to {TOKEN_BYTES_LIMIT}"
        )
    return token


def pushed_files(config: LoadedConfig) -> PushedFiles:
    """What `agent.push` of the configuration names. Raises ConfigError."""
    if config.config.agent is None:
        return PushedFiles()
    from agent.config import read_agent_config

    push = read_agent_config(config).push
    try:
        return read_pushed_files(push.config, push.rules)
    except (PushError, OSError) as error:
        raise ConfigError([Problem(config.files[0], 0, "agent.push", str(error))]) from None


def make_agent_registry(
    deliver: Callable[[Sequence[EventRecord]], Future[None]],
    storage_path: str,
    config: LoadedConfig,
    registry: CollectorRegistry,
) -> AgentRegistry:
    """Agents whose positions are kept beside the store. Raises ConfigError, StorageError, OSError."""
    agents = AgentRegistry(deliver, Path(storage_path) / "agents", registry)
    agents.pushed = pushed_files(config)
    return agents
