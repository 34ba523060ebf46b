"""Limits of what datagrams may ask for; whatever exceeds one is refused and counted."""

from __future__ import annotations

from dataclasses import dataclass

DATAGRAM_BYTES_LIMIT = 65_536
"""A longer datagram is dropped whole."""
VALUE_BYTES_LIMIT = 64
"""Characters of one number."""
VALUES_PER_LINE_LIMIT = 4096
FIELDS_PER_LINE_LIMIT = 10
"""Parts of a sample between bars."""
CACHED_LINE_BYTES_LIMIT = 1024
"""Longer spellings are parsed every time."""
CACHE_BYTES_LIMIT = 64 << 20
"""Spellings kept; the cache is emptied when they are more."""


@dataclass(frozen=True, slots=True)
class StatsdLimits:
    """What an administrator may change. Numbers of series count label sets, not stored time series."""

    series_count: int = 100_000
    series_per_metric_count: int = 20_000
    name_bytes: int = 512
    tags_per_line_count: int = 64
    tag_name_bytes: int = 256
    tag_value_bytes: int = 2048
    set_members_count: int = 10_000
