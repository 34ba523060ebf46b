"""Interned strings: every label name and value of the process is a u32 symbol id; 0 is the empty string.

One writer at a time (a lock), many readers. Ids are never reused while the process lives, so arrays of ids
can be compared across head, blocks and queries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

U32Array = npt.NDArray[np.uint32]

_OVERLAY_BASE = 1 << 31


class SymbolTable:
    """Append-only table of strings."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {"": 0}
        self._texts: list[str] = [""]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._texts)

    def find(self, text: str) -> int | None:
        """Id of a known string, or None."""
        return self._ids.get(text)

    def intern(self, text: str) -> int:
        """Id of a string, new if it has none yet."""
        known = self._ids.get(text)
        if known is not None:
            return known
        with self._lock:
            known = self._ids.get(text)
            if known is None:
                known = len(self._texts)
                self._texts.append(text)
                self._ids[text] = known
            return known

    def intern_many(self, texts: Iterable[str]) -> U32Array:
        """Ids of many strings, u32[N]."""
        ordered = list(texts)
        found = [self.find(text) for text in ordered]
        if None in found:
            found = [self.intern(text) for text in ordered]
        return np.array(found, dtype=np.uint32)

    def text(self, symbol: int) -> str:
        """The string of an id."""
        return self._texts[symbol]

    def texts(self, symbols: Sequence[int] | U32Array) -> list[str]:
        """Strings of many ids."""
        ordered = symbols.tolist() if isinstance(symbols, np.ndarray) else symbols
        return list(map(self._texts.__getitem__, ordered))


class OverlaySymbols(SymbolTable):
    """Symbols that a query makes up (label_replace, count_values): its own ids from 2^31 on, the rest from
    the table below. Dropped with the query, so made-up strings never fill the store's table."""

    def __init__(self, base: SymbolTable) -> None:
        super().__init__()
        self._base = base
        self._ids = {}
        self._texts = []

    def find(self, text: str) -> int | None:
        """Id of a string known here or below, or None.

        Its own ids come first: the table below may learn a made-up string while the query runs, and the query
        must go on seeing one id for it.
        """
        known = self._ids.get(text)
        return known if known is not None else self._base.find(text)

    def intern(self, text: str) -> int:
        """Id of a string; unknown ones get an id of this overlay."""
        known = self.find(text)
        if known is not None:
            return known
        with self._lock:
            known = _OVERLAY_BASE + len(self._texts)
            self._texts.append(text)
            self._ids[text] = known
            return known

    def text(self, symbol: int) -> str:
        """The string of an id of either table."""
        return self._texts[symbol - _OVERLAY_BASE] if symbol >= _OVERLAY_BASE else self._base.text(symbol)

    def texts(self, symbols: Sequence[int] | U32Array) -> list[str]:
        """Strings of many ids."""
        return [self.text(int(symbol)) for symbol in symbols]
