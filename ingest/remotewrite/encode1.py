"""Batches of samples as remote-write 1.0 requests (prometheus-surface.md 5.2), for receivers without 2.0.

A series' labels are encoded once and kept by the caller, so that a sample is a few copies of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ingest.remotewrite.encode import SAMPLES_PER_REQUEST, EncodedRequest, sample_messages
from ingest.remotewrite.protobuf import double_field, length_delimited, varint_field
from ingest.remotewrite.v1 import METRIC_TYPES
from tsdb.columns import Exemplar, Metadata, WriteBatch
from tsdb.labels import Labels

_SAMPLE, _EXEMPLAR, _HISTOGRAM = 2, 3, 4
"""Fields of a TimeSeries."""


def label_bytes(labels: Labels) -> bytes:
    """The label fields of a TimeSeries, and of an Exemplar."""
    return b"".join(
        length_delimited(
            1,
            length_delimited(1, name.encode("utf-8", "replace"))
            + length_delimited(2, value.encode("utf-8", "replace")),
        )
        for name, value in labels
    )


def encode_requests_v1(
    batch: WriteBatch, labels_of: Callable[[int], bytes], samples_per_request: int = SAMPLES_PER_REQUEST
) -> Iterator[EncodedRequest]:
    """Samples, histograms and exemplars of the batch as prometheus.WriteRequest, in its order.

    `labels_of` gives the `label_bytes` of a ref. Exemplars go with the first row of their series. Version 1
    has no start times: the batch must have none.
    """
    exemplars: dict[int, list[Exemplar]] = {}
    for exemplar in batch.exemplars:
        exemplars.setdefault(exemplar.ref, []).append(exemplar)
    rows: dict[int, list[bytes]] = {}
    filled = newest_ms = 0

    def finish() -> EncodedRequest:
        parts = []
        for ref, fields in rows.items():
            fields += [length_delimited(_EXEMPLAR, _exemplar(each)) for each in exemplars.pop(ref, ())]
            parts.append(length_delimited(1, labels_of(ref) + b"".join(fields)))
        return EncodedRequest(b"".join(parts), filled, newest_ms)

    for ref, t_ms, message, histogram in sample_messages(batch):
        field = length_delimited(_HISTOGRAM if histogram else _SAMPLE, message)
        row = rows.get(ref)
        if row is None:
            rows[ref] = [field]
        else:
            row.append(field)
        newest_ms = max(newest_ms, t_ms)
        filled += 1
        if filled == samples_per_request:
            yield finish()
            rows, filled, newest_ms = {}, 0, 0
    if filled:
        yield finish()


def encode_metadata_v1(entries: Sequence[Metadata]) -> bytes:
    """Type, help and unit of families as a prometheus.WriteRequest without samples."""
    return b"".join(length_delimited(3, _metadata(entry)) for entry in entries)


def _exemplar(exemplar: Exemplar) -> bytes:
    tail = double_field(2, exemplar.value) + varint_field(3, exemplar.t_ms)
    return label_bytes(exemplar.labels) + tail


def _metadata(entry: Metadata) -> bytes:
    kind = METRIC_TYPES.index(entry.type) if entry.type in METRIC_TYPES else 0
    texts = ((2, entry.family), (4, entry.help), (5, entry.unit))
    fields = (length_delimited(number, text.encode("utf-8", "replace")) for number, text in texts)
    return varint_field(1, kind) + b"".join(fields)
