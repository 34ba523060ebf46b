"""The part of a block that names its series: label sets in the block's order, their index, their runs.

Written last, when all pages are there: by the writer of new pages and by the merge that keeps old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.fs import FileSystem
from tsdb.index import INDEX_FILE, write_index
from tsdb.labels import METRIC_NAME
from tsdb.seriesfile import SERIES_FILE, Runs, SeriesRows, write_series
from tsdb.serieslabels import SeriesLabels

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NewRuns:
    """Runs of a block being written: `rows` i64 are rows of the block's order, the rest as in `Runs`."""

    rows: I64Array
    kind: U8Array
    stream: U32Array
    times: U32Array
    starts: U32Array


def block_order(labels: SeriesLabels) -> I64Array:
    """Rows by metric name, then by label set."""
    order = labels.sort_order()
    names = labels.column(METRIC_NAME)[order]
    distinct, places = np.unique(names, return_inverse=True)
    texts = labels.symbols.texts(distinct)
    ranks = np.empty(len(distinct), dtype=np.int64)
    ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(distinct))
    return order[np.argsort(ranks[places], kind="stable")]


def write_rows(
    fs: FileSystem, directory: Path, labels: SeriesLabels, runs: Sequence[NewRuns], time_directory: bytes
) -> tuple[int, int]:
    """Write the `series` and `index` files of the rows that have runs; how many series and runs there are.

    `labels` are in the block's order; runs of a row and kind come in order of time.
    """
    ordered, rows = _ordered_runs(runs)
    filled = np.unique(rows)
    kept = labels.take(filled)
    run_offsets = np.zeros(len(filled) + 1, dtype=np.int64)
    np.cumsum(np.bincount(np.searchsorted(filled, rows), minlength=len(filled)), out=run_offsets[1:])
    symbols = np.unique(np.concatenate([kept.name_ids, kept.value_ids]))
    texts = kept.symbols.texts(symbols)
    by_text = np.array(sorted(range(len(texts)), key=texts.__getitem__), dtype=np.int64)
    ranks = np.empty(len(symbols), dtype=np.uint32)
    ranks[by_text] = np.arange(len(symbols), dtype=np.uint32)
    name_ids = ranks[np.searchsorted(symbols, kept.name_ids)]
    value_ids = ranks[np.searchsorted(symbols, kept.value_ids)]
    strings = [texts[k] for k in by_text.tolist()]
    placed = Runs(run_offsets, ordered.kind, ordered.stream, ordered.times, ordered.starts)
    series = SeriesRows(kept.offsets, name_ids, value_ids, placed)
    write_series(fs, directory / SERIES_FILE, series, time_directory)
    write_index(fs, directory / INDEX_FILE, strings, kept.offsets, name_ids, value_ids)
    return len(filled), len(rows)


def _ordered_runs(runs: Sequence[NewRuns]) -> tuple[NewRuns, I64Array]:
    """All runs by row, a row's floats before its histograms, each ascending in time; and their rows."""
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(run.rows for run in runs)])
    kind = np.concatenate([np.empty(0, dtype=np.uint8), *(run.kind for run in runs)])
    # Stable, and runs come in order of time within a row and kind.
    order = np.lexsort((kind, rows))
    empty = np.empty(0, dtype=np.uint32)
    stream, times, starts = (
        np.concatenate([empty, *(getattr(run, column) for run in runs)])[order]
        for column in ("stream", "times", "starts")
    )
    return NewRuns(rows[order], kind[order], stream, times, starts), rows[order]
