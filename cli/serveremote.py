"""The server's remote write: what the store takes goes on to the destinations of the configuration."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from cli.flags import ServeFlags
from ingest.remotewrite.destinations import Destinations, labels_by_ref
from ingest.scrape.service import ScrapeManager
from tsdb.columns import Metadata
from tsdb.database import Database


def make_destinations(
    flags: ServeFlags, database: Database, scrape: ScrapeManager, registry: CollectorRegistry
) -> Destinations:
    """Destinations that hear of everything the database takes from now on; none before `apply`."""

    def families() -> Sequence[Metadata]:
        found = scrape.metadata(limit_per_metric=1)
        return [
            Metadata(name, entry["type"], entry["help"], entry["unit"])
            for name, entries in found.items()
            for entry in entries
        ]

    destinations = Destinations(
        Path(flags["storage.tsdb.path"]) / "remote_write",
        labels_by_ref(database.series_table),
        families,
        registry,
        f"Vedette/{importlib.metadata.version('vedette')}",
        queue_bytes=flags.size_bytes("storage.remote.queue-size"),
        flush_seconds=flags.duration_ms("storage.remote.flush-deadline") / 1000,
    )
    appender = database.appender()
    appender.listeners = (*appender.listeners, destinations.offer)
    return destinations
