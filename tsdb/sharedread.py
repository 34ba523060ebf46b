"""Rows of blocks and head, each decoded straight to its place, with timestamps kept once for all that share.

Targets scraped together have equal timestamps in all their series, and a block says so. What a query wants to
know of times (where its windows begin and end) is then found once for a hundred series, and no timestamp is
copied to every one of them. Only the usual case is read so: floats without start timestamps from sources that
follow one another in time. For the rest `SharedReader.read` says None, and `Selection.read` does it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb.kernels import sharedrows as kernels
from tsdb.kernels.blockrows import copy_runs
from tsdb.samplerows import empty_samples
from tsdb.scratch import scratch
from tsdb.select import SampleBatch, SharedSamples

I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

VECTOR_SAMPLES_MAX = 1 << 22
"""Timestamps of all distinct vectors of a select, 32 MiB; beyond it nothing is shared."""


@dataclass(frozen=True, slots=True)
class BlockRuns:
    """Runs of a block's selection, row after row: row i owns `offsets[i]:offsets[i+1]`.

    Run k is stream `stream[k]` of page `page[k]`, of `length[k]` samples. Those of the select are lo[v] to
    hi[v], at the times t_ms[vector_lo[v]:vector_hi[v]] of vector v = vector[k]. `odd` marks rows that have
    histograms or start timestamps. `span_ms` are the first and the last time of all runs.
    """

    offsets: I64Array
    page: I64Array
    stream: I64Array
    vector: I64Array
    length: I64Array
    lo: I64Array
    hi: I64Array
    t_ms: I64Array
    vector_lo: I64Array
    vector_hi: I64Array
    odd: npt.NDArray[np.bool_]
    span_ms: tuple[int, int]


class RunSource(Protocol):
    """A block's selection."""

    def shared_runs(self, rows: I64Array, samples_max: int) -> BlockRuns | None:
        """Runs of rows in the given order; None where their distinct vectors have more samples than that."""
        ...

    def decode_page(
        self, number: int, streams: I64Array, starts: I64Array, lengths: I64Array, out: U64Array
    ) -> None:
        """Decode streams of a page (ascending) to out[starts[k]:starts[k]+lengths[k]]. Raises
        CorruptionError."""
        ...


class HeadSource(Protocol):
    """A head's selection: what is read last."""

    def in_order(self, rows: I64Array) -> HeadSource:
        """The given rows in the given order."""
        ...

    def read(self, lo: int, hi: int) -> SampleBatch:
        """As `Selection.read`."""
        ...


class _Part:
    """A block's part of the output rows."""

    def __init__(self, source: RunSource, runs: BlockRuns, rows: I64Array, row_count: int) -> None:
        """`rows` are the output rows of the runs' rows, ascending."""
        self._source, self.runs = source, runs
        self._rows = np.repeat(rows, np.diff(runs.offsets))
        counts = (runs.vector_hi - runs.vector_lo)[runs.vector]
        before = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=before[1:])
        self._offsets = np.searchsorted(self._rows, np.arange(row_count + 1)).astype(np.int64)
        begins = before[self._offsets]
        self.counts = np.diff(begins)
        self._places = before[:-1] - begins[:-1][self._rows]
        self._whole = bool((counts == runs.length).all())
        turns = np.diff(runs.page)
        self._in_order = bool(((turns > 0) | ((turns == 0) & (np.diff(runs.stream) > 0))).all())
        self._cuts: list[int] = (np.flatnonzero(turns) + 1).tolist()

    def mix(self, base: int, keys: U64Array) -> None:
        """Into the keys of rows which vectors they have."""
        kernels.mix_vectors(self._rows, self.runs.vector, base, keys)

    def same(self, twin: I64Array) -> bool:
        """Whether rows have the vectors of their twins."""
        return bool(kernels.same_vectors(self._offsets, self.runs.vector, twin))

    def shift(self, filled: I64Array) -> None:
        """Place the runs behind what earlier blocks have filled of each row, and count them as filled."""
        self._places += filled[self._rows]
        filled += self.counts

    def decode(self, lo: int, hi: int, offsets: I64Array, out: U64Array) -> None:
        """The values of rows lo to hi, each row from out[offsets[row - lo]] on."""
        first, last = int(self._offsets[lo]), int(self._offsets[hi])
        if first == last:
            return
        cut = slice(first, last)
        starts = self._places[cut] + offsets[self._rows[cut] - lo]
        if self._whole:
            self._decode_runs(first, last, starts, out)
            return
        lengths, vector = self.runs.length[cut], self.runs.vector[cut]
        ends = np.cumsum(lengths)
        whole, begins = scratch(int(ends[-1]), np.uint64), ends - lengths
        self._decode_runs(first, last, begins, whole)
        copy_runs(
            whole.view(np.int64), begins + self.runs.lo[vector], begins + self.runs.hi[vector], starts,
            out.view(np.int64),
        )  # fmt: skip

    def _decode_runs(self, first: int, last: int, starts: I64Array, out: U64Array) -> None:
        """Whole runs first to last, each from out[starts[k - first]] on."""
        runs = self.runs
        page, stream, length = runs.page[first:last], runs.stream[first:last], runs.length[first:last]
        if self._in_order:
            cuts = self._cuts[bisect_right(self._cuts, first) : bisect_left(self._cuts, last)]
            bounds = [0, *(cut - first for cut in cuts), last - first]
        else:
            # Series that an earlier block does not have come after all that it has.
            order = np.lexsort((stream, page))
            page, stream, length, starts = page[order], stream[order], length[order], starts[order]
            bounds = [0, *(np.flatnonzero(np.diff(page)) + 1).tolist(), last - first]
        for a, b in itertools.pairwise(bounds):
            self._source.decode_page(int(page[a]), stream[a:b], starts[a:b], length[a:b], out)

    def fill(self, rows: I64Array, starts: I64Array, out: I64Array) -> None:
        """The timestamps of some rows, each from out[starts[d]] on."""
        runs = self.runs
        kernels.fill_columns(
            self._offsets, runs.vector, self._places, runs.vector_lo, runs.vector_hi, runs.t_ms, rows,
            starts, out,
        )  # fmt: skip


