"""Query results as a stream of JSON bytes, made in bulk by kernels (engine.md 2.5).

Nothing here loops over samples. Rows are taken in chunks: their label objects and timestamps become byte
arrays first, then `render_rows` fills one buffer after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from promql.contiguous import contiguous
from promql.kernels import render as kernels
from promql.kernels import renderhistogram
from promql.kernels.decimal import TIME_BYTES_MAX
from promql.matrix import Matrix
from promql.numberformat import format_api
from tsdb.histogram import HistogramBatch
from tsdb.select import STALE_BITS, SampleBatch
from tsdb.serieslabels import SeriesLabels
from web.envelope import SUCCESS_START, encode, quote, quote_label, success_end
from web.quotedsymbols import joined, quoted_symbols

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]

BUFFER_BYTES = 256 * 1024
"""Room for the beginning of a result, often all of it."""

LATER_BUFFER_BYTES = 512 * 1024
"""Size of the pieces that follow: each is handed from a thread to the event loop, which takes 0.1 ms, and
should stay in the processor's cache on its way."""

CHUNK_ROWS_MAX = 2048
"""Rows whose labels are made at a time."""

CHUNK_HISTOGRAMS_MAX = 4096
"""Histograms whose text is made at a time (a row may exceed it)."""

PAIR_BYTES_GUESS = 48
"""Room made for a label in advance; where it is too little the objects are made again."""

TRUNCATED = "results truncated due to limit"

_NO_HISTOGRAMS = np.zeros(1, dtype=np.int64)
_NO_CODES = np.zeros(0, dtype=np.uint64)


class Texts(NamedTuple):
    """Many texts in one array: i is data[offsets[i]:offsets[i+1]]."""

    data: U8Array
    offsets: I64Array


class Keys(NamedTuple):
    """What opens and closes the points of a row."""

    values: U8Array
    histograms: U8Array
    close: U8Array


def _bytes(text: bytes) -> U8Array:
    return np.frombuffer(bytearray(text), dtype=np.uint8)


VECTOR_KEYS = Keys(_bytes(b',"value":'), _bytes(b',"histogram":'), _bytes(b""))
MATRIX_KEYS = Keys(_bytes(b',"values":['), _bytes(b',"histograms":['), _bytes(b"]"))


class Entries(NamedTuple):
    """Histograms of some rows: row i owns entries rows[i]..rows[i+1], each a time and a place in the pool."""

    rows: I64Array
    t_ms: I64Array
    chosen: I64Array


class RowSource(Protocol):
    """Rows of points: floats values[lows[i]:highs[i]], `counts[i]` of them present, and histograms. `codes`
    are the digits of the values where they were made beforehand, else empty."""

    labels: SeriesLabels
    values: npt.NDArray[np.float64]
    codes: U64Array
    lows: I64Array
    highs: I64Array
    counts: I64Array
    histogram_counts: I64Array
    pool: HistogramBatch | None

    def heads(self, rows: I64Array) -> tuple[Texts, I64Array]:
        """Heads of points for some rows, and for each the position its sample 0 would have among them."""
        ...

    def entries(self, rows: I64Array) -> Entries:
        """Histograms of some rows."""
        ...


def time_texts(t_ms: I64Array) -> Texts:
    """Texts of timestamps, with spare room behind the last for word loads."""
    data = np.empty((len(t_ms) + 1) * TIME_BYTES_MAX, dtype=np.uint8)
    offsets = np.empty(len(t_ms) + 1, dtype=np.int64)
    kernels.render_times(contiguous(t_ms, np.int64), data, offsets)
    return Texts(data, offsets)


def point_heads(t_ms: I64Array) -> Texts:
    """What stands before the values of points at these timestamps, with spare room behind the last."""
    data = np.empty((len(t_ms) + 1) * kernels.HEAD_BYTES_MAX, dtype=np.uint8)
    offsets = np.empty(len(t_ms) + 1, dtype=np.int64)
    kernels.render_heads(contiguous(t_ms, np.int64), data, offsets)
    return Texts(data, offsets)


def _quoted(labels: SeriesLabels) -> tuple[U32Array, U32Array, U8Array, I64Array]:
    """Names and values as indices into spans of quoted texts, the texts, and the spans."""
    symbols = labels.symbols
    ids = np.concatenate([labels.name_ids, labels.value_ids])
    if symbols.are_stored(ids):
        names, values = contiguous(labels.name_ids, np.uint32), contiguous(labels.value_ids, np.uint32)
        return names, values, *quoted_symbols(symbols.stored).of(ids)
    distinct, places = np.unique(ids, return_inverse=True)
    texts = [quote_label(text) for text in symbols.texts(distinct.tolist())]
    at = places.astype(np.uint32)
    pairs = len(labels.name_ids)
    return at[:pairs], at[pairs:], *joined(texts)


