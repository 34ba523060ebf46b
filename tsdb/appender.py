"""The one way in: judge a batch, log it, store it, under the head's lock; acknowledge when the log is on
disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from tsdb.columns import AppendResult, HistogramColumns, Rejected, SampleColumns, WriteBatch
from tsdb.errors import ClosedError
from tsdb.exemplar import ExemplarStore
from tsdb.head import Head, LogBuffers, NewSeries
from tsdb.headhistograms import take
from tsdb.kernels import append as k
from tsdb.kernels.appendbatch import LOGGED, NEWEST_T, STORED, UNUSUAL
from tsdb.kernels.walcodec import CODED_PADDING, KEY_BYTES_LIMIT, VALUE_BYTES_LIMIT, encode_samples
from tsdb.labels import Labels
from tsdb.limits import Limits
from tsdb.metadata import MetadataStore
from tsdb.metrics import StorageMetrics
from tsdb.series import SLOT_MASK
from tsdb.wal import Wal
from tsdb.walrecords import (
    PayloadCodec,
    RecordType,
    encode_exemplars,
    encode_histograms,
    encode_metadata,
    encode_series,
    encode_starts,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

MESSAGES_LIMIT = 10
_NO_COUNTS = [0] * 256
_NO_REFS = np.empty(0, dtype=np.uint32)
_NO_TIMES = np.empty(0, dtype=np.int64)
_NO_BITS = np.empty(0, dtype=np.uint64)
_NO_CODES = np.empty(0, dtype=np.uint8)
_NO_UNDO = np.empty((0, 3), dtype=np.uint64)
LogRecord = tuple[int, bytes, bool]

_TEXTS = {
    Rejected.OUT_OF_ORDER: "out of order sample",
    Rejected.OUT_OF_BOUNDS: "out of bounds",
    Rejected.TOO_OLD: "too old sample",
    Rejected.DUPLICATE: "duplicate sample for timestamp",
    Rejected.UNKNOWN_SERIES: "unknown series",
    Rejected.INVALID_HISTOGRAM: "invalid histogram",
}


class _Column:
    """One kind of samples of a batch on its way in."""

    __slots__ = ("all_new", "bits", "codes", "counts", "refs", "start_t_ms", "t_ms", "undo")

    def __init__(
        self, refs: U32Array, t_ms: I64Array, bits: U64Array, start_t_ms: I64Array | None = None
    ) -> None:
        self.refs, self.t_ms, self.bits, self.start_t_ms = refs, t_ms, bits, start_t_ms
        self.codes: U8Array = _NO_CODES
        self.undo: U64Array = _NO_UNDO
        self.counts: list[int] = _NO_COUNTS
        """Samples of each code."""
        self.all_new = False
        """Whether every sample was accepted, which is all that is counted then."""

    def judged(self, codes: U8Array, undo: U64Array) -> None:
        """Note what the head decided."""
        self.codes, self.undo = codes, undo
        self.counts = np.bincount(codes, minlength=len(_NO_COUNTS)).tolist()

    def refused(self) -> int:
        """Samples that were not accepted."""
        return sum(self.counts[k.ACCEPTED + 1 : k.COMPARE])


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


_DONE = _done()
"""What is durable because there is nothing to log."""


class HeadAppender:
    """`columns.Appender` over head and log. Any thread may call; calls are serialised by the head's lock."""

    def __init__(
        self,
        head: Head,
        wal: Wal,
        limits: Limits,
        exemplars: ExemplarStore,
        metadata: MetadataStore,
        metrics: StorageMetrics,
        now_ms: Callable[[], int],
        newest_t: dict[int, int],
        *,
        start_timestamps: bool = False,
    ) -> None:
        """`newest_t` collects the newest sample time of each segment of the log; start timestamps are dropped
        without `start_timestamps`."""
        self._head, self._wal = head, wal
        self.limits = limits
        """Of the next call; a reload may set others."""
        self._exemplars, self._metadata, self._metrics = exemplars, metadata, metrics
        self._now_ms = now_ms
        self._newest_t = newest_t
        self._start_timestamps = start_timestamps
        self._codec = PayloadCodec()
        self._log = LogBuffers()
        self._refused_exemplars: Sequence[int] = ()
        """Of the batch that holds the head's lock."""
        self.listeners: tuple[Callable[[WriteBatch, AppendResult], None], ...] = ()
        """Called with each batch of which something was stored, in the order of storing, under the head's
        lock: they must copy what they keep and return at once."""
        self.closed = False
        self.active = 0
        """Appends that hold or wait for the head's lock."""
        self.batches = 0
        """Batches stored since the start."""

    def refs(self, rows: Sequence[Labels]) -> U32Array:
        """Refs of label sets, creating series as needed.

        Raises InvalidLabelsError or LimitError for the first bad row, having created none.
        """
        for row in rows:
            self.limits.check_labels(row)
        self._wal.check()
        with self._head.lock:
            if self.closed:
                raise ClosedError("the database is closed")
            refs, new = self._head.find_or_create(rows, self.limits.check_series)
            if new is not None:
                self._wal.log([self._series_record(new)])
                self._metrics.series_created.inc(len(new.refs))
        return refs

    def _series_record(self, new: NewSeries) -> LogRecord:
        return (RecordType.SERIES, *self._codec.pack(encode_series(new, self._head.symbols)))

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        """Validate, log and store a batch; see `columns.Appender.append`."""
        head = self._head
        if not self._start_timestamps:
            batch = _without_starts(batch)
        floats = _float_column(batch.samples)
        histograms = _histogram_column(batch.histograms)
        self._wal.check()
        self.active += 1
        try:
            with head.lock:
                result = self._append(floats, histograms, batch, atomic, now_ms)
                if self.listeners and (result.stored_count or not (len(floats.refs) or len(histograms.refs))):
                    for listener in self.listeners:
                        listener(batch, result)
                return result
        finally:
            self.active -= 1

    def _append(
        self, floats: _Column, histograms: _Column, batch: WriteBatch, atomic: bool, now_ms: int | None
    ) -> AppendResult:
        """The part of `append` under the head's lock."""
        head = self._head
        if self.closed:
            raise ClosedError("the database is closed")
        head.check_room(len(floats.refs))
        if now_ms is None:
            now_ms = self._now_ms()
        if batch.histograms is None and floats.start_t_ms is None and len(floats.refs):
            records = self._append_plain(floats, batch, now_ms)
            if records is not None:
                return self._logged(floats, histograms, records, int(self._log.outcome[NEWEST_T]))
        else:
            if batch.histograms is not None:
                head.histograms.check_room(batch.histograms.batch)
            self._admit(floats, batch.histograms, histograms, now_ms)
        refused = floats.refused() + histograms.refused()
        messages = self._messages(floats, histograms) if refused else ()
        if atomic and refused:
            head.retract(histograms.refs, histograms.codes, histograms.undo)
            head.retract(floats.refs, floats.codes, floats.undo)
            self._count(floats, histograms, stored=False)
            return _result(floats, histograms, 0, _DONE, messages)
        records = self._records(floats, batch, histograms)
        sealed = int(head.counters[k.SEALED_END])
        head.store(floats.refs, floats.t_ms, floats.bits, floats.codes, floats.start_t_ms)
        self._count_chunks(sealed)
        if batch.histograms is not None:
            head.store_histograms(batch.histograms, histograms.codes)
        times = [int(column.t_ms.max()) for column in (floats, histograms) if len(column.t_ms)]
        # A refused sample may be far ahead; accepted ones are not ahead of the head.
        newest = min(max(times, default=head.max_time), head.max_time)
        return self._logged(floats, histograms, records, newest, refused, messages)

    def _append_plain(self, floats: _Column, batch: WriteBatch, now_ms: int) -> list[LogRecord] | None:
        """Judge floats and, where all are accepted, store them; what is to be logged then, else None."""
        head, log = self._head, self._log
        rules = head.rules(now_ms, min(int(floats.t_ms[0]), now_ms))
        sealed = int(head.counters[k.SEALED_END])
        codes, undo = head.append_plain(floats.refs, floats.t_ms, floats.bits, rules, self._wal.segment, log)
        outcome = log.outcome.tolist()
        if outcome[STORED] == UNUSUAL:
            floats.judged(codes, undo)
            return None
        logged = outcome[LOGGED]
        floats.codes, floats.all_new = codes, logged == len(codes)
        if not floats.all_new:
            floats.counts = [0] * len(_NO_COUNTS)
            floats.counts[k.ACCEPTED], floats.counts[k.REPEATED] = logged, len(codes) - logged
        self._count_chunks(sealed)
        records = self._side_records(batch)
        if logged:
            refs_size, times_size, coded_size = outcome[:LOGGED]
            keys, coded = log.keys[: refs_size + times_size].data, log.coded[:coded_size].data
            payload = self._codec.pack_samples(logged, refs_size, times_size, keys, coded)
            records.insert(0, (RecordType.SAMPLES, payload, False))
        return records

    def _count_chunks(self, sealed: int) -> None:
        made = int(self._head.counters[k.SEALED_END]) - sealed
        if made:
            self._metrics.chunks_created.inc(made)

    def _logged(
        self,
        floats: _Column,
        histograms: _Column,
        records: list[LogRecord],
        newest: int,
        refused: int = 0,
        messages: Sequence[str] = (),
    ) -> AppendResult:
        """Log what the head has stored under the lock that is still held, and count it."""
        durable = _DONE
        if records:
            segment = self._wal.segment
            durable = self._wal.log(records)
            self._newest_t[segment] = max(self._newest_t.get(segment, newest), newest)
        self.batches += 1
        if floats.all_new:
            count = len(floats.codes)
            self._metrics.floats_appended.inc(count)
            return AppendResult(floats.codes, _NO_CODES, count, durable, (), self._refused_exemplars)
        self._count(floats, histograms, stored=True)
        stored = len(floats.codes) + len(histograms.codes) - refused
        return _result(floats, histograms, stored, durable, messages, self._refused_exemplars)

    def _admit(
        self, floats: _Column, columns: HistogramColumns | None, histograms: _Column, now_ms: int
    ) -> None:
        head = self._head
        first_t = _first_time(floats, histograms, now_ms)
        rules = head.rules(now_ms, first_t)
        if len(floats.refs):
            floats.judged(*head.admit(floats.refs, floats.t_ms, floats.bits, rules))
        if columns is not None:
            rules = head.rules(now_ms, first_t, histograms=True)
            histograms.judged(*head.admit_histograms(columns, rules))

    def _records(self, floats: _Column, batch: WriteBatch, histograms: _Column) -> list[LogRecord]:
        """What of a batch is to be logged."""
        records: list[LogRecord] = []
        for wanted, kind in ((k.ACCEPTED, RecordType.SAMPLES), (k.LATE, RecordType.LATE_SAMPLES)):
            if floats.counts[wanted]:
                if floats.start_t_ms is not None:
                    starts = floats.start_t_ms[floats.codes == wanted]
                    if starts.any():
                        records.append((RecordType.STARTS, *self._codec.pack(encode_starts(starts))))
                records.append((kind, self._samples(floats, wanted), False))
        if batch.histograms is not None:
            rows = np.flatnonzero((histograms.codes == k.ACCEPTED) | (histograms.codes == k.LATE))
            if len(rows):
                picked = batch.histograms
                if len(rows) < len(histograms.refs):
                    picked = take_columns(picked, rows)
                records.append((RecordType.HISTOGRAMS, *self._codec.pack(encode_histograms(picked))))
        return records + self._side_records(batch)

    def _side_records(self, batch: WriteBatch) -> list[LogRecord]:
        """What of exemplars and metadata is to be logged; they are stored on the way."""
        records: list[LogRecord] = []
        self._refused_exemplars = ()
        if batch.exemplars:
            exemplars, self._refused_exemplars = self._exemplars.add(batch.exemplars)
            self._metrics.exemplars_out_of_order.inc(len(self._refused_exemplars))
            self._metrics.exemplars_appended.inc(len(exemplars))
            if exemplars:
                records.append((RecordType.EXEMPLARS, *self._codec.pack(encode_exemplars(exemplars))))
        if batch.metadata:
            changed = self._metadata.update(batch.metadata)
            if changed:
                records.append((RecordType.METADATA, *self._codec.pack(encode_metadata(changed))))
        return records

    def _samples(self, floats: _Column, wanted: int) -> bytes:
        count = len(floats.refs)
        keys = np.empty(count * KEY_BYTES_LIMIT, dtype=np.uint8)
        coded = np.empty(count * VALUE_BYTES_LIMIT + CODED_PADDING, dtype=np.uint8)
        sizes = np.empty(3, dtype=np.int64)
        written = encode_samples(
            floats.refs,
            floats.t_ms,
            floats.bits,
            floats.codes,
            wanted,
            self._wal.segment,
            floats.undo,
            self._head.rows,
            keys,
            coded,
            sizes,
        )
        refs_size, times_size, coded_size = sizes.tolist()
        return self._codec.pack_samples(
            written, refs_size, times_size, keys[: refs_size + times_size].data, coded[:coded_size].data
        )

    def _messages(self, floats: _Column, histograms: _Column) -> Sequence[str]:
        found: list[str] = []
        for column in (floats, histograms):
            refused = np.flatnonzero((column.codes != k.ACCEPTED) & (column.codes < k.COMPARE))
            shown = refused[: MESSAGES_LIMIT - len(found)].tolist()
            found.extend(self._message(column, i) for i in shown)
        return found

    def _message(self, column: _Column, i: int) -> str:
        code = Rejected(int(column.codes[i]))
        if code is not Rejected.DUPLICATE:
            return _TEXTS[code]
        row = self._head.rows[int(column.refs[i]) & SLOT_MASK]
        t = int(column.t_ms[i])
        text = f"duplicate sample for timestamp {t}"
        if int(row[k.LAST_T]) != t or int(row[k.META]) & k.LAST_IS_HISTOGRAM:
            return text
        old, new = (float(bits.view(np.float64)) for bits in (row[k.LAST_V], column.bits[i]))
        return f"{text}; overrides not allowed: existing {_shortest(old)}, new value {_shortest(new)}"

    def _count(self, floats: _Column, histograms: _Column, stored: bool) -> None:
        metrics = self._metrics
        for column, kind in ((floats, "float"), (histograms, "histogram")):
            if not len(column.codes):
                continue
            counts = column.counts
            if stored:
                appended, late = counts[k.ACCEPTED] + counts[k.REPEATED], counts[k.LATE]
                if late:
                    behind = self._head.max_time - int(column.t_ms[column.codes == k.LATE].min())
                    metrics.late_delta.observe(behind / 1000)
                if kind == "float":
                    metrics.floats_appended.inc(appended + late)
                    if late:
                        metrics.late_floats_appended.inc(late)
                else:
                    metrics.histograms_appended.inc(appended + late)
                    if late:
                        metrics.late_histograms_appended.inc(late)
            for code, counter in (
                (k.OUT_OF_ORDER, metrics.out_of_order),
                (k.OUT_OF_BOUNDS, metrics.out_of_bounds),
                (k.TOO_OLD, metrics.too_old),
            ):
                if counts[code]:
                    counter.labels(kind).inc(counts[code])
            if counts[k.DUPLICATE]:
                metrics.duplicates.inc(counts[k.DUPLICATE])
            if counts[k.UNKNOWN_SERIES]:
                metrics.series_not_found.inc(counts[k.UNKNOWN_SERIES])


