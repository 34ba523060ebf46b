"""Limits of the query language; errors name them."""

from __future__ import annotations

import sys

QUERY_BYTES_MAX = 256 * 1024
"""Longest query text. Parsing is linear, about 1 MB/s, so this bounds it to a fraction of a second."""

TREE_DEPTH_MAX = 300
"""Deepest expression tree, and deepest nesting of brackets: planner, operators and printer recurse."""

FRAMES_MAX = 1_000 + 24 * TREE_DEPTH_MAX
"""Python frames of the deepest tree: a subquery takes up to 20 a level, of which few are on the C stack (300
levels fit a stack of 1 MB)."""

CACHED_QUERIES_MAX = 1024
CACHED_QUERY_BYTES_MAX = 8 * 1024
"""Longer texts are parsed every time, so the cache holds at most 8 MiB of text."""

AT_ONCE_SERIES_MAX = 2048
"""Series of a selector of a query on a thread that must not wait."""


def allow_deep_trees() -> None:
    """Raise Python's limit of 1,000 frames: what may be parsed can be planned, evaluated and printed."""
    if sys.getrecursionlimit() < FRAMES_MAX:
        sys.setrecursionlimit(FRAMES_MAX)
