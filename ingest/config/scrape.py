"""`scrape_configs`: one job each (surface 7.1)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    field_validator,
    model_validator,
)

from ingest.config.deferred import ListOf
from ingest.config.discovery import (
    DNSSDConfig,
    FileSDConfig,
    HTTPSDConfig,
    TargetGroup,
)
from ingest.config.durations import ByteSize, Duration
from ingest.config.globals import (
    DEFAULT_PROTOCOLS,
    PROTO_FIRST_PROTOCOLS,
    EscapingScheme,
    GlobalConfig,
    ScrapeProtocol,
    ValidationScheme,
    check_protocol,
    check_protocols,
)
from ingest.config.httpclient import HTTPClientConfig
from ingest.config.relabeling import RelabelConfig
from ingest.config.section import FilePath, Section, fault, no_null_items

StaticConfigs = Annotated[
    list[TargetGroup],
    BeforeValidator(no_null_items("empty or null section in static_configs")),
    Field(default_factory=list),
]
Sections = Annotated[list[Section], Field(default_factory=list)]
_cloud = partial(ListOf, "ingest.config.clouds")
_orchestrator = partial(ListOf, "ingest.config.orchestrators")


class DiscoveryConfigs(Section):
    """The `<name>_sd_configs` keys, inline in the section whose targets they find."""

    static_configs: StaticConfigs
    file_sd_configs: list[FileSDConfig] = Field(default_factory=list)
    http_sd_configs: list[HTTPSDConfig] = Field(default_factory=list)
    dns_sd_configs: list[DNSSDConfig] = Field(default_factory=list)
    kubernetes_sd_configs: Annotated[Sections, ListOf("ingest.config.discovery", "KubernetesSDConfig")]
    aws_sd_configs: Annotated[Sections, _cloud("AWSSDConfig")]
    azure_sd_configs: Annotated[Sections, _cloud("AzureSDConfig")]
    consul_sd_configs: Annotated[Sections, _orchestrator("ConsulSDConfig")]
    digitalocean_sd_configs: Annotated[Sections, _cloud("DigitalOceanSDConfig")]
    docker_sd_configs: Annotated[Sections, _orchestrator("DockerSDConfig")]
    dockerswarm_sd_configs: Annotated[Sections, _orchestrator("DockerSwarmSDConfig")]
    ec2_sd_configs: Annotated[Sections, _cloud("EC2SDConfig")]
    eureka_sd_configs: Annotated[Sections, _orchestrator("EurekaSDConfig")]
    gce_sd_configs: Annotated[Sections, _cloud("GCESDConfig")]
    hetzner_sd_configs: Annotated[Sections, _cloud("HetznerSDConfig")]
    ionos_sd_configs: Annotated[Sections, _cloud("IonosSDConfig")]
    kuma_sd_configs: Annotated[Sections, _orchestrator("KumaSDConfig")]
    lightsail_sd_configs: Annotated[Sections, _cloud("LightsailSDConfig")]
    linode_sd_configs: Annotated[Sections, _cloud("LinodeSDConfig")]
    marathon_sd_configs: Annotated[Sections, _orchestrator("MarathonSDConfig")]
    nerve_sd_configs: Annotated[Sections, _orchestrator("NerveSDConfig")]
    nomad_sd_configs: Annotated[Sections, _orchestrator("NomadSDConfig")]
    oci_sd_configs: Annotated[Sections, _cloud("OCISDConfig")]
    openstack_sd_configs: Annotated[Sections, _cloud("OpenStackSDConfig")]
    outscale_sd_configs: Annotated[Sections, _cloud("OutscaleSDConfig")]
    ovhcloud_sd_configs: Annotated[Sections, _cloud("OVHCloudSDConfig")]
    puppetdb_sd_configs: Annotated[Sections, _orchestrator("PuppetDBSDConfig")]
    scaleway_sd_configs: Annotated[Sections, _cloud("ScalewaySDConfig")]
    serverset_sd_configs: Annotated[Sections, _orchestrator("ServersetSDConfig")]
    stackit_sd_configs: Annotated[Sections, _cloud("StackITSDConfig")]
    triton_sd_configs: Annotated[Sections, _orchestrator("TritonSDConfig")]
    uyuni_sd_configs: Annotated[Sections, _orchestrator("UyuniSDConfig")]
    vultr_sd_configs: Annotated[Sections, _cloud("VultrSDConfig")]

    def discovery_key(self) -> tuple[tuple[str, Any], ...]:
        """The configured mechanisms, comparable between two configurations."""
        return tuple((name, value) for name in DISCOVERY_FIELDS if (value := getattr(self, name)))


DISCOVERY_FIELDS = tuple(DiscoveryConfigs.model_fields)
PERFORMED_DISCOVERY = ("static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs")


def check_static_targets(section: DiscoveryConfigs) -> None:
    """Refuse URLs where a host and port is expected."""
    for index, group in enumerate(section.static_configs):
        for position, target in enumerate(group.targets):
            if "/" in target:
                message = f'"{target}" is not a valid hostname'
                raise fault(message, "static_configs", index, "targets", position)


_LIMITS = (
    *("body_size_limit", "sample_limit", "target_limit", "label_limit", "label_name_length_limit"),
    *("label_value_length_limit", "keep_dropped_targets", "scrape_failure_log_file"),
)
_INHERITED_SWITCHES = (
    *("scrape_native_histograms", "convert_classic_histograms_to_nhcb"),
    *("always_scrape_classic_histograms", "extra_scrape_metrics"),
)


class ScrapeConfig(DiscoveryConfigs, HTTPClientConfig):
    """A job. After `resolve` every inherited value is filled in."""

    always_printed = HTTPClientConfig.always_printed | {
        *("honor_timestamps", "track_timestamps_staleness", "enable_compression"),
        *_INHERITED_SWITCHES,
    }
    printed_last = ("relabel_configs", "metric_relabel_configs", *DISCOVERY_FIELDS)

    job_name: str = ""
    honor_labels: bool = False
    honor_timestamps: bool = True
    track_timestamps_staleness: bool = False
    params: dict[str, list[str]] = Field(default_factory=dict)
    scrape_interval: Duration = Duration(0)
    scrape_timeout: Duration = Duration(0)
    scrape_protocols: list[ScrapeProtocol] | None = None
    fallback_scrape_protocol: str = ""
    scrape_native_histograms: bool | None = None
    always_scrape_classic_histograms: bool | None = None
    convert_classic_histograms_to_nhcb: bool | None = None
    extra_scrape_metrics: bool | None = None
    scrape_failure_log_file: FilePath = ""
    metrics_path: str = "/metrics"
    scheme: str = "http"
    enable_compression: bool = True
    body_size_limit: ByteSize = ByteSize(0)
    sample_limit: NonNegativeInt = 0
    target_limit: NonNegativeInt = 0
    label_limit: NonNegativeInt = 0
    label_name_length_limit: NonNegativeInt = 0
    label_value_length_limit: NonNegativeInt = 0
    native_histogram_bucket_limit: NonNegativeInt = 0
    native_histogram_min_bucket_factor: NonNegativeFloat = 0.0
    keep_dropped_targets: NonNegativeInt = 0
    metric_name_validation_scheme: ValidationScheme = ""
    metric_name_escaping_scheme: EscapingScheme = ""
    relabel_configs: Annotated[
        list[RelabelConfig],
        BeforeValidator(no_null_items("empty or null target relabeling rule in scrape config")),
    ] = Field(default_factory=list)
    metric_relabel_configs: Annotated[
        list[RelabelConfig],
        BeforeValidator(no_null_items("empty or null metric relabeling rule in scrape config")),
    ] = Field(default_factory=list)

    @field_validator("scrape_protocols", mode="before")
    @classmethod
    def _protocols(cls, value: object) -> object:
        return check_protocols(value, "scrape config")

    @field_validator("fallback_scrape_protocol", mode="after")
    @classmethod
    def _fallback(cls, value: str) -> str:
        return check_protocol(value) if value else value

    @model_validator(mode="after")
    def _job(self) -> Self:
        if not self.job_name:
            raise fault("job_name is empty", "job_name")
        if not self.relabel_configs:
            check_static_targets(self)
        return self

    def resolve(self, globals_: GlobalConfig) -> ScrapeConfig:
        """The job with every global default filled in. Raises a fault placed below the job."""
        filled: dict[str, Any] = {}
        interval = self.scrape_interval or globals_.scrape_interval
        if self.scrape_timeout > interval:
            raise fault(
                "scrape timeout greater than scrape interval for scrape config with job name "
                f'"{self.job_name}"',
                "scrape_timeout",
            )
        filled["scrape_interval"] = interval
        filled["scrape_timeout"] = self.scrape_timeout or min(globals_.scrape_timeout, interval)
        for name in _LIMITS:
            filled[name] = getattr(self, name) or getattr(globals_, name)
        for name in _INHERITED_SWITCHES:
            own = getattr(self, name)
            filled[name] = getattr(globals_, name) if own is None else own
        if self.scrape_protocols is None:
            proto_first = filled["scrape_native_histograms"]
            default = PROTO_FIRST_PROTOCOLS if proto_first else DEFAULT_PROTOCOLS
            filled["scrape_protocols"] = globals_.scrape_protocols or list(default)
        filled |= self._name_schemes(globals_)
        for field in ("relabel_configs", "metric_relabel_configs"):
            for index, rule in enumerate(getattr(self, field)):
                wrong = rule.check_names(filled["metric_name_validation_scheme"])
                if wrong:
                    raise fault(wrong, field, index)
        return self.model_copy(update=filled)

    def _name_schemes(self, globals_: GlobalConfig) -> dict[str, str]:
        validation = self.metric_name_validation_scheme or globals_.metric_name_validation_scheme
        escaping = self.metric_name_escaping_scheme
        if not escaping and not self.metric_name_validation_scheme:
            escaping = globals_.escaping_scheme
        elif not escaping:
            escaping = "underscores" if validation == "legacy" else "allow-utf-8"
        if escaping == "allow-utf-8" and validation != "utf8":
            raise fault("utf8 metric names requested but validation scheme is not set to UTF8")
        return {"metric_name_validation_scheme": validation, "metric_name_escaping_scheme": escaping}


ScrapeConfigList = Annotated[
    list[ScrapeConfig],
    BeforeValidator(no_null_items("empty or null scrape config section")),
    Field(default_factory=list),
]


class ScrapeConfigFile(Section):
    """A file named by `scrape_config_files`."""

    scrape_configs: ScrapeConfigList
