"""sum and avg of histograms by group (prometheus-surface.md 2.6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from promql.budget import QueryBudget
from promql.histogrampool import batch_of, concat_cells, cut_cells, pool_bytes, pool_of
from promql.histogramsums import combined
from promql.kernels.histogramarith import scale_each
from promql.matrix import BoolArray, HistogramCells
from promql.operators.histogramstream import StreamedSums
from promql.operators.histogramwindow import COMBINE_NOTES

I64Array = npt.NDArray[np.int64]
Note = Callable[[int, str, str], None]

HELD_BYTES_MAX = 64 << 20
"""Buckets held before they are added up. Within this the sum over all input is compensated as a whole; beyond
it, sums of this much input are added to each other."""

STREAM_BYTES_MIN = 1 << 20
"""Buckets held before sums are kept instead, where these are smaller; the result is the same to the bit."""

_NEVER = 1 << 62


def aggregate_histograms(
    op: str,
    cells: HistogramCells,
    groups: I64Array,
    group_count: int,
    allowed: BoolArray,
    note: Note,
) -> HistogramCells:
    """Sum (or average, `op` "avg") of the cells i32[S, K] of each group, `groups` i64[S], at the steps
    `allowed` bool[G, K]; members are added in row order. `note` gets a row of the first group concerned."""
    steps = cells.index.shape[1]
    rows, at = np.nonzero(cells.index >= 0)
    targets = groups[rows] * steps + at
    order = np.argsort(targets, kind="stable")
    members = cells.index[rows, at][order].astype(np.int64)
    bounds = np.zeros(group_count * steps + 1, dtype=np.int64)
    np.cumsum(np.bincount(targets, minlength=group_count * steps), out=bounds[1:])
    lo, hi = bounds[:-1].copy(), bounds[1:].copy()
    hi[~allowed.ravel()] = lo[~allowed.ravel()]
    sums, flags = combined(pool_of(cells.pool), members, lo, hi, op == "avg", True)
    for flag, kind, text in COMBINE_NOTES:
        hit = np.flatnonzero(flags & flag)
        if len(hit):
            note(int(rows[order[bounds[hit[0]]]]), kind, text)
    return HistogramCells(sums.index.reshape(group_count, steps), sums.pool)


class HistogramTotals:
    """Sum or average of histograms in pieces, in memory of groups times steps plus a bounded rest."""

    def __init__(
        self, op: str, groups: I64Array, group_count: int, steps: int, budget: QueryBudget, note: Note
    ) -> None:
        self._op = op
        self._groups = groups
        self._shape = (group_count, steps)
        self._budget = budget
        self._note = note
        self._parts: list[tuple[I64Array, HistogramCells]] = []
        self._held_bytes = 0
        self._streamed: StreamedSums | None = None
        self._stream_from = STREAM_BYTES_MIN if op == "sum" else _NEVER
        self._counts = np.zeros(self._shape)
        self._dead = np.zeros(self._shape, dtype=np.bool_)
        self._added_up = False

    @property
    def here(self) -> BoolArray:
        """bool[G, K]: groups that have seen a histogram."""
        return np.asarray(self._counts > 0)

    def add(self, lo: int, cells: HistogramCells) -> None:
        """Cells of rows `lo ...`."""
        if not (cells.index >= 0).any():
            return
        rows = np.arange(lo, lo + len(cells.index))
        np.add.at(self._counts, self._groups[rows], cells.index >= 0)
        if self._streamed is not None:
            if self._streamed.add(rows, cells, HELD_BYTES_MAX):
                self._release()
                self._hold(self._streamed.nbytes)
                return
            self._stop_streaming()
        cells = cut_cells(cells)
        self._hold(pool_bytes(pool_of(cells.pool)) + cells.index.nbytes)
        self._parts.append((rows, cells))
        if self._held_bytes > self._stream_from:
            self._start_streaming()
        if self._held_bytes > HELD_BYTES_MAX:
            self._add_up()

    def _start_streaming(self) -> None:
        """Keep sums instead of what is held where they take less; else look again at twice as much."""
        self._streamed = StreamedSums.of(self._parts, self._groups, self._shape, self._held_bytes)
        if self._streamed is None:
            self._stream_from = 2 * self._held_bytes
            return
        self._release()
        self._hold(self._streamed.nbytes)
        self._parts = []

    def _stop_streaming(self) -> None:
        """Something came that these sums cannot hold: they become a part like others."""
        assert self._streamed is not None
        sums, flags, rows = self._streamed.finish(~self._dead)
        self._report(flags, rows)
        self._streamed = None
        self._replace(sums)

    def _report(self, flags: npt.NDArray[np.uint8], rows: I64Array) -> None:
        """Flags u8[G, K] of sums whose first rows are `rows`."""
        for flag, kind, text in COMBINE_NOTES:
            hit = np.flatnonzero(flags & flag)
            if len(hit):
                self._note(int(rows.ravel()[hit[0]]), kind, text)

    def _release(self) -> None:
        self._budget.release_bytes(self._held_bytes)
        self._held_bytes = 0

    def _hold(self, count: int) -> None:
        self._budget.hold_bytes(count)
        self._held_bytes += count

    def _combine(self, op: str, allowed: BoolArray) -> HistogramCells | None:
        rows = np.concatenate([rows for rows, _ in self._parts])
        starts = np.cumsum([0] + [len(rows) for rows, _ in self._parts])
        parts = [(int(at), cells) for at, (_, cells) in zip(starts[:-1], self._parts, strict=True)]
        joined = concat_cells(parts, len(rows), self._shape[1])
        self._parts, parts = [], []
        if joined is None:
            return None

        def note(row: int, kind: str, text: str) -> None:
            self._note(int(rows[row]), kind, text)

        return aggregate_histograms(op, joined, self._groups[rows], self._shape[0], allowed, note)

    def _add_up(self) -> None:
        """Replace what is held by its sums."""
        sums = self._combine("sum", ~self._dead)
        assert sums is not None
        self._dead |= self.here & (sums.index < 0)
        self._replace(sums)

    def _replace(self, sums: HistogramCells) -> None:
        """Hold the sums of all before, and nothing else."""
        self._release()
        first_rows = np.full(self._shape[0], -1, dtype=np.int64)
        first_rows[self._groups[::-1]] = np.arange(len(self._groups))[::-1]
        self._hold(pool_bytes(pool_of(sums.pool)) + sums.index.nbytes)
        self._parts = [(first_rows, sums)]
        self._added_up, self._stream_from = True, _NEVER

    def finish(self, allowed: BoolArray) -> HistogramCells | None:
        """The result at the steps `allowed` bool[G, K]; None if there was no histogram."""
        if self._streamed is not None:
            sums, flags, rows = self._streamed.finish(allowed)
            self._report(flags, rows)
            self._release()
            return sums
        if not self._parts:
            return None
        average = self._op == "avg"
        op = "sum" if self._added_up else self._op
        cells = self._combine(op, allowed & ~self._dead)
        self._release()
        if cells is None or not (average and self._added_up):
            return cells
        here = cells.index >= 0
        divided = scale_each(pool_of(cells.pool), cells.index[here], self._counts[here], True)
        index = np.full(self._shape, -1, dtype=np.int32)
        index[here] = np.arange(len(divided[0]), dtype=np.int32)
        return HistogramCells(index, batch_of(divided))
