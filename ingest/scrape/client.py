"""Fetching of an exposition: request headers, status, size limits, decompression (surface 6.2)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ingest.config.scrape import ScrapeConfig
from ingest.httpclient import BodyTooLargeError, HTTPClient, RequestError
from ingest.scrape.accept import accept_header, body_mode
from ingest.scrape.samples import Body, ScrapeError
from ingest.scrape.target import Target

BODY_BYTES_LIMIT = 1 << 30
"""Largest body, compressed or not, of a job without body_size_limit."""
_GZIP_WINDOW = 31


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body as it came, with what is needed to read it."""

    raw: bytes
    encoding: str
    content_type: str | None


class ScrapeClient:
    """Fetches the targets of one job. Event loop thread only, but for `decode`."""

    def __init__(self, job: ScrapeConfig, user_agent: str) -> None:
        self._job = job
        self._http = HTTPClient(job, user_agent)
        self._user_agent = user_agent
        self._sockets: dict[str, HTTPClient] = {}
        self._limit = int(job.body_size_limit) or BODY_BYTES_LIMIT
        self._headers = {
            "Accept": accept_header(job.scrape_protocols or (), job.metric_name_escaping_scheme),
            "Accept-Encoding": "gzip" if job.enable_compression else "identity",
        }

    async def fetch(self, target: Target) -> Fetched:
        """The target's answer. Raises ScrapeError."""
        client = self._http
        if target.unix_socket:
            client = self._sockets.setdefault(
                target.unix_socket, HTTPClient(self._job, self._user_agent, target.unix_socket)
            )
        seconds = target.timeout_ms / 1000
        headers = {**self._headers, "X-Prometheus-Scrape-Timeout-Seconds": f"{seconds:g}"}
        try:
            answer = await client.get(target.url, headers, seconds, self._limit)
        except BodyTooLargeError:
            raise ScrapeError("body size limit exceeded", body_bytes=-1) from None
        except RequestError as error:
            raise ScrapeError(str(error)) from error
        if answer.status != 200:
            raise ScrapeError(f"server returned HTTP status {answer.status} {answer.reason}".rstrip())
        encoding = answer.headers.get("Content-Encoding", "").strip().lower()
        return Fetched(answer.body, encoding, answer.headers.get("Content-Type"))

    def decode(self, fetched: Fetched) -> Body:
        """The body, decompressed, and its format. Any thread. Raises ScrapeError."""
        try:
            mode = body_mode(fetched.content_type, self._job.fallback_scrape_protocol)
        except ValueError as error:
            raise ScrapeError(str(error)) from None
        if fetched.encoding in ("", "identity"):
            return Body(fetched.raw, mode)
        if fetched.encoding != "gzip":
            raise ScrapeError(f'unsupported Content-Encoding "{fetched.encoding}"')
        return Body(self._gunzip(fetched.raw), mode)

    def _gunzip(self, raw: bytes) -> bytes:
        parts, size, rest = [], 0, raw
        try:
            while rest:
                decoder = zlib.decompressobj(wbits=_GZIP_WINDOW)
                part = decoder.decompress(rest, self._limit - size)
                size += len(part)
                if size >= self._limit:
                    raise ScrapeError("body size limit exceeded", body_bytes=-1)
                if not decoder.eof:
                    raise ScrapeError("gzip: unexpected end of the compressed body")
                parts.append(part)
                rest = decoder.unused_data
        except zlib.error as error:
            raise ScrapeError(f"gzip: {error}") from None
        return b"".join(parts)

    async def close(self) -> None:
        """Close all connections."""
        for client in (self._http, *self._sockets.values()):
            await client.close()
