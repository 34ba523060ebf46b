"""The configuration file: what is accepted, what is refused and where, and how it prints."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ingest.config.document import ConfigError, config_to_yaml, load_config, parse_config
from ingest.config.durations import ByteSize, Duration
from ingest.config.globals import DEFAULT_PROTOCOLS, PROTO_FIRST_PROTOCOLS, ScrapeProtocol

DATA = Path("/work/shared/data/prometheus-config")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")

GOOD = [
    *sorted(DATA.glob("*.good.yml")),
    *sorted(DATA.glob("scrape_config_*mode.yml")),
    *sorted(DATA.glob("scrape_config_local_infer_escaping.yml")),
    *sorted(DATA.glob("otlp_empty.yml")),
]
REFUSED_WITHOUT_BAD_NAME = (
    "otlp_allow_utf8.incompatible.yml",
    "otlp_no_translation.incompatible.yml",
    "config_with_deprecated_am_api_config.yml",
)
BAD = [*sorted(DATA.glob("*.bad.yml")), *(DATA / name for name in REFUSED_WITHOUT_BAD_NAME)]

REASONS = {
    "jobname.bad.yml": "2: scrape_configs[0].job_name: job_name is empty",
    "jobname_dup.bad.yml": 'found multiple scrape configs with job name "prometheus"',
    "scrape_interval.bad.yml": "scrape timeout greater than scrape interval",
    "labelname.bad.yml": r'"\xff" is not a valid label name',
    "labelvalue.bad.yml": r'"\xff" is not a valid label value',
    "regex.bad.yml": "error parsing regexp",
    "labelmap.bad.yml": "!!binary value contains invalid base64 data",
    "rules.bad.yml": "invalid rule file path",
    "unknown_attr.bad.yml": "field consult_sd_configs not found in type",
    "unknown_global_attr.bad.yml": "2: global.nonexistent_field: field nonexistent_field not found in type",
    "section_key_dup.bad.yml": "field scrape_configs already set in type config.plain",
    "url_in_targetgroup.bad.yml": '"http://bad" is not a valid hostname',
    "scrape_body_size_limit.bad.yml": "units: unknown unit",
    "kubernetes_namespace_discovery.bad.yml": "field foo not found in type kubernetes.plain",
    "otlp_sanitize_promote_resource_attributes.bad.yml": "empty promoted OTel resource attribute",
    "scrape_config_files_global.bad.yml": "scrape timeout greater than scrape interval for scrape config",
    "scrape_config_files_double_import.bad.yml": "first found in",
    "empty_scrape_config_action.bad.yml": "relabel action cannot be empty",
}


@needs_data
@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.name)
def test_files_that_prometheus_accepts_are_accepted(path: Path) -> None:
    load_config(path)


@needs_data
@pytest.mark.parametrize("path", BAD, ids=lambda p: p.name)
def test_files_that_prometheus_refuses_are_refused_with_file_and_line(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for problem in caught.value.problems:
        assert problem.line > 0
        assert problem.file.startswith(str(DATA))
    assert REASONS.get(path.name, "") in str(caught.value)


@needs_data
@pytest.mark.parametrize("path", sorted(DATA.glob("agent_mode.*.yml")), ids=lambda p: p.name)
def test_agent_mode_refuses_what_needs_a_local_store(path: Path) -> None:
    load_config(path)
    if ".with_" not in path.name:
        load_config(path, agent_mode=True)
        return
    with pytest.raises(ConfigError, match="is not allowed in agent mode"):
        load_config(path, agent_mode=True)


@needs_data
@pytest.mark.parametrize("name", ["conf.good.yml", "roundtrip.good.yml"])
def test_printed_configuration_hides_secrets_and_loads_again(name: str) -> None:
    loaded = load_config(DATA / name)
    printed = config_to_yaml(loaded.config)
    assert "mysecret" not in printed
    again = parse_config(printed, str(DATA / name))
    assert config_to_yaml(again.config) == printed


@needs_data
def test_conf_good_has_the_expected_number_of_secrets() -> None:
    printed = config_to_yaml(load_config(DATA / "conf.good.yml").config)
    assert printed.count("<secret>") >= 25


PLACED_FAULTS = [
    ("scrape_configs:\n- job_name: a\n  scrape_intervall: 5s\n", 3, "scrape_configs[0].scrape_intervall"),
    ("global:\n  scrape_interval: 1.5m\n", 2, "global.scrape_interval"),
    ("global:\n  scrape_interval: 15\n", 2, "global.scrape_interval"),
    ("global:\n  sample_limit: -1\n", 2, "global.sample_limit"),
    ("global:\n  sample_limit: many\n", 2, "global.sample_limit"),
    ("scrape_configs:\n- job_name: a\n  honor_labels: perhaps\n", 3, "scrape_configs[0].honor_labels"),
    ("scrape_configs:\n- job_name: a\n  static_configs: {}\n", 3, "scrape_configs[0].static_configs"),
    ("scrape_configs: 7\n", 1, "scrape_configs"),
    ("storage:\n  tsdb:\n    downsample: [{after: 6h}]\n", 3, "storage.tsdb.downsample[0].resolution"),
    *(
        (f"storage:\n  tsdb:\n    {text}\n", 3, f"storage.tsdb.{path}")
        for text, path in [
            ("downsample: [{after: 6h, resolution: 7m}]", "downsample[0]"),
            ("downsample: [{after: 6h, resolution: 5m, retention: 5h}]", "downsample[0]"),
            ("downsample: [{after: 6h, resolution: 5m, keep: 5h}]", "downsample[0].keep"),
            (
                "downsample: [{after: 6h, resolution: 10m}, {after: 7d, resolution: 15m}]",
                "downsample[1]",
            ),
            ("downsample: [{after: 6h, resolution: 5m}, {after: 6h, resolution: 1h}]", "downsample[1]"),
            (
                "downsample: [{after: 6h, resolution: 5m, retention: 1d}, {after: 7d, resolution: 1h}]",
                "downsample[0]",
            ),
            ("retention: {full_resolution: 1d}", "retention.full_resolution"),
            ("retention: {series: [{match: {}, time: 1d}]}", "retention.series[0].match"),
            ("retention: {series: [{match: {job: '('}, time: 1d}]}", "retention.series[0].match.job"),
            ("retention: {series: [{match: {job: a}}]}", "retention.series[0].time"),
        ]
    ),
    ("global:\n  scrape_interval: 5s\n  scrape_interval: 6s\n", 3, "global.scrape_interval"),
    ("- a\n", 1, ""),
    ("a: [b\n", 2, ""),
]


@pytest.mark.parametrize(("text", "line", "path"), PLACED_FAULTS)
def test_a_fault_names_its_line_and_key(text: str, line: int, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    problem = caught.value.problems[0]
    assert (problem.line, problem.path) == (line, path)


def test_every_fault_of_a_file_is_reported_at_once() -> None:
    text = "global:\n  a: 1\n  b: 2\nscrape_configs:\n- job_name:\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert [p.line for p in caught.value.problems] == [2, 3, 5]


def test_global_defaults_reach_the_jobs() -> None:
    loaded = parse_config(
        "global: {scrape_interval: 20s, sample_limit: 7, body_size_limit: 1MB, label_limit: 3}\n"
        "scrape_configs:\n- job_name: a\n- {job_name: b, scrape_interval: 5s, sample_limit: 9}\n"
    )
    a, b = loaded.jobs
    assert (a.scrape_interval.seconds, a.scrape_timeout.seconds, a.sample_limit) == (20, 10, 7)
    assert (b.scrape_interval.seconds, b.scrape_timeout.seconds, b.sample_limit) == (5, 5, 9)
    assert a.body_size_limit == 1 << 20
    assert b.label_limit == 3
    assert a.scrape_protocols == list(DEFAULT_PROTOCOLS)
    assert a.metric_name_escaping_scheme == "allow-utf-8"


def test_native_histograms_put_protobuf_first_unless_protocols_are_set() -> None:
    loaded = parse_config(
        "scrape_configs:\n- {job_name: a, scrape_native_histograms: true}\n"
        "- {job_name: b, scrape_native_histograms: true, scrape_protocols: [PrometheusText0.0.4]}\n"
    )
    assert loaded.jobs[0].scrape_protocols == list(PROTO_FIRST_PROTOCOLS)
    assert loaded.jobs[1].scrape_protocols == [ScrapeProtocol.TEXT_0_0_4]


@needs_data
def test_external_labels_expand_the_environment() -> None:
    loaded = load_config(DATA / "external_labels.good.yml", environ={"TEST": "TestValue"})
    assert loaded.globals.external_labels == {
        "bar": "foo",
        "baz": "fooTestValuebar",
        "foo": "TestValue",
        "qux": "foo${TEST}",
        "xyz": "foo$bar",
    }


@pytest.mark.parametrize("text", ["", "global:\n", "# nothing\n"])
def test_an_empty_file_is_the_default_configuration(text: str) -> None:
    loaded = parse_config(text)
    assert loaded.globals.scrape_interval == 60_000
    assert loaded.globals.scrape_timeout == 10_000
    assert loaded.jobs == ()


def test_numbers_in_text_fields_stay_as_written() -> None:
    loaded = parse_config(
        "scrape_configs:\n- job_name: 0123\n  basic_auth: {username: 1_0, password: 007}\n"
        "  relabel_configs: [{regex: 1.50, target_label: x}]\n"
    )
    job = loaded.jobs[0]
    assert job.job_name == "0123"
    assert job.basic_auth is not None
    assert (job.basic_auth.username, job.basic_auth.password.get_secret_value()) == ("1_0", "007")
    assert job.relabel_configs[0].regex == "1.50"


def test_relative_paths_are_joined_to_the_folder_of_the_file() -> None:
    text = (
        "rule_files: [a.rules, /abs/b.rules]\n"
        "scrape_configs: [{job_name: a, authorization: {credentials_file: t}}]\n"
    )
    loaded = parse_config(text, "/etc/vedette/vedette.yml")
    assert loaded.config.rule_files == ["/etc/vedette/a.rules", "/abs/b.rules"]
    authorization = loaded.jobs[0].effective_authorization
    assert authorization is not None
    assert authorization.credentials_file == "/etc/vedette/t"


def test_discovery_that_is_not_performed_is_a_warning() -> None:
    loaded = parse_config("scrape_configs:\n- {job_name: k, kubernetes_sd_configs: [{role: pod}]}\n")
    assert loaded.warnings == (
        'scrape config "k": kubernetes_sd_configs is not supported yet and finds no targets',
    )


def test_sections_that_are_checked_only_are_warnings() -> None:
    loaded = parse_config(
        "rule_files: [a.rules]\n"
        "remote_read: [{url: 'http://a/read'}]\n"
        "alerting: {alertmanagers: [{static_configs: [{targets: ['a:1']}]}]}\n"
        "storage: {tsdb: {chunk_encoding: {floats: xor2}, stale_series_compaction_threshold: 0.5}}\n"
    )
    assert [text.split()[0] for text in loaded.warnings] == [
        *("rule_files", "remote_read", "alerting"),
        *("storage.tsdb.chunk_encoding", "storage.tsdb.stale_series_compaction_threshold"),
    ]
    assert parse_config("storage: {tsdb: {chunk_encoding: {floats: xor}}}\n").warnings == ()


def test_extension_sections_are_kept_for_their_owners() -> None:
    config = parse_config(
        "security: {rules: [a.yaml]}\nstorage: {tsdb: {downsample: [{after: 6h, resolution: 5m}]}}\n"
    ).config
    assert config.security == {"rules": ["a.yaml"]}
    assert config.storage.tsdb is not None
    assert config.storage.tsdb.downsample[0].resolution == 300_000


def test_printed_defaults_are_those_of_the_status_page() -> None:
    text = "scrape_configs:\n- job_name: prometheus\n  static_configs: [{targets: ['localhost:9090']}]\n"
    printed = yaml.safe_load(config_to_yaml(parse_config(text).config))
    assert printed["global"]["evaluation_interval"] == "1m"
    job = printed["scrape_configs"][0]
    assert job["honor_timestamps"] is True
    assert job["track_timestamps_staleness"] is False
    assert job["scrape_protocols"][0] == "OpenMetricsText1.0.0"
    assert job["static_configs"] == [{"targets": ["localhost:9090"]}]
    assert "honor_labels" not in job


DURATIONS = [("0", 0, "0s"), ("15d", 15 * 86_400_000, "15d"), ("1h30m", 5_400_000, "1h30m")]
DURATIONS += [("2w", 14 * 86_400_000, "2w"), ("90s", 90_000, "1m30s"), ("1y", 365 * 86_400_000, "1y")]


@pytest.mark.parametrize(("text", "ms", "printed"), DURATIONS)
def test_durations_read_and_print_as_in_prometheus(text: str, ms: int, printed: str) -> None:
    assert Duration.parse(text) == ms
    assert str(Duration.parse(text)) == printed


@pytest.mark.parametrize("text", ["", "1", "1.5m", "-1h", "1m1h", "1h1h", "h", "300y", "1 h"])
def test_other_duration_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(text)


@given(st.integers(min_value=0, max_value=(1 << 63) // 1_000_000 - 1))
def test_a_printed_duration_reads_back_equal(ms: int) -> None:
    assert Duration.parse(str(Duration(ms))) == ms


@given(st.integers(min_value=0, max_value=1 << 52))
def test_a_printed_size_reads_back_equal(size: int) -> None:
    assert ByteSize.parse(str(ByteSize(size))) == size


@given(st.text(alphabet=st.sampled_from("ab:-[]{}\n \t'\"&*!|>#,1~"), max_size=60))
def test_arbitrary_yaml_is_refused_or_accepted_but_never_crashes(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_config(text)
