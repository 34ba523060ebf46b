"""Structured logs on stderr, as logfmt or JSON, with Prometheus's keys: time, level, source, msg."""

from __future__ import annotations

import logging
import sys

from cli.lateformatter import LateFormatter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
FORMATS = ("logfmt", "json")


class _NoClosedConnections(logging.Filter):
    """Leaves out what uvloop raises where a server stops, or does not start, while it answers: the client is
    told by the end of the connection, and the reason of the stop is a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, RuntimeError) and "the handler is closed" in str(error))


def set_up_logs(level: str, log_format: str) -> None:
    """Send all logs, those of libraries included, to stderr in one form.

    Modules log through `logging.getLogger("vedette.<part>")` with `extra={...}` for fields, so that no
    package but this one knows the format.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LateFormatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.getLogger("aiohttp.server").addFilter(_NoClosedConnections())
    # Their debug logs describe themselves, not the server.
    for chatty in ("numba", "asyncio", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, LEVELS[level]))
