"""Pages of native histograms: every field a column of its own, all bit exact.

A page holds E streams (the histograms of one series in one run); `tsdb.histogramread` reads it. Its columns
are pages of the number codec one behind the other: headers of samples, layouts where they change, then counts
bucket by bucket over each layout run. docs/formats/block.md has the bytes.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.errors import CorruptionError
from tsdb.histogram import HistogramBatch
from tsdb.kernels import histogrampage as kernels

U8Array = npt.NDArray[np.uint8]
I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
F64Array = npt.NDArray[np.float64]

_COLUMNS = 16
"""layout, schema, hint, float flag | threshold, zero count, count, sum | positive, negative, custom lengths |
positive index, negative index, custom bounds | positive counts, negative counts."""


def offsets_of(lengths: npt.NDArray[np.integer]) -> I64Array:
    """Offsets i64[N+1] of parts of these lengths."""
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def _bits(values: F64Array) -> U64Array:
    return np.ascontiguousarray(values).view(np.uint64)


def _picked(offsets: I64Array, rows: I64Array) -> I64Array:
    """Element places of some rows of a CSR."""
    lengths = offsets[rows + 1] - offsets[rows]
    starts = offsets_of(lengths)
    return np.repeat(offsets[rows] - starts[:-1], lengths) + np.arange(starts[-1])


def count_streams(run_starts: I64Array, widths: I64Array) -> I64Array:
    """Offsets of the streams that the buckets of each run are: `widths[r]` streams of a run's length."""
    return offsets_of(np.repeat(np.diff(run_starts), widths))


def encode(batch: HistogramBatch) -> bytes:
    """A stored page; the batch's rows are the streams. Timestamps are not part of it."""
    streams, count = batch.row_offsets, len(batch)
    layout = np.empty(count, dtype=np.int64)
    custom = _bits(batch.custom_values)
    kernels.mark_layouts(
        streams, batch.pos_offsets, batch.pos_index, batch.neg_offsets, batch.neg_index,
        batch.custom_offsets, custom.view(np.int64), layout,
    )  # fmt: skip
    firsts = np.flatnonzero(layout)
    runs = np.append(firsts, count).astype(np.int64)
    layouts = offsets_of(layout)[streams]
    sides = [(batch.pos_offsets, batch.pos_index), (batch.neg_offsets, batch.neg_index)]
    parts = [page.encode_integers(streams, layout)]
    small = (batch.schema, batch.reset_hint, batch.is_float)
    parts += [page.encode_integers(streams, field.astype(np.int64)) for field in small]
    floats = (batch.zero_threshold, batch.zero_count, batch.count, batch.sum)
    parts += [page.encode_floats(streams, _bits(field)) for field in floats]
    lists = (batch.pos_offsets, batch.neg_offsets, batch.custom_offsets)
    parts += [page.encode_integers(layouts, np.diff(offsets)[firsts]) for offsets in lists]
    for offsets, index in sides:
        lengths = np.diff(offsets)[firsts]
        stream_ends = offsets_of(lengths)[layouts]
        parts.append(page.encode_integers(stream_ends, index[_picked(offsets, firsts)].astype(np.int64)))
    bounds = offsets_of(np.diff(batch.custom_offsets)[firsts])[layouts]
    parts.append(page.encode_floats(bounds, custom[_picked(batch.custom_offsets, firsts)]))
    for offsets, counts in ((batch.pos_offsets, batch.pos_count), (batch.neg_offsets, batch.neg_count)):
        widths = np.diff(offsets)[firsts]
        turned = np.empty(len(counts), dtype=np.int64)
        kernels.turn_runs(runs, widths, _bits(counts).view(np.int64), turned)
        parts.append(page.encode_floats(count_streams(runs, widths), turned.view(np.uint64)))
    return b"".join([struct.pack(f"<{len(parts)}I", *map(len, parts)), *parts])


class PackedColumns:
    """The columns of a stored page, one after the other."""

    def __init__(self, stored: bytes, where: str) -> None:
        self._where = where
        if len(stored) < 4 * _COLUMNS:
            raise CorruptionError(f"{where}: histogram page of {len(stored)} bytes")
        self._lengths = struct.unpack_from(f"<{_COLUMNS}I", stored)
        self._stored = memoryview(stored)
        self._at = 4 * _COLUMNS
        self._next = 0
        if self._at + sum(self._lengths) != len(stored):
            raise CorruptionError(f"{where}: columns do not add up to {len(stored)} bytes")

    def _raw(self, offsets: I64Array | None) -> tuple[I64Array, U8Array]:
        length = self._lengths[self._next]
        raw = page.decompress(self._stored[self._at : self._at + length], self._where)
        self._at += length
        self._next += 1
        found = offsets_of(page.stream_counts(raw, self._where))
        if offsets is not None and not np.array_equal(found, offsets):
            raise CorruptionError(f"{self._where}: histogram columns do not fit each other")
        if int(found[-1]) > page.PAGE_BYTES_LIMIT:
            raise CorruptionError(f"{self._where}: {found[-1]} numbers, limit {page.PAGE_BYTES_LIMIT}")
        return found, raw

    def packed(self, offsets: I64Array) -> U8Array:
        """The next column as `page.decode_into` takes it; its stream lengths must be those of `offsets`."""
        return self._raw(offsets)[1]

    def take(self, floats: bool, offsets: I64Array | None = None) -> tuple[I64Array, U64Array]:
        """Offsets and numbers of the next column, decoded."""
        found, raw = self._raw(offsets)
        out = np.empty(int(found[-1]), dtype=np.uint64)
        streams = np.arange(len(found) - 1, dtype=np.int64)
        page.decode_into(raw, streams, found[:-1], np.diff(found), out, floats, self._where)
        return found, out

    def integers(self, offsets: I64Array) -> I64Array:
        """The next column as integers."""
        return self.take(False, offsets)[1].view(np.int64)

    def floats(self, offsets: I64Array) -> F64Array:
        """The next column as floats."""
        return self.take(True, offsets)[1].view(np.float64)


def total_numbers(batch: HistogramBatch) -> int:
    """How many numbers a batch amounts to, for filling pages evenly."""
    return 8 * len(batch) + len(batch.pos_count) + len(batch.neg_count)
