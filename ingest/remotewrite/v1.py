"""Remote write 1.0: `prometheus.WriteRequest`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.kernels.remotewrite import ROW_FAST, SPAN_METADATA, decode_v1
from ingest.remotewrite.decoded import DecodeArrays, DecodedRequest, TableArrays, U8Array, run_decoder
from ingest.remotewrite.labelspan import BytePair, plain_labels, read_labels, validated
from ingest.remotewrite.wire import as_bytes, as_double, as_varint, read_fields, signed
from tsdb.columns import Metadata
from tsdb.labels import Labels

MESSAGE = "prometheus.WriteRequest"

METRIC_TYPES = (
    *("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"),
)

_NO_START_TIMES = np.empty(0, dtype=np.int64)


def decode(
    buffer: U8Array, size: int, table: TableArrays, seeds: tuple[int, int], arrays: DecodeArrays
) -> DecodedRequest:
    """Columns of a message in `buffer[:size]`. Raises MalformedMessageError."""
    seed0, seed1 = np.uint64(seeds[0]), np.uint64(seeds[1])

    def run() -> int:
        outputs = arrays.rows_and_samples(_NO_START_TIMES)
        return int(decode_v1(buffer, size, *table, seed0, seed1, *outputs))

    return run_decoder(run, arrays, buffer.data[:size], with_start_t=False)


class Reader:
    """The slow paths of one request: labels of a row, exemplars, metadata."""

    def __init__(self, request: DecodedRequest) -> None:
        self.request = request

    def labels(self, row: int) -> list[BytePair]:
        """Labels of a TimeSeries as sent. Raises MalformedMessageError."""
        start, end = int(self.request.row_start[row]), int(self.request.row_end[row])
        return read_labels(self.request.message[start:end], start)

    def label_set(self, row: int) -> Labels:
        """The valid labels of a row. Raises InvalidLabelsError or MalformedMessageError."""
        if self.alias_is_valid(row):
            start, end = int(self.request.row_start[row]), int(self.request.row_end[row])
            plain = plain_labels(bytes(self.request.message[start:end]))
            if plain is not None:
                return plain
        return validated(self.labels(row))

    def alias_is_valid(self, row: int) -> bool:
        """Whether the row's hash stands for its labels."""
        return bool(self.request.row_slow[row] == ROW_FAST)

    def exemplar(self, start: int, end: int) -> tuple[list[BytePair], float, int]:
        """(labels, value, time in ms) of an Exemplar message."""
        labels = read_labels(self.request.message[start:end], start)
        value, t_ms = read_value_and_time(self.request.message[start:end], start)
        return labels, value, t_ms

    def metadata(self) -> Iterator[Metadata]:
        """All MetricMetadata of the request."""
        request = self.request
        for index in np.flatnonzero(request.span_kind == SPAN_METADATA).tolist():
            start, end = int(request.span_start[index]), int(request.span_end[index])
            texts = {2: "", 4: "", 5: ""}
            kind = 0
            for field, wire, content, at in read_fields(request.message[start:end], start):
                if field == 1:
                    kind = as_varint(wire, content, at)
                elif field in texts:
                    texts[field] = bytes(as_bytes(content, at)).decode("utf-8", "replace")
            if texts[2]:
                yield Metadata(texts[2], metric_type(kind), texts[4], texts[5])


def metric_type(number: int) -> str:
    """Name of a MetricType enum value, `unknown` for one that does not exist."""
    return METRIC_TYPES[number] if number < len(METRIC_TYPES) else METRIC_TYPES[0]


def read_value_and_time(data: memoryview, base: int) -> tuple[float, int]:
    """Fields 2 (double) and 3 (int64) of an Exemplar of either version."""
    value, t_ms = 0.0, 0
    for field, wire, content, at in read_fields(data, base):
        if field == 2:
            value = as_double(wire, content, at)
        elif field == 3:
            t_ms = signed(as_varint(wire, content, at))
    return value, t_ms
