"""Remote write 2.0: `io.prometheus.write.v2.Request`, where strings are references to a symbol table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ingest.kernels.remotewrite import ROW_FAST, SPAN_METADATA, STATE_SYMBOLS
from ingest.kernels.remotewrite2 import decode_v2
from ingest.remotewrite.decoded import DecodeArrays, DecodedRequest, TableArrays, U8Array, run_decoder
from ingest.remotewrite.labelspan import BytePair, validated
from ingest.remotewrite.v1 import metric_type, read_value_and_time
from ingest.remotewrite.wire import as_varint, packed_varints, read_fields
from tsdb.columns import Metadata
from tsdb.errors import InvalidLabelsError
from tsdb.labels import METRIC_NAME, Labels

MESSAGE = "io.prometheus.write.v2.Request"

_REF_BITS = 0xFFFF_FFFF


class BadSymbolsError(InvalidLabelsError):
    """Label references that are odd in number or outside the symbol table."""


def decode(
    buffer: U8Array, size: int, table: TableArrays, seeds: tuple[int, int], arrays: DecodeArrays
) -> DecodedRequest:
    """Columns of a message in `buffer[:size]`. Raises MalformedMessageError."""
    seed0, seed1 = np.uint64(seeds[0]), np.uint64(seeds[1])

    def run() -> int:
        outputs = arrays.rows_and_samples(arrays.start_t)
        return int(decode_v2(buffer, size, *table, seed0, seed1, *arrays.symbols(), *outputs))

    return run_decoder(run, arrays, buffer.data[:size], with_start_t=True)


class Reader:
    """The slow paths of one request: labels of a row, exemplars, metadata."""

    def __init__(self, request: DecodedRequest, arrays: DecodeArrays) -> None:
        self.request = request
        self.symbol_count = int(arrays.state[STATE_SYMBOLS])
        self._symbol_start = arrays.symbol_start
        self._symbol_end = arrays.symbol_end
        self._symbols: dict[int, bytes] = {}

    def symbol(self, ref: int) -> bytes:
        """Bytes of a symbol; the caller has checked the reference."""
        found = self._symbols.get(ref)
        if found is None:
            found = bytes(self.request.message[int(self._symbol_start[ref]) : int(self._symbol_end[ref])])
            self._symbols[ref] = found
        return found

    def labels(self, row: int) -> list[BytePair]:
        """Labels of a TimeSeries as sent. Raises BadSymbolsError or MalformedMessageError."""
        start, end = int(self.request.row_start[row]), int(self.request.row_end[row])
        refs = read_label_refs(self.request.message[start:end], start)
        try:
            return self._pairs(refs)
        except BadSymbolsError as error:
            raise BadSymbolsError(f"parsing labels for series {_print_refs(refs)}: {error}") from None

    def label_set(self, row: int) -> Labels:
        """The valid labels of a row. Raises InvalidLabelsError or MalformedMessageError."""
        return validated(self.labels(row))

    def alias_is_valid(self, row: int) -> bool:
        """Whether the row's hash stands for its labels."""
        return bool(self.request.row_slow[row] == ROW_FAST)

    def exemplar(self, start: int, end: int) -> tuple[list[BytePair], float, int]:
        """(labels, value, time in ms) of an Exemplar message. Raises BadSymbolsError."""
        data = self.request.message[start:end]
        refs = read_label_refs(data, start)
        value, t_ms = read_value_and_time(data, start)
        return self._pairs(refs), value, t_ms

    def _pairs(self, refs: Sequence[int]) -> list[BytePair]:
        if len(refs) % 2:
            raise BadSymbolsError(f"invalid labelRefs length {len(refs)}")
        pairs = []
        for index in range(0, len(refs), 2):
            name, value = refs[index], refs[index + 1]
            if name >= self.symbol_count or value >= self.symbol_count:
                raise BadSymbolsError(
                    f"labelRefs {name} (name) = {value} (value) outside of symbols table"
                    f" (size {self.symbol_count})"
                )
            pairs.append((self.symbol(name), self.symbol(value)))
        return pairs

    def metadata(self) -> Iterator[Metadata]:
        """Metadata of the series that carry any, under the name of their metric."""
        request = self.request
        for index in np.flatnonzero(request.span_kind == SPAN_METADATA).tolist():
            start, end = int(request.span_start[index]), int(request.span_end[index])
            numbers = {1: 0, 3: 0, 4: 0}
            for field, wire, content, at in read_fields(request.message[start:end], start):
                if field in numbers:
                    numbers[field] = as_varint(wire, content, at) & _REF_BITS
            if not any(numbers.values()) or max(numbers[3], numbers[4]) >= self.symbol_count:
                continue
            try:
                pairs = dict(self.labels(int(request.span_row[index])))
            except BadSymbolsError:
                continue
            family = pairs.get(METRIC_NAME.encode(), b"").decode("utf-8", "replace")
            if family:
                help_text, unit = (self.symbol(numbers[key]).decode("utf-8", "replace") for key in (3, 4))
                yield Metadata(family, metric_type(numbers[1]), help_text, unit)


def read_label_refs(data: memoryview, base: int) -> list[int]:
    """Field 1 of a TimeSeries or Exemplar of version 2: references, alternating name and value."""
    return [
        number & _REF_BITS
        for field, wire, content, at in read_fields(data, base)
        if field == 1
        for number in packed_varints(wire, content, at)
    ]


def _print_refs(refs: Sequence[int]) -> str:
    return "[" + " ".join(map(str, refs)) + "]"
