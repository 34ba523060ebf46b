"""Moments as RFC 3339 text."""

from __future__ import annotations

from datetime import UTC, datetime

ZERO_TIME = "0001-01-01T00:00:00Z"
"""How the API writes a moment that has not come yet."""


def rfc3339(t_ms: int) -> str:
    """UTC with as many decimals as needed; the zero time for 0."""
    if t_ms == 0:
        return ZERO_TIME
    moment = datetime.fromtimestamp(t_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    rest = f".{t_ms % 1000:03d}".rstrip("0").rstrip(".")
    return f"{moment}{rest}Z"
