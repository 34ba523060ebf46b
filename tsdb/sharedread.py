"""Rows of blocks and head, each decoded straight to its place, with timestamps kept once for all that share.

Targets scraped together have equal timestamps in all their series, and a block says so. What a query wants to
know of times (where its windows begin and end) is then found once for a hundred series, and no timestamp is
copied to every one of them. Where the head has samples under those of the blocks `SharedReader.read` says
None, and `mergeselect` has to do it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.blockjoin import JoinedRows, JoinedRuns, JoinedTimes, rows_of_pages
from tsdb.columnnumbers import ColumnNumbers
from tsdb.columnsfile import FLOATS
from tsdb.decodedruns import DECODED_AT_ONCE_MAX, PAGES_AT_ONCE_MAX, DecodedRuns, PageSource
from tsdb.errors import NotAtOnceError
from tsdb.kernels import merge as merge_kernels
from tsdb.kernels import sharedrows as kernels
from tsdb.kernels import steplatest
from tsdb.kernels.blockrows import copy_runs
from tsdb.samplerows import empty_samples
from tsdb.scratch import scratch
from tsdb.select import LookBack, NumberedColumns, RowValues, SampleBatch, SharedSamples

I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]
U64Array = npt.NDArray[np.uint64]
U8Array = npt.NDArray[np.uint8]


PICKED_PART = 2
"""Only what steps find is decoded where that is at most one sample of so many."""


ROWS_A_KIND = 3
"""Columns are numbered where so many rows have the same: keeping one takes fresh memory, which costs as much
as working it out twice."""


class _Picked(NamedTuple):
    """What steps find: of vector v the numbers picks[offsets[v]:offsets[v+1]] of its samples."""

    steps: LookBack
    offsets: I64Array
    picks: I64Array
    work: int
    """Samples of the longest run."""


class HeadSource(Protocol):
    """A head's selection: what is read last."""

    def in_order(self, rows: I64Array) -> HeadSource:
        """The given rows in the given order."""
        ...

    def read(self, lo: int, hi: int) -> SampleBatch:
        """As `Selection.read`."""
        ...


