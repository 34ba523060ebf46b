"""Service discovery that Vedette performs itself or knows in full: static, file, HTTP, DNS, Kubernetes."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ingest.config.durations import Duration
from ingest.config.httpclient import HTTPClientConfig
from ingest.config.section import FilePath, Section, Text, Url, fault
from ingest.validate import is_label_name

_FILE_PATTERN = re.compile(r"[^*]*(\*[^/]*)?\.(json|yml|yaml|JSON|YML|YAML)")


class TargetGroup(Section):
    """Targets that share labels: an item of static_configs, a discovery file, or an HTTP answer."""

    go_type = "struct"
    targets: list[Text] = Field(default_factory=list)
    labels: Annotated[dict[Text, Text], Field(default_factory=dict)]

    @field_validator("labels")
    @classmethod
    def _label_names(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if not is_label_name(name):
                raise fault(f'"{name}" is not a valid label name', name)
        return labels


class FileSDConfig(Section):
    """Target groups in files that are watched."""

    files: list[FilePath] = Field(default_factory=list)
    refresh_interval: Duration = Duration(300_000)

    @field_validator("files", mode="before")
    @classmethod
    def _patterns(cls, files: object) -> object:
        for index, name in enumerate(files if isinstance(files, list) else ()):
            if isinstance(name, str) and not _FILE_PATTERN.fullmatch(name):
                raise fault(f'path name "{name}" is not valid for file discovery', index)
        return files

    @model_validator(mode="after")
    def _some_file(self) -> Self:
        if not self.files:
            raise fault("file service discovery config must contain at least one path name")
        return self


def check_http_url(url: str, missing: str = "URL is missing") -> str:
    """An absolute http or https URL. Raises a fault in Prometheus's words."""
    if not url:
        raise fault(missing)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise fault("URL scheme must be 'http' or 'https'")
    if not parts.hostname:
        raise fault("host is missing in URL")
    return url


class HTTPSDConfig(HTTPClientConfig):
    """Target groups as JSON from an HTTP endpoint."""

    url: Url = ""
    refresh_interval: Duration = Duration(60_000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        check_http_url(self.url)
        return self


class DNSSDConfig(Section):
    """Targets from DNS records."""

    names: list[str] = Field(default_factory=list)
    refresh_interval: Duration = Duration(30_000)
    type: str = "SRV"
    port: int = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.names:
            raise fault("DNS-SD config must contain at least one SRV record name")
        kind = self.type.upper()
        if kind not in ("SRV", "A", "AAAA", "MX", "NS"):
            raise fault(f"invalid DNS-SD records type {self.type}", "type")
        if kind != "SRV" and self.port == 0:
            raise fault("a port is required in DNS-SD configs for all record types except SRV", "port")
        return self


KubernetesRole = Literal["node", "pod", "service", "endpoints", "endpointslice", "ingress"]
_SELECTOR_ROLES: dict[str, tuple[str, ...]] = {
    "pod": ("pod",),
    "service": ("service",),
    "endpointslice": ("pod", "service", "endpointslice"),
    "endpoints": ("pod", "service", "endpoints"),
    "node": ("node",),
    "ingress": ("ingress",),
}


def _role(value: object) -> object:
    if isinstance(value, str) and value not in _SELECTOR_ROLES:
        raise fault(f'unknown Kubernetes SD role "{value}"')
    return value


Role = Annotated[KubernetesRole, BeforeValidator(_role)]


class Namespaces(Section):
    """Which namespaces to look at."""

    go_type = "kubernetes.plain"
    own_namespace: bool = False
    names: list[str] = Field(default_factory=list)


class Selector(Section):
    """A label and field selector for one kind of object."""

    role: Role
    label: str = ""
    field: str = ""

    @field_validator("field")
    @classmethod
    def _field_selector(cls, text: str) -> str:
        for term in text.split(",") if text else ():
            if "=" not in term:
                raise fault(f"invalid selector: '{text}'; can't understand '{term}'")
        return text


class AttachMetadata(Section):
    """Whose labels are attached to discovered targets."""

    node: bool = False
    namespace: bool = False
    deployment: bool = False
    job: bool = False
    cronjob: bool = False


class KubernetesSDConfig(HTTPClientConfig):
    """Targets from the Kubernetes API."""

    go_type = "kubernetes.plain"
    api_server: Url = ""
    role: Role
    kubeconfig_file: FilePath = ""
    namespaces: Namespaces = Namespaces.model_construct()
    selectors: list[Selector] = Field(default_factory=list)
    attach_metadata: AttachMetadata = AttachMetadata.model_construct()

    @model_validator(mode="after")
    def _access_keys_agree(self) -> Self:
        own = self.namespaces.own_namespace
        if self.kubeconfig_file and self.api_server:
            raise fault("cannot use 'kubeconfig_file' and 'api_server' simultaneously")
        if self.kubeconfig_file and self.is_custom_client:
            raise fault("cannot use a custom HTTP client configuration together with 'kubeconfig_file'")
        if not self.api_server and self.is_custom_client:
            raise fault(
                "to use custom HTTP client configuration please provide the 'api_server' URL explicitly"
            )
        if self.api_server and own:
            raise fault("cannot use 'api_server' and 'namespaces.own_namespace' simultaneously")
        if self.kubeconfig_file and own:
            raise fault("cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously")
        return self

    @model_validator(mode="after")
    def _selectors_fit_the_role(self) -> Self:
        seen: set[str] = set()
        allowed = _SELECTOR_ROLES[self.role]
        for index, selector in enumerate(self.selectors):
            if selector.role in seen:
                raise fault(f"duplicated selector role: {selector.role}", "selectors", index)
            seen.add(selector.role)
            # A pod may also be chosen by its node when that node's labels are attached.
            if selector.role not in allowed and not (self.role == "pod" and selector.role == "node"):
                raise fault(
                    f"{self.role} role supports only {', '.join(allowed)} selectors", "selectors", index
                )
        return self