def label_texts(labels: SeriesLabels) -> Texts:
    """The label object of each series."""
    return labels.remembered(("json",), lambda: _label_texts(labels))


def _label_texts(labels: SeriesLabels) -> Texts:
    names, values, texts, spans = _quoted(labels)
    rows = np.empty(len(labels) + 1, dtype=np.int64)
    data = np.empty(len(names) * PAIR_BYTES_GUESS + 2 * len(labels), dtype=np.uint8)
    offsets = contiguous(labels.offsets, np.int64)
    size = kernels.render_labels(offsets, names, values, texts, spans, data, rows)
    if size > len(data):
        data = np.empty(size, dtype=np.uint8)
        kernels.render_labels(offsets, names, values, texts, spans, data, rows)
    return Texts(data[:size].copy() if labels.memo is not None else data, rows)


def label_sizes(labels: SeriesLabels, rows: I64Array) -> int:
    """Bytes of the label objects of some rows together."""
    if len(rows) < len(labels):
        labels = labels.take(rows)
    names, values, texts, spans = _quoted(labels)
    ends = np.empty(len(labels) + 1, dtype=np.int64)
    nowhere = np.empty(0, dtype=np.uint8)
    return kernels.render_labels(
        contiguous(labels.offsets, np.int64), names, values, texts, spans, nowhere, ends
    )


def label_objects(labels: SeriesLabels) -> Iterator[bytes]:
    """The label objects of all series, separated by commas, in pieces of CHUNK_ROWS_MAX."""
    if len(labels) <= CHUNK_ROWS_MAX:
        yield labels.remembered(("json list",), lambda: _joined_objects(labels))
        return
    for start in range(0, len(labels), CHUNK_ROWS_MAX):
        chunk = np.arange(start, min(start + CHUNK_ROWS_MAX, len(labels)))
        yield (b"," if start else b"") + _joined_objects(labels.take(chunk))


def _joined_objects(labels: SeriesLabels) -> bytes:
    texts = _label_texts(labels)
    data = texts.data.tobytes()
    return b",".join([data[lo:hi] for lo, hi in itertools.pairwise(texts.offsets.tolist())])


def histogram_texts(pool: HistogramBatch, chosen: I64Array) -> Texts:
    """JSON of histograms of a pool."""
    after = chosen + 1
    buckets = int((pool.pos_offsets[after] - pool.pos_offsets[chosen]).sum())
    buckets += int((pool.neg_offsets[after] - pool.neg_offsets[chosen]).sum())
    size = len(chosen) * renderhistogram.HISTOGRAM_BYTES_MAX + buckets * renderhistogram.BUCKET_BYTES_MAX
    data = np.empty(size, dtype=np.uint8)
    offsets = np.empty(len(chosen) + 1, dtype=np.int64)
    renderhistogram.render_histograms(
        contiguous(chosen, np.int64),
        contiguous(pool.schema, np.int32),
        contiguous(pool.zero_threshold, np.float64),
        contiguous(pool.zero_count, np.float64),
        contiguous(pool.count, np.float64),
        contiguous(pool.sum, np.float64),
        contiguous(pool.pos_offsets, np.int64),
        contiguous(pool.pos_index, np.int32),
        contiguous(pool.pos_count, np.float64),
        contiguous(pool.neg_offsets, np.int64),
        contiguous(pool.neg_index, np.int32),
        contiguous(pool.neg_count, np.float64),
        contiguous(pool.custom_offsets, np.int64),
        contiguous(pool.custom_values, np.float64),
        data,
        offsets,
    )
    return Texts(data, offsets)


def _count_points(values: npt.NDArray[np.float64], lows: I64Array, highs: I64Array) -> I64Array:
    counts = np.empty(len(lows), dtype=np.int64)
    kernels.count_points(values, lows, highs, counts)
    return counts


