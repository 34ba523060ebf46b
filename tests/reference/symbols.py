"""A table of interned strings as a dictionary."""

from __future__ import annotations


class ReferenceSymbols:
    """Ids in order of first appearance; 0 is the empty string."""

    def __init__(self) -> None:
        self.ids = {"": 0}

    def intern(self, text: str) -> int:
        return self.ids.setdefault(text, len(self.ids))

    def find(self, text: str) -> int | None:
        return self.ids.get(text)

    def text(self, symbol: int) -> str:
        return list(self.ids)[symbol]
