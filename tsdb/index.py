"""The index of a block: its strings and, for each label pair, the series that carry it.

Series are numbered 0.. in the order of the block. Postings of one series are a number in the directory,
others roaring bitmaps in the portable form, read in place. docs/formats/block.md has the bytes.
"""

from __future__ import annotations

import heapq
import threading
from array import array
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from tsdb.blockcache import BlockCache, CachePart
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.labels import METRIC_NAME
from tsdb.postings import Cardinality
from tsdb.regex import Regex
from tsdb.sectionfile import SectionFile, SectionWriter
from tsdb.symbolpages import BlockSymbols, write_symbols

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]

INDEX_FILE = "index"
INDEX_KIND = 1

POSTINGS_DIRECTORY = 3
POSTINGS = 4

_DIRECTORY = (np.uint32, np.uint32, np.uint32, np.uint32, np.uint8)


def write_index(
    fs: FileSystem, path: Path, texts: list[str], offsets: I64Array, name_ids: U32Array, value_ids: U32Array
) -> int:
    """Write the index of S series whose pairs are local ids into `texts`; the size of the file."""
    writer = SectionWriter(fs, path, INDEX_KIND)
    try:
        write_symbols(writer, texts)
        _write_postings(writer, offsets, name_ids, value_ids)
    except BaseException:
        writer.abandon()
        raise
    return writer.finish()


def _write_postings(
    writer: SectionWriter, offsets: I64Array, name_ids: U32Array, value_ids: U32Array
) -> None:
    refs = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint32), np.diff(offsets))
    keys = (name_ids.astype(np.uint64) << np.uint64(32)) | value_ids
    order = np.argsort(keys, kind="stable")
    keys, refs = keys[order], refs[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(keys))
    distinct = keys[starts]
    single = ends - starts == 1
    flat = array("I", refs.tobytes())
    tags = np.where(single, refs[starts] if len(refs) else 0, 0).astype(np.uint32)
    writer.begin(POSTINGS)
    many = np.flatnonzero(~single)
    for at, start, end in zip(many.tolist(), starts[many].tolist(), ends[many].tolist(), strict=True):
        bitmap = BitMap(flat[start:end])
        bitmap.run_optimize()
        stored = bitmap.serialize()
        writer.append(stored)
        tags[at] = len(stored)
    writer.end()
    names, value_counts = np.unique((distinct >> np.uint64(32)).astype(np.uint32), return_counts=True)
    values = distinct.astype(np.uint32)
    steps = np.diff(values, prepend=np.uint32(0))
    columns = [names, value_counts.astype(np.uint32), steps, tags, single.astype(np.uint8)]
    writer.add(POSTINGS_DIRECTORY, pack_columns(columns))


