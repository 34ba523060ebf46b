"""`scrape_failure_log_file`: one JSON line a failed scrape."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

log = logging.getLogger("vedette.ingest.scrape")


class FailureLog:
    """Appends to one file, opened for each line so that rotation needs no signal. Any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._broken = False

    def write(self, t_ms: int, job: str, target: str, error: str) -> None:
        """Add a line; a file that cannot be written is reported once and never stops scraping."""
        entry = {
            "time": datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "level": "ERROR",
            "msg": error,
            "job_name": job,
            "target": target,
        }
        try:
            with open(self._path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(entry) + "\n")
            self._broken = False
        except OSError as failure:
            if not self._broken:
                log.error(
                    "Scrape failure log cannot be written", extra={"file": self._path, "err": str(failure)}
                )
            self._broken = True
