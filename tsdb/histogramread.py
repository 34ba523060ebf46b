"""Reading pages of native histograms: their columns stay packed, and only what is asked for is decoded.

A decoded histogram takes ten times the room of a packed one. So what is kept of a page between queries is its
layouts and small fields and, as they lie in the page, the columns that differ from sample to sample: count,
sum and buckets. `tsdb.histogrampage` writes pages; docs/formats/block.md has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.errors import CorruptionError
from tsdb.histogram import HistogramBatch
from tsdb.histogrampage import PackedColumns, count_streams, offsets_of
from tsdb.histogramparts import empty_batch
from tsdb.kernels import histogrampage as kernels
from tsdb.scratch import scratch

U8Array = npt.NDArray[np.uint8]
I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Column:
    """A field of all samples; only once where they have the same."""

    values: npt.NDArray[Any]
    count: int

    @classmethod
    def of(cls, values: npt.NDArray[Any], dtype: type[np.generic]) -> _Column:
        bits = values.view(np.uint64)
        same = len(bits) > 0 and bool((bits == bits[0]).all())
        return cls((values[:1] if same else values).astype(dtype), len(values))

    def part(self, lo: int, hi: int) -> npt.NDArray[Any]:
        """Samples lo to hi, or the one value of all."""
        return self.values if len(self.values) < self.count else self.values[lo:hi]


@dataclass(frozen=True, slots=True)
class _Side:
    """Buckets of one side. Layout run r has index[starts[r]:starts[r+1]], and as many streams of `packed`,
    from stream starts[r] on; stream k of them has numbers offsets[k]:offsets[k+1]."""

    starts: I64Array
    index: I32Array
    offsets: I64Array
    packed: U8Array

    def decode(self, first: int, last: int, where: str) -> I64Array:
        """The counts of layout runs first to last, bucket by bucket, in memory that is used again."""
        lo, hi = int(self.starts[first]), int(self.starts[last])
        ends = self.offsets[lo : hi + 1]
        out = scratch(int(ends[-1] - ends[0]), np.uint64)
        if len(out):
            starts = ends[:-1]
            lengths = ends[1:] - starts
            page.decode_into(self.packed, np.arange(lo, hi), starts - ends[0], lengths, out, True, where)
        return out.view(np.int64)


@dataclass(frozen=True, slots=True)
class HistogramPage:
    """Stream e has samples streams[e]:streams[e+1], in layout runs layouts[e]:layouts[e+1]; run r has samples
    runs[r]:runs[r+1]. Immutable; any thread may read."""

    where: str
    streams: I64Array
    layouts: I64Array
    runs: I64Array
    fields: tuple[_Column, ...]
    count: U8Array
    sum: U8Array
    positive: _Side
    negative: _Side
    custom_starts: I64Array
    custom: F64Array

    @classmethod
    def parse(cls, stored: bytes, where: str) -> HistogramPage:
        """Of a stored page. Raises CorruptionError."""
        columns = PackedColumns(stored, where)
        streams, layout_bits = columns.take(False)
        layout = layout_bits.view(np.int64)
        nonempty = streams[:-1][np.diff(streams) > 0]
        if ((layout != 0) & (layout != 1)).any() or (layout[nonempty] != 1).any():
            raise CorruptionError(f"{where}: layout flags are damaged")
        runs = np.append(np.flatnonzero(layout), len(layout)).astype(np.int64)
        layouts = offsets_of(layout)[streams]
        small = (np.int32, np.uint8, np.uint8)
        fields = [_Column.of(columns.integers(streams), dtype) for dtype in small]
        fields += [_Column.of(columns.floats(streams), np.float64) for _ in range(2)]
        count, total = columns.packed(streams), columns.packed(streams)
        widths = [columns.integers(layouts) for _ in range(3)]
        for width in widths:
            _check_widths(runs, width, where)
        starts = [offsets_of(width) for width in widths]
        index = [columns.integers(start[layouts]).astype(np.int32) for start in starts[:2]]
        custom = columns.floats(starts[2][layouts])
        numbers = [count_streams(runs, width) for width in widths[:2]]
        counts = [columns.packed(offsets) for offsets in numbers]
        positive, negative = (_Side(starts[k], index[k], numbers[k], counts[k]) for k in range(2))
        return cls(
            where, streams, layouts, runs, tuple(fields), count, total, positive, negative, starts[2], custom
        )

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        arrays = (
            self.streams,
            self.layouts,
            self.runs,
            self.count,
            self.sum,
            self.custom_starts,
            self.custom,
        )
        sides = (getattr(s, name) for s in (self.positive, self.negative) for name in s.__slots__)
        return sum(a.nbytes for a in (*arrays, *sides, *(field.values for field in self.fields)))

    def sizes(self, stream: int, lo: I64Array, hi: I64Array) -> I64Array:
        """i64[N, 4]: samples, positive and negative buckets and custom bounds of samples lo[k] to hi[k] of
        stream `stream` + k."""
        out = np.empty((4, len(lo)), dtype=np.int64)
        np.subtract(hi, lo, out=out[0])
        for k, starts in enumerate((self.positive.starts, self.negative.starts, self.custom_starts), 1):
            if not starts[-1]:
                out[k] = 0
                continue
            kernels.run_sizes(self.streams, self.layouts, self.runs, starts, stream, lo, hi, out[k])
        return out.T

    def place(self, stream: int, lo: I64Array, hi: I64Array, places: I64Array, out: HistogramBatch) -> None:
        """Decode samples lo[k] to hi[k] of stream `stream` + k to their `places` i64[N, 4] in the columns of
        `out` (see `sizes`). Raises CorruptionError."""
        ends = self.streams[stream : stream + len(lo) + 1]
        columns: list[npt.NDArray[Any]] = [out.schema, out.reset_hint, out.is_float]
        columns += [out.zero_threshold, out.zero_count]
        samples, *buckets = np.ascontiguousarray(places.T)
        begins, sizes = ends[:-1] + lo, hi - lo
        for at, first, size in zip(samples.tolist(), begins.tolist(), sizes.tolist(), strict=True):
            for column, field in zip(columns, self.fields, strict=True):
                column[at : at + size] = field.part(first, first + size)
        self._place_numbers(stream, ends, lo, hi, samples, (out.count, out.sum))
        first, last = int(self.layouts[stream]), int(self.layouts[stream + len(lo)])
        table = (self.streams, self.layouts, self.runs)
        sides = (
            (self.positive, buckets[0], out.pos_offsets, out.pos_index, out.pos_count),
            (self.negative, buckets[1], out.neg_offsets, out.neg_index, out.neg_count),
        )
        for side, at_buckets, offsets, index, counts in sides:
            if not len(index):  # the offsets are zero as they were made
                continue
            turned = side.decode(first, last, self.where)
            kernels.place_buckets(
                *table, side.starts, side.index, turned, stream, lo, hi, samples, at_buckets, offsets, index,
                counts.view(np.int64),
            )  # fmt: skip
        if not len(out.custom_values):
            return
        kernels.place_bounds(
            *table, self.custom_starts, self.custom.view(np.int64), stream, lo, hi, samples, buckets[2],
            out.custom_offsets, out.custom_values.view(np.int64),
        )  # fmt: skip

    def _place_numbers(
        self, stream: int, ends: I64Array, lo: I64Array, hi: I64Array, samples: I64Array,
        outs: tuple[F64Array, F64Array],
    ) -> None:  # fmt: skip
        """Counts and sums of samples lo[k] to hi[k] of stream `stream` + k, which has ends[k]:ends[k+1], from
        samples[k] on. As integers: no bit of a marker changes."""
        streams, lengths = np.arange(stream, stream + len(lo)), ends[1:] - ends[:-1]
        whole = bool((hi - lo == lengths).all())
        for packed, out in zip((self.count, self.sum), outs, strict=True):
            numbers = out.view(np.uint64)
            if whole:
                page.decode_into(packed, streams, samples, lengths, numbers, True, self.where)
                continue
            inside = np.empty(int(ends[-1] - ends[0]), dtype=np.uint64)
            starts = ends[:-1] - ends[0]
            page.decode_into(packed, streams, starts, lengths, inside, True, self.where)
            parts = zip(samples.tolist(), (starts + lo).tolist(), (starts + hi).tolist(), strict=True)
            for at, first, last in parts:
                numbers[at : at + last - first] = inside[first:last]


def decode(stored: bytes, where: str) -> HistogramBatch:
    """All histograms of a stored page, one row a stream. Raises CorruptionError."""
    found = HistogramPage.parse(stored, where)
    lengths = np.diff(found.streams)
    sizes = found.sizes(0, np.zeros_like(lengths), lengths)
    ends = np.cumsum(sizes, axis=0)
    totals = ends[-1].tolist() if len(ends) else [0, 0, 0, 0]
    out = empty_batch(found.streams, totals, with_starts=False)
    found.place(0, np.zeros_like(lengths), lengths, ends - sizes, out)
    return out


def _check_widths(runs: I64Array, widths: I64Array, where: str) -> None:
    """Refuse lengths of lists that no page has, before memory is taken for them."""
    if not len(widths):
        return
    limit = page.PAGE_BYTES_LIMIT
    if int(widths.min()) < 0 or int(widths.max()) > limit:
        raise CorruptionError(f"{where}: a histogram of {widths.min()} to {widths.max()} buckets")
    size = int((np.diff(runs) * widths).sum())
    if size > limit:
        raise CorruptionError(f"{where}: {size} buckets, limit {limit}")
