"""Limits of the query language; errors name them."""

from __future__ import annotations

import sys

QUERY_BYTES_MAX = 10 * 1024 * 1024
"""Longest query text: that of the largest form, as in Prometheus."""

LEVELS_AT_ONCE_MAX = 300
"""Levels of a tree that are planned and evaluated by recursion; what lies deeper is evaluated before, in
stages of so many levels (promql/operators/staged.py). There is no limit of the depth."""

FRAMES_MAX = 1_000 + 24 * LEVELS_AT_ONCE_MAX
"""Python frames of a stage: a subquery takes up to 20 a level, of which few are on the C stack (300 levels
fit a stack of 1 MB)."""

CACHED_QUERIES_MAX = 1024
CACHED_QUERY_BYTES_MAX = 8 * 1024
"""Longer texts are parsed every time, so the cache holds at most 8 MiB of text."""

AT_ONCE_SERIES_MAX = 2048
"""Series of a selector of a query on a thread that must not wait."""


def allow_frames() -> None:
    """Raise Python's limit of 1,000 frames, so that a stage can be planned and evaluated."""
    if sys.getrecursionlimit() < FRAMES_MAX:
        sys.setrecursionlimit(FRAMES_MAX)
