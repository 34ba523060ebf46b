"""`global`: defaults of all jobs, and limits (surface 7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from string import Template
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, ValidationInfo, field_validator, model_validator

from ingest.config.durations import ByteSize, Duration
from ingest.config.section import FilePath, Section, fault
from ingest.validate import is_label_name

ValidationScheme = Literal["", "utf8", "legacy"]
EscapingScheme = Literal["", "allow-utf-8", "underscores", "dots", "values"]


class ScrapeProtocol(StrEnum):
    """An exposition format to ask a target for."""

    PROTO = "PrometheusProto"
    OPENMETRICS_1_0_0 = "OpenMetricsText1.0.0"
    OPENMETRICS_0_0_1 = "OpenMetricsText0.0.1"
    TEXT_1_0_0 = "PrometheusText1.0.0"
    TEXT_0_0_4 = "PrometheusText0.0.4"


DEFAULT_PROTOCOLS = (
    ScrapeProtocol.OPENMETRICS_1_0_0,
    ScrapeProtocol.OPENMETRICS_0_0_1,
    ScrapeProtocol.TEXT_1_0_0,
    ScrapeProtocol.TEXT_0_0_4,
)
PROTO_FIRST_PROTOCOLS = (ScrapeProtocol.PROTO, *DEFAULT_PROTOCOLS)

DEFAULT_INTERVAL = Duration(60_000)
DEFAULT_TIMEOUT = Duration(10_000)


def check_protocol(value: object) -> ScrapeProtocol:
    """The protocol of a name. Raises a fault with the supported names."""
    try:
        return ScrapeProtocol(str(value))
    except ValueError:
        supported = " ".join(sorted(ScrapeProtocol))
        raise fault(f"unknown scrape protocol {value}, supported: [{supported}]") from None


def check_protocols(value: object, where: str) -> object:
    """A list of protocols: known, none twice, at least one."""
    if value is None or not isinstance(value, list):
        return value
    if not value:
        raise fault(f"scrape_protocols cannot be empty for {where}")
    seen: set[str] = set()
    for name in value:
        if str(name).lower() in seen:
            shown = " ".join(str(n) for n in value)
            raise fault(f"duplicated protocol in scrape_protocols, got [{shown}] for {where}")
        seen.add(str(name).lower())
    return [check_protocol(name) for name in value]


class _Environment(Template):
    idpattern = r"(?a:[_a-zA-Z0-9]+)"
    braceidpattern = r"[^{}]+"


def expand_environment(text: str, environ: Mapping[str, str]) -> str:
    """`$VAR` and `${VAR}` replaced (unknown ones by nothing), `$$` by `$`."""
    names = _Environment(text).get_identifiers() if "$" in text else []
    return _Environment(text).safe_substitute({name: environ.get(name, "") for name in names})


class GlobalConfig(Section):
    """Defaults for every job."""

    scrape_interval: Duration = DEFAULT_INTERVAL
    scrape_timeout: Duration = Duration(0)
    scrape_protocols: list[ScrapeProtocol] | None = None
    evaluation_interval: Duration = DEFAULT_INTERVAL
    rule_query_offset: Duration = Duration(0)
    query_log_file: FilePath = ""
    scrape_failure_log_file: FilePath = ""
    external_labels: dict[str, str] = Field(default_factory=dict)
    body_size_limit: ByteSize = ByteSize(0)
    sample_limit: NonNegativeInt = 0
    target_limit: NonNegativeInt = 0
    label_limit: NonNegativeInt = 0
    label_name_length_limit: NonNegativeInt = 0
    label_value_length_limit: NonNegativeInt = 0
    keep_dropped_targets: NonNegativeInt = 0
    metric_name_validation_scheme: ValidationScheme = "utf8"
    metric_name_escaping_scheme: EscapingScheme = ""
    scrape_native_histograms: bool | None = False
    convert_classic_histograms_to_nhcb: bool = False
    always_scrape_classic_histograms: bool = False
    extra_scrape_metrics: bool = False

    always_printed = frozenset({"scrape_native_histograms"})

    @field_validator("scrape_protocols", mode="before")
    @classmethod
    def _protocols(cls, value: object) -> object:
        return check_protocols(value, "global config")

    @field_validator("external_labels", mode="before")
    @classmethod
    def _labels(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, dict):
            return value
        environ = (info.context or {}).get("environ", {})
        labels: dict[str, str] = {}
        for name, text in value.items():
            if isinstance(name, bytes):
                raise fault(f'"{_shown(name)}" is not a valid label name')
            if isinstance(text, bytes):
                raise fault(f'"{_shown(text)}" is not a valid label value', name)
            labels[name] = expand_environment(text, environ) if isinstance(text, str) else text
        return labels

    @model_validator(mode="after")
    def _defaults_and_order(self) -> Self:
        set_field = object.__setattr__
        if self.metric_name_validation_scheme == "":
            set_field(self, "metric_name_validation_scheme", "utf8")
        for name in self.external_labels:
            if not is_label_name(name, self.metric_name_validation_scheme):
                raise fault(f'"{name}" is not a valid label name', "external_labels", name)
        if self.scrape_interval == 0:
            set_field(self, "scrape_interval", DEFAULT_INTERVAL)
        if self.scrape_timeout > self.scrape_interval:
            raise fault("global scrape timeout greater than scrape interval", "scrape_timeout")
        if self.scrape_timeout == 0:
            set_field(self, "scrape_timeout", min(DEFAULT_TIMEOUT, self.scrape_interval))
        if self.evaluation_interval == 0:
            set_field(self, "evaluation_interval", DEFAULT_INTERVAL)
        if self.scrape_native_histograms is None:
            set_field(self, "scrape_native_histograms", False)
        return self

    @property
    def escaping_scheme(self) -> EscapingScheme:
        """The escaping scheme, following the validation scheme where it is not set."""
        if self.metric_name_escaping_scheme:
            return self.metric_name_escaping_scheme
        return "underscores" if self.metric_name_validation_scheme == "legacy" else "allow-utf-8"


def _shown(raw: bytes) -> str:
    return "".join(f"\\x{byte:02x}" if byte >= 0x80 else chr(byte) for byte in raw)


class RuntimeConfig(Section):
    """`runtime`: accepted for compatibility; Go's garbage collector has no counterpart here."""

    gogc: int = 75
