"""`remote_write` and `remote_read` (surface 7.1)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, field_validator, model_validator

from ingest.config.durations import Duration
from ingest.config.httpclient import HTTPClientConfig, SigV4Config, check_headers
from ingest.config.relabeling import RelabelConfig
from ingest.config.section import FilePath, Secret, Section, Url, fault, no_null_items

_AUTHORIZATION = (
    "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or "
    "google_iam parameter"
)
UNSUPPORTED_CREDENTIALS = ("sigv4", "azuread", "google_iam")
"""Ways to sign requests that are checked and not performed: such an endpoint gets nothing."""
MESSAGES = ("prometheus.WriteRequest", "io.prometheus.write.v2.Request")


class QueueConfig(Section):
    """The queue of samples to one endpoint."""

    capacity: int = 10_000
    max_shards: int = 50
    min_shards: int = 1
    max_samples_per_send: int = 2000
    batch_send_deadline: Duration = Duration(5000)
    min_backoff: Duration = Duration(30)
    max_backoff: Duration = Duration(5000)
    retry_on_http_429: bool = False
    sample_age_limit: Duration = Duration(0)

    @model_validator(mode="after")
    def _positive_and_ordered(self) -> Self:
        for name in ("capacity", "max_shards", "min_shards", "max_samples_per_send"):
            if getattr(self, name) <= 0:
                raise fault(f"{name} must be greater than 0, got {getattr(self, name)}", name)
        if self.min_shards > self.max_shards:
            raise fault(
                f"min_shards ({self.min_shards}) must not be greater than max_shards ({self.max_shards})",
                "min_shards",
            )
        if self.min_backoff > self.max_backoff:
            raise fault(
                f"max_backoff ({self.max_backoff}) must not be less than min_backoff ({self.min_backoff})",
                "max_backoff",
            )
        return self


class MetadataConfig(Section):
    """Sending of metric metadata."""

    always_printed = frozenset({"send", "send_interval"})
    send: bool = True
    send_interval: Duration = Duration(60_000)
    max_samples_per_send: int = 2000


class AzureOAuth(Section):
    """An Azure application's credentials."""

    client_id: str = ""
    client_secret: Secret = Secret("")
    tenant_id: str = ""


class AzureManagedIdentity(Section):
    """An Azure managed identity."""

    client_id: str = ""


class AzureWorkloadIdentity(Section):
    """An Azure workload identity."""

    client_id: str = ""
    tenant_id: str = ""
    token_file_path: FilePath = ""


class AzureSDK(Section):
    """Azure's default credential chain."""

    tenant_id: str = ""


class AzureADConfig(Section):
    """Authentication by Microsoft's directory."""

    cloud: str = "AzurePublic"
    managed_identity: AzureManagedIdentity | None = None
    workload_identity: AzureWorkloadIdentity | None = None
    oauth: AzureOAuth | None = None
    sdk: AzureSDK | None = None
    scope: str = ""


class GoogleIAMConfig(Section):
    """Authentication by a Google service account."""

    credentials_file: FilePath = ""


class RemoteWriteConfig(HTTPClientConfig):
    """One endpoint that receives samples."""

    url: Url = ""
    remote_timeout: Duration = Duration(30_000)
    headers: dict[str, str] = Field(default_factory=dict)
    write_relabel_configs: Annotated[
        list[RelabelConfig],
        BeforeValidator(no_null_items("empty or null relabeling rule in remote write config")),
    ] = Field(default_factory=list)
    name: str = ""
    send_exemplars: bool = False
    send_native_histograms: bool = False
    round_robin_dns: bool = False
    failed_request_logging: bool = False
    protobuf_message: str = MESSAGES[0]
    queue_config: QueueConfig = QueueConfig.model_construct()
    metadata_config: MetadataConfig = MetadataConfig.model_construct()
    sigv4: SigV4Config | None = None
    azuread: AzureADConfig | None = None
    google_iam: GoogleIAMConfig | None = None
    enable_http2: bool = False

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers, _AUTHORIZATION)

    @field_validator("protobuf_message")
    @classmethod
    def _message(cls, value: str) -> str:
        if value not in MESSAGES:
            raise fault(
                f"invalid protobuf_message value: unknown type for remote write protobuf message {value}, "
                f"supported: {', '.join(MESSAGES)}"
            )
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.url:
            raise fault("url for remote_write is empty", "url")
        kinds = ("basic_auth", "authorization", "oauth2", "sigv4", "azuread", "google_iam")
        configured = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(configured) > 1:
            raise fault(
                "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be "
                f"configured. Currently configured: [{' '.join(configured)}]"
            )
        return self


class RemoteReadConfig(HTTPClientConfig):
    """One endpoint that answers queries."""

    always_printed = HTTPClientConfig.always_printed | {"filter_external_labels"}

    url: Url = ""
    remote_timeout: Duration = Duration(60_000)
    chunked_read_limit: NonNegativeInt = 50_000_000
    headers: dict[str, str] = Field(default_factory=dict)
    read_recent: bool = False
    name: str = ""
    required_matchers: dict[str, str] = Field(default_factory=dict)
    filter_external_labels: bool = True

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers, _AUTHORIZATION)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.url:
            raise fault("url for remote_read is empty", "url")
        return self
