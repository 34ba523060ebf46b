"""An appender that stores nothing here: samples go to a queue on disk, from where they are sent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import cramjam
import numpy as np

from ingest.clock import Clock, SystemClock
from ingest.diskqueue import DiskQueue
from ingest.remotewrite.encode import SAMPLES_PER_REQUEST, EncodedRequest, encode_requests
from ingest.remotewrite.forwardmetrics import ForwardMetrics
from tsdb.appender import take_columns
from tsdb.columns import AppendResult, Metadata, Rejected, SampleColumns, U8Array, U32Array, WriteBatch
from tsdb.errors import InvalidLabelsError, LimitError, StorageError
from tsdb.labels import METRIC_NAME, Labels

SERIES_COUNT_LIMIT = 500_000
SERIES_IDLE_MS = 3_600_000
"""A series without samples for this long is forgotten; whoever holds its ref looks it up again."""
METADATA_INTERVAL_MS = 600_000
"""Type and help of a family are sent again this often, should the server have lost them."""

_PURGE_INTERVAL_MS = 300_000


class ForwardAppender:
    """The store's write interface over a queue. Any thread; calls are serialised.

    What the store would check against samples it has (order, duplicates) is left to the server.
    """

    def __init__(
        self,
        queue: DiskQueue,
        metrics: ForwardMetrics,
        *,
        samples_per_request: int = SAMPLES_PER_REQUEST,
        series_limit: int = SERIES_COUNT_LIMIT,
        clock: Clock | None = None,
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._samples_per_request = samples_per_request
        self._series_limit = series_limit
        self._clock = clock or SystemClock()
        self._guard = threading.Lock()
        self._refs: dict[Labels, int] = {}
        self._labels: dict[int, Labels] = {}
        self._used_ms: dict[int, int] = {}
        self._next_ref = 0
        self._families: dict[str, Metadata] = {}
        self._due: dict[str, Metadata] = {}
        self._described_ms = self._purged_ms = self._clock.now_ms()

    def refs(self, rows: Sequence[Labels]) -> U32Array:
        """Refs of label sets. Raises InvalidLabelsError, LimitError."""
        with self._guard:
            for row in rows:
                if not row.get(METRIC_NAME):
                    raise InvalidLabelsError(f"series {row} has no metric name")
            new = len({row for row in rows if row not in self._refs})
            if len(self._refs) + new > self._series_limit:
                raise LimitError(f"{len(self._refs) + new} series to send, the limit is {self._series_limit}")
            return np.fromiter((self._ref(row) for row in rows), np.uint32, len(rows))

    def _ref(self, row: Labels) -> int:
        ref = self._refs.get(row)
        if ref is None:
            # Never one that was used before: somebody may still hold it.
            ref = self._refs[row] = self._next_ref
            self._next_ref += 1
            self._labels[ref] = row
        self._used_ms[ref] = self._clock.now_ms()
        return ref

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        """Put a batch into the queue; durable on return. Raises DiskFullError, ClosedError, StorageError."""
        with self._guard:
            codes, histogram_codes = self._unknown(batch)
            if atomic and (codes.any() or histogram_codes.any()):
                return _result(codes, histogram_codes, 0)
            self._describe(batch.metadata)
            for request in encode_requests(
                _without(batch, codes, histogram_codes),
                self._labels.__getitem__,
                self._due,
                self._samples_per_request,
            ):
                self._put(request)
            self._purge()
            stored = int(np.count_nonzero(codes == 0) + np.count_nonzero(histogram_codes == 0))
            return _result(codes, histogram_codes, stored)

    def _unknown(self, batch: WriteBatch) -> tuple[U8Array, U8Array]:
        now_ms = self._clock.now_ms()

        def judge(refs: U32Array) -> U8Array:
            codes = np.zeros(len(refs), np.uint8)
            for at, ref in enumerate(refs.tolist()):
                if ref in self._labels:
                    self._used_ms[ref] = now_ms
                else:
                    codes[at] = Rejected.UNKNOWN_SERIES
            return codes

        none = np.empty(0, np.uint32)
        return (
            judge(none if batch.samples is None else batch.samples.refs),
            judge(none if batch.histograms is None else batch.histograms.refs),
        )

    def _describe(self, metadata: Sequence[Metadata]) -> None:
        for entry in metadata:
            self._families[entry.family] = self._due[entry.family] = entry
        now_ms = self._clock.now_ms()
        if now_ms - self._described_ms >= METADATA_INTERVAL_MS:
            self._described_ms = now_ms
            self._due.update(self._families)

    def _put(self, request: EncodedRequest) -> None:
        payload = bytes(cramjam.snappy.compress_raw(request.message))
        try:
            self._queue.append(payload, request.sample_count, request.newest_ms)
        except OSError as error:
            raise StorageError(f"write to the queue of remote write: {error}") from error
        self._metrics.queued(request.newest_ms)

    def _purge(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._purged_ms < _PURGE_INTERVAL_MS:
            return
        self._purged_ms = now_ms
        for ref in [ref for ref, used in self._used_ms.items() if now_ms - used > SERIES_IDLE_MS]:
            del self._refs[self._labels.pop(ref)], self._used_ms[ref]


def _result(codes: U8Array, histogram_codes: U8Array, stored_count: int) -> AppendResult:
    durable: Future[None] = Future()
    durable.set_result(None)
    return AppendResult(codes, histogram_codes, stored_count, durable)


def _without(batch: WriteBatch, codes: U8Array, histogram_codes: U8Array) -> WriteBatch:
    """The batch less the samples that have a code."""
    samples, histograms = batch.samples, batch.histograms
    if samples is not None and codes.any():
        kept = codes == 0
        starts = None if samples.start_t_ms is None else samples.start_t_ms[kept]
        samples = SampleColumns(samples.refs[kept], samples.t_ms[kept], samples.values[kept], starts)
    if histograms is not None and histogram_codes.any():
        histograms = take_columns(histograms, np.flatnonzero(histogram_codes == 0))
    return WriteBatch(samples, histograms, batch.exemplars, batch.metadata)
