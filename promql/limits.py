"""Limits of the query language; errors name them."""

from __future__ import annotations

QUERY_BYTES_MAX = 256 * 1024
"""Longest query text. Parsing is linear, about 1 MB/s, so this bounds it to a fraction of a second."""

TREE_DEPTH_MAX = 300
"""Deepest expression tree, and deepest nesting of brackets. Planner and printer recurse a few Python frames a
level, and Python's own limit is 1,000 frames."""

CACHED_QUERIES_MAX = 1024
CACHED_QUERY_BYTES_MAX = 8 * 1024
"""Longer texts are parsed every time, so the cache holds at most 8 MiB of text."""

AT_ONCE_SERIES_MAX = 2048
"""Series of a selector of a query on a thread that must not wait."""
