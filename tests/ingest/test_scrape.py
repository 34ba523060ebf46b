"""Scraping of real HTTP servers into a store, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import gzip
import heapq
import itertools
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from ingest.clock import SystemClock
from ingest.config.document import parse_config
from ingest.kernels import exposition, seriescache
from ingest.scrape.service import ScrapeManager, ScrapeSettings, global_url
from tests.ingest.fakestore import FakeStore
from tsdb.kernels.compile import registered
from tsdb.labels import Matcher, MatchType

PORT = 19200
SETTLE_SECONDS = 0.2
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MovedClock:
    """Time stands still until `advance`; sleepers wake in order of their time."""

    def __init__(self, start_ms: int = 1_000_000_000_000) -> None:
        self.ms = float(start_ms)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return round(self.ms)

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.ms + seconds * 1000, self._count, future))
        await future

    async def settle(self, sleeper_count: int = 0) -> None:
        """Let happen what needs no time to pass: wait, not for long, until so many sleep again."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for _ in range(10):
            await asyncio.sleep(0.001)
        while len(self._sleepers) < sleeper_count and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    async def advance(self, seconds: float) -> None:
        """Move on, stopping at every wake-up in between."""
        end = self.ms + seconds * 1000
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            count = len(self._sleepers)
            at, _, future = heapq.heappop(self._sleepers)
            self.ms = max(self.ms, at)
            if not future.done():
                future.set_result(None)
                await self.settle(count)
        self.ms = end
        await self.settle()


class Exporter:
    """An exposition server whose answer the test sets."""

    def __init__(self) -> None:
        self.body = b"a 1\n"
        self.status = 200
        self.content_type = TEXT_TYPE
        self.requests: list[web.BaseRequest] = []
        self.gate: asyncio.Event | None = None
        self.respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.respond is not None:
            return await self.respond(request)
        if self.gate is not None:
            await self.gate.wait()
        headers = {"Content-Type": self.content_type}
        body = self.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body)
        return web.Response(body=body, status=self.status, headers=headers)


@pytest.fixture(scope="module", autouse=True)
def _warm_kernels() -> None:
    for module in (exposition, seriescache):
        for item in registered():
            if item.function.__module__ == module.__name__:
                item.compile()


@pytest.fixture
async def exporter() -> AsyncIterator[Exporter]:
    made = Exporter()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    yield made
    await runner.cleanup()


