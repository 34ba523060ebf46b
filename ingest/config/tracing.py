"""`tracing`: where spans of the server itself go (surface 7.1)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ingest.config.durations import Duration
from ingest.config.httpclient import TLSConfig, check_headers
from ingest.config.section import Section, fault


class TracingConfig(Section):
    """An OpenTelemetry collector."""

    client_type: Literal["grpc", "http"] = "grpc"
    endpoint: str = ""
    sampling_fraction: float = 0.0
    insecure: bool = False
    tls_config: TLSConfig = TLSConfig.model_construct()
    headers: dict[str, str] = Field(default_factory=dict)
    compression: str = ""
    timeout: Duration = Duration(0)

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers, "custom authorization header configuration is not yet supported")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.endpoint:
            raise fault("tracing endpoint must be set", "endpoint")
        if self.compression not in ("", "gzip"):
            raise fault(
                f"invalid compression type {self.compression} provided, valid options: gzip", "compression"
            )
        return self
