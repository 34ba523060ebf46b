"""What a query gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promql.ast import ValueType
from promql.context import EvalContext
from promql.looks import look
from promql.matrix import F64Array, HistogramCells, Matrix
from promql.operators.collect import Collected, rows_present
from promql.operators.merge import merge_equal
from promql.operators.operator import METADATA_LABELS, Series
from tsdb.select import SampleBatch
from tsdb.serieslabels import SeriesLabels

RUN_CELLS = 1 << 20
"""Cells that are copied between two looks at the query's flag: 5 to 20 ms."""


@dataclass(frozen=True, slots=True)
class RangeVectors:
    """Raw samples of a range selector (or of a subquery) at an instant, in order of labels."""

    labels: SeriesLabels
    samples: SampleBatch


@dataclass(frozen=True, slots=True)
class QueryResult:
    """`value` is a Matrix (an instant vector: one step), a float for an instant scalar, a str, or
    RangeVectors. Annotations carry their position; `stats` is the JSON object of the API's `stats`."""

    type: ValueType
    value: Matrix | RangeVectors | float | str
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    stats: Mapping[str, Any] = field(default_factory=dict)
    work: int = 0
    """Samples and cells that its selectors announced."""


def finish_rows(rows: Collected, ctx: EvalContext, sort: bool) -> Matrix:
    """The final matrix: rows without samples left out, delayed names dropped, rows in label order if wanted.

    Raises ExecutionError where dropped names make two samples of one step equal."""
    rows = _without_empty(rows)
    if ctx.options.delayed_name_removal and rows.series.drop_name.any():
        rows = merge_equal(rows, _dropped(rows.series))
    if sort and len(rows.values) > 1:
        order, labels = rows.series.labels.in_order()
        if labels is not rows.series.labels:
            rows = _take(rows, order, labels)
    drop = np.zeros(len(rows.values), dtype=np.bool_)
    return Matrix(rows.series.labels, ctx.grid, rows.values, drop, rows.histograms)


def _without_empty(rows: Collected) -> Collected:
    present = rows_present(rows.values, rows.histograms)
    if np.count_nonzero(present) == len(present):
        return rows
    return _take(rows, np.flatnonzero(present))


def _take(
    rows: Collected, at: np.ndarray[Any, np.dtype[np.int64]], labels: SeriesLabels | None = None
) -> Collected:
    """Some rows, whose label sets may be there already."""
    cells = rows.histograms
    if cells is not None:
        cells = HistogramCells(np.ascontiguousarray(cells.index[at]), cells.pool)
    taken = rows.series.labels.take(at) if labels is None else labels
    series = Series(taken, rows.series.drop_name[at])
    return Collected(series, _rows_at(rows.values, at), cells)


def _rows_at(values: F64Array, at: np.ndarray[Any, np.dtype[np.int64]]) -> F64Array:
    steps = values.shape[1]
    if len(at) * steps <= RUN_CELLS:
        return np.asarray(values[at])
    out = np.empty((len(at), steps))
    rows_max = max(1, RUN_CELLS // steps)
    for lo in range(0, len(at), rows_max):
        look()
        out[lo : lo + rows_max] = values[at[lo : lo + rows_max]]
    return out


def _dropped(series: Series) -> SeriesLabels:
    """Label sets with the metadata labels dropped where the flag is set."""
    flags = series.drop_name
    bare = series.labels.filter_names(METADATA_LABELS, keep=False)
    if flags.all():
        return bare
    both = SeriesLabels.concat([series.labels, bare], series.labels.symbols)
    return both.take(np.arange(len(flags)) + np.where(flags, len(flags), 0))
