"""What the store takes, on its way to a remote-write destination: relabelled, encoded, queued on disk, sent.

The store's writers hand over copies and go on; a thread of each destination does the rest, so that neither a
slow disk nor a dead receiver is felt by who writes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cramjam
import numpy as np

from ingest.clock import Clock, SystemClock
from ingest.config.remote import MESSAGES, RemoteWriteConfig
from ingest.diskqueue import DiskQueue
from ingest.httpclient import HTTPClient
from ingest.relabel import Relabeler
from ingest.remotewrite.encode import EncodedRequest, encode_requests
from ingest.remotewrite.encode1 import encode_metadata_v1, encode_requests_v1, label_bytes
from ingest.remotewrite.forwardmetrics import ForwardMetrics
from ingest.remotewrite.sender import Sender, SenderOptions
from tsdb.appender import take_columns
from tsdb.columns import (
    AppendResult,
    Exemplar,
    HistogramColumns,
    Metadata,
    SampleColumns,
    WriteBatch,
)
from tsdb.errors import StorageError
from tsdb.labels import METRIC_NAME, Labels

HANDOVER_SAMPLES_LIMIT = 2_000_000
"""Samples that wait in memory for a destination's thread; more are dropped and counted."""
SERIES_CACHED_LIMIT = 1_000_000
"""Series whose relabelled labels are kept; beyond it all are looked up anew."""

_log = logging.getLogger("vedette.remote_write")

LabelsOf = Callable[[Sequence[int]], "dict[int, Labels]"]
"""Label sets of refs of the store; refs that are dead are left out. Any thread."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a destination keeps its queue, and how large that may be."""

    folder: Path
    bytes_limit: int


