"""HTTP requests as the client keys of a configuration section say (surface 7.2)."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import SecretStr
from yarl import URL

from ingest.config.httpclient import HTTPClientConfig, OAuth2, TLSConfig

CREDENTIAL_BYTES_LIMIT = 1 << 20
"""Size of a credential, token or header file."""
TOKEN_EXPIRY_SLACK_SECONDS = 10.0
"""An OAuth2 token is renewed this long before it expires."""
_READ_CHUNK_BYTES = 1 << 16

_TLS_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class RequestError(Exception):
    """A request that got no usable answer; the text is fit for a status page."""


class BodyTooLargeError(RequestError):
    """More bytes than the given limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, the body still as it was encoded."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def tls_context(config: TLSConfig) -> ssl.SSLContext:
    """A client context. Raises OSError and ssl.SSLError for unusable certificates."""
    context = ssl.create_default_context(
        cafile=config.ca_file or None, cadata=config.ca or None, purpose=ssl.Purpose.SERVER_AUTH
    )
    if config.min_version:
        context.minimum_version = _TLS_VERSIONS[config.min_version]
    if config.max_version:
        context.maximum_version = _TLS_VERSIONS[config.max_version]
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    key = config.key.get_secret_value()
    if config.cert_file and config.key_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    elif config.cert or key:
        # The ssl module reads certificates from files only.
        with tempfile.TemporaryDirectory() as folder:
            cert_path, key_path = Path(folder, "cert"), Path(folder, "key")
            cert_path.write_text(config.cert or Path(config.cert_file).read_text())
            key_path.touch(mode=0o600)
            key_path.write_text(key or Path(config.key_file).read_text())
            context.load_cert_chain(cert_path, key_path)
    return context


def _secret(inline: SecretStr, file: str) -> str:
    """A credential; files are read again for each request, so that rotation needs no reload."""
    if not file:
        return inline.get_secret_value()
    with open(file, encoding="utf-8") as handle:
        text = handle.read(CREDENTIAL_BYTES_LIMIT + 1)
    if len(text) > CREDENTIAL_BYTES_LIMIT:
        raise RequestError(f"credential file {file} exceeds {CREDENTIAL_BYTES_LIMIT} bytes")
    return text.strip()


class HTTPClient:
    """One connection pool with its credentials. Event loop thread only."""

    def __init__(self, config: HTTPClientConfig, user_agent: str, unix_socket: str = "") -> None:
        self._config = config
        self._user_agent = user_agent
        self._unix_socket = unix_socket
        self._session: aiohttp.ClientSession | None = None
        self._token = ("", 0.0)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._unix_socket:
                connector = aiohttp.UnixConnector(path=self._unix_socket)
            else:
                connector = aiohttp.TCPConnector(limit=0, ssl=tls_context(self._config.tls_config))
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._config.proxy_from_environment,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            )
        return self._session

    async def get(
        self, url: str, headers: Mapping[str, str], timeout_seconds: float, body_bytes_limit: int
    ) -> Answer:
        """A GET with the configured credentials. Raises RequestError."""
        return await self._bounded("GET", url, headers, None, timeout_seconds, body_bytes_limit)

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float, body_bytes_limit: int
    ) -> Answer:
        """A POST with the configured credentials; the limit is that of the answer. Raises RequestError."""
        return await self._bounded("POST", url, headers, body, timeout_seconds, body_bytes_limit)

    async def _bounded(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
        body_bytes_limit: int,
    ) -> Answer:
        what = f'{method.capitalize()} "{url}"'
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._request(method, url, headers, body, body_bytes_limit)
        except TimeoutError:
            raise RequestError(f"{what}: context deadline exceeded") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise RequestError(f"{what}: {error or type(error).__name__}") from error

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, body_bytes_limit: int
    ) -> Answer:
        config = self._config
        all_headers = {"User-Agent": self._user_agent, **await self._auth_headers(), **headers}
        proxy = config.proxy_url if config.proxy_url and not self._bypasses_proxy(url) else None
        async with self._opened().request(
            method,
            URL(url, encoded=True),
            headers=all_headers,
            data=body,
            allow_redirects=config.follow_redirects,
            proxy=proxy,
            server_hostname=config.tls_config.server_name or None,
        ) as response:
            chunks, size = [], 0
            async for chunk in response.content.iter_chunked(_READ_CHUNK_BYTES):
                size += len(chunk)
                if size >= body_bytes_limit:
                    raise BodyTooLargeError(f"body size limit exceeded ({body_bytes_limit} bytes)")
                chunks.append(chunk)
            return Answer(response.status, response.reason or "", dict(response.headers), b"".join(chunks))

    def _bypasses_proxy(self, url: str) -> bool:
        host = URL(url).host or ""
        names = [name.strip().lstrip("*.") for name in self._config.no_proxy.split(",") if name.strip()]
        return any(host == name or host.endswith(f".{name}") for name in names)

    async def _auth_headers(self) -> dict[str, str]:
        config, headers = self._config, dict[str, str]()
        for name, header in config.http_headers.items():
            values = [*header.values, *(secret.get_secret_value() for secret in header.secrets)]
            values += [_secret(SecretStr(""), file) for file in header.files]
            headers[name] = ", ".join(values)
        basic = config.basic_auth
        if basic is not None:
            user = _secret(SecretStr(basic.username), basic.username_file)
            pair = f"{user}:{_secret(basic.password, basic.password_file)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        authorization = config.effective_authorization
        if authorization is not None:
            credentials = _secret(authorization.credentials, authorization.credentials_file)
            headers["Authorization"] = f"{authorization.type.strip()} {credentials}"
        if config.oauth2 is not None:
            headers["Authorization"] = f"Bearer {await self._oauth2_token(config.oauth2)}"
        return headers

    async def _oauth2_token(self, config: OAuth2) -> str:
        token, expires = self._token
        if token and time.monotonic() < expires:
            return token
        if config.grant_type not in ("", "client_credentials"):
            raise RequestError(f"oauth2 grant_type {config.grant_type} is not supported yet")
        form = {
            "grant_type": "client_credentials",
            "client_id": config.client_id,
            "client_secret": _secret(config.client_secret, config.client_secret_file),
            **({"scope": " ".join(config.scopes)} if config.scopes else {}),
            **config.endpoint_params,
        }
        ssl_context = tls_context(config.tls_config)
        async with self._opened().post(
            config.token_url, data=form, ssl=ssl_context, headers={"Accept": "application/json"}
        ) as response:
            if response.status != 200:
                raise RequestError(f"oauth2: cannot fetch token: {response.status} {response.reason}")
            answer = await response.json(content_type=None)
        token = str(answer["access_token"])
        lifetime = float(answer.get("expires_in") or 3600)
        self._token = (token, time.monotonic() + lifetime - TOKEN_EXPIRY_SLACK_SECONDS)
        return token

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
