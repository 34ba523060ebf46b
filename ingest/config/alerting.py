"""`alerting`: Alertmanagers and relabelling of alerts (surface 7.1)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ingest.config.durations import Duration
from ingest.config.httpclient import HTTPClientConfig, SigV4Config
from ingest.config.relabeling import RelabelConfig
from ingest.config.scrape import DISCOVERY_FIELDS, DiscoveryConfigs, check_static_targets
from ingest.config.section import Section, fault, no_null_items

Rules = list[RelabelConfig]


class AlertmanagerConfig(DiscoveryConfigs, HTTPClientConfig):
    """A group of Alertmanagers."""

    always_printed = HTTPClientConfig.always_printed | {"api_version"}
    printed_last = DISCOVERY_FIELDS

    scheme: str = "http"
    path_prefix: str = ""
    timeout: Duration = Duration(10_000)
    api_version: str = "v2"
    sigv4: SigV4Config | None = None
    relabel_configs: Annotated[
        Rules, BeforeValidator(no_null_items("empty or null Alertmanager target relabeling rule"))
    ] = Field(default_factory=list)
    alert_relabel_configs: Annotated[
        Rules, BeforeValidator(no_null_items("empty or null Alertmanager alert relabeling rule"))
    ] = Field(default_factory=list)

    @field_validator("api_version")
    @classmethod
    def _version(cls, value: str) -> str:
        if value != "v2":
            raise fault(f"expected Alertmanager api version to be one of [v2] but got {value}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.sigv4 and (self.basic_auth or self.authorization or self.oauth2):
            raise fault("at most one of basic_auth, authorization, oauth2, & sigv4 must be configured")
        if not self.relabel_configs:
            check_static_targets(self)
        return self


class AlertingConfig(Section):
    """Where alerts go."""

    alert_relabel_configs: Annotated[
        Rules, BeforeValidator(no_null_items("empty or null alert relabeling rule"))
    ] = Field(default_factory=list)
    alertmanagers: Annotated[
        list[AlertmanagerConfig], BeforeValidator(no_null_items("empty or null Alertmanager section"))
    ] = Field(default_factory=list)