def _bitmap_bytes(bitmap: BitMap) -> int:
    """At most what a bitmap takes: two bytes a series, or 8 KB for each 65,536 of them."""
    if not bitmap:
        return 0
    return min(2 * len(bitmap), (bitmap.max() // 65_536 + 1) * 8192)


class BlockIndex:
    """An open index; a `matcherplan.PostingsSource`. Any thread."""

    def __init__(self, fs: FileSystem, path: Path, series_count: int, cache: BlockCache) -> None:
        """Raises CorruptionError or UnknownVersionError."""
        self._file = SectionFile(fs, path, INDEX_KIND)
        self.symbols = BlockSymbols(self._file, cache)
        self._series_count = series_count
        self._bitmaps: CachePart[int, BitMap] = cache.part(_bitmap_bytes)
        self._unions: CachePart[tuple[str, str, bool], BitMap] = cache.part(_bitmap_bytes)
        self._loaded = False
        self._lock = threading.Lock()
        self._names: dict[int, tuple[int, int]] = {}
        self._values: U32Array = np.empty(0, dtype=np.uint32)
        self._tags: U32Array = self._values
        self._starts: I64Array = np.empty(0, dtype=np.int64)
        self._single: npt.NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self._all = BitMap(range(series_count))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def _load(self) -> None:
        """Decode the directory at its first use."""
        with self._lock:
            if self._loaded:
                return
            where = f"{self._file.path}: postings directory"
            names, counts, steps, tags, single = unpack_columns(
                self._file.section(POSTINGS_DIRECTORY), _DIRECTORY, where
            )
            ends = np.cumsum(counts, dtype=np.int64)
            if (int(ends[-1]) if len(ends) else 0) != len(steps):
                raise CorruptionError(f"{where}: values do not add up")
            self._values = np.cumsum(steps, dtype=np.uint32)
            self._single = single.astype(np.bool_)
            self._tags = tags.astype(np.uint32)
            sizes = np.where(self._single, 0, tags).astype(np.int64)
            self._starts = np.cumsum(sizes) - sizes
            if int(sizes.sum()) != len(self._file.raw(POSTINGS)):
                raise CorruptionError(f"{where}: postings do not add up")
            begins = ends - counts.astype(np.int64)
            bounds = zip(names.tolist(), begins.tolist(), ends.tolist(), strict=True)
            self._names = {name: (lo, hi) for name, lo, hi in bounds}
            self._loaded = True

    def _range(self, name: str) -> tuple[int, int]:
        """Places of a name's values in the directory."""
        if not self._loaded:
            self._load()
        symbol = self.symbols.find(name)
        return self._names.get(symbol, (0, 0)) if symbol is not None else (0, 0)

    def _bitmap(self, place: int) -> BitMap:
        if self._single[place]:
            return BitMap((int(self._tags[place]),))
        return self._bitmaps.get(place, lambda: self._read_bitmap(place))

    def _read_bitmap(self, place: int) -> BitMap:
        start = int(self._starts[place])
        stored = self._file.section(POSTINGS)[start : start + int(self._tags[place])]
        try:
            bitmap = BitMap.deserialize(stored.tobytes())
        except ValueError as error:
            raise CorruptionError(f"{self._file.path}: postings {place}: {error}") from None
        if bitmap and bitmap.max() >= self._series_count:
            raise CorruptionError(f"{self._file.path}: postings {place} name series {bitmap.max()}")
        return bitmap

    def _union(self, places: npt.NDArray[np.int64]) -> BitMap:
        single = self._single[places]
        ones = BitMap(array("I", self._tags[places[single]].tobytes()))
        return BitMap.union(ones, *(self._bitmap(place) for place in places[~single].tolist()))

    def all_refs(self) -> BitMap:
        """Every series."""
        return self._all

    def with_name(self, name: str) -> BitMap:
        """Series that have the label."""
        lo, hi = self._range(name)
        return self._unions.get((name, "", True), lambda: self._union(np.arange(lo, hi)))

    def with_value(self, name: str, value: str) -> BitMap:
        """Series with this value of the label."""
        lo, hi = self._range(name)
        symbol = self.symbols.find(value) if hi > lo else None
        if symbol is None:
            return BitMap()
        place = lo + int(np.searchsorted(self._values[lo:hi], symbol))
        return self._bitmap(place) if place < hi and self._values[place] == symbol else BitMap()

    def with_regex(self, name: str, regex: Regex, matching: bool) -> BitMap:
        """Series that have the label with a value that matches (or does not)."""
        return self._unions.get(
            (name, "~" + regex.pattern, matching), lambda: self._regex(name, regex, matching)
        )

    def _regex(self, name: str, regex: Regex, matching: bool) -> BitMap:
        lo, hi = self._range(name)
        first, last = lo, hi
        if regex.prefix:
            # Values are sorted, so those with the prefix are neighbours.
            low = self.symbols.lower_bound(regex.prefix)
            after = regex.prefix.rstrip("\U0010ffff")
            high = self.symbols.lower_bound(after[:-1] + chr(ord(after[-1]) + 1)) if after else None
            first = lo + int(np.searchsorted(self._values[lo:hi], low))
            last = hi if high is None else lo + int(np.searchsorted(self._values[lo:hi], high))
        hits = first + np.array(regex.matching(self.symbols.texts(self._values[first:last])), dtype=np.int64)
        if matching:
            return self._union(hits)
        refused = np.ones(hi - lo, dtype=np.bool_)
        refused[hits - lo] = False
        return self._union(lo + np.flatnonzero(refused))

    def value_count(self, name: str) -> int:
        """Distinct values of the label."""
        lo, hi = self._range(name)
        return hi - lo

    @property
    def is_loaded(self) -> bool:
        """Whether names and values have been read from the file."""
        return self._loaded

    def label_names(self, refs: BitMap | None = None) -> list[str]:
        """Sorted names of the labels of the series (of all for None)."""
        if not self._loaded:
            self._load()
        names = self.symbols.texts(np.array(sorted(self._names), dtype=np.uint32))
        return names if refs is None else [n for n in names if self.with_name(n).intersect(refs)]

    def label_values(self, name: str, refs: BitMap | None = None) -> list[str]:
        """Sorted values of one label over the series (over all for None)."""
        lo, hi = self._range(name)
        places = np.arange(lo, hi)
        if refs is not None and len(refs) < self._series_count:
            places = places[[self._meets(place, refs) for place in range(lo, hi)]]
        return self.symbols.texts(self._values[places])

    def _meets(self, place: int, refs: BitMap) -> bool:
        if self._single[place]:
            return int(self._tags[place]) in refs
        return bool(self._bitmap(place).intersect(refs))

    def cardinality(self, limit: int = 10) -> Cardinality:
        """The figures of `tsdb analyze` over this block, the largest `limit` of each kind."""
        names = self.label_names()
        metrics: list[tuple[str, int]] = []
        value_counts: list[tuple[str, int]] = []
        sizes: list[tuple[str, int]] = []
        pairs: list[tuple[str, int]] = []
        for name in names:
            lo, hi = self._range(name)
            counts = [1 if self._single[p] else len(self._bitmap(p)) for p in range(lo, hi)]
            texts = self.symbols.texts(self._values[lo:hi])
            value_counts.append((name, hi - lo))
            sizes.append((name, sum(len(t.encode()) * c for t, c in zip(texts, counts, strict=True))))
            top = heapq.nlargest(limit, zip(texts, counts, strict=True), key=lambda pair: pair[1])
            pairs.extend((f"{name}={text}", count) for text, count in top)
            if name == METRIC_NAME:
                metrics = top
        return Cardinality(
            series_count=self._series_count,
            label_pair_count=len(self._values),
            label_name_count=len(names),
            series_by_metric_name=metrics,
            values_by_label_name=heapq.nlargest(limit, value_counts, key=lambda pair: pair[1]),
            memory_by_label_name=heapq.nlargest(limit, sizes, key=lambda pair: pair[1]),
            series_by_label_pair=heapq.nlargest(limit, pairs, key=lambda pair: pair[1]),
        )

    def forget(self) -> None:
        """Drop what was decoded from the cache."""
        self._bitmaps.clear()
        self._unions.clear()
        self.symbols.forget()

    def close(self) -> None:
        """Forget what was decoded."""
        self.forget()
        self._file.close()
