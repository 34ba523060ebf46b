"""Endpoints found on the host: a listening exporter, and containers whose pods ask to be scraped."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.endpoints import POOL, EndpointScraper, annotated_group
from agent.groupconfig import DiscoveryConfig
from agent.runtimes.info import ContainerInfo
from agent.runtimes.lookup import ContainerLookup
from agent.savings import savings
from ingest.config.durations import Duration
from ingest.scrape.service import ScrapeManager
from ingest.scrape.target import DiscoveredGroup
from tests.agent.test_checks import free_port, wait_for
from tests.ingest.fakestore import FakeStore


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[int]:
    """A program named like an exporter that serves a page."""
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (scripts/system-packages)")
    shutil.copy("/bin/busybox", tmp_path / "demo_exporter")
    (tmp_path / "metrics").write_text("# TYPE demo_total counter\ndemo_total 5\n")
    port = free_port()
    command = ["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(tmp_path)]
    process = subprocess.Popen(command, executable=tmp_path / "demo_exporter")
    try:
        wait_for(("127.0.0.1", port), lambda: process.poll() is None)
        yield port
    finally:
        process.kill()
        process.wait()


async def test_a_listening_exporter_is_found_and_scraped(exporter: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("finding the owner of a socket needs root")
    store = FakeStore()
    config = DiscoveryConfig(interval=Duration(1000))
    scraper = EndpointScraper(store, None, config, ContainerLookup([]), instance="host-1")
    found = {group.source: group for group in scraper.find()}
    assert found["exporter/demo_exporter"].targets[0]["__address__"] == f"127.0.0.1:{exporter}"
    await scraper.start()
    try:
        series = f'demo_total{{instance="host-1:{exporter}", job="demo_exporter"}}'
        deadline = time.monotonic() + 10
        while not store.values(series) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert store.values(series)[0] == 5.0
    finally:
        await scraper.stop()


async def test_found_endpoints_are_among_the_targets_and_can_be_slowed_down(exporter: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("finding the owner of a socket needs root")
    store, manager = FakeStore(), ScrapeManager(FakeStore(), CollectorRegistry())
    scraper = EndpointScraper(
        store,
        None,
        DiscoveryConfig(interval=Duration(1000)),
        ContainerLookup([]),
        instance="host-1",
        directory=manager,
    )
    await scraper.start()
    try:

        def row() -> dict[str, Any]:
            rows = manager.targets("active", POOL)["activeTargets"]
            mine = [each for each in rows if each["labels"]["job"] == "demo_exporter"]
            return mine[0] if mine else {"health": "absent", "scrapeInterval": ""}

        await until(lambda: row()["health"] == "up")
        assert row()["scrapeUrl"] == f"http://127.0.0.1:{exporter}/metrics"
        assert (row()["scrapePool"], row()["scrapeInterval"]) == (POOL, "1s")
        assert manager.pools() == [POOL]
        assert "sample_limit" in manager.pool_yaml(POOL)
        families = [each["metric"] for each in manager.targets_metadata()]
        assert "demo_total" in families
        (step,) = (step for step in savings(None, None, scraper))
        await asyncio.to_thread(step.engage)
        await until(lambda: row()["scrapeInterval"] == "4s")
        await asyncio.to_thread(step.release)
        await until(lambda: row()["scrapeInterval"] == "1s")
        await asyncio.to_thread(step.engage)
    finally:
        await scraper.stop()
    assert manager.targets()["activeTargets"] == []
    await asyncio.sleep(0.05)
    assert not scraper.is_scraping, "what was asked for before the stop must not begin after it"
    await manager.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_an_own_listener_is_no_endpoint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scraper = EndpointScraper(
            FakeStore(), None, DiscoveryConfig(), ContainerLookup([]), instance="host-1"
        )
        addresses = [group.targets[0]["__address__"] for group in scraper.find()]
        assert f"127.0.0.1:{listener.getsockname()[1]}" not in addresses


def info(annotations: dict[str, str], **more: object) -> ContainerInfo:
    fields: dict[str, object] = {
        "pod_name": "web-7d4b9c5f6d-x2x9z",
        "pod_namespace": "shop",
        "pod_ip": "10.0.0.7",
        "pod_sandbox_id": "s1",
        "pod_annotations": annotations,
        **more,
    }
    return ContainerInfo("c1", "cri-o", **fields)  # type: ignore[arg-type]


def test_annotations_make_a_target() -> None:
    asked = {"prometheus.io/scrape": "true", "prometheus.io/port": "9102", "prometheus.io/path": "/m"}
    group = annotated_group(info(asked))
    assert group == DiscoveredGroup(
        "annotations/s1",
        ({"__address__": "10.0.0.7:9102", "__metrics_path__": "/m", "__scheme__": "http"},),
        {"job": "shop/web", "namespace": "shop", "pod": "web-7d4b9c5f6d-x2x9z"},
    )
    plain = annotated_group(ContainerInfo("c2", "docker", name="web", ip="fd00::2", labels=asked))
    assert plain is not None
    assert plain.targets[0]["__address__"] == "[fd00::2]:9102"
    assert plain.labels == {"job": "web"}


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"prometheus.io/scrape": "false"},
        {"prometheus.io/scrape": "true", "prometheus.io/port": "0"},
        {"prometheus.io/scrape": "true", "prometheus.io/port": "65536"},
        {"prometheus.io/scrape": "true", "prometheus.io/port": "80/../x"},
        {"prometheus.io/scrape": "true", "prometheus.io/scheme": "file"},
    ],
)
def test_other_annotations_make_none(annotations: dict[str, str]) -> None:
    assert annotated_group(info(annotations)) is None
