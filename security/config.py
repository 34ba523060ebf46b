"""The `security:` section of the configuration: rules, outputs, sources. Falco's names where it has them."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from security.activerules import RuleOptions
from security.eventlog.query import EventQuery
from security.output import OutputOptions
from security.rules.compiler import SUGGESTED_OUTPUT, ExtraOutput
from security.rules.index import Selection
from security.rules.items import PRIORITIES, parse_priority
from tsdb.labels import Matcher

OUTPUTS_COUNT_LIMIT = 64
RULES_FILES_COUNT_LIMIT = 1024
PATHS_COUNT_LIMIT = 256


def _join_directory(value: str, info: ValidationInfo) -> str:
    directory = (info.context or {}).get("directory", "")
    return os.path.join(directory, value) if value and directory else value


def _priority(value: Any) -> Any:
    number = parse_priority(value) if isinstance(value, str) else None
    if number is None:
        raise ValueError(f"unknown priority {value!r}, known are {', '.join(PRIORITIES).lower()}")
    return number


FilePath = Annotated[str, Field(min_length=1), AfterValidator(_join_directory)]
"""A path, absolute against the folder of the configuration file."""
Priority = Annotated[int, BeforeValidator(_priority)]
"""A priority by name; its number, 0 is the most severe."""
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)


class RuleChoice(_Section):
    """Whom a selection is about: a rule by name (`*` is a wildcard) or all with a tag."""

    rule: str | None = None
    tag: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.rule is None) == (self.tag is None):
            raise ValueError("either rule or tag must be given")
        return self


class RuleSelection(_Section):
    """One entry of `rules`: they are applied in order."""

    enable: RuleChoice | None = None
    disable: RuleChoice | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.enable is None) == (self.disable is None):
            raise ValueError("either enable or disable must be given")
        return self

    def selection(self) -> Selection:
        """As the rule index takes it."""
        choice = self.enable or self.disable
        assert choice is not None
        return Selection(self.enable is not None, choice.rule, choice.tag)


class OutputMatch(_Section):
    """Which rules an `append_output` entry is about; all that is given must hold."""

    source: str = ""
    rule: str = ""
    tags: list[str] = Field(default_factory=list)


class AppendOutput(_Section):
    """One entry of `append_output`."""

    match: OutputMatch = OutputMatch.model_construct()
    extra_output: str = ""
    extra_fields: list[str | dict[str, str]] = Field(default_factory=list)
    suggested_output: bool = False

    def extra(self) -> list[ExtraOutput]:
        """As the compiler takes it; a bare field name stands for its own value."""
        fields: dict[str, str] = {}
        for entry in self.extra_fields:
            fields |= {entry: f"%{entry}"} if isinstance(entry, str) else entry
        found = [
            ExtraOutput(
                self.extra_output, fields, self.match.source, self.match.rule, frozenset(self.match.tags)
            )
        ]
        return [SUGGESTED_OUTPUT, *found] if self.suggested_output else found


class _Output(_Section):
    """What all outputs have: which events they get, and in which form."""

    name: str = ""
    format: Literal["text", "json"] = "json"
    priority: Priority = len(PRIORITIES) - 1
    """Events of this priority and more severe ones."""
    match: list[str] = Field(default_factory=list)
    """Selectors; an event must satisfy one of them."""
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Events that wait; what comes when it is full is dropped and counted."""

    @field_validator("match")
    @classmethod
    def _selectors(cls, value: list[str]) -> list[str]:
        parse_selectors(value)
        return value

    def matcher_sets(self) -> list[tuple[Matcher, ...]]:
        """The selectors' matchers."""
        return parse_selectors(self.match)

    def query(self) -> EventQuery:
        """The selectors as a filter of events."""
        return EventQuery(self.matcher_sets())


class StdoutOutput(_Output):
    """Standard output of the server."""

    type: Literal["stdout"]
    format: Literal["text", "json"] = "text"


class FileOutput(_Output):
    """A file, opened again on SIGHUP, on a reload, and when it was renamed or removed."""

    type: Literal["file"]
    filename: FilePath


class _Spooled(_Output):
    spool: FilePath | None = None
    """Folder for events while the receiver is down."""
    spool_bytes: Annotated[int, Field(ge=1 << 16)] = 256 << 20
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 2.0
    """Of one delivery, as Falco's output_timeout."""


