"""The obvious reading of text expositions: one regular expression a token, no positions kept but the place.

The twin of `ingest.kernels.exposition.scan`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ingest.kernels.exposition import OPENMETRICS, TEXT

NAME = rb"[a-zA-Z_:][a-zA-Z0-9_:]*"
STRING = rb'"(?:\\.|[^"\\])*"'
STRICT_STRING = rb'"(?:\\.|[^"\\\n])*"'


@dataclass
class Read:
    """Rows of (series, value, time, exemplar), metadata of (kind, name, text), and the broken rule."""

    rows: list[tuple[bytes, bytes, bytes, bytes]] = field(default_factory=list)
    metadata: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    failed: str = ""


def read(body: bytes, mode: int) -> Read:
    """Read a body; `failed` says which rule was broken."""
    return _Reader(body, mode).read()


class _Reader:
    def __init__(self, body: bytes, mode: int) -> None:
        self.body, self.mode, self.at = body, mode, 0
        string = STRING if mode == TEXT else STRICT_STRING
        self.blank = rb"[ \t]*" if mode == TEXT else rb""
        self.braces = rb"\{(?:" + string + rb'|[^"}\n])*\}'
        self.string = string
        self.out = Read()

    def take(self, pattern: bytes) -> bytes | None:
        match = re.compile(pattern, re.DOTALL).match(self.body, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group()

    def read(self) -> Read:
        while self.at < len(self.body):
            if self.mode == TEXT:
                self.take(rb"[ \t]*")
                if self.at == len(self.body) or self.take(rb"\n") is not None:
                    continue
            elif self.take(rb"# EOF") is not None:
                self.take(rb"\n")
                if self.at < len(self.body):
                    self.out.failed = "after eof"
                return self.out
            failed = self.comment() if self.body[self.at : self.at + 1] == b"#" else self.sample()
            if failed:
                self.out.failed = failed
                return self.out
        if self.mode == OPENMETRICS:
            self.out.failed = "no eof"
        return self.out

    def comment(self) -> str:
        keyword = rb"#[ \t]+(HELP|TYPE)[ \t]" if self.mode == TEXT else rb"# (HELP|TYPE|UNIT) "
        match = re.compile(keyword).match(self.body, self.at)
        if match is None:
            if self.mode == OPENMETRICS:
                return "line start"
            self.take(rb"[^\n]*\n?")
            return ""
        self.at = match.end()
        self.take(self.blank)
        name = self.take(NAME) or self.take(self.string)
        if not name:
            return "metadata name"
        text = self.take(rb"[^\n]*") or b""
        if not text and self.mode == OPENMETRICS:
            return "metadata"
        if text and text[:1] not in ((b" ", b"\t") if self.mode == TEXT else (b" ",)):
            return "metadata"
        self.take(rb"\n")
        self.out.metadata.append((match.group(1), name, text[1:]))
        return ""

    def sample(self) -> str:
        series = self.take(NAME) or b""
        if not series and self.body[self.at : self.at + 1] != b"{":
            return "line start"
        if re.compile(self.blank + rb"\{").match(self.body, self.at):
            labels = self.take(self.blank + self.braces)
            if labels is None:
                return "labels"
            series += labels
        if self.mode == TEXT:
            self.take(rb"[ \t]*")
        elif self.take(rb" ") is None:
            return "value"
        token = rb"[^ \t\n]+" if self.mode == TEXT else rb"[^ \n]+"
        value = self.take(token)
        if value is None:
            return "value"
        time, exemplar = b"", b""
        if self.mode == TEXT:
            self.take(rb"[ \t]*")
            time = self.take(token) or b""
            self.take(rb"[ \t]*")
        else:
            if re.compile(rb" [^#]").match(self.body, self.at):
                self.take(rb" ")
                time = self.take(token) or b""
                if not time:
                    return "after value"
            if re.compile(rb" # \{").match(self.body, self.at):
                self.take(rb" # ")
                labels = self.take(self.braces)
                if labels is None:
                    return "exemplar"
                exemplar = labels + (self.take(rb"[^\n]*") or b"")
        if self.at < len(self.body) and self.take(rb"\n") is None:
            return "after value"
        self.out.rows.append((series, value, time, exemplar))
        return ""
