"""Discovery in clouds and orchestrators: checked strictly, not performed yet (a load warning says so).

Keys and defaults follow Prometheus's documentation of each `<name>_sd_config`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from ingest.config.durations import Duration
from ingest.config.httpclient import HTTPClientConfig, TLSConfig
from ingest.config.section import FilePath, Secret, Section, fault

_NO_SECRET = Secret("")
MINUTE = Duration(60_000)


def one_of(message: str, *allowed: str) -> Any:
    """A string type with a closed set of values and Prometheus's words for the others."""

    def check(value: object) -> object:
        if isinstance(value, str) and value not in allowed:
            raise fault(message.format(value))
        return value

    return BeforeValidator(check)


def is_set(secret: Secret) -> bool:
    """Whether a secret has text."""
    return bool(secret.get_secret_value())


class Filter(Section):
    """A filter of an API request."""

    name: str = ""
    values: list[str] = Field(default_factory=list)


class PolledSDConfig(HTTPClientConfig):
    """What is asked over HTTP now and then, and whose targets share a port."""

    port: int = 80
    refresh_interval: Duration = MINUTE


class AWSSDConfig(PolledSDConfig):
    """One of Amazon's services, named by `role`."""

    role: Literal["ec2", "ecs", "elasticache", "lightsail", "msk", "rds"]
    region: str = ""
    endpoint: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    clusters: list[str] = Field(default_factory=list)
    request_concurrency: int = 10
    filters: list[Filter] = Field(default_factory=list)


class EC2SDConfig(PolledSDConfig):
    """Amazon EC2 instances."""

    region: str = ""
    endpoint: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    filters: list[Filter] = Field(default_factory=list)

    @model_validator(mode="after")
    def _filters_have_values(self) -> Self:
        for index, item in enumerate(self.filters):
            if not item.values:
                raise fault("EC2 SD configuration filter values cannot be empty", "filters", index)
        return self


class LightsailSDConfig(PolledSDConfig):
    """Amazon Lightsail instances."""

    region: str = ""
    endpoint: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""