class SyslogOutput(_Spooled):
    """A syslog receiver, RFC 5424 over UDP, TCP or TLS (octet counting)."""

    type: Literal["syslog"]
    format: Literal["text", "json"] = "text"
    protocol: Literal["udp", "tcp", "tls"] = "udp"
    host: str = "localhost"
    port: Port | None = None
    """514 for udp and tcp, 6514 for tls."""
    facility: Annotated[int, Field(ge=0, le=23)] = 1
    app_name: Annotated[str, Field(pattern=r"^[!-~]{1,48}$")] = "vedette"
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    insecure_skip_verify: bool = False


class HttpOutput(_Spooled):
    """Events by POST, one or many a request: `json` one object, `jsonl` a line an event."""

    type: Literal["http"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    format: Literal["text", "json"] = "json"
    batch: Annotated[int, Field(ge=1, le=1000)] = 1
    """Events of one request; more than one are sent a line each."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    user_agent: str = "vedette"
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    insecure_skip_verify: bool = False


OutputConfig = Annotated[StdoutOutput | FileOutput | SyslogOutput | HttpOutput, Field(discriminator="type")]


class AuditSource(_Section):
    """Kubernetes audit events: the webhook at /k8s-audit, and log files that are followed."""

    webhook: bool = True
    files: Annotated[list[FilePath], Field(max_length=PATHS_COUNT_LIMIT)] = Field(default_factory=list)
    """Files, or patterns with `*`."""


class CloudTrailSource(_Section):
    """CloudTrail records: POSTed to /cloudtrail, and files or folders that are watched for new files."""

    http: bool = True
    files: Annotated[list[FilePath], Field(max_length=PATHS_COUNT_LIMIT)] = Field(default_factory=list)


class SourcesConfig(_Section):
    """Where events besides system calls come from."""

    k8s_audit: AuditSource = AuditSource.model_construct()
    aws_cloudtrail: CloudTrailSource = CloudTrailSource.model_construct()


class SecurityConfig(_Section):
    """`security:`. Without `rules_files` the starter rules are in force."""

    rules_files: Annotated[list[FilePath], Field(max_length=RULES_FILES_COUNT_LIMIT)] = Field(
        default_factory=list
    )
    rule_matching: Literal["first", "all"] = "first"
    priority: Priority = len(PRIORITIES) - 1
    rules: list[RuleSelection] = Field(default_factory=list)
    append_output: list[AppendOutput] = Field(
        default_factory=lambda: [AppendOutput.model_construct(suggested_output=True)]
    )
    time_format_iso_8601: bool = False
    json_include_output_property: bool = True
    json_include_message_property: bool = False
    json_include_output_fields_property: bool = True
    json_include_tags_property: bool = True
    outputs: Annotated[list[OutputConfig], Field(max_length=OUTPUTS_COUNT_LIMIT)] = Field(
        default_factory=list
    )
    sources: SourcesConfig = SourcesConfig.model_construct()

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [output_name(output, at) for at, output in enumerate(self.outputs)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"outputs: two outputs are called {twice[0]!r}")
        return self

    def rule_options(self) -> RuleOptions:
        """What loading rules needs."""
        return RuleOptions(
            rule_matching=self.rule_matching,
            minimum_priority=self.priority,
            selections=tuple(entry.selection() for entry in self.rules),
            extra_outputs=tuple(extra for entry in self.append_output for extra in entry.extra()),
        )

    def output_options(self, hostname: str = "") -> OutputOptions:
        """How outputs print events."""
        return OutputOptions(
            hostname=hostname,
            time_format_iso_8601=self.time_format_iso_8601,
            json_include_output_property=self.json_include_output_property,
            json_include_message_property=self.json_include_message_property,
            json_include_output_fields_property=self.json_include_output_fields_property,
            json_include_tags_property=self.json_include_tags_property,
        )


def output_name(output: Any, at: int) -> str:
    """The name of an output in metrics and logs: its own, or type and place."""
    return output.name or f"{output.type}-{at}"


def parse_selectors(selectors: Sequence[str]) -> list[tuple[Matcher, ...]]:
    """Matchers of selectors. Raises ValueError."""
    if not selectors:
        return []
    from promql.errors import ParseError
    from promql.parser import parse_metric_selector

    found = []
    for text in selectors:
        try:
            found.append(tuple(parse_metric_selector(text)))
        except ParseError as error:
            raise ValueError(f"selector {text!r}: {error}") from None
    return found
