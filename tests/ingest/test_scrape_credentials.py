"""What a scrape sends and checks: credentials, tokens, certificates; Debian's node exporter as it is."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from ingest.clock import SystemClock
from ingest.config.document import parse_config
from ingest.scrape.service import ScrapeManager, ScrapeSettings
from tests.ingest.fakestore import FakeStore
from tests.ingest.scrapebench import (
    PORT,
    TEXT_TYPE,
    Bench,
    Exporter,
    config,
    job,
    until,
)


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
