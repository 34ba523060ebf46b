"""JSON of label names and values, made once a symbol and kept beside the store's symbol table.

Ids are never reused, so a text stays right for ever; when the room is full all are forgotten and made anew.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import numpy.typing as npt

from tsdb.distinct import distinct
from tsdb.symbols import SymbolTable
from web.envelope import quote_label

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

KEPT_BYTES_MAX = 32 << 20
"""Texts kept of one symbol table; spans take another 16 bytes a symbol."""

_ARENA_INITIAL = 1 << 14


def joined(texts: list[bytes]) -> tuple[U8Array, I64Array]:
    """Texts end to end and their spans i64[N, 2], begin and end."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths)
    spans = np.stack([ends - lengths, ends], axis=1)
    return np.frombuffer(bytearray(b"".join(texts)), dtype=np.uint8), np.ascontiguousarray(spans)


class QuotedSymbols:
    """Quoted texts of one symbol table. Any thread may ask; arrays once given out never change where they
    were filled."""

    def __init__(self, table: SymbolTable) -> None:
        self._texts = weakref.WeakMethod(table.texts)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._arena: U8Array = np.empty(_ARENA_INITIAL, dtype=np.uint8)
        self._used = 0
        self._spans: I64Array = np.zeros((1024, 2), dtype=np.int64)

    def of(self, ids: U32Array) -> tuple[U8Array, I64Array]:
        """Arena and spans i64[N, 2] (begin, end) in which all of the ids have their text."""
        with self._lock:
            top = int(ids.max(initial=0))
            if top >= len(self._spans):
                grown = np.zeros((max(top + 1, 2 * len(self._spans)), 2), dtype=np.int64)
                grown[: len(self._spans)] = self._spans
                self._spans = grown
            missing = ids[self._spans[ids, 1] == 0]
            if len(missing):
                self._add(ids, distinct(missing))
            return self._arena, self._spans

    def _add(self, wanted: U32Array, missing: U32Array) -> None:
        read = self._texts()
        assert read is not None, "the table lives as long as it is asked about"
        data, spans = joined([quote_label(text) for text in read(missing)])
        if self._used and self._used + len(data) > KEPT_BYTES_MAX:
            self._forget()
            self._spans = np.zeros((int(wanted.max()) + 1, 2), dtype=np.int64)
            self._add(wanted, distinct(wanted))
            return
        end = self._used + len(data)
        if end > len(self._arena):
            grown = np.empty(max(end, 2 * len(self._arena)), dtype=np.uint8)
            grown[: self._used] = self._arena[: self._used]
            self._arena = grown
        self._arena[self._used : end] = data
        self._spans[missing] = spans + self._used
        self._used = end


_LOCK = threading.Lock()
_KEPT: weakref.WeakKeyDictionary[SymbolTable, QuotedSymbols] = weakref.WeakKeyDictionary()


def quoted_symbols(table: SymbolTable) -> QuotedSymbols:
    """The quoted texts of a table that outlives queries."""
    with _LOCK:
        found = _KEPT.get(table)
        if found is None:
            found = _KEPT[table] = QuotedSymbols(table)
        return found