class Outflow:
    """One destination. `offer` on any thread, the rest on the event loop."""

    def __init__(
        self,
        config: RemoteWriteConfig,
        external_labels: Mapping[str, str],
        labels_of: LabelsOf,
        place: Place,
        metrics: ForwardMetrics,
        user_agent: str,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Open the queue. Raises StorageError, OSError."""
        self.config = config
        self.external_labels = dict(external_labels)
        self._labels_of = labels_of
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._first_version = config.protobuf_message == MESSAGES[0]
        self._relabeler = Relabeler(config.write_relabel_configs)
        self._known: dict[int, Labels | None] = {}
        self._encoded: dict[int, bytes] = {}
        self._due: dict[str, Metadata] = {}
        self._waiting: deque[WriteBatch] = deque()
        self._waiting_count = 0
        self._filled = threading.Condition()
        self._stopping = False
        self._told_disk = False
        self._thread: threading.Thread | None = None
        self._queue = DiskQueue(
            place.folder, place.bytes_limit, on_drop=lambda count: metrics.dropped("queue_bytes", count)
        )
        self._http = HTTPClient(config, user_agent)
        self._sender = Sender(self._queue, self._http, _sender_options(config), metrics, clock=self._clock)
        metrics.limits(HANDOVER_SAMPLES_LIMIT, config.queue_config.max_samples_per_send)

    # From the store.

    def offer(self, batch: WriteBatch, result: AppendResult) -> None:
        """Take a copy of what the store has taken, whose arrays may be used again at once. Never waits."""
        wanted = self._copy(batch, result)
        count = _sample_count(wanted)
        if not count and not wanted.exemplars and not wanted.metadata:
            return
        with self._filled:
            if self._waiting_count + count > HANDOVER_SAMPLES_LIMIT or self._stopping:
                self._metrics.dropped("overload", count)
                return
            self._waiting.append(wanted)
            self._waiting_count += count
            self._filled.notify()
        self._metrics.taken.inc(count)

    def _copy(self, batch: WriteBatch, result: AppendResult) -> WriteBatch:
        samples: SampleColumns | None = None
        if batch.samples is not None and len(batch.samples.refs):
            # A boolean index copies, also where everything was stored.
            kept = result.codes == 0
            starts = batch.samples.start_t_ms
            samples = SampleColumns(
                batch.samples.refs[kept],
                batch.samples.t_ms[kept],
                batch.samples.values[kept],
                None if starts is None or self._first_version else starts[kept],
            )
        histograms: HistogramColumns | None = None
        if batch.histograms is not None and (self.config.send_native_histograms or not self._first_version):
            histograms = take_columns(batch.histograms, np.flatnonzero(result.histogram_codes == 0))
        return WriteBatch(
            samples,
            histograms,
            self._exemplars(batch, result),
            () if self._first_version else tuple(batch.metadata),
        )

    def _exemplars(self, batch: WriteBatch, result: AppendResult) -> Sequence[Exemplar]:
        if not self.config.send_exemplars:
            return ()
        refused = frozenset(result.refused_exemplars)
        return [each for at, each in enumerate(batch.exemplars) if at not in refused]

    def describe(self, families: Sequence[Metadata]) -> None:
        """Type and help of families, to be sent now (1.0) or with their next samples (2.0)."""
        with self._filled:
            if not self._stopping:
                self._waiting.append(WriteBatch(metadata=tuple(families)))
                self._filled.notify()

    # Life.

    async def start(self) -> None:
        """Begin to encode and to send; what an earlier run left is sent first."""
        self._thread = threading.Thread(
            target=self._run, name=f"remote-write-{self.config.name or self.config.url}"[:64], daemon=True
        )
        self._thread.start()
        await self._sender.start()

    async def stop(self, flush_seconds: float) -> None:
        """Put what was offered on disk, send for at most `flush_seconds`; the rest leaves after a start."""
        with self._filled:
            self._stopping = True
            self._filled.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        await self._sender.stop(flush_seconds)
        await self._http.close()
        left = self._queue.pending_items
        self._queue.close()
        if left:
            _log.info("samples wait on disk for the next start", extra={"url": self._url, "samples": left})

    @property
    def _url(self) -> str:
        return self.config.url

    def _run(self) -> None:
        while True:
            with self._filled:
                while not self._waiting and not self._stopping:
                    self._filled.wait()
                batches = list(self._waiting)
                self._waiting.clear()
                self._waiting_count = 0
            if not batches:
                return
            for batch in merged(batches):
                try:
                    self._ship(batch)
                except (StorageError, OSError) as error:
                    self._lost(batch, str(error))
                except Exception:
                    _log.exception("a batch could not be encoded", extra={"url": self._url})
                    self._metrics.dropped("error", _sample_count(batch))

    def _lost(self, batch: WriteBatch, reason: str) -> None:
        self._metrics.dropped("disk", _sample_count(batch))
        if not self._told_disk:
            self._told_disk = True
            _log.error("queue of remote write cannot be written", extra={"url": self._url, "reason": reason})

    # On the destination's thread.

    def _ship(self, batch: WriteBatch) -> None:
        self._look_up(batch)
        chosen = self._chosen(batch)
        self._metrics.exemplars.inc(len(chosen.exemplars))
        for request in self._requests(chosen):
            payload = bytes(cramjam.snappy.compress_raw(request.message))
            self._queue.append(payload, request.sample_count, request.newest_ms)
            if request.sample_count:
                self._metrics.queued(request.newest_ms)
        self._told_disk = False

    def _requests(self, batch: WriteBatch) -> Iterator[EncodedRequest]:
        size = self.config.queue_config.max_samples_per_send
        if not self._first_version:
            self._due.update((entry.family, entry) for entry in batch.metadata)
            waiting = len(self._due)
            yield from encode_requests(batch, self._kept_labels, self._due, size)
            self._metrics.metadata.inc(max(waiting - len(self._due), 0))
            return
        yield from encode_requests_v1(batch, self._encoded.__getitem__, size)
        limit = self.config.metadata_config.max_samples_per_send
        for at in range(0, len(batch.metadata), limit):
            entries = batch.metadata[at : at + limit]
            self._metrics.metadata.inc(len(entries))
            yield EncodedRequest(encode_metadata_v1(entries), 0, self._clock.now_ms())

    def _kept_labels(self, ref: int) -> Labels:
        labels = self._known[ref]
        assert labels is not None, "dropped series are left out before"
        return labels

    def _look_up(self, batch: WriteBatch) -> None:
        if len(self._known) > SERIES_CACHED_LIMIT:
            self._known.clear()
            self._encoded.clear()
        missing = {ref for ref in _refs(batch) if ref not in self._known}
        if not missing:
            return
        found = self._labels_of(sorted(missing))
        for ref in missing:
            labels = found.get(ref)
            if labels is None:
                # The series ended before its samples' turn came. Its ref will not come again.
                continue
            self._known[ref] = sent = self._outward(labels)
            if sent is not None and self._first_version:
                self._encoded[ref] = label_bytes(sent)

    def _outward(self, labels: Labels) -> Labels | None:
        """The labels that the destination sees, None where it shall not see the series."""
        if self.external_labels:
            changed = {**self.external_labels, **labels.to_dict()}
            labels = Labels.from_dict({name: value for name, value in changed.items() if value})
        sent = self._relabeler.process(labels)
        return sent if sent is not None and sent.get(METRIC_NAME) else None

    def _chosen(self, batch: WriteBatch) -> WriteBatch:
        """The batch without the series that are not sent, counted by why."""
        known = self._known
        samples, histograms = batch.samples, batch.histograms
        if samples is not None:
            kept = self._mask(samples.refs)
            if not kept.all():
                starts = samples.start_t_ms
                samples = SampleColumns(
                    samples.refs[kept],
                    samples.t_ms[kept],
                    samples.values[kept],
                    None if starts is None else starts[kept],
                )
        if histograms is not None:
            kept = self._mask(histograms.refs)
            if not kept.all():
                histograms = take_columns(histograms, np.flatnonzero(kept))
        exemplars: list[Exemplar] = [each for each in batch.exemplars if known.get(each.ref) is not None]
        return replace(batch, samples=samples, histograms=histograms, exemplars=exemplars)

    def _mask(
        self, refs: np.ndarray[tuple[int], np.dtype[np.uint32]]
    ) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        known = self._known
        listed = refs.tolist()
        kept = np.fromiter((known.get(ref) is not None for ref in listed), np.bool_, len(listed))
        if not kept.all():
            gone = sum(ref not in known for ref in listed)
            self._count("unintentionally_dropped_series", gone)
            self._count("dropped_series", int(np.count_nonzero(~kept)) - gone)
        return kept

    def _count(self, reason: str, count: int) -> None:
        if count:
            self._metrics.dropped(reason, count)


def merged(batches: Sequence[WriteBatch]) -> Iterator[WriteBatch]:
    """Batches in their order, neighbours of floats only joined: one request instead of many small ones."""
    run: list[WriteBatch] = []
    for batch in batches:
        if batch.histograms is not None:
            yield from _joined(run)
            run = []
            yield batch
        else:
            run.append(batch)
    yield from _joined(run)


def _joined(run: Sequence[WriteBatch]) -> Iterator[WriteBatch]:
    if len(run) < 2:
        yield from run
        return
    columns = [batch.samples for batch in run if batch.samples is not None]
    samples: SampleColumns | None = None
    if columns:
        starts = None
        if any(each.start_t_ms is not None for each in columns):
            none = (np.zeros(len(each.refs), np.int64) for each in columns)
            given = zip(columns, none, strict=True)
            starts = np.concatenate([zero if c.start_t_ms is None else c.start_t_ms for c, zero in given])
        samples = SampleColumns(
            np.concatenate([each.refs for each in columns]),
            np.concatenate([each.t_ms for each in columns]),
            np.concatenate([each.values for each in columns]),
            starts,
        )
    yield WriteBatch(
        samples,
        None,
        [each for batch in run for each in batch.exemplars],
        [each for batch in run for each in batch.metadata],
    )


def _refs(batch: WriteBatch) -> list[int]:
    refs: list[int] = [] if batch.samples is None else batch.samples.refs.tolist()
    if batch.histograms is not None:
        refs = refs + batch.histograms.refs.tolist()
    return refs


def _sample_count(batch: WriteBatch) -> int:
    floats = 0 if batch.samples is None else len(batch.samples.refs)
    return floats + (0 if batch.histograms is None else len(batch.histograms.refs))


def _sender_options(config: RemoteWriteConfig) -> SenderOptions:
    queue = config.queue_config
    version = 1 if config.protobuf_message == MESSAGES[0] else 2
    return SenderOptions(
        config.url,
        timeout_seconds=config.remote_timeout.seconds,
        backoff_seconds_min=queue.min_backoff.seconds,
        backoff_seconds_max=queue.max_backoff.seconds,
        age_limit_seconds=queue.sample_age_limit.seconds,
        # As Prometheus: what is about the endpoint ends the samples too.
        retried_statuses=frozenset({429} if queue.retry_on_http_429 else ()),
        headers=config.headers,
        version=version,
        confirmed=True,
        payload_version=version,
    )