def take_columns(columns: HistogramColumns, rows: npt.NDArray[np.intp]) -> HistogramColumns:
    """Some of the samples."""
    return HistogramColumns(columns.refs[rows], take(columns.batch, rows, np.zeros(1, dtype=np.int64)))


def _shortest(value: float) -> str:
    """A float as Go's %g prints it: shortest digits, an exponent below 1e-4 and from 1e6."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if -4 <= int(exponent) < 6:
        return f"{Decimal(repr(value)).normalize():f}"
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"


def _without_starts(batch: WriteBatch) -> WriteBatch:
    if batch.samples is not None and batch.samples.start_t_ms is not None:
        batch = replace(batch, samples=replace(batch.samples, start_t_ms=None))
    if batch.histograms is not None and batch.histograms.batch.start_t_ms is not None:
        histograms = replace(batch.histograms.batch, start_t_ms=None)
        batch = replace(batch, histograms=replace(batch.histograms, batch=histograms))
    return batch


def _float_column(samples: SampleColumns | None) -> _Column:
    if samples is None:
        return _Column(_NO_REFS, _NO_TIMES, _NO_BITS)
    return _Column(
        np.ascontiguousarray(samples.refs, dtype=np.uint32),
        np.ascontiguousarray(samples.t_ms, dtype=np.int64),
        np.ascontiguousarray(samples.values).view(np.uint64),
        samples.start_t_ms,
    )


def _histogram_column(columns: HistogramColumns | None) -> _Column:
    if columns is None:
        return _float_column(None)
    count = len(columns.batch)
    return _Column(columns.refs, columns.batch.t_ms, np.zeros(count, dtype=np.uint64))


def _first_time(floats: _Column, histograms: _Column, now_ms: int) -> int:
    """The first sample's time, which an empty head takes as its newest, if the clock allows it."""
    for column in (floats, histograms):
        if len(column.t_ms):
            return min(int(column.t_ms[0]), now_ms)
    return now_ms


def _result(
    floats: _Column,
    histograms: _Column,
    stored: int,
    durable: Future[None],
    messages: Sequence[str],
    refused_exemplars: Sequence[int] = (),
) -> AppendResult:
    codes, histogram_codes = (
        np.where(column.codes >= k.COMPARE, np.uint8(Rejected.NO), column.codes)
        if any(column.counts[k.COMPARE :])
        else column.codes
        for column in (floats, histograms)
    )
    return AppendResult(codes, histogram_codes, stored, durable, messages, refused_exemplars)
