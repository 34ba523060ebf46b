"""Targets as JSON from an HTTP endpoint (surface 7.3)."""

from __future__ import annotations

import json
import logging

from ingest.clock import Clock
from ingest.config.discovery import HTTPSDConfig
from ingest.discovery.group import BODY_BYTES_LIMIT, DiscoveryError, Publish, read_groups
from ingest.httpclient import HTTPClient, RequestError
from ingest.metrics import DiscoveryMetrics
from ingest.scrape.accept import media_type
from ingest.scrape.target import DiscoveredGroup

log = logging.getLogger("vedette.ingest.discovery.http")


class HTTPDiscovery:
    """Asks one endpoint every refresh interval."""

    mechanism = "http"

    def __init__(
        self, config: HTTPSDConfig, clock: Clock, metrics: DiscoveryMetrics, job: str, user_agent: str
    ) -> None:
        self._config, self._clock, self._metrics, self._job = config, clock, metrics, job
        self._user_agent = user_agent

    async def run(self, publish: Publish) -> None:
        """Publish each good answer; a bad one keeps what was found before."""
        client = HTTPClient(self._config, self._user_agent)
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    publish(await self._refresh(client))
                except (DiscoveryError, RequestError) as error:
                    self._metrics.refresh_failures.labels(self.mechanism, self._job).inc()
                    log.error(
                        "discovery answer is not used", extra={"url": self._config.url, "err": str(error)}
                    )
                self._metrics.refresh_duration.observe(
                    (self.mechanism, self._job), self._clock.monotonic() - began
                )
                await self._clock.sleep(self._config.refresh_interval.seconds)
        finally:
            await client.close()

    async def _refresh(self, client: HTTPClient) -> list[DiscoveredGroup]:
        url, seconds = self._config.url, self._config.refresh_interval.seconds
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "X-Prometheus-Refresh-Interval-Seconds": f"{seconds:g}",
        }
        answer = await client.get(url, headers, seconds, BODY_BYTES_LIMIT)
        if answer.status != 200:
            raise DiscoveryError(f"server returned HTTP status {answer.status} {answer.reason}")
        content_type = answer.headers.get("Content-Type", "")
        if media_type(content_type) != "application/json":
            raise DiscoveryError(f'unsupported content type "{content_type}"')
        try:
            data = json.loads(answer.body)
        except ValueError as error:
            raise DiscoveryError(f"{url}: {error}") from None
        return read_groups(data, url, {"__meta_url": url})
