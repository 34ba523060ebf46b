"""Batches of samples as remote-write 2.0 requests (prometheus-surface.md 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ingest.remotewrite.protobuf import (
    bits_field,
    double_field,
    length_delimited,
    packed,
    varint,
    varint_field,
    zigzag,
)
from ingest.remotewrite.v1 import METRIC_TYPES
from tsdb.columns import Exemplar, F64Array, Metadata, SampleColumns, WriteBatch
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels

SAMPLES_PER_REQUEST = 2000

LabelsOf = Callable[[int], Labels]


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A version 2 message, not compressed, and what is in it; `newest_ms` is its newest sample's time."""

    message: bytes
    sample_count: int
    """Floats and native histograms."""
    newest_ms: int


@dataclass(slots=True)
class _Row:
    samples: list[bytes] = field(default_factory=list)
    histograms: list[bytes] = field(default_factory=list)


class _Request:
    """One request being filled."""

    def __init__(self) -> None:
        self._symbols: dict[str, int] = {"": 0}
        self._rows: dict[tuple[int, bool], _Row] = {}
        self._sample_count = 0
        self._newest_ms = 0

    def row(self, ref: int, histogram: bool, t_ms: int) -> _Row:
        """The row of a series; one has samples or histograms, never both."""
        self._newest_ms = max(self._newest_ms, t_ms)
        self._sample_count += 1
        return self._rows.setdefault((ref, histogram), _Row())

    def _refs(self, labels: Labels) -> bytes:
        symbols = self._symbols
        return packed(1, [symbols.setdefault(text, len(symbols)) for pair in labels for text in pair])

    def finish(
        self, labels_of: LabelsOf, exemplars: dict[int, list[Exemplar]], metadata: dict[str, Metadata]
    ) -> EncodedRequest:
        """The message. Takes from `exemplars` and `metadata` what belongs to its series."""
        rows = []
        for (ref, _), row in self._rows.items():
            labels = labels_of(ref)
            parts = [self._refs(labels)]
            parts += [length_delimited(2, each) for each in row.samples]
            parts += [length_delimited(3, each) for each in row.histograms]
            for exemplar in exemplars.pop(ref, ()):
                content = self._refs(exemplar.labels) + double_field(2, exemplar.value)
                parts.append(length_delimited(4, content + varint_field(3, exemplar.t_ms)))
            described = metadata.pop(labels.metric_name, None)
            if described is not None:
                parts.append(length_delimited(5, self._metadata(described)))
            rows.append(length_delimited(5, b"".join(parts)))
        symbols = [length_delimited(4, text.encode("utf-8", "replace")) for text in self._symbols]
        return EncodedRequest(b"".join((*symbols, *rows)), self._sample_count, self._newest_ms)

    def _metadata(self, entry: Metadata) -> bytes:
        refs = [self._symbols.setdefault(text, len(self._symbols)) for text in (entry.help, entry.unit)]
        kind = METRIC_TYPES.index(entry.type) if entry.type in METRIC_TYPES else 0
        return varint_field(1, kind) + varint_field(3, refs[0]) + varint_field(4, refs[1])


def encode_requests(
    batch: WriteBatch,
    labels_of: LabelsOf,
    metadata: dict[str, Metadata],
    samples_per_request: int = SAMPLES_PER_REQUEST,
) -> Iterator[EncodedRequest]:
    """The batch as requests, in its order.

    Metadata of a family leaves `metadata` with the first series of its name; exemplars go with the first row
    of their series.
    """
    exemplars: dict[int, list[Exemplar]] = {}
    for exemplar in batch.exemplars:
        exemplars.setdefault(exemplar.ref, []).append(exemplar)
    request, filled = _Request(), 0
    for ref, t_ms, message, histogram in sample_messages(batch):
        row = request.row(ref, histogram, t_ms)
        (row.histograms if histogram else row.samples).append(message)
        filled += 1
        if filled == samples_per_request:
            yield request.finish(labels_of, exemplars, metadata)
            request, filled = _Request(), 0
    if filled:
        yield request.finish(labels_of, exemplars, metadata)


