"""Pages of native histograms: every field a column of its own, all bit exact.

A page holds E streams (the histograms of one series in one run). Its columns are pages of the number codec
one behind the other: headers of samples, layouts where they change, then counts bucket by bucket over each
layout run. docs/formats/block.md has the bytes.
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


def _offsets(lengths: npt.NDArray[np.integer]) -> I64Array:
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def _bits(values: F64Array) -> U64Array:
    return np.ascontiguousarray(values).view(np.uint64)


def _picked(offsets: I64Array, rows: I64Array) -> I64Array:
    """Element places of some rows of a CSR."""
    lengths = offsets[rows + 1] - offsets[rows]
    starts = _offsets(lengths)
    return np.repeat(offsets[rows] - starts[:-1], lengths) + np.arange(starts[-1])


def _count_streams(run_starts: I64Array, widths: I64Array) -> I64Array:
    """Offsets of the streams that the buckets of each run are: `widths[r]` streams of a run's length."""
    return _offsets(np.repeat(np.diff(run_starts), widths))


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
    layouts = _offsets(layout)[streams]
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
        stream_ends = _offsets(lengths)[layouts]
        parts.append(page.encode_integers(stream_ends, index[_picked(offsets, firsts)].astype(np.int64)))
    bounds = _offsets(np.diff(batch.custom_offsets)[firsts])[layouts]
    parts.append(page.encode_floats(bounds, custom[_picked(batch.custom_offsets, firsts)]))
    for offsets, counts in ((batch.pos_offsets, batch.pos_count), (batch.neg_offsets, batch.neg_count)):
        widths = np.diff(offsets)[firsts]
        turned = np.empty(len(counts), dtype=np.int64)
        kernels.turn_runs(runs, widths, _bits(counts).view(np.int64), True, turned)
        parts.append(page.encode_floats(_count_streams(runs, widths), turned.view(np.uint64)))
    return b"".join([struct.pack(f"<{len(parts)}I", *map(len, parts)), *parts])


class _Parts:
    """The columns of a stored page, decoded in their order."""

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

    def take(self, floats: bool, offsets: I64Array | None = None) -> tuple[I64Array, U64Array]:
        """Offsets and numbers of the next column, whose stream lengths must be those of `offsets`."""
        length = self._lengths[self._next]
        raw = page.decompress(self._stored[self._at : self._at + length], self._where)
        self._at += length
        self._next += 1
        found = _offsets(page.stream_counts(raw, self._where))
        if offsets is not None and not np.array_equal(found, offsets):
            raise CorruptionError(f"{self._where}: histogram columns do not fit each other")
        total = int(found[-1])
        if total > page.PAGE_BYTES_LIMIT:
            raise CorruptionError(f"{self._where}: {total} numbers, limit {page.PAGE_BYTES_LIMIT}")
        out = np.empty(total, dtype=np.uint64)
        streams = np.arange(len(found) - 1, dtype=np.int64)
        page.decode_into(raw, streams, found[:-1], np.diff(found), out, floats, self._where)
        return found, out

    def integers(self, offsets: I64Array) -> I64Array:
        """The next column as integers."""
        return self.take(False, offsets)[1].view(np.int64)

    def floats(self, offsets: I64Array) -> F64Array:
        """The next column as floats."""
        return self.take(True, offsets)[1].view(np.float64)


def decode(stored: bytes, where: str) -> HistogramBatch:
    """The histograms of a stored page, one row a stream; timestamps are zero. Raises CorruptionError."""
    parts = _Parts(stored, where)
    streams, layout_bits = parts.take(False)
    layout = layout_bits.view(np.int64)
    count = len(layout)
    nonempty = streams[:-1][np.diff(streams) > 0]
    if ((layout != 0) & (layout != 1)).any() or (layout[nonempty] != 1).any():
        raise CorruptionError(f"{where}: layout flags are damaged")
    firsts = np.flatnonzero(layout)
    runs = np.append(firsts, count).astype(np.int64)
    layouts = _offsets(layout)[streams]
    schema, hint, is_float = (parts.integers(streams) for _ in range(3))
    threshold, zero_count, total, sums = (parts.floats(streams) for _ in range(4))
    widths = [parts.integers(layouts) for _ in range(3)]
    for width in widths:
        _check_widths(runs, width, where)
    run_of = np.cumsum(layout) - 1
    starts = [_offsets(width) for width in widths]
    pos_layout, neg_layout = (parts.integers(start[layouts]) for start in starts[:2])
    custom = parts.floats(starts[2][layouts])
    pos_count, neg_count = (_turn_back(parts, runs, width, where) for width in widths[:2])
    return HistogramBatch(
        row_offsets=streams,
        t_ms=np.zeros(count, dtype=np.int64),
        start_t_ms=None,
        schema=schema.astype(np.int32),
        reset_hint=hint.astype(np.uint8),
        zero_threshold=threshold,
        zero_count=zero_count,
        count=total,
        sum=sums,
        pos_offsets=_offsets(widths[0][run_of]),
        pos_index=pos_layout[_picked(starts[0], run_of)].astype(np.int32),
        pos_count=pos_count,
        neg_offsets=_offsets(widths[1][run_of]),
        neg_index=neg_layout[_picked(starts[1], run_of)].astype(np.int32),
        neg_count=neg_count,
        custom_offsets=_offsets(widths[2][run_of]),
        custom_values=custom[_picked(starts[2], run_of)],
        is_float=is_float.astype(np.uint8),
    )


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


def _turn_back(parts: _Parts, runs: I64Array, widths: I64Array, where: str) -> F64Array:
    """Counts of one side in sample order."""
    turned = parts.floats(_count_streams(runs, widths)).view(np.int64)
    out = np.empty(len(turned), dtype=np.int64)
    if kernels.turn_runs(runs, widths, turned, False, out):
        raise CorruptionError(f"{where}: buckets do not fit their layouts")
    return out.view(np.float64)


def total_numbers(batch: HistogramBatch) -> int:
    """How many numbers a batch amounts to, for filling pages evenly."""
    return 8 * len(batch) + len(batch.pos_count) + len(batch.neg_count)
