"""The whole configuration file: reading, validation across sections, printing (surface 7)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FsPath
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ingest.config.alerting import AlertingConfig
from ingest.config.errors import ConfigError, Problem
from ingest.config.globals import GlobalConfig, RuntimeConfig
from ingest.config.otlp import UTF8_STRATEGIES, OTLPConfig
from ingest.config.relabeling import RelabelConfig
from ingest.config.remote import UNSUPPORTED_CREDENTIALS, RemoteReadConfig, RemoteWriteConfig
from ingest.config.scrape import (
    DISCOVERY_FIELDS,
    PERFORMED_DISCOVERY,
    DiscoveryConfigs,
    ScrapeConfig,
    ScrapeConfigFile,
    ScrapeConfigList,
)
from ingest.config.section import FilePath, Section, no_null_items, print_section
from ingest.config.source import Document, Path, read_yaml, render_path
from ingest.config.storage import StorageConfig
from ingest.config.tracing import TracingConfig

_GLOB = re.compile(r"[^*]*(\*[^/]*)?")

EXTENSIONS = ("security", "agent")
"""Top-level keys of Vedette's other parts. They stay raw here; those parts validate them."""

_S = TypeVar("_S", bound=BaseModel)


def _glob_paths(what: str) -> Any:
    def check(value: object) -> object:
        for index, pattern in enumerate(value if isinstance(value, list) else ()):
            if isinstance(pattern, str) and not _GLOB.fullmatch(pattern):
                raise PydanticCustomError(
                    "config",
                    "{message}",
                    {"message": f'invalid {what} path "{pattern}"', "path": (index,)},
                )
        return value

    return BeforeValidator(check)


class PrometheusConfig(Section):
    """`prometheus.yml`. `scrape_configs` are resolved against `global`; those of included files are added by
    `load_config` to `LoadedConfig.jobs`, not here."""

    global_: GlobalConfig = Field(default_factory=GlobalConfig, alias="global")
    runtime: RuntimeConfig = RuntimeConfig.model_construct()
    alerting: AlertingConfig = AlertingConfig.model_construct()
    rule_files: Annotated[list[FilePath], _glob_paths("rule file")] = Field(default_factory=list)
    scrape_config_files: Annotated[list[FilePath], _glob_paths("scrape config file")] = Field(
        default_factory=list
    )
    scrape_configs: ScrapeConfigList
    storage: StorageConfig = StorageConfig.model_construct()
    tracing: TracingConfig | None = None
    remote_write: Annotated[
        list[RemoteWriteConfig], BeforeValidator(no_null_items("empty or null remote write config section"))
    ] = Field(default_factory=list)
    remote_read: Annotated[
        list[RemoteReadConfig], BeforeValidator(no_null_items("empty or null remote read config section"))
    ] = Field(default_factory=list)
    otlp: OTLPConfig = OTLPConfig.model_construct()
    security: Any = None
    agent: Any = None


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A validated configuration. `jobs` also has those of `scrape_config_files`; `warnings` are for the log;
    `files` are all files that were read, for the watch of --config.auto-reload."""

    config: PrometheusConfig
    jobs: tuple[ScrapeConfig, ...]
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def globals(self) -> GlobalConfig:
        """The `global` section."""
        return self.config.global_


def load_config(
    path: str | os.PathLike[str], *, agent_mode: bool = False, environ: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Read and validate a configuration file and the scrape configuration files it names.

    `environ` expands `external_labels` (the process's own by default). Raises ConfigError with every fault
    found, each with file, line and key; OSError where the file cannot be read.
    """
    text = _read_text(str(path))
    return parse_config(text, str(path), agent_mode=agent_mode, environ=environ)


def parse_config(
    text: str,
    file: str = "prometheus.yml",
    *,
    agent_mode: bool = False,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """`load_config` on text; relative paths are joined to the folder of `file`."""
    document = read_yaml(text, file)
    config = _validate(PrometheusConfig, document, os.environ if environ is None else environ)
    problems = _cross_checks(config, document)
    if agent_mode:
        problems += [
            document.problem((key,), f"field {key} is not allowed in agent mode")
            for key in ("alerting", "rule_files", "remote_read")
            if getattr(config, key)
            != PrometheusConfig.model_fields[key].get_default(call_default_factory=True)
        ]
    if problems:
        raise ConfigError(problems)
    jobs = _resolve(config.scrape_configs, config.global_, document)
    config = config.model_copy(update={"scrape_configs": list(jobs)})
    included, files = _included_jobs(config, jobs, document)
    return LoadedConfig(
        config=config,
        jobs=(*jobs, *included),
        warnings=tuple(_warnings(config, (*jobs, *included))),
        files=(file, *files),
        text=text,
    )


def _read_text(path: str) -> str:
    try:
        return FsPath(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(path, line, "", "yaml: invalid UTF-8")]) from None