def sample_messages(batch: WriteBatch) -> Iterator[tuple[int, int, bytes, bool]]:
    """(ref, time, message, whether a histogram) of each sample: a Sample or Histogram of either version."""
    if batch.samples is not None:
        yield from _samples(batch.samples)
    if batch.histograms is not None:
        pool = batch.histograms.batch
        for row, ref in enumerate(batch.histograms.refs.tolist()):
            yield ref, int(pool.t_ms[row]), _histogram(pool, row), True


def _samples(columns: SampleColumns) -> Iterator[tuple[int, int, bytes, bool]]:
    count = len(columns.refs)
    starts = np.zeros(count, np.int64) if columns.start_t_ms is None else columns.start_t_ms
    # Values by their bytes: a stale marker is a NaN that must not change.
    values = np.ascontiguousarray(columns.values, np.float64).tobytes()
    t_before, moment = None, b""
    rows = zip(columns.refs.tolist(), columns.t_ms.tolist(), starts.tolist(), strict=True)
    for at, (ref, t_ms, start) in enumerate(rows):
        if t_ms != t_before:
            t_before, moment = t_ms, b"\x10" + varint(t_ms)
        tail = varint_field(3, start) if start else b""
        yield ref, t_ms, b"\x09" + values[8 * at : 8 * at + 8] + moment + tail, False


def _histogram(pool: HistogramBatch, row: int) -> bytes:
    is_float = bool(pool.is_float[row])
    parts = [
        double_field(2, float(pool.count[row])) if is_float else varint_field(1, int(pool.count[row])),
        bits_field(3, int(pool.sum.view(np.uint64)[row])),
        varint(4 << 3) + zigzag(int(pool.schema[row])),
        double_field(5, float(pool.zero_threshold[row])),
        double_field(7, float(pool.zero_count[row]))
        if is_float
        else varint_field(6, int(pool.zero_count[row])),
    ]
    sides = (
        (8, pool.neg_offsets, pool.neg_index, pool.neg_count),
        (11, pool.pos_offsets, pool.pos_index, pool.pos_count),
    )
    for number, offsets, indexes, counts in sides:
        begin, end = int(offsets[row]), int(offsets[row + 1])
        parts += _side(number, indexes[begin:end].tolist(), counts[begin:end], is_float)
    parts.append(varint_field(14, int(pool.reset_hint[row])))
    parts.append(varint_field(15, int(pool.t_ms[row])))
    custom = pool.custom_values[int(pool.custom_offsets[row]) : int(pool.custom_offsets[row + 1])]
    if len(custom):
        parts.append(length_delimited(16, np.ascontiguousarray(custom).tobytes()))
    if pool.start_t_ms is not None and pool.start_t_ms[row]:
        parts.append(varint_field(17, int(pool.start_t_ms[row])))
    return b"".join(parts)


def _side(
    number: int,
    indexes: Sequence[int],
    counts: F64Array,
    is_float: bool,
) -> list[bytes]:
    """Spans (field `number`), then deltas (the next field) or counts (the one after)."""
    if not indexes:
        return []
    spans: list[list[int]] = []
    end = 0
    for index in indexes:
        if spans and index == end:
            spans[-1][1] += 1
        else:
            spans.append([index - end, 1])
        end = index + 1
    parts = [
        length_delimited(number, varint(1 << 3) + zigzag(offset) + varint_field(2, length))
        for offset, length in spans
    ]
    if is_float:
        return [*parts, length_delimited(number + 2, np.ascontiguousarray(counts).tobytes())]
    deltas = np.diff(counts, prepend=0).tolist()
    return [*parts, length_delimited(number + 1, b"".join(zigzag(int(delta)) for delta in deltas))]
