"""How a log record becomes a line: logfmt or JSON."""

from __future__ import annotations

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


def line_formatter(log_format: str) -> structlog.stdlib.ProcessorFormatter:
    """The formatter of lines in a form of `cli.logs.FORMATS`."""
    first = ["time", "level", "component", "msg"]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.LogfmtRenderer(key_order=first, drop_missing=True, bool_as_flag=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_pipeline(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
