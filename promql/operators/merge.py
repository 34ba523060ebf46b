"""Equal label sets after names were dropped or labels rewritten: merged where they never share a step, an
error where they do (prometheus-surface.md 2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from promql.engineerrors import ExecutionError
from promql.kernels import binary as kernels
from promql.matrix import ABSENT_BITS, HistogramCells
from promql.operators.collect import NO_CELLS, Collected, absent_cells, collect
from promql.operators.operator import Explain, Piece, RowwiseOperator, Series, VectorOperator
from tsdb.serieslabels import SeriesLabels

SAME_LABELSET = "vector cannot contain metrics with the same labelset"


def merge_equal(
    rows: Collected, final_labels: SeriesLabels | None = None, flags_merge: bool = False
) -> Collected:
    """Merge rows with equal labels; raises ExecutionError for a shared step.

    Rows of which only one is going to lose its name are different series, unless `flags_merge`: then the
    flag of a series is that of its first sample. `final_labels` are what is left when names have been
    dropped: then only these count."""
    labels = rows.series.labels if final_labels is None else final_labels
    groups, first = labels.group_first_rows()
    if final_labels is None and not flags_merge and rows.series.drop_name.any():
        keys = groups * 2 + rows.series.drop_name
        _, first, groups = np.unique(keys, return_index=True, return_inverse=True)
        groups = groups.astype(np.int64)
    if len(first) == len(labels):
        return Collected(Series(labels, rows.series.drop_name), rows.values, rows.histograms)
    distinct = labels.take(first)
    values = absent_cells(len(distinct), rows.values.shape[1])
    cells = rows.histograms
    index = NO_CELLS if cells is None else np.full(values.shape, -1, dtype=np.int32)
    found = np.zeros(2, dtype=np.int64)
    if kernels.merge_rows(rows.values, rows.index(), groups, values, index, found):
        raise ExecutionError(SAME_LABELSET)
    drop = np.zeros(len(distinct), dtype=np.bool_)
    if flags_merge:
        latest_first = np.argsort(-_first_steps(rows), kind="stable")
        drop[groups[latest_first]] = rows.series.drop_name[latest_first]
    else:
        np.logical_or.at(drop, groups, rows.series.drop_name)
    merged = None if cells is None else HistogramCells(index, cells.pool)
    return Collected(Series(distinct, drop), values, merged)


def _first_steps(rows: Collected) -> np.ndarray[Any, np.dtype[np.int64]]:
    """i64[S]: the step of each row's first sample, the number of steps where there is none."""
    present = rows.values.view(np.uint64) != np.uint64(ABSENT_BITS)
    if rows.histograms is not None:
        present |= rows.histograms.index >= 0
    first: np.ndarray[Any, np.dtype[np.int64]] = present.argmax(axis=1).astype(np.int64)
    first[~present.any(axis=1)] = present.shape[1]
    return first


def refuse_equal(rows: Collected) -> Collected:
    """Raise ExecutionError if two rows with samples have equal labels, at whichever steps."""
    kept = np.flatnonzero(rows.present())
    groups, first = rows.series.labels.take(kept).group_first_rows()
    if len(first) != len(groups):
        raise ExecutionError(SAME_LABELSET)
    return rows


class MergeEqual(VectorOperator):
    """Checks and merges the rows of a child that announced equal label sets."""

    def __init__(self, child: VectorOperator, whole_range: bool) -> None:
        super().__init__(child.ctx)
        self._child = child
        self._whole_range = whole_range
        self._rows: Collected | None = None

    def _announce(self) -> Series:
        series = self._child.series()
        if self._child.is_distinct:
            return series
        _, first = series.labels.group_first_rows()
        if len(first) == len(series):
            return series
        rows = collect(self._child)
        self._rows = refuse_equal(rows) if self._whole_range else merge_equal(rows)
        return self._rows.series

    def batches(self) -> Iterator[Piece]:
        """The merged rows, or the child's own pieces where nothing was equal."""
        self.series()
        if self._rows is None:
            yield from self._child.batches()
        else:
            yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """The child's plan: the check is not a step of its own."""
        return self._child.explain()


class MergeEqualRows(MergeEqual, RowwiseOperator):
    """The same over a row-wise child, whose rows need not be held where nothing is equal."""

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's, or one run of the merged rows."""
        rows = len(self.series())
        return cast(RowwiseOperator, self._child).splits() if self._rows is None else [(0, rows)]

    def load(self, lo: int, hi: int) -> Piece:
        """The child's, or merged rows."""
        if self._rows is None:
            return cast(RowwiseOperator, self._child).load(lo, hi)
        cells = self._rows.histograms
        part = None if cells is None else HistogramCells(cells.index[lo:hi], cells.pool)
        return Piece(lo, self._rows.values[lo:hi], part)


def checked(operator: VectorOperator, whole_range: bool = False) -> VectorOperator:
    """Guard an operator whose label sets may have become equal. With delayed name removal label sets stay
    apart until the end, so there is nothing to check; `whole_range` is the rule of range functions."""
    if operator.ctx.options.delayed_name_removal:
        return operator
    kind = MergeEqualRows if isinstance(operator, RowwiseOperator) else MergeEqual
    return kind(operator, whole_range)
