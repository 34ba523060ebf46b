"""Errors of the query language, with positions as Prometheus writes them."""

from __future__ import annotations

from promql.ast import Position


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """1-based line and byte column of a byte offset into the UTF-8 form of `text`."""
    head = text.encode("utf-8", "surrogateescape")[:offset]
    return head.count(b"\n") + 1, offset - head.rfind(b"\n")


def position_text(text: str, offset: int) -> str:
    """`line:col` of a byte offset, with Prometheus's words for an empty text and an offset outside of it."""
    if not text:
        return "unknown position"
    if offset < 0 or offset > len(text.encode("utf-8", "surrogateescape")):
        return "invalid position"
    line, column = line_and_column(text, offset)
    return f"{line}:{column}"


class ParseError(Exception):
    """A query that does not parse or has wrong types.

    `message` is Prometheus's text without the position, `pos` the bytes it speaks about, `query` the whole
    text. `str()` gives `line:col: parse error: message`, the text of the API.
    """

    def __init__(self, message: str, pos: Position, query: str) -> None:
        super().__init__(message, pos, query)
        self.message = message
        self.pos = pos
        self.query = query

    def __str__(self) -> str:
        return f"{position_text(self.query, self.pos.start)}: parse error: {self.message}"
