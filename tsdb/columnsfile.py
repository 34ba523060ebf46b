"""The `columns` file of a block: pages of timestamps, floats and histograms, found by stream number.

Streams of a kind are numbered 0.. through its pages; the page directory tells each page's first. Every page
has its own checksum, tested when it is read. docs/formats/block.md has the bytes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.blockcache import BlockCache, CachePart
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError, NotAtOnceError
from tsdb.fs import FileSystem, ReadFile
from tsdb.sectionfile import SectionFile, SectionWriter, crc32c

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

COLUMNS_FILE = "columns"
COLUMNS_KIND = 3

PAGES = 1
PAGE_DIRECTORY = 2

TIMES = 0
FLOATS = 1
HISTOGRAMS = 2
KINDS = (TIMES, FLOATS, HISTOGRAMS)

_DIRECTORY = (np.uint8, np.uint32, np.uint64, np.uint32, np.uint32, np.int64, np.int64)
T = TypeVar("T")


@dataclass(slots=True)
class _Records:
    """The page directory as it grows."""

    kind: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    checksum: list[int] = field(default_factory=list)
    mint: list[int] = field(default_factory=list)
    maxt: list[int] = field(default_factory=list)

    def columns(self) -> list[npt.NDArray[np.integer]]:
        lists = (self.kind, self.streams, self.offset, self.length, self.checksum, self.mint, self.maxt)
        return [np.array(values, dtype=dtype) for values, dtype in zip(lists, _DIRECTORY, strict=True)]


class ColumnsWriter:
    """Writes pages as they come. One thread."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._writer = SectionWriter(fs, path, COLUMNS_KIND)
        self._writer.begin(PAGES)
        self._records = _Records()
        self._stream_counts = dict.fromkeys(KINDS, 0)

    def add_page(self, kind: int, streams: int, stored: bytes, mint: int, maxt: int) -> int:
        """Append a page of `streams` streams; the number of its first stream."""
        first = self._stream_counts[kind]
        self._stream_counts[kind] += streams
        records = self._records
        records.kind.append(kind)
        records.streams.append(streams)
        records.offset.append(self._writer.append(stored))
        records.length.append(len(stored))
        records.checksum.append(crc32c(stored))
        records.mint.append(mint)
        records.maxt.append(maxt)
        return first

    def finish(self) -> int:
        """Write the directory and close; the size of the file."""
        self._writer.end()
        self._writer.add(PAGE_DIRECTORY, pack_columns(self._records.columns()))
        return self._writer.finish()

    def abandon(self) -> None:
        """Close without finishing."""
        self._writer.abandon()


@dataclass(frozen=True, slots=True)
class PageDirectory:
    """The pages of one kind. `first` i64[N+1] numbers their streams."""

    first: I64Array
    offset: I64Array
    length: I64Array
    checksum: I64Array
    mint: I64Array
    maxt: I64Array


class ColumnsFile:
    """Open pages of a block. Any thread."""

    def __init__(self, fs: FileSystem, path: Path, cache: BlockCache) -> None:
        """Raises CorruptionError or UnknownVersionError."""
        self._file = SectionFile(fs, path, COLUMNS_KIND)
        self._parts: ReadFile | None = fs.read_parts(path)
        self._pages_start = self._file.start(PAGES)
        where = f"{path}: page directory"
        kinds, streams, *rest = (
            column.astype(np.int64)
            for column in unpack_columns(self._file.section(PAGE_DIRECTORY), _DIRECTORY, where)
        )
        self._directories = {}
        for kind in KINDS:
            mine = np.flatnonzero(kinds == kind)
            first = np.zeros(len(mine) + 1, dtype=np.int64)
            np.cumsum(streams[mine], out=first[1:])
            self._directories[kind] = PageDirectory(first, *(column[mine] for column in rest))
        self._raw: CachePart[tuple[int, int], U8Array] = cache.part(len)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def directory(self, kind: int) -> PageDirectory:
        """The pages of a kind."""
        return self._directories[kind]

    def where(self, kind: int, number: int) -> str:
        """How messages name a page."""
        return f"{self._file.path}: page {number} of kind {kind}"

    def stored(self, kind: int, number: int) -> bytes:
        """A page as stored. Raises CorruptionError where its checksum does not match."""
        directory = self._directories[kind]
        start = self._pages_start + int(directory.offset[number])
        assert self._parts is not None, "closed"
        data = self._parts.read(start, int(directory.length[number]))
        if crc32c(data) != directory.checksum[number]:
            raise CorruptionError(f"{self.where(kind, number)} does not match its checksum")
        return data

    def page(self, kind: int, number: int, at_once: bool = False) -> U8Array:
        """A page before compression, kept in the cache. Raises CorruptionError; with `at_once` NotAtOnceError
        where it is not in the cache."""

        def decompress() -> U8Array:
            if at_once:
                raise NotAtOnceError("a page of a block is to be read and decompressed")
            return page.decompress(self.stored(kind, number), self.where(kind, number))

        return self._raw.get((kind, number), decompress)

    def pages_of(self, kind: int, streams: I64Array) -> I64Array:
        """Page number of each stream. Raises CorruptionError for a stream that is not there."""
        first = self._directories[kind].first
        if len(streams) and (int(streams.min()) < 0 or int(streams.max()) >= first[-1]):
            raise CorruptionError(f"{self._file.path}: stream {streams.max()} of kind {kind} is not there")
        return np.searchsorted(first, streams, side="right") - 1

    def read(self, kind: int, streams: I64Array, starts: I64Array, lengths: I64Array, out: U64Array) -> None:
        """Decode streams to out[starts[k] : starts[k] + lengths[k]]; any order.

        TIMES gives integers, FLOATS bit patterns. Raises CorruptionError.
        """
        if not len(streams):
            return
        if (streams[1:] < streams[:-1]).any():
            order = np.argsort(streams, kind="stable")
            streams, starts, lengths = streams[order], starts[order], lengths[order]
        numbers = self.pages_of(kind, streams)
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        first = self._directories[kind].first
        for a, b in itertools.pairwise(cuts):
            number = int(numbers[a])
            raw, where = self.page(kind, number), self.where(kind, number)
            wanted = streams[a:b] - first[number]
            page.decode_into(raw, wanted, starts[a:b], lengths[a:b], out, kind == FLOATS, where)

    def forget(self) -> None:
        """Drop decoded pages from the cache."""
        self._raw.clear()

    def close(self) -> None:
        """Let go of the file."""
        self.forget()
        self._file.close()
        self._parts = None
