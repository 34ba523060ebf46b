"""The strings of a block: sorted, so that a local id is a rank, and compressed by a few hundred.

A piece is found by its first string, which stays in memory; decoded pieces are cached.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tsdb.blockcache import BlockCache, CachePart
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError
from tsdb.sectionfile import SectionFile, SectionWriter, crc32c

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]

SYMBOLS = 1
SYMBOL_DIRECTORY = 2

PIECE_SYMBOLS = 512


def _encode(texts: Sequence[str]) -> bytes:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = np.array([len(text) for text in encoded], dtype=np.uint32)
    return pack_columns([lengths, np.frombuffer(b"".join(encoded), dtype=np.uint8)])


def _decode(stored: U8Array, where: str) -> list[str]:
    lengths, flat = unpack_columns(stored, [np.uint32, np.uint8], where)
    data, ends = flat.tobytes(), np.cumsum(lengths, dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(data):
        raise CorruptionError(f"{where}: strings do not add up to {len(data)} bytes")
    starts = [0, *ends][:-1]
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]


def write_symbols(writer: SectionWriter, texts: Sequence[str]) -> None:
    """Write sorted, distinct texts."""
    offsets, lengths, checksums, firsts = [], [], [], []
    writer.begin(SYMBOLS)
    for start in range(0, len(texts), PIECE_SYMBOLS):
        piece = texts[start : start + PIECE_SYMBOLS]
        stored = _encode(piece)
        offsets.append(writer.append(stored))
        lengths.append(len(stored))
        checksums.append(crc32c(stored))
        firsts.append(piece[0])
    writer.end()
    directory = pack_columns(
        [
            np.array(offsets, dtype=np.uint64),
            np.array(lengths, dtype=np.uint32),
            np.array(checksums, dtype=np.uint32),
        ]
    )
    counts = struct.pack("<II", len(texts), len(directory))
    writer.add(SYMBOL_DIRECTORY, counts + directory + _encode(firsts))


def _text_bytes(texts: list[str]) -> int:
    """Bytes of a decoded piece: the strings and the list."""
    return sum(map(sys.getsizeof, texts)) + 8 * len(texts)


class BlockSymbols:
    """Strings of an open block by rank. Any thread."""

    def __init__(self, file: SectionFile, cache: BlockCache) -> None:
        self._file = file
        self._where = f"{file.path}: symbols"
        directory = file.section(SYMBOL_DIRECTORY)
        if len(directory) < 8:
            raise CorruptionError(f"{self._where}: directory of {len(directory)} bytes")
        self._count, size = struct.unpack("<II", directory[:8].tobytes())
        columns = unpack_columns(directory[8 : 8 + size], [np.uint64, np.uint32, np.uint32], self._where)
        self._offsets, self._lengths, self._checksums = (column.tolist() for column in columns)
        self._firsts = _decode(directory[8 + size :], self._where)
        self._pieces: CachePart[int, list[str]] = cache.part(_text_bytes)
        if len(self._firsts) != len(self._offsets) or len(self._firsts) != -(-self._count // PIECE_SYMBOLS):
            raise CorruptionError(f"{self._where}: directory does not fit {self._count} strings")

    def __len__(self) -> int:
        return int(self._count)

    def _piece(self, number: int) -> list[str]:
        return self._pieces.get(number, lambda: self._load(number))

    def _load(self, number: int) -> list[str]:
        start = self._offsets[number]
        stored = self._file.raw(SYMBOLS)[start : start + self._lengths[number]]
        if crc32c(stored.tobytes()) != self._checksums[number]:
            raise CorruptionError(f"{self._where}: piece {number} does not match its checksum")
        return _decode(stored, self._where)

    def texts(self, ids: U32Array) -> list[str]:
        """Strings of local ids."""
        out: list[str] = []
        piece, number = list[str](), -1
        for symbol in ids.tolist():
            if symbol // PIECE_SYMBOLS != number:
                number = symbol // PIECE_SYMBOLS
                piece = self._piece(number)
            out.append(piece[symbol % PIECE_SYMBOLS])
        return out

    def lower_bound(self, text: str) -> int:
        """Number of strings that sort before a text."""
        number = bisect_right(self._firsts, text) - 1
        if number < 0:
            return 0
        return number * PIECE_SYMBOLS + bisect_left(self._piece(number), text)

    def find(self, text: str) -> int | None:
        """Local id of a text, or None."""
        number = bisect_right(self._firsts, text) - 1
        if number < 0:
            return None
        piece = self._piece(number)
        at = bisect_left(piece, text)
        return number * PIECE_SYMBOLS + at if at < len(piece) and piece[at] == text else None

    def forget(self) -> None:
        """Drop decoded pieces from the cache."""
        self._pieces.clear()
