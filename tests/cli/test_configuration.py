"""Defaults of the configuration, which are made without validation for a quick start."""

from __future__ import annotations

from pydantic import BaseModel

from agent.config import AgentConfig
from ingest.config.document import PrometheusConfig
from ingest.config.remote import RemoteWriteConfig
from ingest.config.scrape import ScrapeConfig
from ingest.config.storage import TSDBConfig
from security.config import SecurityConfig

_MODELS: tuple[type[BaseModel], ...] = (
    *(PrometheusConfig, AgentConfig, SecurityConfig),
    *(ScrapeConfig, RemoteWriteConfig, TSDBConfig),
)


def test_default_sections_are_what_validation_would_make() -> None:
    fields = [field.default for model in _MODELS for field in model.model_fields.values()]
    defaults = [default for default in fields if isinstance(default, BaseModel)]
    assert len(defaults) > 12
    for made in (*defaults, AgentConfig.model_construct(), SecurityConfig.model_construct()):
        assert type(made).model_validate({}) == made
        assert not made.model_fields_set
