"""TLS between an agent's client and the server: authorities, client certificates, and wrong files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingest.config.errors import ConfigError
from ingest.config.httpclient import HTTPClientConfig
from ingest.httpclient import HTTPClient, RequestError
from web.tls import server_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, other.pem (another authority), server.pem and client.pem signed by ca, and the keys."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl(*new, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", "extensions", "-out", f"{name}.pem"),
        )
    return folder


@dataclass
class Site:
    folder: Path
    servers: list[TestServer]

    async def start(self, more: str = "") -> str:
        config = self.folder / "web.yml"
        config.write_text(f"tls_server_config: {{cert_file: server.pem, key_file: server.key{more}}}\n")
        app = web.Application()

        async def take(request: web.Request) -> web.Response:
            return web.Response(body=await request.read())

        app.router.add_post("/", take)
        server = TestServer(app, scheme="https")
        await server.start_server(ssl=server_context(str(config)))
        self.servers.append(server)
        return f"https://127.0.0.1:{server.port}/"

    async def post(self, url: str, **tls: str) -> bytes:
        paths = {key: str(self.folder / value) for key, value in tls.items()}
        client = HTTPClient(HTTPClientConfig.model_validate({"tls_config": paths}), "test")
        try:
            return (await client.post(url, {}, b"samples", 10.0, 1000)).body
        finally:
            await client.close()


@pytest.fixture
async def site(certificates: Path) -> AsyncIterator[Site]:
    made = Site(certificates, [])
    yield made
    for server in made.servers:
        await server.close()


async def test_a_client_with_the_authority_is_served_and_others_refuse_the_server(site: Site) -> None:
    url = await site.start()
    assert await site.post(url, ca_file="ca.pem") == b"samples"
    for wrong in ({}, {"ca_file": "other.pem"}):
        with pytest.raises(RequestError, match=r"(?i)certificate verify failed"):
            await site.post(url, **wrong)


async def test_a_client_certificate_can_be_demanded(site: Site) -> None:
    url = await site.start(", client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert")
    own = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    assert await site.post(url, **own) == b"samples"
    with pytest.raises(RequestError):
        await site.post(url, ca_file="ca.pem")
    with pytest.raises(RequestError):
        await site.post(url, **{**own, "cert_file": "other.pem", "key_file": "other.key"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tls_server_config: {cert_file: a.pem}\n",
            "web.yml:1: tls_server_config.key_file: missing key_file",
        ),
        ("basic_auth_users: {a: b}\n", "web.yml:1: basic_auth_users: field basic_auth_users not found"),
        (
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n",
            "client_ca_file and a client_auth_type that verifies belong together",
        ),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        server_context(str(path))
    assert message in str(raised.value)


def test_no_file_and_an_empty_one_mean_no_tls(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("")
    assert server_context("") is None
    assert server_context(str(tmp_path / "web.yml")) is None


def test_a_certificate_that_is_none_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nonsense")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: a.pem, key_file: a.pem}\n")
    with pytest.raises(OSError, match="PEM"):
        server_context(str(tmp_path / "web.yml"))