class SharedReader:
    """Reads output rows of some blocks and a head. Immutable once made by `of`; any thread may read."""

    def __init__(
        self, parts: Sequence[_Part], head: HeadSource | None, head_rows: I64Array, row_count: int
    ) -> None:
        """Use `of`."""
        self._parts, self._head, self._head_rows = parts, head, head_rows
        self._head_bounds = np.searchsorted(head_rows, np.arange(row_count + 1))
        self._counts = np.zeros(row_count, dtype=np.int64)
        keys = np.zeros(row_count, dtype=np.uint64)
        base = 0
        for part in parts:
            part.shift(self._counts)
            part.mix(base, keys)
            base += len(part.runs.vector_lo)
        _, first, kinds = np.unique(keys, return_index=True, return_inverse=True)
        self._kinds = np.ascontiguousarray(kinds, dtype=np.int64)
        twin = first.astype(np.int64)[self._kinds]
        self._kind_count = len(first)
        self._collided = not all(part.same(twin) for part in parts)
        self._last_ms = max(part.runs.span_ms[1] for part in parts)

    @classmethod
    def of(
        cls,
        blocks: Sequence[tuple[RunSource, I64Array]],
        head: tuple[HeadSource, I64Array] | None,
        row_count: int,
    ) -> SharedReader | None:
        """Of blocks ascending in time, and the head, each with the output row of each of its rows. None where
        rows cannot be read so.
        """
        parts: list[_Part] = []
        room = VECTOR_SAMPLES_MAX
        for source, rows in blocks:
            order = np.argsort(rows, kind="stable")
            runs = source.shared_runs(order, room)
            if runs is None or runs.odd.any() or (parts and parts[-1].runs.span_ms[1] >= runs.span_ms[0]):
                return None
            room -= len(runs.t_ms)
            parts.append(_Part(source, runs, rows[order], row_count))
        if not parts:
            return None
        if head is None:
            made = cls(parts, None, np.empty(0, dtype=np.int64), row_count)
        else:
            order = np.argsort(head[1], kind="stable")
            made = cls(parts, head[0].in_order(order), head[1][order], row_count)
        return None if made._collided else made

    def read(self, lo: int, hi: int) -> SharedSamples | None:
        """Samples of rows lo to hi (exclusive); None where `Selection.read` has to do it."""
        rows = hi - lo
        newest = self._newest(lo, hi)
        if newest.histograms is not None or newest.start_t_ms is not None:
            return None
        head, offsets = np.empty((3, rows), dtype=np.int64), np.empty(rows + 1, dtype=np.int64)
        head_lo, head_hi, head_places = head
        here = self._head_rows[self._head_bounds[lo] : self._head_bounds[hi]]
        counts = self._counts[lo:hi]
        if kernels.place_rows(
            counts, here, lo, newest.offsets, newest.t_ms, self._last_ms, head_lo, head_hi,
            head_places, offsets,
        ):  # fmt: skip
            return None
        values = scratch(int(offsets[-1]), np.uint64)
        for part in self._parts:
            part.decode(lo, hi, offsets, values)
        copy_runs(newest.values.view(np.int64), head_lo, head_hi, head_places, values.view(np.int64))
        column, owners = self._share(lo, hi, head_lo, head_hi, newest.t_ms)
        column_offsets = np.zeros(len(owners) + 1, dtype=np.int64)
        np.cumsum((offsets[1:] - offsets[:-1])[owners], out=column_offsets[1:])
        t_ms, starts = scratch(int(column_offsets[-1]), np.int64), column_offsets[:-1]
        for part in self._parts:
            part.fill(owners + lo, starts, t_ms)
        copy_runs(newest.t_ms, head_lo[owners], head_hi[owners], starts + counts[owners], t_ms)
        return SharedSamples(offsets, values.view(np.float64), column, column_offsets, t_ms)

    def _newest(self, lo: int, hi: int) -> SampleBatch:
        """The head's samples of rows lo to hi that it has."""
        first, last = int(self._head_bounds[lo]), int(self._head_bounds[hi])
        if self._head is None or first == last:
            return empty_samples(0)
        return self._head.read(first, last)

    def _share(
        self, lo: int, hi: int, head_lo: I64Array, head_hi: I64Array, head_t: I64Array
    ) -> tuple[I64Array, I64Array]:
        newest = np.full(self._kind_count, -1, dtype=np.int64)
        older, owners, column = (np.empty(hi - lo, dtype=np.int64) for _ in range(3))
        count = kernels.share_columns(
            self._kinds[lo:hi], head_lo, head_hi, head_t, newest, older, owners, column
        )
        return column, owners[:count].copy()