class SharedReader:
    """Reads rows of joined blocks and a head. Immutable once made; any thread may read."""

    def __init__(
        self,
        sources: Sequence[PageSource],
        runs: JoinedRuns,
        rows: JoinedRows,
        times: JoinedTimes,
        head: HeadSource | None,
        span_ms: tuple[int, int],
        at_once: bool = False,
        decoded: DecodedRuns | None = None,
    ) -> None:
        """`rows` are those of `runs` and of the head's selection, of which samples within `span_ms` (both
        inclusive) are wanted. `at_once` reads as by a thread that must not wait. `decoded` keeps what is read
        often. Raises NotAtOnceError."""
        self._sources, self._runs, self._rows, self._times, self._head = sources, runs, rows, times, head
        self._at_once = at_once
        self._last_ms = min(runs.last_ms, span_ms[1])
        first, last = times.offsets[:-1], times.offsets[1:]
        if span_ms[0] > runs.first_ms or span_ms[1] < runs.last_ms:
            lo, hi = np.empty_like(first), np.empty_like(last)
            vectors = np.arange(len(first), dtype=np.int64)
            merge_kernels.clip_rows(times.offsets, times.t_ms, vectors, *span_ms, lo, hi)
            first, last = lo, hi
        self._lo, self._hi = first, last
        self._places = np.empty(len(runs.rows), dtype=np.int64)
        self.counts = np.empty(len(rows.begins), dtype=np.int64)
        """i64[R]: samples of each row in the blocks."""
        kernels.place_runs(rows.begins, rows.ends, runs.vector, self._lo, self._hi, self._places, self.counts)
        self._block_counts = self.counts
        """i64[R]: samples of blocks that are read."""
        self._bits: U64Array | None = None
        if decoded is not None:
            self._bits = decoded.of(runs, sources, int(self.counts.sum()), at_once)
        if at_once and self._bits is None:
            self._judge()
        self._run_rows, self._page_rows = runs.rows, runs.page_rows
        self._by_row: tuple[HeadSource, I64Array] | None = None
        self._picked: _Picked | None = None

    def looking_back(self, steps: LookBack) -> SharedReader:
        """A reader of the same rows that leaves out samples which no step finds; `counts` stay those of all.
        This one where it would leave out few, or where values are decoded already. Not for one that is such a
        reader."""
        vectors, total = len(self._lo), int((self._hi - self._lo).sum())
        if self._bits is not None or not total:
            return self
        offsets = np.empty(vectors + 1, dtype=np.int64)
        picks = np.empty(min(total // PICKED_PART, vectors * steps.steps), dtype=np.int64)
        count = steplatest.pick_latest(self._times.t_ms, self._lo, self._hi, *steps, offsets, picks)
        if count < 0:
            return self
        picks = picks[:count]
        found = copy.copy(self)
        found._times = JoinedTimes(offsets, self._times.t_ms[picks])
        found._lo, found._hi = offsets[:-1], offsets[1:]
        places, counts = np.empty_like(self._places), np.empty_like(self.counts)
        kernels.place_runs(
            self._rows.begins, self._rows.ends, self._runs.vector, found._lo, found._hi, places, counts
        )
        found._places, found._block_counts = places, counts
        begins = np.repeat(self._times.offsets[:-1], np.diff(offsets))
        found._picked = _Picked(steps, offsets, picks - begins, int(self._runs.length.max(initial=0)))
        return found

    def _judge(self) -> None:
        """Raise NotAtOnceError where there is much to decode."""
        runs = self._runs
        needed = (self._hi > self._lo)[runs.vector]
        touched = np.zeros(len(runs.pages), dtype=np.bool_)
        touched[runs.page[needed]] = True
        decoded, pages = int(runs.length[needed].sum()), int(np.count_nonzero(touched))
        if decoded > DECODED_AT_ONCE_MAX or pages > PAGES_AT_ONCE_MAX:
            raise NotAtOnceError(f"{decoded} samples of {pages} pages are to be decoded")

    def keep(self, rows: I64Array) -> JoinedRows:
        """Only the given rows, ascending, with all that have samples in the blocks; before any is read."""
        old, runs = self._rows, self._runs
        place = np.full(len(old.begins), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        self.counts = self._block_counts = self.counts[rows]
        self._rows = JoinedRows(
            old.labels.take(rows), old.begins[rows], old.ends[rows], old.kinds[rows], old.kind_count,
            place[old.head],
        )  # fmt: skip
        self._run_rows = place[runs.rows]
        self._page_rows = rows_of_pages(self._run_rows, runs.page, runs.order)
        return self._rows

    def read(self, lo: int, hi: int) -> SharedSamples | None:
        """Samples of rows lo to hi (exclusive); None where another has to do it. Raises CorruptionError."""
        found = self.read_values(lo, hi)
        return None if found is None else found.timed()

    def read_values(self, lo: int, hi: int) -> RowValues | None:
        """The same without times; returns and raises as `read`."""
        newest, newest_rows = self._newest(lo, hi)
        if newest.histograms is not None or newest.start_t_ms is not None:
            return None
        if self._picked is not None:
            kept = self._found_of_head(newest, self._picked.steps)
            if kept is None:
                return None
            newest = kept
        counts = self._block_counts[lo:hi]
        head, offsets = np.empty((3, hi - lo), dtype=np.int64), np.empty(hi - lo + 1, dtype=np.int64)
        head_lo, head_hi, head_places = head
        if kernels.place_rows(
            counts, newest_rows, lo, newest.offsets, newest.t_ms, self._last_ms, head_lo, head_hi,
            head_places, offsets,
        ):  # fmt: skip
            return None
        values = self._decode(lo, hi, offsets)
        copy_runs(newest.values.view(np.int64), head_lo, head_hi, head_places, values.view(np.int64))
        floats, head_rows = values.view(np.float64), (head_lo, head_hi, newest.t_ms)
        return RowValues(
            offsets,
            floats,
            lambda: self._timed(lo, hi, offsets, floats, head_rows),
            partial(self._numbered, lo, hi, offsets, head_rows) if self._has_columns_again(hi - lo) else None,
        )

    def _has_columns_again(self, rows: int) -> bool:
        """Whether columns of so many rows are likely to come again in others."""
        count = len(self.counts)
        return rows < count and count >= ROWS_A_KIND * self._rows.kind_count

    def _timed(
        self,
        lo: int,
        hi: int,
        offsets: I64Array,
        values: F64Array,
        newest: tuple[I64Array, I64Array, I64Array],
    ) -> SharedSamples:
        """Values of rows with their times; of the head's, `newest`, row r has t_ms[head_lo[r]:head_hi[r]]."""
        column, owners = self._share(lo, hi, *newest)
        column_offsets, t_ms = self._times_of(owners, lo, hi, offsets, newest)
        return SharedSamples(offsets, values, column, column_offsets, t_ms)

    def _numbered(
        self,
        lo: int,
        hi: int,
        offsets: I64Array,
        newest: tuple[I64Array, I64Array, I64Array],
        numbers: ColumnNumbers,
    ) -> NumberedColumns | None:
        """Columns of rows, `newest` as for `_timed`."""
        first = numbers.count
        found = numbers.of(self._rows.kinds[lo:hi], self._rows.kind_count, *newest)
        if found is None:
            return None
        column, owners = found
        return NumberedColumns(column, first, *self._times_of(owners, lo, hi, offsets, newest))

    def _times_of(
        self,
        owners: I64Array,
        lo: int,
        hi: int,
        offsets: I64Array,
        newest: tuple[I64Array, I64Array, I64Array],
    ) -> tuple[I64Array, I64Array]:
        """Timestamps of some of the rows lo to hi, one after the other: where they begin, and they."""
        head_lo, head_hi, head_t = newest
        column_offsets = np.zeros(len(owners) + 1, dtype=np.int64)
        (offsets[1:] - offsets[:-1])[owners].cumsum(out=column_offsets[1:])
        t_ms, starts = scratch(int(column_offsets[-1]), np.int64), column_offsets[:-1]
        rows, runs = self._rows, self._runs
        kernels.fill_columns(
            rows.begins, rows.ends, runs.vector, self._places, self._lo, self._hi, self._times.t_ms,
            owners + lo, starts, t_ms,
        )  # fmt: skip
        copy_runs(head_t, head_lo[owners], head_hi[owners], starts + self._block_counts[lo:hi][owners], t_ms)
        return column_offsets, t_ms

    def _decode(self, lo: int, hi: int, offsets: I64Array) -> U64Array:
        """The values of rows lo to hi, each row from out[offsets[row - lo]] on, with room for the head's."""
        runs, rows = self._runs, self._rows
        if self._bits is not None:
            copied = scratch(int(offsets[-1]), np.uint64)
            kernels.copy_decoded(
                rows.begins[lo:hi], rows.ends[lo:hi], runs.vector, self._times.offsets, self._lo, self._hi,
                self._places, runs.starts, offsets, self._bits, copied,
            )  # fmt: skip
            return copied
        if self._picked is not None:
            return self._decode_picked(lo, hi, offsets, self._picked)
        room = int((rows.ends[lo:hi] - rows.begins[lo:hi]).sum())
        pages = np.empty((2, min(room, len(runs.pages))), dtype=np.int64)
        listed, parts = np.empty((3, room), dtype=np.int64), np.empty((3, room), dtype=np.int64)
        found = np.empty(4, dtype=np.int64)
        kernels.list_runs(
            runs.order, self._page_rows, self._run_rows, lo, hi, runs.stream, runs.vector, runs.length,
            self._times.offsets, self._lo, self._hi, self._places, offsets, pages, listed, parts, found,
        )  # fmt: skip
        page_count, run_count, part_count, end = found.tolist()
        out = scratch(end, np.uint64)
        streams, starts, lengths = listed[:, :run_count]
        begins = [*pages[1, :page_count].tolist(), run_count]
        for i, number in enumerate(pages[0, :page_count].tolist()):
            source, at = runs.pages[number]
            columns, a, b = self._sources[source], begins[i], begins[i + 1]
            raw = columns.page(FLOATS, at, self._at_once)
            where = partial(columns.where, FLOATS, at)  # the text takes longer than a small page
            page.decode_into(raw, streams[a:b], starts[a:b], lengths[a:b], out, True, where)
        if part_count:
            numbers, (part_lo, part_hi, part_at) = out.view(np.int64), parts[:, :part_count]
            copy_runs(numbers, part_lo, part_hi, part_at, numbers)
        return out[: int(offsets[-1])]

    def _decode_picked(self, lo: int, hi: int, offsets: I64Array, picked: _Picked) -> U64Array:
        """As `_decode`, of what is picked."""
        runs, rows = self._runs, self._rows
        room = int((rows.ends[lo:hi] - rows.begins[lo:hi]).sum())
        pages = np.empty((2, min(room, len(runs.pages))), dtype=np.int64)
        listed, found = np.empty((5, room), dtype=np.int64), np.empty(2, dtype=np.int64)
        steplatest.list_picked(
            runs.order, self._page_rows, self._run_rows, lo, hi, runs.stream, runs.vector, runs.length,
            picked.offsets, self._places, offsets, pages, listed, found,
        )  # fmt: skip
        page_count, run_count = found.tolist()
        out, work = scratch(int(offsets[-1]), np.uint64), scratch(picked.work, np.uint64)
        streams, starts, lengths, firsts, counts = listed[:, :run_count]
        begins = [*pages[1, :page_count].tolist(), run_count]
        for i, number in enumerate(pages[0, :page_count].tolist()):
            source, at = runs.pages[number]
            columns, part = self._sources[source], slice(begins[i], begins[i + 1])
            raw = columns.page(FLOATS, at, self._at_once)
            page.decode_picked(
                raw, streams[part], starts[part], lengths[part], firsts[part], counts[part], picked.picks,
                work, out, partial(columns.where, FLOATS, at),
            )  # fmt: skip
        return out

    def _found_of_head(self, newest: SampleBatch, steps: LookBack) -> SampleBatch | None:
        """What steps find of the head's samples; None where some are under those of the blocks."""
        size = len(newest.t_ms)
        offsets = np.empty(len(newest.offsets), dtype=np.int64)
        t_ms, bits = scratch(size, np.int64), scratch(size, np.int64)
        count = steplatest.keep_latest(
            newest.offsets, newest.t_ms, newest.values.view(np.int64), *steps, self._last_ms,
            offsets, t_ms, bits,
        )  # fmt: skip
        if count < 0:
            return None
        return SampleBatch(offsets, t_ms[:count], bits[:count].view(np.float64))

    def _newest(self, lo: int, hi: int) -> tuple[SampleBatch, I64Array]:
        """The head's samples of rows lo to hi, and the row of each of its rows."""
        rows = self._rows.head
        if self._head is None or not len(rows):
            return empty_samples(0), rows[:0]
        if lo == 0 and hi == len(self._rows.begins):
            return self._head.read(0, len(rows)), rows
        if self._by_row is None:
            order = np.argsort(rows, kind="stable")
            self._by_row = self._head.in_order(order), rows[order]
        head, ascending = self._by_row
        first, last = np.searchsorted(ascending, (lo, hi)).tolist()
        return (head.read(first, last) if first < last else empty_samples(0)), ascending[first:last]

    def _share(
        self, lo: int, hi: int, head_lo: I64Array, head_hi: I64Array, head_t: I64Array
    ) -> tuple[I64Array, I64Array]:
        newest = np.empty(self._rows.kind_count, dtype=np.int64)
        newest.fill(-1)
        older, owners, column = np.empty((3, hi - lo), dtype=np.int64)
        count = kernels.share_columns(
            self._rows.kinds[lo:hi], head_lo, head_hi, head_t, newest, older, owners, column
        )
        return column, owners[:count]
