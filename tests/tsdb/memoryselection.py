"""A selection over plain Python rows, and its way back, for tests of everything that reads or writes one."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels
from tsdb.select import SampleBatch, Selection
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable


def bits_of(value: float) -> int:
    """Bit pattern of a float64, NaN payloads included."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


class FloatSample(NamedTuple):
    """`bits` rather than a float, so that equality is that of bit patterns."""

    t_ms: int
    bits: int
    start_t_ms: int = 0


class HistogramSample(NamedTuple):
    """One histogram; floats as bit patterns."""

    t_ms: int
    start_t_ms: int
    schema: int
    reset_hint: int
    zero_threshold: int
    zero_count: int
    count: int
    sum: int
    is_float: int
    positive: tuple[tuple[int, int], ...]
    negative: tuple[tuple[int, int], ...]
    custom: tuple[int, ...]


@dataclass
class Row:
    """One series: labels, float samples, histogram samples."""

    labels: Labels
    floats: list[FloatSample] = field(default_factory=list)
    histograms: list[HistogramSample] = field(default_factory=list)


def _floats(bits: Sequence[int]) -> npt.NDArray[np.float64]:
    return np.array(bits, dtype=np.uint64).view(np.float64)


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def histogram_batch(rows: Sequence[Sequence[HistogramSample]]) -> HistogramBatch:
    """Columns of histogram rows."""
    flat = [sample for row in rows for sample in row]
    starts = np.array([h.start_t_ms for h in flat], dtype=np.int64)
    positive = [pair for h in flat for pair in h.positive]
    negative = [pair for h in flat for pair in h.negative]
    return HistogramBatch(
        row_offsets=_offsets([len(row) for row in rows]),
        t_ms=np.array([h.t_ms for h in flat], dtype=np.int64),
        start_t_ms=starts if starts.any() else None,
        schema=np.array([h.schema for h in flat], dtype=np.int32),
        reset_hint=np.array([h.reset_hint for h in flat], dtype=np.uint8),
        zero_threshold=_floats([h.zero_threshold for h in flat]),
        zero_count=_floats([h.zero_count for h in flat]),
        count=_floats([h.count for h in flat]),
        sum=_floats([h.sum for h in flat]),
        pos_offsets=_offsets([len(h.positive) for h in flat]),
        pos_index=np.array([i for i, _ in positive], dtype=np.int32),
        pos_count=_floats([c for _, c in positive]),
        neg_offsets=_offsets([len(h.negative) for h in flat]),
        neg_index=np.array([i for i, _ in negative], dtype=np.int32),
        neg_count=_floats([c for _, c in negative]),
        custom_offsets=_offsets([len(h.custom) for h in flat]),
        custom_values=_floats([c for h in flat for c in h.custom]),
        is_float=np.array([h.is_float for h in flat], dtype=np.uint8),
    )


class MemorySelection:
    """`read` gives the rows' samples within [mint, maxt]."""

    def __init__(
        self, rows: Sequence[Row], symbols: SymbolTable, mint: int = -(1 << 62), maxt: int = 1 << 62
    ) -> None:
        self.rows = [
            Row(
                row.labels,
                [s for s in row.floats if mint <= s.t_ms <= maxt],
                [h for h in row.histograms if mint <= h.t_ms <= maxt],
            )
            for row in rows
        ]
        self.labels = SeriesLabels.from_labels([row.labels for row in rows], symbols)

    def sample_bounds(self) -> npt.NDArray[np.int64]:
        return np.array([len(r.floats) + len(r.histograms) for r in self.rows], dtype=np.int64)

    def read(self, lo: int, hi: int) -> SampleBatch:
        rows = self.rows[lo:hi]
        flat = [sample for row in rows for sample in row.floats]
        starts = np.array([s.start_t_ms for s in flat], dtype=np.int64)
        return SampleBatch(
            offsets=_offsets([len(row.floats) for row in rows]),
            t_ms=np.array([s.t_ms for s in flat], dtype=np.int64),
            values=_floats([s.bits for s in flat]),
            start_t_ms=starts if starts.any() else None,
            histograms=histogram_batch([row.histograms for row in rows])
            if any(row.histograms for row in rows)
            else None,
        )


def _bits(values: npt.NDArray[np.float64]) -> list[int]:
    return [int(b) for b in values.view(np.uint64)]


def histogram_rows(batch: HistogramBatch) -> list[list[HistogramSample]]:
    """The way back from columns of histograms."""
    starts = np.zeros(len(batch), dtype=np.int64) if batch.start_t_ms is None else batch.start_t_ms
    pos, neg, custom = _bits(batch.pos_count), _bits(batch.neg_count), _bits(batch.custom_values)
    flat = []
    for i in range(len(batch)):
        p, q = int(batch.pos_offsets[i]), int(batch.pos_offsets[i + 1])
        n, m = int(batch.neg_offsets[i]), int(batch.neg_offsets[i + 1])
        flat.append(
            HistogramSample(
                int(batch.t_ms[i]),
                int(starts[i]),
                int(batch.schema[i]),
                int(batch.reset_hint[i]),
                int(batch.zero_threshold.view(np.uint64)[i]),
                int(batch.zero_count.view(np.uint64)[i]),
                int(batch.count.view(np.uint64)[i]),
                int(batch.sum.view(np.uint64)[i]),
                int(batch.is_float[i]),
                tuple(zip(batch.pos_index[p:q].tolist(), pos[p:q], strict=True)),
                tuple(zip(batch.neg_index[n:m].tolist(), neg[n:m], strict=True)),
                tuple(custom[int(batch.custom_offsets[i]) : int(batch.custom_offsets[i + 1])]),
            )
        )
    bounds = batch.row_offsets.tolist()
    return [flat[a:b] for a, b in itertools.pairwise(bounds)]


def rows_of(labels: Sequence[Labels], batch: SampleBatch) -> list[Row]:
    """The way back from a batch."""
    assert len(batch) == len(labels)
    starts = np.zeros(len(batch.t_ms), dtype=np.int64) if batch.start_t_ms is None else batch.start_t_ms
    flat = [
        FloatSample(*sample)
        for sample in zip(batch.t_ms.tolist(), _bits(batch.values), starts.tolist(), strict=True)
    ]
    bounds = batch.offsets.tolist()
    histograms = [[] for _ in labels] if batch.histograms is None else histogram_rows(batch.histograms)
    return [Row(label, flat[bounds[i] : bounds[i + 1]], histograms[i]) for i, label in enumerate(labels)]


def all_rows(selection: Selection) -> dict[Labels, Row]:
    """Everything a selection holds, by label set."""
    labels = selection.labels.rows()
    rows = rows_of(labels, selection.read(0, len(labels)))
    assert len({row.labels for row in rows}) == len(rows)
    return {row.labels: row for row in rows}
