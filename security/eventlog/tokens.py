"""The token index of a part: which rows hold which token of their text.

A token is a run of letters, digits and underscores, in small letters. The index narrows a search down to rows
that may hold a word; whether they do is then read from their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from security.eventlog.pieces import Pieces, write_pieces
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError
from tsdb.sectionfile import SectionFile, SectionWriter

U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]

TOKENS, POSTINGS, POSTING_DIRECTORY = 8, 9, 10
"""Numbers of sections."""

TOKEN_CHARS_LIMIT = 64
TOKENS_PER_ROW_LIMIT = 512
PIECE_TOKENS = 4096
UNINDEXED = ""
"""Rows with longer or more tokens than the limits are listed here: every search looks at them."""

_TOKEN = re.compile(r"\w+")


def write_tokens(writer: SectionWriter, texts: Iterable[str]) -> None:
    """Write the index of rows 0, 1, … whose texts, in small letters, are given."""
    rows_of: dict[str, list[int]] = {UNINDEXED: []}
    for row, text in enumerate(texts):
        tokens = set(_TOKEN.findall(text))
        if len(tokens) > TOKENS_PER_ROW_LIMIT or any(len(token) > TOKEN_CHARS_LIMIT for token in tokens):
            tokens = {UNINDEXED}
        for token in tokens:
            rows_of.setdefault(token, []).append(row)
    names = sorted(rows_of)
    joined = "\n".join(names).encode()
    writer.add(TOKENS, pack_columns([np.frombuffer(joined, np.uint8)]))
    lists = [rows_of[name] for name in names]
    pieces = (_encode(lists[start : start + PIECE_TOKENS]) for start in range(0, len(names), PIECE_TOKENS))
    write_pieces(writer, POSTINGS, POSTING_DIRECTORY, pieces)


def _encode(lists: Sequence[Sequence[int]]) -> bytes:
    counts = np.array([len(rows) for rows in lists], np.uint32)
    flat = np.array([row for rows in lists for row in rows], np.uint32)
    return pack_columns([counts, flat])


class TokenIndex:
    """The index of one part. Any thread."""

    def __init__(self, file: SectionFile) -> None:
        """Raises CorruptionError."""
        self._file = file
        (joined,) = unpack_columns(file.section(TOKENS), [np.uint8], f"{file.path}: tokens")
        # A line break before and after each token, so that one search tells where tokens begin and end.
        self._joined = b"\n" + joined.tobytes() + b"\n"
        self._starts = np.flatnonzero(np.frombuffer(self._joined, np.uint8) == ord("\n"))[:-1]
        self._pieces = Pieces(file, POSTINGS, POSTING_DIRECTORY, "postings piece")

    def rows(self, word: str, count: int) -> npt.NDArray[np.bool_]:
        """bool[count]: rows that may hold the word; all of them for a word without a token."""
        tokens = list(_TOKEN.finditer(word))
        mask = np.ones(count, np.bool_)
        for match in tokens:
            begins = b"\n" if match.start() > 0 else b""
            ends = b"\n" if match.end() < len(word) else b""
            found = self._places(begins + match.group().encode() + ends)
            mask &= self._rows_of(found, count)
        if tokens:
            mask |= self._rows_of(np.zeros(1, np.int64), count)
        return mask

    def _places(self, needle: bytes) -> npt.NDArray[np.int64]:
        """Numbers of the tokens in which the needle is found, ascending."""
        offsets, at = [], self._joined.find(needle)
        while at >= 0:
            offsets.append(at + needle.startswith(b"\n"))
            # The next token, whatever else is in this one.
            at = self._joined.find(needle, self._joined.index(b"\n", at + 1))
        return np.unique(np.searchsorted(self._starts, np.array(offsets, np.int64), side="left") - 1)

    def _rows_of(self, places: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
        mask = np.zeros(count, np.bool_)
        for piece in np.unique(places // PIECE_TOKENS).tolist():
            counts, flat = self._piece(piece)
            bounds = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            inside = places[places // PIECE_TOKENS == piece] - piece * PIECE_TOKENS
            if bounds[-1] != len(flat) or (len(inside) and inside[-1] >= len(counts)):
                raise CorruptionError(f"{self._file.path}: postings do not fit their tokens")
            for place in inside.tolist():
                rows = flat[bounds[place] : bounds[place + 1]]
                if len(rows) and rows.max() >= count:
                    raise CorruptionError(f"{self._file.path}: postings name a row beyond {count}")
                mask[rows] = True
        return mask

    def _piece(self, number: int) -> tuple[U32Array, U32Array]:
        stored, where = self._pieces.read(number)
        counts, flat = unpack_columns(stored, [np.uint32, np.uint32], where)
        return counts, flat  # type: ignore[return-value]


def may_hold(index: TokenIndex, words: Sequence[str], count: int) -> npt.NDArray[np.bool_]:
    """bool[count]: rows that may hold every word."""
    mask = np.ones(count, np.bool_)
    for word in words:
        mask &= index.rows(word, count)
    return mask