def load_section(path: str, model: type[_S]) -> _S:
    """A file of its own that holds one section. Raises ConfigError with file, line and key; OSError."""
    return _validate(model, read_yaml(_read_text(path), path), {})


def read_extension(loaded: LoadedConfig, key: str, model: type[_S]) -> _S:
    """The section of one of Vedette's other parts as its own model; the defaults where it is absent.

    Raises ConfigError with file, line and key.
    """
    if getattr(loaded.config, key) is None:
        # Defaults need no check, so that no validator is made for it.
        return model.model_construct()
    return _validate(model, read_yaml(loaded.text, loaded.files[0]), {}, key)


def config_to_yaml(config: Section) -> str:
    """A section as YAML with every secret as `<secret>`, in the order of Prometheus's own output."""
    printed = print_section(config)
    if "global_" in printed:
        printed = {"global": printed.pop("global_"), **printed}
    return yaml.safe_dump(printed, sort_keys=False, allow_unicode=True, width=1 << 20)


def _validate(model: type[_S], document: Document, environ: Mapping[str, str], *path: str) -> _S:
    """The document, or what is at a path in it, as a model. Raises ConfigError."""
    context = {"directory": os.path.dirname(document.file), "environ": environ}
    data = document.data
    for key in path:
        data = data[key]
    try:
        return model.model_validate({} if data is None else data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise ConfigError([_problem(document, detail, path) for detail in details]) from None


def _problem(document: Document, detail: ErrorDetails, above: Path) -> Problem:
    path: Path = (*above, *detail["loc"])
    kind = detail["type"]
    if kind == "config":
        context = detail["ctx"]
        return document.problem((*path, *context["path"]), context["message"])
    if kind == "extra_forbidden":
        group = "kubernetes" if "kubernetes_sd_configs" in path else "config"
        return document.problem(path, f"field {path[-1]} not found in type {group}.plain")
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "missing":
        message = f"{path[-1]} is required"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        message = (
            "cannot unmarshal: expected a mapping" if detail["input"] is not None else "empty or null section"
        )
    elif kind == "list_type":
        message = "cannot unmarshal: expected a list"
    elif kind == "string_type":
        message = "cannot unmarshal: expected a string"
    return document.problem(path, message)


def _fault_problem(document: Document, path: Path, error: PydanticCustomError) -> Problem:
    context = error.context or {}
    return document.problem((*path, *context["path"]), context["message"])


def _resolve(
    configs: Sequence[ScrapeConfig], globals_: GlobalConfig, document: Document
) -> tuple[ScrapeConfig, ...]:
    jobs, problems = [], []
    for index, job in enumerate(configs):
        try:
            jobs.append(job.resolve(globals_))
        except PydanticCustomError as error:
            problems.append(_fault_problem(document, ("scrape_configs", index), error))
    if problems:
        raise ConfigError(problems)
    return tuple(jobs)


def _cross_checks(config: PrometheusConfig, document: Document) -> list[Problem]:
    problems = _repeated(
        document, "scrape_configs", [job.job_name for job in config.scrape_configs], "scrape configs"
    )
    for key, what in (("remote_write", "remote write configs"), ("remote_read", "remote read configs")):
        problems += _repeated(document, key, [item.name for item in getattr(config, key)], what)
    scheme = config.global_.metric_name_validation_scheme
    strategy = config.otlp.translation_strategy
    if strategy in UTF8_STRATEGIES and scheme == "legacy":
        problems.append(
            document.problem(
                ("otlp", "translation_strategy"),
                f'OTLP translation strategy "{strategy}" is not allowed when UTF8 is disabled',
            )
        )
    problems += _rule_names(
        document, ("alerting", "alert_relabel_configs"), config.alerting.alert_relabel_configs, scheme
    )
    for index, manager in enumerate(config.alerting.alertmanagers):
        base: Path = ("alerting", "alertmanagers", index)
        problems += _rule_names(document, (*base, "relabel_configs"), manager.relabel_configs, scheme)
        problems += _rule_names(
            document, (*base, "alert_relabel_configs"), manager.alert_relabel_configs, scheme
        )
    for index, endpoint in enumerate(config.remote_write):
        where: Path = ("remote_write", index, "write_relabel_configs")
        problems += _rule_names(document, where, endpoint.write_relabel_configs, scheme)
    return problems


def _repeated(document: Document, key: str, names: Sequence[str], what: str) -> list[Problem]:
    seen, problems = set[str](), []
    name_key = "job_name" if key == "scrape_configs" else "name"
    for index, name in enumerate(names):
        if name and name in seen:
            message = f'found multiple {what} with job name "{name}"'
            problems.append(document.problem((key, index, name_key), message))
        seen.add(name)
    return problems


def _rule_names(document: Document, path: Path, rules: Sequence[RelabelConfig], scheme: str) -> list[Problem]:
    wrong = ((index, rule.check_names(scheme)) for index, rule in enumerate(rules))
    return [document.problem((*path, index), text) for index, text in wrong if text]


def _included_jobs(
    config: PrometheusConfig, jobs: Sequence[ScrapeConfig], main: Document
) -> tuple[list[ScrapeConfig], list[str]]:
    first_found = {job.job_name: "main config file" for job in jobs}
    included: list[ScrapeConfig] = []
    files: list[str] = []
    for pattern in config.scrape_config_files:
        for name in sorted(glob.glob(pattern)):
            document = read_yaml(_read_text(name), name)
            parsed = _validate(ScrapeConfigFile, document, {})
            files.append(name)
            for index, job in enumerate(_resolve(parsed.scrape_configs, config.global_, document)):
                if job.job_name in first_found:
                    message = (
                        f'found multiple scrape configs with job name "{job.job_name}", '
                        f"first found in {first_found[job.job_name]}"
                    )
                    raise ConfigError([document.problem(("scrape_configs", index, "job_name"), message)])
                first_found[job.job_name] = f'"{os.path.abspath(name)}"'
                included.append(job)
    return included, files


def _warnings(config: PrometheusConfig, jobs: Sequence[ScrapeConfig]) -> list[str]:
    """What is accepted but has no effect yet, one sentence each."""
    found: list[str] = []
    sections: list[tuple[str, DiscoveryConfigs]] = [
        *((f'scrape config "{job.job_name}"', job) for job in jobs),
        *((f"alertmanagers[{i}]", m) for i, m in enumerate(config.alerting.alertmanagers)),
    ]
    for where, section in sections:
        found += [
            f"{where}: {name} is not supported yet and finds no targets"
            for name in DISCOVERY_FIELDS
            if name not in PERFORMED_DISCOVERY and getattr(section, name)
        ]
    found += [
        f'scrape config "{job.job_name}": convert_classic_histograms_to_nhcb is not supported yet'
        for job in jobs
        if job.convert_classic_histograms_to_nhcb
    ]
    for index, endpoint in enumerate(config.remote_write):
        found += [
            f"remote_write[{index}]: {kind} is not supported yet and sends no samples"
            for kind in UNSUPPORTED_CREDENTIALS
            if getattr(endpoint, kind) is not None
        ]
    found += [f"{part} not supported yet" for part in _absent_parts(config)]
    if config.tracing is not None:
        found.append("tracing is not supported yet and sends no spans")
    return found


def _absent_parts(config: PrometheusConfig) -> list[str]:
    """Sections that are checked only, with their verbs."""
    tsdb = config.storage.tsdb
    return [
        text
        for text, given in (
            ("rule_files are checked by `vedette check rules` only, evaluating rules is", config.rule_files),
            ("remote_read is", config.remote_read),
            ("alerting is", config.alerting.alertmanagers),
            ("storage.tsdb.chunk_encoding is", tsdb is not None and tsdb.chunk_encoding.floats == "xor2"),
            (
                "storage.tsdb.stale_series_compaction_threshold is",
                tsdb is not None and tsdb.stale_series_compaction_threshold,
            ),
        )
        if given
    ]


__all__ = [
    "EXTENSIONS",
    "ConfigError",
    "LoadedConfig",
    "PrometheusConfig",
    "config_to_yaml",
    "load_config",
    "parse_config",
    "render_path",
]
