"""Timestamp vectors of a block, each stored once however many series share it.

Targets scraped together have equal timestamps in all their series, so a block has few vectors and a
sample's time costs next to nothing. Vectors are recognised by 128 bits of hash; start timestamps are kept the
same way.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.blockcache import BlockCache, CachePart
from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.columnsfile import TIMES, ColumnsFile, ColumnsWriter
from tsdb.errors import CorruptionError
from tsdb.kernels import blockrows as kernels

I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]
U8Array = npt.NDArray[np.uint8]

SHARED_VECTORS_LIMIT = 2_000_000
"""Vectors remembered for sharing; beyond it new ones are stored without being compared."""

VECTOR_COST = 16
"""What a vector weighs when a page is filled, besides its numbers."""


class TimeColumnWriter:
    """Numbers vectors and writes each new one. One thread."""

    def __init__(self, columns: ColumnsWriter) -> None:
        self._columns = columns
        # Keys nobody can know, so that nobody can make up a vector that hashes like another's.
        self._keys = (np.uint64(secrets.randbits(64) | 1), np.uint64(secrets.randbits(64) | 1))
        self._known: dict[tuple[int, int], int] = {}
        self._counts: list[int] = []
        self._mint: list[int] = []
        self._maxt: list[int] = []
        self._pending: list[I64Array] = []
        self._pending_count = 0

    def __len__(self) -> int:
        return len(self._counts)

    def numbers(self, t_ms: I64Array, lo: I64Array, hi: I64Array) -> U32Array:
        """Number of each vector t_ms[lo[k]:hi[k]] (none empty), u32[K]; equal vectors have one number."""
        a, b = np.empty(len(lo), dtype=np.uint64), np.empty(len(lo), dtype=np.uint64)
        kernels.hash_runs(t_ms, lo, hi, *self._keys, a, b)
        out = np.empty(len(lo), dtype=np.uint32)
        known = self._known
        for k, key in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            found = known.get(key)
            if found is None:
                found = self._add(t_ms[lo[k] : hi[k]])
                if len(known) < SHARED_VECTORS_LIMIT:
                    known[key] = found
            out[k] = found
        return out

    def _add(self, vector: I64Array) -> int:
        number = len(self._counts)
        self._counts.append(len(vector))
        self._mint.append(int(vector.min()))
        self._maxt.append(int(vector.max()))
        self._pending.append(vector.copy())
        self._pending_count += len(vector) + VECTOR_COST
        if self._pending_count >= page.PAGE_SAMPLES:
            self._flush()
        return number

    def _flush(self) -> None:
        if not self._pending:
            return
        offsets = np.zeros(len(self._pending) + 1, dtype=np.int64)
        np.cumsum([len(vector) for vector in self._pending], out=offsets[1:])
        stored = page.encode_integers(offsets, np.concatenate(self._pending))
        first = len(self._counts) - len(self._pending)
        self._columns.add_page(
            TIMES, len(self._pending), stored, min(self._mint[first:]), max(self._maxt[first:])
        )
        self._pending, self._pending_count = [], 0

    def finish(self) -> bytes:
        """Write what is left; the directory of vectors for the series file."""
        self._flush()
        return pack_columns(
            [
                np.array(self._counts, dtype=np.uint32),
                np.array(self._mint, dtype=np.int64),
                np.array(self._maxt, dtype=np.int64),
            ]
        )


class TimeColumns:
    """Vectors of an open block: `counts`, `mint`, `maxt` i64[N] of each. Any thread."""

    def __init__(self, columns: ColumnsFile, directory: U8Array, where: str, cache: BlockCache) -> None:
        self._columns = columns
        self._single: CachePart[int, tuple[I64Array, I64Array]] = cache.part(lambda found: found[1].nbytes)
        """Vectors that were asked for alone, as by queries of one target."""
        counts, mint, maxt = unpack_columns(directory, (np.uint32, np.int64, np.int64), where)
        self.counts = counts.astype(np.int64)
        self.mint, self.maxt = mint.astype(np.int64), maxt.astype(np.int64)
        if not len(counts) == len(mint) == len(maxt):
            raise CorruptionError(f"{where}: columns of unlike lengths")

    def distinct(self, numbers: U32Array) -> tuple[I64Array, I64Array]:
        """The distinct ones of some numbers, ascending, and the place of each number among them."""
        if len(numbers) * 8 < len(self.counts):
            found, places = np.unique(numbers, return_inverse=True)
            return found.astype(np.int64), places.astype(np.int64)
        marks = np.zeros(len(self.counts), dtype=np.bool_)
        marks[numbers] = True
        ranks = np.cumsum(marks, dtype=np.int64) - 1
        return np.flatnonzero(marks), ranks[numbers]

    def read(self, numbers: I64Array) -> tuple[I64Array, I64Array]:
        """Offsets i64[K+1] and timestamps of vectors (ascending, distinct) end to end; not to be changed."""
        if len(numbers) == 1:
            return self._single.get(int(numbers[0]), lambda: self._decode(numbers))
        return self._decode(numbers)

    def forget(self) -> None:
        """Drop decoded vectors from the cache."""
        self._single.clear()

    def _decode(self, numbers: I64Array) -> tuple[I64Array, I64Array]:
        lengths = self.counts[numbers]
        offsets = np.zeros(len(numbers) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        out = np.empty(int(offsets[-1]), dtype=np.uint64)
        self._columns.read(TIMES, numbers, offsets[:-1], lengths, out)
        return offsets, out.view(np.int64)
