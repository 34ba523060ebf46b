"""The agent's parts together: which run, what one that fails leaves of the others, and its configuration."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.config import AgentConfig, StatsdConfig, read_agent_config
from agent.groupconfig import ConnectionsConfig, DiscoveryConfig, ProcessesConfig
from agent.service import AgentService
from ingest.config.document import parse_config
from ingest.config.durations import Duration
from ingest.config.errors import ConfigError
from tests.ingest.fakestore import FakeStore

NO_PROBE: dict[str, Any] = {
    "processes": ProcessesConfig(enabled=False),
    "connections": ConnectionsConfig(enabled=False),
    "discovery": DiscoveryConfig(exporters=False, annotations=False),
}
"""Loading the probe takes seconds; tests of the watcher do it."""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config_of(text: str) -> AgentConfig:
    return read_agent_config(parse_config(text, "prometheus.yml"))


def test_every_key_of_the_section_is_read() -> None:
    config = config_of(
        "agent:\n"
        "  interval: 30s\n"
        "  instance: web-1\n"
        "  statsd: {udp: '[::1]:8125', unix: run/statsd.sock, observer: histogram, flush_interval: 5s}\n"
        "  budget: {cpu_percent: 5.5, memory: 256MB}\n"
    )
    assert (config.interval.seconds, config.instance) == (30.0, "web-1")
    assert (config.statsd.udp, config.statsd.unix, config.statsd.observer) == (
        "[::1]:8125",
        "run/statsd.sock",
        "histogram",
    )
    assert config.statsd.flush_interval.seconds == 5.0
    assert (config.budget.cpu_percent, config.budget.memory) == (5.5, 256 << 20)
    assert config_of("") == AgentConfig()


def test_groups_connections_checks_and_discovery_are_read() -> None:
    config = config_of(
        "agent:\n"
        "  processes: {limit: 50, groups: [{name: db, comm: [postgres], cmdline: 'main$'}]}\n"
        "  connections: {enabled: false}\n"
        "  discovery: {exporters: false, interval: 1m}\n"
        "  checks:\n"
        "    redis: [{address: /run/redis.sock, password: secret, interval: 1m}]\n"
        "    programs: [{name: shop, command: [/opt/shop/check], settings: {a: b}, user: nobody}]\n"
    )
    assert config.processes.groups[0].rule().command_line is not None
    assert not config.connections.enabled
    shop, redis = config.checks.configured()
    assert (shop.name, shop.command, shop.settings, shop.user) == (
        *("shop", ("/opt/shop/check",), b'{"a":"b"}', "nobody"),
    )
    assert (redis.instance, redis.interval_seconds) == ("/run/redis.sock", 60.0)
    assert b"secret" in redis.settings
    assert "secret" not in " ".join(redis.command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent:\n  processes: {groups: [{name: x, cmdline: '('}]}\n", "cmdline '('"),
        ("agent:\n  processes: {enabled: false}\n", "connections need processes.enabled"),
        ("agent:\n  checks: {programs: [{name: '../x', command: [a]}]}\n", "name"),
        ("agent:\n  checks: {nginx: [{timeout: 1m}]}\n", "timeout at most the interval"),
        ("agent:\n  intervall: 1s\n", "prometheus.yml:2: agent.intervall: field intervall not found"),
        ("agent:\n  interval: 10ms\n", "prometheus.yml:2: agent.interval: interval of 10ms is below 1s"),
        ("agent:\n  statsd:\n    udp: nowhere\n", "prometheus.yml:3: agent.statsd.udp: not a valid listen"),
        ("agent:\n  budget:\n    cpu_percent: 0\n", "prometheus.yml:3: agent.budget.cpu_percent"),
        ("agent: [1]\n", "prometheus.yml:1: agent: cannot unmarshal: expected a mapping"),
    ],
)
def test_a_wrong_key_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"prometheus\.yml") as raised:
        config_of(text)
    assert message in str(raised.value)


async def test_host_metrics_and_statsd_reach_the_appender() -> None:
    store, port = FakeStore(), free_udp_port()
    config = AgentConfig(**NO_PROBE, instance="web-1", statsd=StatsdConfig(udp=f"127.0.0.1:{port}"))
    service = AgentService(store, CollectorRegistry(), config)
    await service.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"orders:3|c", ("127.0.0.1", port))
    async with asyncio.timeout(20):
        while not any("node_load1" in text for text in store.all()):
            await asyncio.sleep(0.02)
    await service.stop()
    assert 'orders{instance="web-1", job="statsd"}' in store.all()
    assert service.running == []


async def test_a_taken_port_stops_only_statsd(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        config = AgentConfig(**NO_PROBE, statsd=StatsdConfig(udp=f"127.0.0.1:{taken.getsockname()[1]}"))
        service = AgentService(FakeStore(), CollectorRegistry(), config)
        with caplog.at_level(logging.WARNING, "vedette.agent"):
            await service.start()
        assert service.running == ["container runtimes", "host, container and process metrics", "budget"]
        await service.stop()
    record = next(r for r in caplog.records if r.message == "a part of the host agent does not run")
    assert "Address already in use" in record.__dict__["reason"]


async def test_another_configuration_makes_the_parts_anew() -> None:
    registry = CollectorRegistry()
    service = AgentService(
        FakeStore(), registry, AgentConfig(**NO_PROBE, statsd=StatsdConfig(udp="127.0.0.1:0"))
    )
    await service.start()
    before = list(service._running)
    await service.apply(AgentConfig(**NO_PROBE, statsd=StatsdConfig(udp="127.0.0.1:0")))
    assert service._running == before
    await service.apply(AgentConfig(**NO_PROBE, statsd=StatsdConfig(udp="")))
    assert service.running == ["container runtimes", "host, container and process metrics", "budget"]
    names = [family.name for family in registry.collect()]
    assert names.count("vedette_agent_collection_series") == 1
    await service.stop()
    assert list(registry.collect()) == []


async def test_as_root_processes_events_and_connections_are_measured_without_configuration() -> None:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    store = FakeStore()
    config = AgentConfig(interval=Duration(1000), statsd=StatsdConfig(udp=""))
    service = AgentService(store, CollectorRegistry(), config)
    await service.start()
    try:
        if "processes, files and connections" not in service.running:
            pytest.skip("no probe on this host; the service said why")
        wanted = {"namedprocess_namegroup_num_procs", "vedette_process_executions_total", "node_load1"}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            await (await asyncio.create_subprocess_exec("true")).wait()
            names = {row.get("__name__") for row in store.rows}
            if wanted <= names:
                break
            await asyncio.sleep(0.2)
        assert wanted <= names
        jobs = {row.get("job") for row in store.rows}
        assert {"node", "process", "events"} <= jobs
    finally:
        await service.stop()