class Bench:
    """A manager on a moved clock."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = MovedClock()
        self.registry = CollectorRegistry()
        self.manager = ScrapeManager(self.store, self.registry, self.clock, ScrapeSettings())

    async def apply(self, text: str, file: str = "prometheus.yml") -> None:
        await self.manager.apply(parse_config(text, file))
        await self.clock.settle()

    def one(self, series: str = "up", job: str = "j", port: int = PORT) -> list[float | str]:
        return self.store.values(f'{series}{{instance="127.0.0.1:{port}", job="{job}"}}')

    def active(self) -> dict[str, object]:
        targets = self.manager.targets()["activeTargets"]
        assert len(targets) == 1
        return dict(targets[0])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.manager.close()


def job(extra: str = "", name: str = "j", port: int = PORT) -> str:
    return (
        f"- job_name: {name}\n  scrape_interval: 10s\n  scrape_timeout: 5s\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{extra}"
    )


def config(*jobs: str) -> str:
    return "scrape_configs:\n" + "".join(jobs)


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


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another thread or process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition was not reached in time"
        await asyncio.sleep(0.01)


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


async def test_credentials_and_headers_are_sent(bench: Bench, exporter: Exporter, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    extra = "  authorization: {credentials_file: token}\n  http_headers: {X-Extra: {values: [one]}}\n"
    await bench.apply(config(job(extra)), str(tmp_path / "prometheus.yml"))
    await bench.clock.advance(10)
    (tmp_path / "token").write_text("rotated")
    await bench.clock.advance(10)
    headers = [request.headers for request in exporter.requests]
    assert [h["Authorization"] for h in headers] == ["Bearer t0ken", "Bearer rotated"]
    assert headers[0]["X-Extra"] == "one"


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


async def test_basic_auth_and_oauth2_tokens_are_sent(bench: Bench, exporter: Exporter) -> None:
    forms: list[dict[str, str]] = []

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            forms.append({name: str(value) for name, value in (await request.post()).items()})
            return web.json_response({"access_token": f"token{len(forms)}", "expires_in": 3600})
        return web.Response(body=b"a 1\n", headers={"Content-Type": TEXT_TYPE})

    exporter.respond = respond
    oauth2 = (
        "  oauth2: {client_id: me, client_secret: s3cret, scopes: [read, write], "
        f"token_url: 'http://127.0.0.1:{PORT}/token'}}\n"
    )
    await bench.apply(config(job("  basic_auth: {username: u, password: p}\n"), job(oauth2, name="k")))
    await bench.clock.advance(30)
    sent = {r.headers["Authorization"] for r in exporter.requests if r.path == "/metrics"}
    assert sent == {"Basic dTpw", "Bearer token1"}
    assert forms == [
        {
            "grant_type": "client_credentials",
            "client_id": "me",
            "client_secret": "s3cret",
            "scope": "read write",
        }
    ]
    assert bench.one(job="k").count(1.0) >= 2


OPENSSL = shutil.which("openssl")


@pytest.mark.skipif(OPENSSL is None, reason="openssl is absent")
async def test_certificates_are_checked_against_the_configured_authority(
    bench: Bench, exporter: Exporter, tmp_path: Path
) -> None:
    subprocess.run(
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    runner = web.ServerRunner(web.Server(exporter.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT + 1, ssl_context=context).start()
    try:
        port, https = PORT + 1, "  scheme: https\n"
        trusting = "  tls_config: {ca_file: cert.pem}\n"
        careless = "  tls_config: {insecure_skip_verify: true}\n"
        text = config(
            job(https, "refusing", port), job(https + trusting, "trusting", port),
            job(https + careless, "careless", port),
        )  # fmt: skip
        await bench.apply(text, str(tmp_path / "prometheus.yml"))
        await bench.clock.advance(10)
        up = {name: bench.one(job=name, port=port) for name in ("refusing", "trusting", "careless")}
        assert up == {"refusing": [0.0], "trusting": [1.0], "careless": [1.0]}
        errors = {t["scrapePool"]: t["lastError"] for t in bench.manager.targets()["activeTargets"]}
        assert "certificate verify failed" in errors["refusing"]
    finally:
        await runner.cleanup()


NODE_EXPORTER = shutil.which("prometheus-node-exporter")


@pytest.mark.e2e
@pytest.mark.skipif(NODE_EXPORTER is None, reason="Debian's prometheus-node-exporter is absent")
async def test_debians_node_exporter_is_scraped(tmp_path: Path) -> None:
    port = PORT + 50
    store = FakeStore()
    manager = ScrapeManager(store, CollectorRegistry(), SystemClock(), ScrapeSettings())
    process = subprocess.Popen(
        [str(NODE_EXPORTER), f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: _listens(port))
        protobuf = job("  scrape_protocols: [PrometheusProto]\n", name="proto", port=port)
        text = config(job(port=port), protobuf).replace("10s", "1s").replace("5s", "900ms")
        await manager.apply(parse_config(text))
        # On a busy machine a scrape may come to its timeout.
        up = f'up{{instance="127.0.0.1:{port}", job="j"}}'
        await until(lambda: store.values(up).count(1.0) >= 2)
        up_by_protobuf = f'up{{instance="127.0.0.1:{port}", job="proto"}}'
        await until(lambda: store.values(up_by_protobuf).count(1.0) >= 2)
        by_text, by_protobuf = (
            {str(labels.without("job")) for labels in store.rows if labels.get("job") == name}
            for name in ("j", "proto")
        )
        # The devices that come and go, and the exporter's own counters of requests, may differ.
        assert len(by_text ^ by_protobuf) < len(by_text) / 50
        info = [labels for labels in store.rows if labels.metric_name == "node_uname_info"]
        assert info[0].get("nodename") == os.uname().nodename
        scraped = store.values(f'scrape_samples_scraped{{instance="127.0.0.1:{port}", job="j"}}')
        assert max(value for value in scraped if isinstance(value, float)) > 100
        assert manager.metadata("node_uname_info")["node_uname_info"][0]["type"] == "gauge"
    finally:
        await manager.close()
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
