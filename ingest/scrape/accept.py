"""What a scrape asks for and what it takes the answer for (surface 6.2, 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import Message

from ingest.config.globals import EscapingScheme, ScrapeProtocol
from ingest.kernels import exposition

PROTOBUF = 2
"""Mode of a body beside those of the exposition kernel."""

_MEDIA_TYPES = {
    ScrapeProtocol.PROTO: (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    ),
    ScrapeProtocol.TEXT_0_0_4: "text/plain;version=0.0.4",
    ScrapeProtocol.TEXT_1_0_0: "text/plain;version=1.0.0",
    ScrapeProtocol.OPENMETRICS_0_0_1: "application/openmetrics-text;version=0.0.1",
    ScrapeProtocol.OPENMETRICS_1_0_0: "application/openmetrics-text;version=1.0.0",
}
_ESCAPED = {ScrapeProtocol.TEXT_1_0_0, ScrapeProtocol.OPENMETRICS_1_0_0}
_FIRST_WEIGHT = len(_MEDIA_TYPES) + 1

_MODES = {
    "text/plain": exposition.TEXT,
    "application/openmetrics-text": exposition.OPENMETRICS,
    "application/vnd.google.protobuf": PROTOBUF,
}


def accept_header(protocols: Sequence[ScrapeProtocol], escaping: EscapingScheme = "allow-utf-8") -> str:
    """The Accept header: protocols in order of preference, anything else last."""
    parts, weight = [], _FIRST_WEIGHT
    for protocol in protocols:
        value = _MEDIA_TYPES[protocol]
        if protocol in _ESCAPED:
            value += f";escaping={escaping or 'allow-utf-8'}"
        parts.append(f"{value};q=0.{weight}")
        weight -= 1
    parts.append(f"*/*;q=0.{weight}")
    return ",".join(parts)


def body_mode(content_type: str | None, fallback: str) -> int:
    """The format of a body from its Content-Type, or from `fallback_scrape_protocol`.

    Raises ValueError where neither tells.
    """
    if content_type and content_type.strip():
        mode = _MODES.get(media_type(content_type))
        if mode is not None:
            return mode
        problem = f'received unsupported Content-Type "{content_type}"'
    else:
        problem = "non-compliant scrape target sending blank Content-Type"
    if not fallback:
        raise ValueError(f"{problem} and no fallback_scrape_protocol specified for target")
    return _MODES[media_type(_MEDIA_TYPES[ScrapeProtocol(fallback)])]


def media_type(content_type: str) -> str:
    """The type without parameters, in lower case."""
    message = Message()
    message["Content-Type"] = content_type
    return message.get_content_type() if "/" in content_type else ""
