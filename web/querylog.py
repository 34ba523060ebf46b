"""The query log (`query_log_file`, a JSON object a line as Prometheus writes it) and slow-query warnings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge

log = logging.getLogger("vedette.query")

QUERY_TEXT_LOGGED_MAX = 2_000
"""Characters of a slow query that go to the log; the query log file has it whole."""


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """One finished query. Times are Unix milliseconds, `step_ms` 0 for an instant query."""

    text: str
    start_ms: int
    end_ms: int
    step_ms: int
    client: str
    method: str
    path: str
    took_s: float
    stats: Mapping[str, Any] | None = None
    error: str = ""


class QueryLog:
    """Writes finished queries. Any thread may call; a file that cannot be written is counted, not fatal."""

    def __init__(self, registry: CollectorRegistry, slow_s: float = 0.0) -> None:
        """`slow_s` 0 turns the slow-query warnings off."""
        self._slow_s = slow_s
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._path = ""
        self._enabled = Gauge(
            "prometheus_engine_query_log_enabled", "State of the query log.", registry=registry
        )
        self._failures = Counter(
            "prometheus_engine_query_log_failures_total",
            "The number of query log failures.",
            registry=registry,
        )
        self._slow = Counter(
            "vedette_slow_queries_total", "Queries slower than --query.slow-log-threshold.", registry=registry
        )

    def open(self, path: str) -> None:
        """Log to another file from now on; "" for none. Raises OSError and goes on with the old one."""
        with self._lock:
            if path == self._path:
                return
            file = Path(path).open("ab") if path else None  # noqa: SIM115
            if self._file is not None:
                self._file.close()
            self._file, self._path = file, path
            self._enabled.set(float(file is not None))

    def close(self) -> None:
        """Close the file."""
        self.open("")

    @property
    def is_open(self) -> bool:
        """Whether there is a file, which gets every query."""
        return self._file is not None

    def wants(self, took_s: float) -> bool:
        """Whether `write` would do anything for a query that took so long."""
        return self._file is not None or bool(self._slow_s and took_s >= self._slow_s)

    def write(self, query: LoggedQuery) -> None:
        """Log a finished query; writes to the disk, so not for the event loop."""
        if self._slow_s and query.took_s >= self._slow_s:
            self._slow.inc()
            log.warning(
                "Slow query",
                extra={
                    "query": query.text[:QUERY_TEXT_LOGGED_MAX],
                    "seconds": round(query.took_s, 3),
                    "client": query.client,
                    "err": query.error,
                },
            )
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(_line(query))
                self._file.flush()
            except OSError as error:
                self._failures.inc()
                log.error("The query log cannot be written", extra={"file": self._path, "err": str(error)})


def _iso(t_ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(t_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(t_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(query: LoggedQuery) -> bytes:
    entry: dict[str, Any] = {
        "params": {
            "end": _iso(query.end_ms),
            "query": query.text,
            "start": _iso(query.start_ms),
            "step": query.step_ms // 1000,
        },
        "stats": query.stats or {"timings": {"execTotalTime": query.took_s}},
        "httpRequest": {"clientIP": query.client, "method": query.method, "path": query.path},
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    if query.error:
        entry["error"] = query.error
    return orjson.dumps(entry) + b"\n"
