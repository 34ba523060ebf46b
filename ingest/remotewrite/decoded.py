"""A decoded remote-write request, and the arrays that the decode kernels fill.

The arrays are scratch: one `DecodeArrays` belongs to one thread, grows to the largest request it has seen
(bounded by the decoded size, itself limited), and is overwritten by the next request. Nothing outlives the
request: the store copies what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.kernels.remotewrite import (
    MISSING,
    STATE_LENGTH,
    STATE_OFFSET,
    STATE_ROWS,
    STATE_SAMPLES,
    STATE_SPANS,
    STATE_SYMBOLS,
)
from ingest.remotewrite.wire import MalformedMessageError
from tsdb.columns import SampleColumns

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
TableArrays = tuple[U64Array, U32Array, U32Array]

ROWS_MAX = 1 << 21
SAMPLES_MAX = 1 << 22
SPANS_MAX = 1 << 18
SYMBOLS_MAX = 1 << 21
"""Most TimeSeries, samples, symbols, and exemplars, histograms and metadata together, in one request. Honest
requests of 32 MiB stay below; without a limit two-byte messages would fill a gigabyte of columns."""

_ROWS_INITIAL = 4096
_SAMPLES_INITIAL = 16384
_SPANS_INITIAL = 256
_SYMBOLS_INITIAL = 4096
_SAMPLES_KEPT = 1 << 18
_ROWS_KEPT = 1 << 18
"""Arrays larger than this are given back after the request."""
_GROWTH = 1.25
"""Spare room when an array grows, so that slowly growing requests do not decode twice every time."""


def _larger(needed: int) -> int:
    return int(needed * _GROWTH) + 1


class RequestLimitError(ValueError):
    """More parts in one request than a limit allows; the text says how many and which limit."""


class DecodeArrays:
    """Output arrays of the kernels, in their argument order. One thread only."""

    def __init__(self) -> None:
        self.state: I64Array = np.zeros(STATE_LENGTH, dtype=np.int64)
        self._reset()

    def _reset(self) -> None:
        self._size_rows(_ROWS_INITIAL)
        self._size_samples(_SAMPLES_INITIAL)
        self._size_spans(_SPANS_INITIAL)
        self._size_symbols(_SYMBOLS_INITIAL)

    def _size_rows(self, count: int) -> None:
        self.row_start: I64Array = np.empty(count, dtype=np.int64)
        self.row_end: I64Array = np.empty(count, dtype=np.int64)
        self.row_slow: U8Array = np.empty(count, dtype=np.uint8)
        self.row_hash: U64Array = np.empty(count, dtype=np.uint64)
        self.row_check: U64Array = np.empty(count, dtype=np.uint64)
        self.row_ref: U32Array = np.empty(count, dtype=np.uint32)
        self.row_first: I64Array = np.empty(count + 1, dtype=np.int64)

    def _size_samples(self, count: int) -> None:
        self.t: I64Array = np.empty(count, dtype=np.int64)
        self.v: U64Array = np.empty(count, dtype=np.uint64)
        self.start_t: I64Array = np.empty(count, dtype=np.int64)

    def _size_spans(self, count: int) -> None:
        self.span_kind: U8Array = np.empty(count, dtype=np.uint8)
        self.span_row: I64Array = np.empty(count, dtype=np.int64)
        self.span_start: I64Array = np.empty(count, dtype=np.int64)
        self.span_end: I64Array = np.empty(count, dtype=np.int64)

    def _size_symbols(self, count: int) -> None:
        self.symbol_start: I64Array = np.empty(count, dtype=np.int64)
        self.symbol_end: I64Array = np.empty(count, dtype=np.int64)
        self.symbol_hash: U64Array = np.empty(count, dtype=np.uint64)
        self.symbol_check: U64Array = np.empty(count, dtype=np.uint64)

    def rows_and_samples(self, start_t: I64Array) -> tuple[Any, ...]:
        """The arguments after the symbols, with the given start-time column (empty for version 1)."""
        return (
            *(self.row_start, self.row_end, self.row_slow, self.row_hash, self.row_check, self.row_ref),
            *(self.row_first, self.t, self.v, start_t),
            *(self.span_kind, self.span_row, self.span_start, self.span_end, self.state),
        )

    def symbols(self) -> tuple[Any, ...]:
        """The arguments of the symbol table."""
        return (self.symbol_start, self.symbol_end, self.symbol_hash, self.symbol_check)

    def grow(self) -> bool:
        """Make room for what the last decode counted; whether anything was too small.

        Raises RequestLimitError.
        """
        rows, samples, spans, symbols = self.state.tolist()[:STATE_OFFSET]
        if (
            rows <= min(len(self.row_start), ROWS_MAX)
            and samples <= min(len(self.t), SAMPLES_MAX)
            and spans <= min(len(self.span_kind), SPANS_MAX)
            and symbols <= min(len(self.symbol_start), SYMBOLS_MAX)
        ):
            return False
        for index, array, resize, most, name in (
            (STATE_ROWS, self.row_start, self._size_rows, ROWS_MAX, "series"),
            (STATE_SAMPLES, self.t, self._size_samples, SAMPLES_MAX, "samples"),
            (STATE_SPANS, self.span_kind, self._size_spans, SPANS_MAX, "exemplars, histograms and metadata"),
            (STATE_SYMBOLS, self.symbol_start, self._size_symbols, SYMBOLS_MAX, "symbols"),
        ):
            needed = int(self.state[index])
            if needed > most:
                raise RequestLimitError(f"request with {needed} {name} exceeds the limit of {most}")
            if needed > len(array):
                resize(_larger(needed))
        return True

    def give_back(self) -> None:
        """Free what an unusually large request made grow; its views must not be used any more."""
        if len(self.t) > _SAMPLES_KEPT or len(self.row_start) > _ROWS_KEPT:
            self._reset()


@dataclass(slots=True)
class DecodedRequest:
    """Views into the arrays of a thread: R rows (TimeSeries), N samples, S spans; `message` is the protobuf.

    Row r owns samples `first[r] .. first[r+1]`. `refs` u32[R] has MISSING where the series is not known yet;
    whoever resolves the row writes the ref there. Samples of rows that stay MISSING are not in `columns`.
    """

    message: memoryview
    row_start: I64Array
    row_end: I64Array
    row_slow: U8Array
    row_hash: U64Array
    row_check: U64Array
    refs: U32Array
    first: I64Array
    t_ms: I64Array
    value_bits: U64Array
    start_t_ms: I64Array | None
    span_kind: U8Array
    span_row: I64Array
    span_start: I64Array
    span_end: I64Array
    missing_count: int
    """Rows without a ref, as decoded."""
    single: bool
    """Whether each row has exactly one sample."""

    @property
    def row_count(self) -> int:
        """Number of TimeSeries messages."""
        return len(self.refs)

    @property
    def plain(self) -> bool:
        """Whether it is nothing but series that are known, with one sample each."""
        return self.single and not self.missing_count and not len(self.span_kind) and len(self.refs) > 0

    def plain_columns(self) -> SampleColumns:
        """Samples of a plain request, uncopied."""
        return SampleColumns(self.refs, self.t_ms, self.value_bits.view(np.float64), self.start_t_ms)

    def missing_rows(self) -> list[int]:
        """Rows whose series is not known."""
        return np.flatnonzero(self.refs == np.uint32(MISSING)).tolist() if self.missing_count else []

    def columns(self) -> tuple[SampleColumns, I64Array]:
        """Samples of the known rows, and the row i64[N] of each. Valid as long as the request is: a store
        keeps none of the arrays that it is given."""
        rows: I64Array = np.arange(self.row_count)
        if self.single and not self.missing_count:
            return self.plain_columns(), rows
        counts = self.first[1:] - self.first[:-1]
        if len(self.t_ms) == len(rows) and counts.all():
            refs = self.refs.copy()
        else:
            rows = np.repeat(rows, counts)
            refs = self.refs[rows]
        kept = refs != np.uint32(MISSING)
        whole = bool(kept.all())
        pick: Any = slice(None) if whole else kept
        start_t = None if self.start_t_ms is None else self.start_t_ms[pick].copy()
        columns = SampleColumns(
            refs if whole else refs[kept],
            self.t_ms[pick].copy(),
            self.value_bits[pick].copy().view(np.float64),
            start_t,
        )
        return columns, rows if whole else rows[kept]

    def sample_count(self, row: int) -> int:
        """Float samples of one row."""
        return int(self.first[row + 1] - self.first[row])


def run_decoder(
    decode: Callable[[], int], arrays: DecodeArrays, message: memoryview, with_start_t: bool
) -> DecodedRequest:
    """Call a kernel until its arrays are large enough.

    Raises MalformedMessageError for an error code, RequestLimitError.
    """
    code = decode()
    while code >= 0 and arrays.grow():
        code = decode()
    if code < 0:
        raise MalformedMessageError(code, int(arrays.state[STATE_OFFSET]))
    row_count, sample_count, span_count, _, _, missing, single = arrays.state.tolist()
    return DecodedRequest(
        message=message,
        row_start=arrays.row_start[:row_count],
        row_end=arrays.row_end[:row_count],
        row_slow=arrays.row_slow[:row_count],
        row_hash=arrays.row_hash[:row_count],
        row_check=arrays.row_check[:row_count],
        refs=arrays.row_ref[:row_count],
        first=arrays.row_first[: row_count + 1],
        t_ms=arrays.t[:sample_count],
        value_bits=arrays.v[:sample_count],
        start_t_ms=arrays.start_t[:sample_count] if with_start_t else None,
        span_kind=arrays.span_kind[:span_count],
        span_row=arrays.span_row[:span_count],
        span_start=arrays.span_start[:span_count],
        span_end=arrays.span_end[:span_count],
        missing_count=missing,
        single=bool(single),
    )
