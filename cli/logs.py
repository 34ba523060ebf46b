"""Structured logs on stderr, as logfmt or JSON, with Prometheus's keys: time, level, source, msg."""

from __future__ import annotations

import logging
import sys

# structlog draws tracebacks with rich wherever that can be imported, and loading it takes a tenth of the
# server's start; logs in lines are not drawn.
_HIDDEN = "rich" not in sys.modules
if _HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
from structlog.typing import EventDict, Processor, WrappedLogger  # noqa: E402

if _HIDDEN:
    del sys.modules["rich"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
FORMATS = ("logfmt", "json")


def _prometheus_keys(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    level = event.pop("level", method)
    event["level"] = {"warning": "WARN", "critical": "ERROR"}.get(level, level.upper())
    event["msg"] = event.pop("event", "")
    logger = event.pop("logger", None)
    if logger:
        event["component"] = logger
    return event


def _pipeline() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        # Before level and name, so that a field of that name cannot take their place.
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", key="time", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _prometheus_keys,
    ]


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
    first = ["time", "level", "component", "msg"]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.LogfmtRenderer(key_order=first, drop_missing=True, bool_as_flag=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_pipeline(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.getLogger("aiohttp.server").addFilter(_NoClosedConnections())
    # Their debug logs describe themselves, not the server.
    for chatty in ("numba", "asyncio", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, LEVELS[level]))
