"""Warnings and infos that a query collects, with Prometheus's texts (prometheus-surface.md 2.11, appendix B).

An annotation is keyed by its raw text: the same text from two places is one entry with the first position.
Rendering appends ` (line:col)` of the sub-expression that caused it.
"""

from __future__ import annotations

import threading

from promql.ast import Position
from promql.errors import line_and_column
from promql.quoting import quote

WARNING_PREFIX = "PromQL warning: "
INFO_PREFIX = "PromQL info: "

ANNOTATIONS_PER_QUERY_MAX = 1000
"""Distinct texts kept a kind and query. Texts may hold metric names, so their number is not bounded by the
query; the API shows ten."""


class Annotations:
    """Collects for one query. Any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warnings: dict[str, Position | None] = {}
        self._infos: dict[str, Position | None] = {}

    def warn(self, text: str, pos: Position | None = None) -> None:
        """Add a warning; `text` comes without the prefix. Without `pos` it is shown as it is, unprefixed
        (warnings of the store)."""
        self._add(self._warnings, (WARNING_PREFIX + text) if pos is not None else text, pos)

    def info(self, text: str, pos: Position | None = None) -> None:
        """Add an info; `text` comes without the prefix."""
        self._add(self._infos, (INFO_PREFIX + text) if pos is not None else text, pos)

    def _add(self, kind: dict[str, Position | None], text: str, pos: Position | None) -> None:
        with self._lock:
            if len(kind) < ANNOTATIONS_PER_QUERY_MAX:
                kind.setdefault(text, pos)

    def warnings(self, query: str) -> list[str]:
        """Texts in the order of their first appearance, with positions in `query`."""
        return [_render(text, pos, query) for text, pos in self._warnings.items()]

    def infos(self, query: str) -> list[str]:
        """Texts in the order of their first appearance, with positions in `query`."""
        return [_render(text, pos, query) for text, pos in self._infos.items()]


def _render(text: str, pos: Position | None, query: str) -> str:
    if pos is None:
        return text
    line, column = line_and_column(query, pos.start)
    return f"{text} ({line}:{column})"


def quoted(text: str) -> str:
    """A Go-quoted string, as annotation texts hold metric names and label values."""
    return quote(text)


def for_metric(name: str) -> str:
    """The suffix ` for metric name "x"`, empty without a name."""
    return f" for metric name {quoted(name)}" if name else ""
