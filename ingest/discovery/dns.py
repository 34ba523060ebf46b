"""Targets from DNS records (surface 7.3)."""

from __future__ import annotations

import asyncio
import logging
import random

from ingest.clock import Clock
from ingest.config.discovery import DNSSDConfig
from ingest.discovery.dnsquery import DNSError, Record, Resolver, join_host_port, lookup, system_resolver
from ingest.discovery.group import Publish
from ingest.metrics import DiscoveryMetrics
from ingest.scrape.target import DiscoveredGroup

log = logging.getLogger("vedette.ingest.discovery.dns")

_META = "__meta_dns_"


class DNSDiscovery:
    """Looks the names up every refresh interval; a failed name keeps its previous targets."""

    mechanism = "dns"

    def __init__(
        self,
        config: DNSSDConfig,
        clock: Clock,
        metrics: DiscoveryMetrics,
        job: str,
        rng: random.Random,
        resolver: Resolver | None = None,
    ) -> None:
        self._config, self._clock, self._metrics, self._job = config, clock, metrics, job
        self._rng, self._resolver = rng, resolver
        self._groups: dict[str, DiscoveredGroup] = {}

    async def run(self, publish: Publish) -> None:
        """Publish after every round of look-ups."""
        while True:
            began = self._clock.monotonic()
            resolver = self._resolver
            if resolver is None:
                resolver = await asyncio.to_thread(system_resolver)
            await asyncio.gather(*(self._refresh(name, resolver) for name in self._config.names))
            publish(list(self._groups.values()))
            self._metrics.refresh_duration.observe(
                (self.mechanism, self._job), self._clock.monotonic() - began
            )
            await self._clock.sleep(self._config.refresh_interval.seconds)

    async def _refresh(self, name: str, resolver: Resolver) -> None:
        kind = self._config.type.upper()
        try:
            records = await lookup(name, kind, resolver, self._rng)
        except DNSError as error:
            self._metrics.refresh_failures.labels(self.mechanism, self._job).inc()
            log.error("Name is not resolved", extra={"dns_name": name, "err": str(error)})
            return
        targets = tuple(self._labels(name, record) for record in records)
        self._groups[name] = DiscoveredGroup(name, targets, {})

    def _labels(self, name: str, record: Record) -> dict[str, str]:
        port = self._config.port if record.type != "SRV" else record.port
        labels = {"__address__": join_host_port(record.target, port), f"{_META}name": name}
        # Prometheus shows names of targets as DNS writes them, with the final dot.
        labels[f"{_META}srv_record_target"] = f"{record.target}." if record.type == "SRV" else ""
        labels[f"{_META}srv_record_port"] = str(record.port) if record.type == "SRV" else ""
        labels[f"{_META}mx_record_target"] = f"{record.target}." if record.type == "MX" else ""
        labels[f"{_META}ns_record_target"] = f"{record.target}." if record.type == "NS" else ""
        return labels