class MatrixRows:
    """Rows of a `Matrix`; all share the heads of the grid's points."""

    def __init__(self, matrix: Matrix) -> None:
        series, steps = matrix.values.shape
        self.labels = matrix.labels
        self.values = contiguous(matrix.values, np.float64).reshape(-1)
        self.lows = np.arange(series, dtype=np.int64) * steps
        self.highs = self.lows + steps
        self.codes = _NO_CODES
        self.counts = _count_points(self.values, self.lows, self.highs)
        self.pool: HistogramBatch | None = None
        self.histogram_counts = np.zeros(series, dtype=np.int64)
        self._times_ms = matrix.grid.times_ms()
        self._heads = point_heads(self._times_ms)
        if matrix.histograms is not None:
            self.pool = matrix.histograms.pool
            self._index = matrix.histograms.index
            self.histogram_counts = (self._index >= 0).sum(axis=1)

    def heads(self, rows: I64Array) -> tuple[Texts, I64Array]:
        """See `RowSource`."""
        return self._heads, self.lows if len(rows) == len(self.lows) else self.lows[rows]

    def entries(self, rows: I64Array) -> Entries:
        """See `RowSource`."""
        index = self._index[rows]
        places, steps = np.nonzero(index >= 0)
        return Entries(
            _offsets(self.histogram_counts[rows]),
            self._times_ms[steps],
            index[places, steps].astype(np.int64),
        )


class RangeVectorRows:
    """Rows of raw samples; each has its own times."""

    def __init__(self, labels: SeriesLabels, samples: SampleBatch) -> None:
        self.labels = labels
        self.values = contiguous(samples.values, np.float64)
        self.lows = contiguous(samples.offsets[:-1], np.int64)
        self.highs = contiguous(samples.offsets[1:], np.int64)
        self.codes = _NO_CODES
        self.counts = _count_points(self.values, self.lows, self.highs)
        self._t_ms = samples.t_ms
        self.pool = samples.histograms
        self.histogram_counts = np.zeros(len(labels), dtype=np.int64)
        if self.pool is not None:
            self._live = self.pool.sum.view(np.uint64) != np.uint64(STALE_BITS)
            running = _offsets(self._live)
            self.histogram_counts = np.diff(running[self.pool.row_offsets])

    def heads(self, rows: I64Array) -> tuple[Texts, I64Array]:
        """See `RowSource`; `rows` ascend."""
        lo, hi = int(self.lows[rows[0]]), int(self.highs[rows[-1]])
        return point_heads(self._t_ms[lo:hi]), np.full(len(rows), lo, dtype=np.int64)

    def entries(self, rows: I64Array) -> Entries:
        """See `RowSource`."""
        assert self.pool is not None
        starts = self.pool.row_offsets[rows]
        lengths = self.pool.row_offsets[rows + 1] - starts
        picked = np.repeat(starts - _offsets(lengths)[:-1], lengths) + np.arange(int(lengths.sum()))
        picked = picked[self._live[picked]]
        return Entries(_offsets(self.histogram_counts[rows]), self.pool.t_ms[picked], picked)


def _offsets(counts: npt.NDArray[Any]) -> I64Array:
    out = np.zeros(len(counts) + 1, dtype=np.int64)
    counts.cumsum(out=out[1:])
    return out


def _chunks(source: RowSource, rows: I64Array) -> Iterator[I64Array]:
    """Runs of rows, bounded in rows and in histograms."""
    start = 0
    if source.pool is None and 0 < len(rows) <= CHUNK_ROWS_MAX:
        yield rows
        return
    running = _offsets(source.histogram_counts[rows])
    while start < len(rows):
        stop = int(np.searchsorted(running, running[start] + CHUNK_HISTOGRAMS_MAX, side="right")) - 1
        stop = max(start + 1, min(stop, start + CHUNK_ROWS_MAX))
        yield rows[start:stop]
        start = stop


def filled_rows(source: RowSource) -> I64Array:
    """Rows that have a sample."""
    filled = source.counts > 0
    if source.pool is not None:
        filled |= source.histogram_counts > 0
    return filled.nonzero()[0]


