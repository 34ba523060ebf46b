"""Discovery through orchestrators and registries: checked strictly, not performed yet.

Keys and defaults follow Prometheus's documentation of each `<name>_sd_config`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from ingest.config.clouds import MINUTE, Filter, PolledSDConfig, is_set, one_of
from ingest.config.discovery import check_http_url
from ingest.config.durations import Duration
from ingest.config.httpclient import HTTPClientConfig, TLSConfig
from ingest.config.section import FilePath, Secret, Section, Url, fault

_NO_SECRET = Secret("")


class ConsulSDConfig(HTTPClientConfig):
    """Services of a Consul catalogue."""

    server: str = "localhost:8500"
    path_prefix: str = ""
    token: Secret = _NO_SECRET
    datacenter: str = ""
    namespace: str = ""
    partition: str = ""
    tag_separator: str = ","
    scheme: str = "http"
    username: str = ""
    password: Secret = _NO_SECRET
    allow_stale: bool = True
    refresh_interval: Duration = Duration(30_000)
    services: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    node_meta: dict[str, str] = Field(default_factory=dict)
    filter: str = ""
    health_filter: str = ""


class DockerSDConfig(PolledSDConfig):
    """Containers of a Docker daemon."""

    host: str = ""
    filters: list[Filter] = Field(default_factory=list)
    host_networking_host: str = "localhost"
    match_first_network: bool = True

    @model_validator(mode="after")
    def _host(self) -> Self:
        if not self.host:
            raise fault("host missing")
        return self


class DockerSwarmSDConfig(PolledSDConfig):
    """Services, tasks or nodes of a Docker Swarm."""

    host: str = ""
    role: Annotated[
        str, one_of("invalid role {}, expected tasks, services, or nodes", "services", "tasks", "nodes")
    ]
    filters: list[Filter] = Field(default_factory=list)

    @model_validator(mode="after")
    def _host(self) -> Self:
        if not self.host:
            raise fault("host missing")
        return self


class EurekaSDConfig(HTTPClientConfig):
    """Applications of a Eureka server."""

    server: Url = ""
    refresh_interval: Duration = Duration(30_000)

    @model_validator(mode="after")
    def _server(self) -> Self:
        if not self.server:
            raise fault("eureka_sd: empty or null eureka server", "server")
        parts = urlsplit(self.server)
        if not parts.scheme or not parts.hostname:
            raise fault("eureka_sd: invalid eureka server URL", "server")
        return self


class KumaSDConfig(HTTPClientConfig):
    """Data plane proxies of a Kuma control plane."""

    server: Url = ""
    client_id: str = ""
    refresh_interval: Duration = Duration(30_000)
    fetch_timeout: Duration = Duration(120_000)

    @model_validator(mode="after")
    def _server(self) -> Self:
        if not self.server:
            raise fault("kuma SD server must not be empty")
        return self


class MarathonSDConfig(HTTPClientConfig):
    """Applications of Marathon."""

    servers: list[str] = Field(default_factory=list)
    auth_token: Secret = _NO_SECRET
    auth_token_file: FilePath = ""
    refresh_interval: Duration = Duration(30_000)

    @model_validator(mode="after")
    def _access(self) -> Self:
        token, token_file = is_set(self.auth_token), bool(self.auth_token_file)
        if not self.servers:
            raise fault("marathon_sd: must contain at least one Marathon server", "servers")
        if token and token_file:
            raise fault("marathon_sd: at most one of auth_token & auth_token_file must be configured")
        if not (token or token_file):
            return self
        if self.basic_auth:
            raise fault(
                "marathon_sd: at most one of basic_auth, auth_token & auth_token_file must be configured"
            )
        if is_set(self.bearer_token) or self.bearer_token_file:
            raise fault(
                "marathon_sd: at most one of bearer_token, bearer_token_file, auth_token & auth_token_file "
                "must be configured"
            )
        if self.authorization:
            raise fault(
                "marathon_sd: at most one of auth_token, auth_token_file & authorization must be configured"
            )
        return self


class NerveSDConfig(Section):
    """AirBnB's Nerve in Zookeeper."""

    servers: list[str] = Field(min_length=1)
    paths: list[str] = Field(min_length=1)
    timeout: Duration = Duration(10_000)


class ServersetSDConfig(NerveSDConfig):
    """Serversets in Zookeeper."""


class NomadSDConfig(HTTPClientConfig):
    """Services of Nomad."""

    server: str = "http://localhost:4646"
    allow_stale: bool = True
    namespace: str = "default"
    region: str = "global"
    refresh_interval: Duration = MINUTE
    tag_separator: str = ","


class PuppetDBSDConfig(PolledSDConfig):
    """Resources of PuppetDB."""

    url: str = ""
    query: str = ""
    include_parameters: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        check_http_url(self.url)
        if not self.query:
            raise fault("query missing", "query")
        return self


class TritonSDConfig(Section):
    """Containers of Joyent Triton."""

    account: str = ""
    dns_suffix: str = ""
    endpoint: str = ""
    groups: list[str] = Field(default_factory=list)
    port: int = 9163
    refresh_interval: Duration = MINUTE
    role: Literal["container", "cn"] = "container"
    version: int = 1
    tls_config: TLSConfig = TLSConfig.model_construct()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in ("account", "dns_suffix", "endpoint"):
            if not getattr(self, name):
                raise fault(f"triton SD configuration requires an {name}", name)
        return self


class UyuniSDConfig(HTTPClientConfig):
    """Systems of Uyuni."""

    server: str = ""
    username: str = ""
    password: Secret = _NO_SECRET
    entitlement: str = "monitoring_entitled"
    separator: str = ","
    refresh_interval: Duration = MINUTE

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.server:
            raise fault("Uyuni SD configuration requires server host", "server")
        if not self.username:
            raise fault("Uyuni SD configuration requires a username", "username")
        if not is_set(self.password):
            raise fault("Uyuni SD configuration requires a password", "password")
        return self