class AzureSDConfig(PolledSDConfig):
    """Azure virtual machines."""

    environment: str = "AzurePublicCloud"
    authentication_method: Annotated[
        str,
        one_of(
            'unknown authentication_type "{}". Supported types are "OAuth", "ManagedIdentity" or "SDK"',
            *("OAuth", "ManagedIdentity", "SDK", "WorkloadIdentity"),
        ),
    ] = "OAuth"
    subscription_id: str = ""
    tenant_id: str = ""
    client_id: str = ""
    client_secret: Secret = _NO_SECRET
    resource_group: str = ""
    refresh_interval: Duration = Duration(300_000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        required: dict[str, object] = {"subscription_id": self.subscription_id}
        if self.authentication_method == "OAuth":
            required |= {"tenant_id": self.tenant_id, "client_id": self.client_id}
            required |= {"client_secret": is_set(self.client_secret)}
        for name, value in required.items():
            if not value:
                raise fault(f"azure SD configuration requires a {name}", name)
        return self


class DigitalOceanSDConfig(PolledSDConfig):
    """DigitalOcean droplets."""


class GCESDConfig(Section):
    """Google Compute Engine instances."""

    project: str
    zone: str
    filter: str = ""
    refresh_interval: Duration = MINUTE
    port: int = 80
    tag_separator: str = ","


class HetznerSDConfig(PolledSDConfig):
    """Hetzner Cloud and Robot servers."""

    role: Annotated[str, one_of("unknown role", "robot", "hcloud")]
    label_selector: str = ""


class IonosSDConfig(PolledSDConfig):
    """IONOS Cloud servers."""

    datacenter_id: str = ""

    @model_validator(mode="after")
    def _datacenter(self) -> Self:
        if not self.datacenter_id:
            raise fault("datacenter id can't be empty", "datacenter_id")
        return self


class LinodeSDConfig(PolledSDConfig):
    """Linode instances."""

    region: str = ""
    tag_separator: str = ","


class OCISDConfig(PolledSDConfig):
    """Oracle Cloud instances."""

    auth: Annotated[str, one_of('unknown authentication method "{}"', "api_key", "instance_principal")] = (
        "api_key"
    )
    region: str = ""
    tenancy: str = ""
    user: str = ""
    fingerprint: str = ""
    key: Secret = _NO_SECRET
    key_file: FilePath = ""
    key_passphrase: Secret = _NO_SECRET
    compartments: list[str] = Field(default_factory=list)


class OpenStackSDConfig(Section):
    """OpenStack instances, hypervisors and load balancers."""

    identity_endpoint: str = ""
    username: str = ""
    userid: str = ""
    password: Secret = _NO_SECRET
    project_name: str = ""
    project_id: str = ""
    domain_name: str = ""
    domain_id: str = ""
    application_credential_name: str = ""
    application_credential_id: str = ""
    application_credential_secret: Secret = _NO_SECRET
    role: Annotated[
        str, one_of('unknown OpenStack SD role "{}"', "instance", "hypervisor", "loadbalancer")
    ] = ""
    region: str = ""
    refresh_interval: Duration = MINUTE
    port: int = 80
    all_tenants: bool = False
    tls_config: TLSConfig = TLSConfig.model_construct()
    availability: Annotated[
        str,
        one_of(
            "unknown availability {}, must be one of admin, internal or public", "admin", "internal", "public"
        ),
    ] = "public"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.role:
            raise fault("role missing (one of: instance, hypervisor, loadbalancer)")
        if not self.region:
            raise fault("openstack SD configuration requires a region")
        return self


class OutscaleSDConfig(PolledSDConfig):
    """Outscale virtual machines."""

    region: str = ""
    endpoint: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    secret_key_file: FilePath = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.region:
            raise fault("region must be configured", "region")
        return _one_secret_key(self)


class OVHCloudSDConfig(Section):
    """OVHcloud servers."""

    service: Annotated[str, one_of("unknown service: {}", "vps", "dedicated_server")]
    endpoint: str = "ovh-eu"
    application_key: str = ""
    application_secret: Secret = _NO_SECRET
    consumer_key: Secret = _NO_SECRET
    refresh_interval: Duration = MINUTE

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.application_key:
            raise fault("application key can not be empty", "application_key")
        if not is_set(self.application_secret):
            raise fault("application secret can not be empty", "application_secret")
        if not is_set(self.consumer_key):
            raise fault("consumer key can not be empty", "consumer_key")
        return self


class ScalewaySDConfig(HTTPClientConfig):
    """Scaleway instances and bare metal."""

    role: Annotated[str, one_of('unknown role "{}"', "instance", "baremetal")]
    project_id: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    secret_key_file: FilePath = ""
    api_url: str = ""
    zone: str = ""
    name_filter: str = ""
    tags_filter: list[str] = Field(default_factory=list)
    refresh_interval: Duration = MINUTE
    port: int = 80

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.project_id:
            raise fault("project_id is mandatory", "project_id")
        if not self.access_key:
            raise fault("access_key is mandatory", "access_key")
        return _one_secret_key(self)


class StackITSDConfig(PolledSDConfig):
    """STACKIT servers."""

    project: str = ""
    region: str = "eu01"
    endpoint: str = ""
    service_account_key: Secret = _NO_SECRET
    private_key: Secret = _NO_SECRET
    service_account_key_path: FilePath = ""
    private_key_path: FilePath = ""
    credentials_file_path: FilePath = ""

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        if self.endpoint and not urlsplit(self.endpoint).scheme:
            raise fault(f'invalid endpoint "{self.endpoint}": missing protocol scheme', "endpoint")
        return self


class VultrSDConfig(PolledSDConfig):
    """Vultr instances."""


class _HasSecretKey(Protocol):
    @property
    def secret_key(self) -> Secret: ...

    @property
    def secret_key_file(self) -> str: ...


_K = TypeVar("_K", bound=_HasSecretKey)


def _one_secret_key(config: _K) -> _K:
    if is_set(config.secret_key) and config.secret_key_file:
        raise fault("at most one of secret_key & secret_key_file must be configured", "secret_key_file")
    if not (is_set(config.secret_key) or config.secret_key_file):
        raise fault("one of secret_key & secret_key_file must be configured")
    return config