def row_bytes(
    source: RowSource, rows: I64Array, keys: Keys, reuse: bool = False
) -> Iterator[bytes | memoryview]:
    """JSON of rows, separated by commas, in pieces of BUFFER_BYTES, then LATER_BUFFER_BYTES (more for a huge
    histogram). A piece is never written to again, or, with `reuse`, is overwritten by the next."""
    out = np.empty(BUFFER_BYTES, dtype=np.uint8)
    state = np.zeros(kernels.STATE_LENGTH, dtype=np.int64)
    empty = Texts(np.empty(0, dtype=np.uint8), _NO_HISTOGRAMS)
    for chunk in _chunks(source, rows):
        lows, highs, counts = source.lows, source.highs, source.counts
        if len(chunk) == len(lows):  # rows ascend
            labels = label_texts(source.labels)
        else:
            labels = label_texts(source.labels.take(chunk))
            lows, highs, counts = lows[chunk], highs[chunk], counts[chunk]
        heads, origins = source.heads(chunk)
        entry_rows = np.zeros(len(chunk) + 1, dtype=np.int64)
        entry_times, bodies = empty, empty
        if source.pool is not None:
            entry_rows, t_ms, chosen = source.entries(chunk)
            entry_times, bodies = time_texts(t_ms), histogram_texts(source.pool, chosen)
            longest = int((bodies.offsets[1:] - bodies.offsets[:-1]).max(initial=0))
            if longest + 1024 > len(out):
                out = np.empty(longest + BUFFER_BYTES, dtype=np.uint8)
        state[kernels.ROW] = 0
        while state[kernels.ROW] < len(chunk):
            size = kernels.render_rows(
                source.values,
                source.codes,
                lows,
                highs,
                counts,
                origins,
                *heads,
                *labels,
                keys.values,
                keys.close,
                entry_rows,
                *entry_times,
                *bodies,
                keys.histograms,
                state,
                out,
            )
            if reuse:
                yield out[:size].data
            elif 2 * size < len(out):
                yield out[:size].tobytes()
            else:
                yield out[:size].data
                out = np.empty(max(LATER_BUFFER_BYTES, len(out)), dtype=np.uint8)


def _time_text(t_ms: int) -> bytes:
    sign, magnitude = ("-", -t_ms) if t_ms < 0 else ("", t_ms)
    seconds, rest = divmod(magnitude, 1000)
    return f"{sign}{seconds}.{rest:03d}".encode() if rest else f"{sign}{seconds}".encode()


def point_json(t_ms: int, text: str) -> bytes:
    """`[t,"text"]` of a scalar or a string."""
    return b"[" + _time_text(t_ms) + b"," + quote(text) + b"]"


def value_text(value: float) -> str:
    """A single sample value as the API writes it."""
    return format_api(value)


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's result with all that the envelope says about it.

    `value` is as in `web.services.QueryResult`; `instant` tells a vector from a matrix of one step; `limit`
    > 0 keeps that many series.
    """

    value: Any
    instant: bool
    time_ms: int
    limit: int = 0
    warnings: Sequence[str] = ()
    infos: Sequence[str] = ()
    stats: Any = None


SERIES_END = b"]"
"""What stands behind the rows of a vector or a matrix."""


def series_start(kind: bytes) -> bytes:
    """What stands before the rows of a vector or a matrix."""
    return SUCCESS_START + b'{"resultType":"' + kind + b'","result":['


def shown_rows(answer: Answer, source: RowSource, warnings: list[str]) -> I64Array:
    """Rows that are answered; a warning is added where the limit leaves some out."""
    rows = filled_rows(source)
    if 0 < answer.limit < len(rows):
        rows = rows[: answer.limit]
        warnings.append(TRUNCATED)
    return rows


def answer_end(answer: Answer, warnings: Sequence[str]) -> bytes:
    """All that stands behind the value of an answer."""
    stats = b"" if answer.stats is None else b',"stats":' + encode(answer.stats)
    return stats + b"}" + success_end(warnings, answer.infos)


def _series_pieces(
    answer: Answer, source: RowSource, kind: bytes, keys: Keys, warnings: list[str]
) -> Iterator[bytes | memoryview]:
    yield series_start(kind)
    yield from row_bytes(source, shown_rows(answer, source, warnings), keys)
    yield SERIES_END


def _value_pieces(answer: Answer, warnings: list[str]) -> Iterator[bytes | memoryview]:
    value = answer.value
    if isinstance(value, Matrix):
        if answer.instant:
            return _series_pieces(answer, MatrixRows(value), b"vector", VECTOR_KEYS, warnings)
        return _series_pieces(answer, MatrixRows(value), b"matrix", MATRIX_KEYS, warnings)
    if isinstance(value, str):
        kind, text = b"string", value
    elif isinstance(value, float | int):
        kind, text = b"scalar", value_text(float(value))
    else:
        source = RangeVectorRows(value.labels, value.samples)
        return _series_pieces(answer, source, b"matrix", MATRIX_KEYS, warnings)
    start = SUCCESS_START + b'{"resultType":"' + kind + b'","result":'
    return iter((start, point_json(answer.time_ms, text)))


def answer_pieces(answer: Answer) -> Iterator[bytes | memoryview]:
    """The whole body of a query's answer, piece by piece."""
    warnings = list(answer.warnings)
    yield from _value_pieces(answer, warnings)
    yield answer_end(answer, warnings)
