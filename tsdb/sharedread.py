"""Rows of blocks and head, each decoded straight to its place, with timestamps kept once for all that share.

Targets scraped together have equal timestamps in all their series, and a block says so. What a query wants to
know of times (where its windows begin and end) is then found once for a hundred series, and no timestamp is
copied to every one of them. Only the usual case is read so: floats without start timestamps from sources that
follow one another in time. For the rest `SharedReader.read` says None, and `Selection.read` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb.kernels import sharedrows as kernels
from tsdb.kernels.blockrows import copy_runs
from tsdb.scratch import scratch
from tsdb.select import SampleBatch, SharedSamples

I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

VECTOR_SAMPLES_MAX = 1 << 22
"""Timestamps of all distinct vectors of a select, 32 MiB; beyond it nothing is shared."""


@dataclass(frozen=True, slots=True)
class BlockRuns:
    """Runs of a block's selection, row after row: row i owns `offsets[i]:offsets[i+1]`.

    Run k is stream `stream[k]`, of `length[k]` samples, at the times t_ms[vector_lo[v]:vector_hi[v]] of
    vector v = vector[k], which are samples lo[v] to hi[v] of it. `odd` marks rows that have histograms or
    start timestamps. `span_ms` are the first and the last time of all runs.
    """

    offsets: I64Array
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

    def decode_runs(self, streams: I64Array, starts: I64Array, lengths: I64Array, out: U64Array) -> None:
        """Decode whole streams to out[starts[k]:starts[k]+lengths[k]]. Raises CorruptionError."""
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
        starts = offsets[self._rows[cut] - lo] + self._places[cut]
        lengths, streams = self.runs.length[cut], self.runs.stream[cut]
        if self._whole:
            self._source.decode_runs(streams, starts, lengths, out)
            return
        vector = self.runs.vector[cut]
        whole_starts = np.cumsum(lengths) - lengths
        whole = scratch(int(lengths.sum()), np.uint64)
        self._source.decode_runs(streams, whole_starts, lengths, whole)
        begins, ends = whole_starts + self.runs.lo[vector], whole_starts + self.runs.hi[vector]
        copy_runs(whole.view(np.int64), begins, ends, starts, out.view(np.int64))

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
        counts = self._counts[lo:hi].copy()
        head_lo, head_hi = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        first, last = (int(n) for n in np.searchsorted(self._head_rows, (lo, hi)))
        newest: SampleBatch | None = None
        if self._head is not None and first < last:
            newest = self._head.read(first, last)
            if not self._follows(newest):
                return None
            here = self._head_rows[first:last] - lo
            head_lo[here], head_hi[here] = newest.offsets[:-1], newest.offsets[1:]
            counts += head_hi - head_lo
        offsets = np.zeros(rows + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        values = scratch(int(offsets[-1]), np.uint64)
        for part in self._parts:
            part.decode(lo, hi, offsets, values)
        places = self._counts[lo:hi]
        head_t = np.empty(0, dtype=np.int64)
        if newest is not None:
            head_t = newest.t_ms
            copy_runs(
                newest.values.view(np.int64), head_lo, head_hi, offsets[:-1] + places, values.view(np.int64)
            )
        column, owners = self._share(lo, hi, head_lo, head_hi, head_t)
        column_offsets = np.zeros(len(owners) + 1, dtype=np.int64)
        np.cumsum(counts[owners], out=column_offsets[1:])
        t_ms = scratch(int(column_offsets[-1]), np.int64)
        starts = column_offsets[:-1]
        for part in self._parts:
            part.fill(owners + lo, starts, t_ms)
        copy_runs(head_t, head_lo[owners], head_hi[owners], starts + places[owners], t_ms)
        return SharedSamples(offsets, values.view(np.float64), column, column_offsets, t_ms)

    def _follows(self, newest: SampleBatch) -> bool:
        """Whether the head's samples are plain floats, and all after those of the blocks."""
        if newest.histograms is not None or newest.start_t_ms is not None:
            return False
        filled = np.flatnonzero(np.diff(newest.offsets))
        return not len(filled) or int(newest.t_ms[newest.offsets[:-1][filled]].min()) > self._last_ms

    def _share(
        self, lo: int, hi: int, head_lo: I64Array, head_hi: I64Array, head_t: I64Array
    ) -> tuple[I64Array, I64Array]:
        newest = np.full(self._kind_count, -1, dtype=np.int64)
        older, owners, column = (np.empty(hi - lo, dtype=np.int64) for _ in range(3))
        count = kernels.share_columns(
            self._kinds[lo:hi], head_lo, head_hi, head_t, newest, older, owners, column
        )
        return column, owners[:count].copy()
