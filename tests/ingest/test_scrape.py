"""Scraping of real HTTP servers into a store, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ingest.clock import SystemClock
from ingest.config.document import parse_config
from ingest.scrape.service import ScrapeManager, ScrapeSettings, global_url
from tests.ingest.fakestore import FakeStore
from tests.ingest.scrapebench import (
    PORT,
    Bench,
    Exporter,
    config,
    job,
    until,
)
from tsdb.labels import Matcher, MatchType


async def test_targets_are_scraped_once_an_interval_on_a_fixed_grid(bench: Bench, exporter: Exporter) -> None:
    await bench.apply(config(job()))
    await bench.clock.advance(35)
    samples = bench.store.all()[f'a{{instance="127.0.0.1:{PORT}", job="j"}}']
    assert len(samples) in (3, 4)
    times = [t for t, _ in samples]
    assert {b - a for a, b in itertools.pairwise(times)} == {10_000}
    assert bench.one() == [1.0] * len(samples)
    target = bench.active()
    assert target["health"] == "up"
    assert target["lastError"] == ""
    assert target["scrapeUrl"] == f"http://127.0.0.1:{PORT}/metrics"
    assert (target["scrapeInterval"], target["scrapeTimeout"]) == ("10s", "5s")
    assert str(target["lastScrape"]).endswith("Z")


async def test_the_request_says_what_is_understood(bench: Bench, exporter: Exporter) -> None:
    await bench.apply(config(job("  params: {x: [a b, c]}\n  metrics_path: /probe\n")))
    await bench.clock.advance(10)
    request = exporter.requests[0]
    assert request.headers["Accept"] == (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["X-Prometheus-Scrape-Timeout-Seconds"] == "5"
    assert request.headers["User-Agent"] == "Vedette"
    assert request.path == "/probe"
    assert request.query.getall("x") == ["a b", "c"]


async def test_compression_can_be_turned_off(bench: Bench, exporter: Exporter) -> None:
    await bench.apply(config(job("  enable_compression: false\n")))
    await bench.clock.advance(10)
    assert exporter.requests[0].headers["Accept-Encoding"] == "identity"
    assert bench.one("a") == [1.0]


FAILURES: list[tuple[str, dict[str, object], str]] = [
    ("", {"status": 500}, "server returned HTTP status 500 Internal Server Error"),
    ("", {"content_type": ""}, "blank Content-Type and no fallback_scrape_protocol"),
    ("", {"content_type": "text/html"}, 'received unsupported Content-Type "text/html"'),
    ("", {"body": b"a 1\nb\n"}, "line 2: expected value after metric"),
    ("", {"content_type": "application/openmetrics-text"}, "data does not end with # EOF"),
    ("  body_size_limit: 1KB\n", {"body": b"a 1\n" * 300}, "body size limit exceeded"),
    ("  body_size_limit: 1KB\n  enable_compression: false\n", {"body": b"a 1\n" * 300}, "body size limit"),
    ("  sample_limit: 1\n", {"body": b"a 1\nb 1\n"}, "sample limit exceeded"),
]


@pytest.mark.parametrize(("extra", "answer", "error"), FAILURES)
async def test_bad_answers_are_failed_scrapes(
    bench: Bench, exporter: Exporter, extra: str, answer: dict[str, object], error: str
) -> None:
    await bench.apply(config(job(extra)))
    await bench.clock.advance(10)
    for name, value in answer.items():
        setattr(exporter, name, value)
    await bench.clock.advance(10)
    assert error in str(bench.active()["lastError"])
    assert bench.active()["health"] == "down"
    assert bench.one() == [1.0, 0.0]
    assert bench.one("a") == [1.0, "stale"]


async def test_the_fallback_protocol_reads_a_blank_content_type(bench: Bench, exporter: Exporter) -> None:
    exporter.content_type = ""
    await bench.apply(config(job("  fallback_scrape_protocol: PrometheusText0.0.4\n")))
    await bench.clock.advance(10)
    assert bench.one("a") == [1.0]


async def test_failures_are_written_to_their_log(bench: Bench, exporter: Exporter, tmp_path: Path) -> None:
    exporter.status = 503
    await bench.apply(config(job("  scrape_failure_log_file: fail.log\n")), str(tmp_path / "prometheus.yml"))
    await bench.clock.advance(20)
    lines = [json.loads(line) for line in (tmp_path / "fail.log").read_text().splitlines()]
    assert len(lines) >= 1
    assert lines[0]["msg"] == "server returned HTTP status 503 Service Unavailable"
    assert (lines[0]["job_name"], lines[0]["target"]) == ("j", f"http://127.0.0.1:{PORT}/metrics")


async def test_a_refused_connection_is_a_failed_scrape(bench: Bench) -> None:
    await bench.apply(config(job(port=PORT + 99)))
    await bench.clock.advance(10)
    assert bench.one(port=PORT + 99) == [0.0]
    assert f'Get "http://127.0.0.1:{PORT + 99}/metrics": ' in str(bench.active()["lastError"])


async def test_a_slow_target_times_out(exporter: Exporter) -> None:
    store, exporter.gate = FakeStore(), asyncio.Event()
    manager = ScrapeManager(store, CollectorRegistry(), SystemClock(), ScrapeSettings())
    text = config(job()).replace("10s", "200ms").replace("5s", "100ms")
    await manager.apply(parse_config(text))
    try:
        await until(lambda: any(t["lastError"] for t in manager.targets()["activeTargets"]))
        errors = [t["lastError"] for t in manager.targets()["activeTargets"]]
        assert errors == [f'Get "http://127.0.0.1:{PORT}/metrics": context deadline exceeded']
    finally:
        exporter.gate.set()
        await manager.close()


async def test_a_removed_target_goes_stale_two_intervals_later(bench: Bench, exporter: Exporter) -> None:
    await bench.apply(config(job()))
    await bench.clock.advance(20)
    seen = len(bench.one("a"))
    last = bench.store.all()[f'a{{instance="127.0.0.1:{PORT}", job="j"}}'][-1][0]
    await bench.apply("scrape_configs: []\n")
    await bench.clock.advance(10)
    assert len(bench.one("a")) == seen
    await bench.clock.advance(15)
    assert bench.store.all()[f'a{{instance="127.0.0.1:{PORT}", job="j"}}'][-1] == (last + 10_000, "stale")
    assert bench.one()[-1] == "stale"
    assert bench.manager.pools() == []


async def test_a_target_that_comes_back_gets_no_end_markers(bench: Bench, exporter: Exporter) -> None:
    await bench.apply(config(job()))
    await bench.clock.advance(20)
    await bench.apply("scrape_configs: []\n")
    await bench.clock.advance(6)
    await bench.apply(config(job()))
    await bench.clock.advance(40)
    assert "stale" not in bench.one("a")


async def test_shutdown_writes_no_markers(exporter: Exporter) -> None:
    bench = Bench()
    await bench.apply(config(job()))
    await bench.clock.advance(20)
    await bench.manager.close()
    await bench.clock.advance(60)
    assert "stale" not in bench.one("a")


async def test_a_reload_keeps_unchanged_pools_and_the_state_of_changed_ones(
    bench: Bench, exporter: Exporter
) -> None:
    await bench.apply(config(job(), job(name="k")))
    await bench.clock.advance(20)
    loops = {name: next(iter(pool.loops.values())) for name, pool in bench.manager._pools.items()}
    exporter.body = b"b 1\n"
    await bench.apply(config(job(), job("  honor_labels: true\n", name="k")))
    assert next(iter(bench.manager._pools["j"].loops.values())) is loops["j"]
    assert next(iter(bench.manager._pools["k"].loops.values())) is not loops["k"]
    await bench.clock.advance(10)
    assert bench.one("a", job="k")[-1] == "stale"
    assert bench.one("b", job="k")[-1] == 1.0
    assert bench.one(job="k").count(1.0) == len(bench.one(job="k"))


async def test_relabelling_drops_targets_and_shows_them(bench: Bench, exporter: Exporter) -> None:
    extra = (
        "  relabel_configs:\n  - {source_labels: [__address__], regex: '.*:1', action: drop}\n"
        "  - {source_labels: [__address__], target_label: instance, replacement: 'x-$1'}\n"
    )
    text = config(job(extra)).replace("targets: ['", "labels: {env: prod}, targets: ['gone:1', '")
    await bench.apply(text)
    await bench.clock.advance(10)
    shown = bench.manager.targets()
    assert [t["labels"] for t in shown["activeTargets"]] == [
        {"env": "prod", "instance": f"x-127.0.0.1:{PORT}", "job": "j"}
    ]
    assert shown["droppedTargetCounts"] == {"j": 1}
    assert shown["droppedTargets"][0]["discoveredLabels"]["__address__"] == "gone:1"
    assert shown["droppedTargets"][0]["discoveredLabels"]["__scrape_interval__"] == "10s"
    only_active = bench.manager.targets("active")
    assert (only_active["droppedTargets"], only_active["droppedTargetCounts"]) == ([], None)
    assert bench.manager.targets("dropped")["activeTargets"] == []
    steps = bench.manager.relabel_steps("j", '{"__address__": "gone:1"}')
    assert [step["keep"] for step in steps] == [False]


async def test_a_target_limit_fails_every_target(bench: Bench, exporter: Exporter) -> None:
    text = config(job("  target_limit: 1\n")).replace("targets: ['", "targets: ['localhost:1', '")
    await bench.apply(text)
    await bench.clock.advance(10)
    assert bench.one() == [0.0]
    assert exporter.requests == []
    errors = {t["lastError"] for t in bench.manager.targets()["activeTargets"]}
    assert errors == {"target_limit exceeded (number of targets: 2, limit: 1)"}


async def test_metadata_is_shown_by_family_and_by_target(bench: Bench, exporter: Exporter) -> None:
    exporter.body = b"# HELP a Some help.\n# TYPE a counter\na 1\n# TYPE b gauge\nb 1\n"
    await bench.apply(config(job()))
    await bench.clock.advance(10)
    entry = {"type": "counter", "help": "Some help.", "unit": ""}
    assert bench.manager.metadata()["a"] == [entry]
    assert list(bench.manager.metadata("b")) == ["b"]
    assert len(bench.manager.metadata(limit=1)) == 1
    rows = bench.manager.targets_metadata([Matcher(MatchType.EQUAL, "job", "j")])
    assert [row["metric"] for row in rows] == ["a", "b"]
    assert "metric" not in bench.manager.targets_metadata(metric="a")[0]
    assert bench.manager.targets_metadata([Matcher(MatchType.EQUAL, "job", "x")]) == []


async def test_own_metrics_follow_the_pools(bench: Bench, exporter: Exporter) -> None:
    exporter.body = b"# HELP a xyz\n# TYPE a gauge\na 1\n"
    await bench.apply(config(job()))
    await bench.clock.advance(30)
    get = bench.registry.get_sample_value
    assert get("prometheus_target_scrape_pools_total") == 1
    assert get("prometheus_target_scrape_pool_targets", {"scrape_job": "j"}) == 1
    assert get("prometheus_sd_discovered_targets", {"name": "scrape", "config": "j"}) == 1
    assert get("prometheus_target_interval_length_seconds_count", {"interval": "10s"}) in (1, 2)
    assert get("prometheus_target_metadata_cache_entries", {"scrape_job": "j"}) == 1
    assert get("prometheus_target_metadata_cache_bytes", {"scrape_job": "j"}) == 4
    quantile = {"interval": "10s", "quantile": "0.99"}
    assert get("prometheus_target_interval_length_seconds", quantile) == 10


GLOBAL_URLS = [
    (
        "http://localhost:9100/metrics",
        "http://vedette.example:9090/",
        9090,
        "http://vedette.example:9100/metrics",
    ),
    ("http://localhost:9090/metrics", "https://v.example/", 9090, "https://v.example/metrics"),
    ("http://other:9100/metrics", "http://v.example:9090/", 9090, "http://other:9100/metrics"),
    ("http://localhost:9100/metrics", "", 9090, "http://localhost:9100/metrics"),
]


@pytest.mark.parametrize(("url", "external", "port", "expected"), GLOBAL_URLS)
def test_local_urls_are_shown_as_others_reach_them(url: str, external: str, port: int, expected: str) -> None:
    assert global_url(url, external, port) == expected
