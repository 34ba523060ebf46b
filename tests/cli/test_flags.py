"""Flags: Prometheus's names, defaults and spellings."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli.flags import FLAGS, ServeFlags, serve_options
from cli.flagtypes import parse_duration_ms, parse_size_bytes
from ingest.config.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("0", 0),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("15d", 1_296_000_000),
        ("1y2w3d", 33_004_800_000),
        ("7ms", 7),
    ],
)
def test_durations_are_read_as_prometheus_writes_them(text: str, expected_ms: int) -> None:
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize("text", ["5", "1.5m", "m", "1m1h", "1h1h", "-5m", "5 m", "5mins"])
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid duration string"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("10B", 10), ("1KB", 1024), ("512MB", 512 << 20), ("2GiB", 2 << 30)]
)
def test_sizes_are_powers_of_1024(text: str, expected: int) -> None:
    assert parse_size_bytes(text) == expected


@pytest.mark.parametrize("text", ["10", "MB", "-1B", "1XB"])
def test_a_size_needs_a_known_unit(text: str) -> None:
    with pytest.raises(ValueError, match="unknown unit or invalid size"):
        parse_size_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:9090", Address("0.0.0.0", 9090)),
        (":9091", Address("0.0.0.0", 9091)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_listen_addresses(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["9090", "host:", "host:http", "host:70000", "::1:9090"])
def test_a_malformed_listen_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid listen address"):
        parse_address(text)


def parse(*arguments: str) -> ServeFlags:
    """Flags of a command line. Raises AssertionError with click's text where it is refused."""
    seen: list[ServeFlags] = []

    @click.command()
    @serve_options
    @click.pass_context
    def command(context: click.Context, **values: Any) -> None:
        seen.append(ServeFlags.from_click(context, values))

    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults_are_those_of_prometheus() -> None:
    text = parse().as_text()
    expected = {
        "config.file": "prometheus.yml",
        "storage.tsdb.path": "data/",
        "web.listen-address": "0.0.0.0:9090",
        "web.enable-admin-api": "false",
        "web.enable-lifecycle": "false",
        "query.timeout": "2m",
        "query.max-samples": "50000000",
        "query.max-concurrency": "20",
        "query.lookback-delta": "5m",
        "log.level": "info",
        "log.format": "logfmt",
    }
    assert {name: text[name] for name in expected} == expected


def test_the_remote_write_receiver_is_on_and_can_be_turned_off() -> None:
    name = "web.enable-remote-write-receiver"
    assert parse()[name] is True
    assert parse(f"--no-{name}")[name] is False


def test_no_agent_is_accepted() -> None:
    assert parse("--no-agent")["agent"] is False


def test_flags_know_which_of_them_were_given() -> None:
    assert parse("--query.timeout=1m", "--web.enable-lifecycle").given == {
        "query.timeout",
        "web.enable-lifecycle",
    }


def test_features_may_be_separated_by_commas_or_repeated() -> None:
    flags = parse("--enable-feature=a,b", "--enable-feature=c")
    assert flags.features() == {"a", "b", "c"}


@pytest.mark.parametrize("argument", ["--query.timeout=1.5m", "--log.level=loud", "--web.listen-address=x"])
def test_a_bad_value_is_refused(argument: str) -> None:
    with pytest.raises(AssertionError, match="Invalid value"):
        parse(argument)


def test_every_flag_is_named_once() -> None:
    names = [flag.name for flag in FLAGS]
    assert len(names) == len(set(names))


def test_flags_that_tune_what_is_not_here_are_accepted_and_named() -> None:
    found: list[list[str]] = []

    @click.command()
    @serve_options
    @click.pass_context
    def command(context: click.Context, /, **values: Any) -> None:
        found.append(ServeFlags.from_click(context, values).without_effect())

    given = ["--web.console.templates=/etc/consoles", "--no-storage.tsdb.wal-compression", "--log.level=warn"]
    result = CliRunner().invoke(command, given)
    assert (result.exit_code, found) == (0, [["web.console.templates", "storage.tsdb.wal-compression"]])
    assert "has no effect" not in CliRunner().invoke(command, ["--help"]).output


def test_a_retention_that_is_no_duration_is_refused_and_none_is_the_default() -> None:
    @click.command()
    @serve_options
    def command(**values: Any) -> None:
        click.echo(repr(values["storage_tsdb_retention_time"]))

    refused = CliRunner().invoke(command, ["--storage.tsdb.retention.time=soon"])
    assert (refused.exit_code, 'not a valid duration string: "soon"' in refused.output) == (2, True)
    assert CliRunner().invoke(command, []).output == "''\n"
    assert CliRunner().invoke(command, ["--storage.tsdb.retention.time=0"]).output == "'0'\n"


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("storage.tsdb.min-block-duration=0", "must be greater than 0"),
        ("storage.tsdb.wal-segment-size=9MB", "must be between 10MB and 256MB"),
        ("web.cors.origin=(", "error parsing regexp: missing )"),
        ("web.external-url=:x", "not a URL: ':x'"),
        ("storage.wal.sync=soon", "'soon' is not one of 'batch', 'interval', 'never'"),
        ("web.max-notifications-subscribers=-1", "not in the range x>=0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_starts(flag: str, text: str) -> None:
    @click.command()
    @serve_options
    def command(**values: Any) -> None: ...

    result = CliRunner().invoke(command, [f"--{flag}"])
    assert (result.exit_code, text in result.output) == (2, True), result.output
