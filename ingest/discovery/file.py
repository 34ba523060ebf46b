"""Targets in watched JSON and YAML files; a bad file keeps its previous targets (surface 7.3)."""

from __future__ import annotations

import asyncio
import glob
import json
import logging
import os
from dataclasses import dataclass

from ingest.clock import Clock
from ingest.config.discovery import FileSDConfig
from ingest.config.errors import ConfigError
from ingest.config.source import read_yaml
from ingest.discovery.group import BODY_BYTES_LIMIT, DiscoveryError, Publish, read_groups
from ingest.metrics import DiscoveryMetrics
from ingest.scrape.target import DiscoveredGroup

CHECK_SECONDS = 1.0
"""How often the files' times and sizes are compared: the watch. A changed file is read within this time."""

log = logging.getLogger("vedette.ingest.discovery.file")


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int, int]
    groups: list[DiscoveredGroup]


class FileDiscovery:
    """Watches the files of one `file_sd_config`."""

    mechanism = "file"

    def __init__(self, config: FileSDConfig, clock: Clock, metrics: DiscoveryMetrics, job: str) -> None:
        self._config, self._clock, self._metrics, self._job = config, clock, metrics, job
        self._files: dict[str, _File] = {}

    async def run(self, publish: Publish) -> None:
        """Publish at the start, when a file changes, and every refresh interval."""
        next_refresh = self._clock.monotonic()
        while True:
            due = self._clock.monotonic() >= next_refresh
            if due:
                next_refresh += self._config.refresh_interval.seconds
            if await asyncio.to_thread(self._refresh, due) or due:
                publish([group for file in self._files.values() for group in file.groups])
            await self._clock.sleep(min(CHECK_SECONDS, self._config.refresh_interval.seconds))

    def _refresh(self, everything: bool) -> bool:
        """Read what changed (or all); True where anything is different."""
        began = self._clock.monotonic()
        paths = {path for pattern in self._config.files for path in glob.glob(pattern)}
        changed = False
        for gone in self._files.keys() - paths:
            del self._files[gone]
            changed = True
        for path in sorted(paths):
            try:
                stat = os.stat(path)
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                known = self._files.get(path)
                if known is not None and known.stamp == stamp and not everything:
                    continue
                groups = read_file(path)
                changed = changed or known is None or known.groups != groups
                self._files[path] = _File(stamp, groups)
            except (OSError, DiscoveryError) as error:
                self._failed(path, str(error))
        if everything or changed:
            self._metrics.refresh_duration.observe(
                (self.mechanism, self._job), self._clock.monotonic() - began
            )
        return changed

    def _failed(self, path: str, error: str) -> None:
        self._metrics.refresh_failures.labels(self.mechanism, self._job).inc()
        log.error("Discovery file is not used", extra={"file": path, "err": error})
        known = self._files.get(path)
        if known is not None:
            try:
                stat = os.stat(path)
                known.stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:
                pass


def read_file(path: str) -> list[DiscoveredGroup]:
    """The groups of one file. Raises OSError and DiscoveryError."""
    with open(path, "rb") as handle:
        raw = handle.read(BODY_BYTES_LIMIT + 1)
    if len(raw) > BODY_BYTES_LIMIT:
        raise DiscoveryError(f"{path} exceeds {BODY_BYTES_LIMIT} bytes")
    try:
        is_json = path.lower().endswith(".json")
        data = json.loads(raw) if is_json else read_yaml(raw.decode(), path).data
    except (UnicodeDecodeError, ValueError, ConfigError) as error:
        raise DiscoveryError(f"{path}: {error}") from None
    return read_groups(data, path, {"__meta_filepath": path})
