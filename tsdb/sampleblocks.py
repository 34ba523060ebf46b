"""Blocks of samples that lie in memory as columns, in whatever order they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.blockmeta import BlockMeta
from tsdb.blockwriter import write_block
from tsdb.errors import DuplicateSampleError
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels
from tsdb.samplerows import empty_histograms, take_histograms
from tsdb.select import SampleBatch
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GatheredSamples:
    """N floats and H histograms of series that are known by number: `rows` and `histogram_rows` i64.

    `bits` u64[N] are the floats' bits; `histograms` is a pool whose own rows mean nothing.
    """

    rows: I64Array
    t_ms: I64Array
    bits: U64Array
    histogram_rows: I64Array
    histograms: HistogramBatch

    @classmethod
    def of_floats(cls, rows: I64Array, t_ms: I64Array, bits: U64Array) -> GatheredSamples:
        """Without histograms."""
        return cls(rows, t_ms, bits, np.empty(0, dtype=np.int64), empty_histograms(0))


def write_sample_blocks(
    fs: FileSystem,
    directory: Path,
    series: Sequence[Labels],
    columns: GatheredSamples,
    range_ms: int,
    *,
    sources: Sequence[str] = (),
    last_sources: Sequence[str] = (),
    refuse_conflicts: bool = False,
) -> list[BlockMeta]:
    """Write a block for each aligned range of time that has samples.

    The block that is written last gets `last_sources` where there are any: it says that all are written.

    Of several floats of a series at one time the first is kept; with `refuse_conflicts` two different ones
    raise DuplicateSampleError. Raises DiskFullError, OSError.
    """
    slots, h_slots = columns.t_ms // range_ms, columns.histograms.t_ms // range_ms
    order, again = _order(columns.t_ms, columns.rows, slots)
    if refuse_conflicts:
        _refuse_conflicts(series, columns, order, again)
    order = order[~again]
    h_order, h_again = _order(columns.histograms.t_ms, columns.histogram_rows, h_slots)
    h_order = h_order[~h_again]
    slots, h_slots = slots[order], h_slots[h_order]
    symbols = SymbolTable()
    metas = []
    wanted = np.union1d(slots, h_slots).tolist()
    for slot in wanted:
        table = SampleTable(
            series, symbols, columns, order[_part(slots, slot)], h_order[_part(h_slots, slot)]
        )
        mint, maxt = table.time_span()
        names = last_sources if last_sources and slot == wanted[-1] else sources
        metas.append(write_block(fs, directory, mint, maxt + 1, table, sources=names))
    return metas


def _order(t_ms: I64Array, rows: I64Array, slots: I64Array) -> tuple[I64Array, BoolArray]:
    """An order by range, series and time, and where it has a sample that repeats the one before."""
    order = np.lexsort((t_ms, rows, slots))
    again = np.zeros(len(order), dtype=np.bool_)
    again[1:] = (np.diff(rows[order]) == 0) & (np.diff(t_ms[order]) == 0)
    return order, again


def _refuse_conflicts(
    series: Sequence[Labels], columns: GatheredSamples, order: I64Array, again: BoolArray
) -> None:
    bits = columns.bits[order]
    conflicts = np.flatnonzero(again[1:] & (bits[1:] != bits[:-1]))
    if len(conflicts):
        at = int(order[conflicts[0]])
        raise DuplicateSampleError(
            f"duplicate sample for timestamp {int(columns.t_ms[at])}: two values of"
            f" {series[int(columns.rows[at])]}"
        )


def _part(slots: I64Array, slot: int) -> slice:
    lo, hi = (int(np.searchsorted(slots, slot, side=side)) for side in ("left", "right"))
    return slice(lo, hi)


class SampleTable:
    """A selection over chosen samples of columns, which must be in order of series and time."""

    def __init__(
        self,
        series: Sequence[Labels],
        symbols: SymbolTable,
        columns: GatheredSamples,
        floats: I64Array,
        histograms: I64Array,
    ) -> None:
        rows, h_rows = columns.rows[floats], columns.histogram_rows[histograms]
        used = np.union1d(rows, h_rows)
        self._labels = SeriesLabels.from_labels([series[row] for row in used.tolist()], symbols)
        self._offsets = np.append(np.searchsorted(rows, used), len(rows)).astype(np.int64)
        self._h_offsets = np.append(np.searchsorted(h_rows, used), len(h_rows)).astype(np.int64)
        self._t_ms, self._bits = columns.t_ms[floats], columns.bits[floats]
        self._histograms = take_histograms(columns.histograms, histograms, self._h_offsets)

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series."""
        return self._labels

    def time_span(self) -> tuple[int, int]:
        """First and last timestamp; there is at least one sample."""
        times = np.concatenate([self._t_ms, self._histograms.t_ms])
        return int(times.min()), int(times.max())

    def sample_bounds(self) -> I64Array:
        """i64[S]: exact numbers of samples."""
        return np.diff(self._offsets) + np.diff(self._h_offsets)

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive)."""
        first, last = int(self._offsets[lo]), int(self._offsets[hi])
        h_first, h_last = int(self._h_offsets[lo]), int(self._h_offsets[hi])
        histograms = None
        if h_first < h_last:
            picks = np.arange(h_first, h_last, dtype=np.int64)
            histograms = take_histograms(self._histograms, picks, self._h_offsets[lo : hi + 1] - h_first)
        return SampleBatch(
            self._offsets[lo : hi + 1] - first,
            self._t_ms[first:last],
            self._bits[first:last].view(np.float64),
            None,
            histograms,
        )
