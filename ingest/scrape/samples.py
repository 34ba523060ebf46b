"""One target's samples on their way into the store: labels, limits, staleness, report series (surface 6.2).

All that a scrape stores is one `WriteBatch`: its samples, the stale markers of what disappeared, and the
report series, so that a query sees the whole scrape or nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingest.kernels import exposition
from ingest.metrics import ScrapeMetrics
from ingest.relabel import Relabeler
from ingest.remotewrite.nativehistogram import to_batch
from ingest.scrape.accept import PROTOBUF
from ingest.scrape.histogramlimit import BucketLimitError
from ingest.scrape.mergelabels import merge_labels
from ingest.scrape.openmetrics import parse_exemplar
from ingest.scrape.protobuf import HistogramChoice, ProtobufBody, read_protobuf
from ingest.scrape.seriescache import NO_REF, SeriesCache
from ingest.scrape.text import (
    ExpositionError,
    Scanned,
    metadata_lines,
    metadata_of,
    metric_types,
    normalized,
    parse_labels,
    scan_body,
)
from ingest.validate import UTF8, LabelLimits, is_label_name, is_metric_name
from tsdb.columns import (
    Appender,
    AppendResult,
    Exemplar,
    HistogramColumns,
    Metadata,
    Rejected,
    SampleColumns,
    WriteBatch,
)
from tsdb.errors import InvalidLabelsError, LimitError
from tsdb.labels import METRIC_NAME, Labels
from tsdb.select import STALE_BITS

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

_NORMALIZED_TYPES = ("", "histogram", "summary")
_KIND_TYPE_MASK = 3
_KIND_MODE_SHIFT = 2

_STALE = np.array([STALE_BITS], dtype=np.uint64)

REPORT_METRICS = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
EXTRA_REPORT_METRICS = ("scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes")


class ScrapeError(Exception):
    """Why a scrape failed, in words for the targets page. `body_bytes` is -1 when the body was too large."""

    def __init__(self, message: str, body_bytes: int = 0) -> None:
        super().__init__(message)
        self.body_bytes = body_bytes


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """What a job says about its samples."""

    honor_labels: bool = False
    honor_timestamps: bool = True
    track_timestamps_staleness: bool = False
    relabeler: Relabeler = field(default_factory=lambda: Relabeler(()))
    label_limits: LabelLimits = field(default_factory=LabelLimits)
    sample_limit: int = 0
    scheme: str = UTF8
    exemplars: bool = False
    extra_metrics: bool = False
    timeout_seconds: float = 0.0
    histograms: HistogramChoice = field(default_factory=HistogramChoice)


@dataclass(frozen=True, slots=True)
class Body:
    """A decompressed body and its format (a mode of the exposition kernel)."""

    data: bytes
    mode: int


@dataclass(slots=True)
class Outcome:
    """What became of one scrape."""

    error: str = ""
    scraped: int = 0
    post_relabel: int = 0
    added: int = 0
    durable: AppendResult | None = None


@dataclass(slots=True)
class _Columns:
    refs: U32Array
    t_ms: I64Array
    values: F64Array
    exemplars: Sequence[Exemplar] = ()
    histograms: HistogramColumns | None = None
    histogram_slots: npt.NDArray[np.int32] | None = None


class TargetSamples:
    """Series cache and metadata of one target. One thread at a time; the loop of the target sees to it."""

    def __init__(
        self,
        appender: Appender,
        labels: Labels,
        options: SampleOptions,
        metrics: ScrapeMetrics,
        seed: int = 0,
    ) -> None:
        self._appender = appender
        self._labels = labels
        self._options = options
        self._metrics = metrics
        self._cache = SeriesCache(seed)
        self._report_refs: U32Array | None = None
        self._metadata_hash: tuple[int, int] | None = None
        self._types: tuple[I64Array, list[str]] | None = None
        self._inherited: U32Array = np.empty(0, np.uint32)
        self._kept: tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]] | None = None
        self.metadata: dict[str, Metadata] = {}

    def adopt(self, other: TargetSamples) -> None:
        """Continue where the samples of the same target under an older configuration stopped.

        Series texts are looked up again, because relabelling may have changed; what is not scraped any more
        gets its stale marker in the first scrape.
        """
        self._inherited = other._tracked()

    def store(
        self,
        body: Body | None,
        failure: ScrapeError | None,
        t_ms: int,
        elapsed: Callable[[], float],
        now_ms: int | None = None,
    ) -> Outcome:
        """Store a scrape at `t_ms`: the samples of `body`, or stale markers where it failed.

        `elapsed` gives the seconds since the scrape began. Raises StorageError when nothing could be stored.
        """
        outcome = Outcome(error=str(failure) if failure else "")
        tracked = self._tracked()
        columns = None
        metadata: Sequence[Metadata] = ()
        if failure is None and body is not None:
            try:
                protobuf = None
                if body.mode == PROTOBUF:
                    protobuf = read_protobuf(body.data, self._options.histograms)
                    scanned = scan_body(protobuf.text(), exposition.TEXT, self._cache.seed)
                    metadata = self._changed_metadata(protobuf.families)
                else:
                    scanned = scan_body(body.data, body.mode, self._cache.seed)
                    metadata = self._read_metadata(scanned)
                columns = self._samples(scanned, protobuf, t_ms, outcome)
            except ExpositionError as error:
                outcome.scraped = max(outcome.scraped, error.sample_count)
                outcome.error = str(error)
                if isinstance(error.__cause__, BucketLimitError):
                    self._metrics.count("exceeded_native_histogram_bucket_limit")
            except ScrapeError as error:
                outcome.error = str(error)
        vanished = tracked if columns is None else self._vanished(tracked)
        size = len(body.data) if body is not None else (failure.body_bytes if failure else 0)
        batch = self._batch(columns, vanished, self._report(outcome, elapsed(), size), t_ms, metadata)
        result = self._append(batch, columns, now_ms)
        if columns is None:
            self._cache.fail()
        else:
            self._metrics.count("cache_flush_forced", int(self._cache.commit()))
            self._count_refused(result, len(columns.refs))
        self._inherited = np.empty(0, np.uint32)
        outcome.durable = result
        return outcome

    def end(self, t_ms: int) -> AppendResult:
        """Stale markers for everything the target ever tracked last, and for its report series."""
        refs = np.concatenate((self._tracked(), self._resolved_report_refs()))
        self._cache.fail()
        return self._appender.append(WriteBatch(samples=_stale_markers(refs, t_ms)))

    def _tracked(self) -> U32Array:
        if len(self._inherited):
            return self._inherited
        return self._cache.tracked_refs()

    def _vanished(self, tracked: U32Array) -> U32Array:
        return self._cache.vanished_refs(tracked) if len(tracked) else tracked

    def _samples(
        self, scanned: Scanned, protobuf: ProtobufBody | None, t_ms: int, outcome: Outcome
    ) -> _Columns:
        outcome.scraped = scanned.count
        options, cache = self._options, self._cache
        slots, misses = cache.lookup(scanned)
        if misses:
            self._add_series(scanned, slots, outcome)
        honored = scanned.timed if options.honor_timestamps else np.zeros_like(scanned.timed)
        observed = cache.observe(slots, honored, options.track_timestamps_staleness)
        outcome.post_relabel, outcome.added = observed.post_relabel_count, observed.added_count
        self._metrics.count("sample_duplicate_timestamp", observed.repeated_count)
        if options.sample_limit and observed.kept_count > options.sample_limit:
            self._metrics.count("exceeded_sample_limit")
            raise ScrapeError("sample limit exceeded")
        keep = observed.keep == 1
        if observed.kept_count == scanned.count:
            refs, values, times = cache.refs[slots], scanned.values, scanned.t_ms
        else:
            refs, values = cache.refs[slots[keep]], scanned.values[keep]
            times, honored = scanned.t_ms[keep], honored[keep]
        times = np.where(honored != 0, times, t_ms)
        exemplars: Sequence[Exemplar] = ()
        if options.exemplars and protobuf is None:
            exemplars = self._exemplars(scanned, slots, keep, t_ms)
        elif options.exemplars and protobuf is not None:
            exemplars = self._protobuf_exemplars(protobuf, slots, keep, t_ms)
        self._kept = (slots, keep)
        columns = _Columns(refs, times, values, exemplars)
        if protobuf is not None and protobuf.histograms:
            self._split_histograms(protobuf, slots, keep, columns)
        return columns

    def _add_series(self, scanned: Scanned, slots: npt.NDArray[np.int32], outcome: Outcome) -> None:
        """Slots for the series texts that were never seen: the only Python per series."""
        missing = np.flatnonzero(slots < 0)
        first_of: dict[bytes, int] = {}
        texts: list[bytes] = []
        rows: list[Labels] = []
        kept: list[int] = []
        positions: list[int] = []
        kinds: list[int] = []
        for i in missing.tolist():
            text = scanned.series_text(i)
            if text in first_of:
                continue
            first_of[text] = len(texts)
            try:
                kind = self._kind_at(scanned, int(scanned.starts[i]))
                labels = self._resolve(text, kind)
            except (ValueError, ScrapeError) as error:
                outcome.scraped = i
                if isinstance(error, ScrapeError):
                    raise
                raise ExpositionError(scanned.line_of(int(scanned.starts[i])), str(error), i) from None
            if labels is not None:
                kept.append(len(texts))
                rows.append(labels)
            positions.append(i)
            kinds.append(kind)
            texts.append(text)
        refs = np.full(len(texts), NO_REF, np.uint32)
        try:
            refs[kept] = self._appender.refs(rows) if rows else 0
        except (InvalidLabelsError, LimitError) as error:
            raise ScrapeError(str(error)) from None
        new = self._cache.add(texts, scanned.hashes[positions], refs, np.array(kinds, np.uint8))
        for i in missing.tolist():
            slots[i] = new[first_of[scanned.series_text(i)]]

    def _resolve(self, text: bytes, kind: int) -> Labels | None:
        """The labels to store a series text under, None where relabelling drops it."""
        mode, metric_type = kind >> _KIND_MODE_SHIFT, _NORMALIZED_TYPES[kind & _KIND_TYPE_MASK]
        pairs = normalized(parse_labels(text, mode), metric_type)
        names = {name for name, _ in pairs}
        if len(names) != len(pairs):
            raise ValueError(f"label names are not unique: {text[:80].decode(errors='replace')}")
        options = self._options
        labels = merge_labels(dict(pairs), self._labels, options.honor_labels)
        if not options.relabeler.apply(labels) or not labels:
            return None
        if METRIC_NAME not in labels:
            raise ScrapeError("missing metric name (__name__ label)")
        if not is_metric_name(labels[METRIC_NAME], options.scheme) or not all(
            is_label_name(name, options.scheme) for name in labels if name != METRIC_NAME
        ):
            raise ScrapeError(f"invalid metric name or label names: {Labels.from_dict(labels)}")
        wrong = options.label_limits.violation(labels.items())
        if wrong:
            self._metrics.exceeded_label_limits.inc()
            raise ScrapeError(wrong)
        return Labels.from_dict(labels)

    def _kind_at(self, scanned: Scanned, position: int) -> int:
        """Format and normalised type of the sample at a position, as the series cache keeps them."""
        if self._types is None:
            self._types = metric_types(metadata_lines(scanned))
        positions, types = self._types
        at = int(np.searchsorted(positions, position)) - 1
        name = types[at] if at >= 0 else ""
        kind = _NORMALIZED_TYPES.index(name) if name in _NORMALIZED_TYPES else 0
        return scanned.mode << _KIND_MODE_SHIFT | kind

    def _read_metadata(self, scanned: Scanned) -> Sequence[Metadata]:
        """Families whose metadata is new or changed since the last scrape."""
        self._types = None
        key = (scanned.metadata_hash, len(scanned.metadata_kinds))
        if key == self._metadata_hash:
            return ()
        lines = metadata_lines(scanned)
        self._types = metric_types(lines)
        changed = self._changed_metadata(metadata_of(lines))
        self._metadata_hash = key
        return changed

    def _changed_metadata(self, families: dict[str, Metadata]) -> Sequence[Metadata]:
        changed = [entry for name, entry in families.items() if self.metadata.get(name) != entry]
        self.metadata = families
        self._metadata_hash = None
        return changed

    def _protobuf_exemplars(
        self, body: ProtobufBody, slots: npt.NDArray[np.int32], keep: npt.NDArray[np.bool_], t_ms: int
    ) -> list[Exemplar]:
        return [
            Exemplar(int(self._cache.refs[slots[i]]), e.labels, e.value, t_ms if e.t_ms is None else e.t_ms)
            for i, found in body.exemplars.items()
            if keep[i]
            for e in found
        ]

    def _split_histograms(
        self,
        body: ProtobufBody,
        slots: npt.NDArray[np.int32],
        keep: npt.NDArray[np.bool_],
        columns: _Columns,
    ) -> None:
        """Move the native histograms out of the float columns, where their samples are placeholders."""
        numbers = np.flatnonzero(keep)
        is_histogram = np.isin(numbers, np.fromiter(body.histograms, np.int64, len(body.histograms)))
        rows = np.flatnonzero(is_histogram)
        histograms = [body.histograms[int(numbers[row])] for row in rows]
        for row, histogram in zip(rows.tolist(), histograms, strict=True):
            histogram.t_ms = int(columns.t_ms[row])
        if histograms:
            columns.histograms = HistogramColumns(columns.refs[rows], to_batch(histograms, False))
            columns.histogram_slots = slots[numbers[rows]]
        floats = ~is_histogram
        columns.refs, columns.t_ms = columns.refs[floats], columns.t_ms[floats]
        columns.values = columns.values[floats]
        self._kept = (slots[numbers[floats]], np.ones(int(np.count_nonzero(floats)), np.bool_))

    def _exemplars(
        self, scanned: Scanned, slots: npt.NDArray[np.int32], keep: npt.NDArray[np.bool_], t_ms: int
    ) -> list[Exemplar]:
        found = []
        for i in np.flatnonzero((scanned.exemplars[:, 1] > 0) & keep).tolist():
            start, end = scanned.exemplars[i]
            try:
                labels, value, own = parse_exemplar(scanned.body[start:end])
            except ValueError as error:
                raise ExpositionError(scanned.line_of(int(start)), str(error), i) from None
            ref = int(self._cache.refs[slots[i]])
            found.append(Exemplar(ref, labels, value, t_ms if own is None else own))
        return found

    def _report(self, outcome: Outcome, seconds: float, body_bytes: int) -> F64Array:
        values = [
            0.0 if outcome.error else 1.0,
            seconds,
            float(outcome.scraped),
            float(outcome.post_relabel),
            float(outcome.added),
        ]
        if self._options.extra_metrics:
            values += [self._options.timeout_seconds, float(self._options.sample_limit), float(body_bytes)]
        return np.array(values)

    def _batch(
        self,
        columns: _Columns | None,
        vanished: U32Array,
        report: F64Array,
        t_ms: int,
        metadata: Sequence[Metadata],
    ) -> WriteBatch:
        refs = self._resolved_report_refs()
        stale = _stale_markers(vanished, t_ms)
        report_t = np.full(len(refs), t_ms, np.int64)
        parts = [(stale.refs, stale.t_ms, stale.values), (refs, report_t, report)]
        if columns is not None:
            parts.insert(0, (columns.refs, columns.t_ms, columns.values))
        # Values move as bits: concatenation must not quieten the stale marker.
        values = np.concatenate([part[2].view(np.uint64) for part in parts]).view(np.float64)
        samples = SampleColumns(
            np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), values
        )
        if columns is None:
            return WriteBatch(samples, metadata=metadata)
        return WriteBatch(samples, columns.histograms, columns.exemplars, metadata)

    def _resolved_report_refs(self) -> U32Array:
        if self._report_refs is None:
            names = (*REPORT_METRICS, *(EXTRA_REPORT_METRICS if self._options.extra_metrics else ()))
            self._report_refs = self._appender.refs([self._labels.with_label(METRIC_NAME, n) for n in names])
        return self._report_refs

    def _append(self, batch: WriteBatch, columns: _Columns | None, now_ms: int | None) -> AppendResult:
        result = self._appender.append(batch, now_ms=now_ms)
        if (result.histogram_codes == Rejected.UNKNOWN_SERIES).any() and columns is not None:
            self._append_histograms_again(columns, result, now_ms)
        gone = np.flatnonzero(result.codes == Rejected.UNKNOWN_SERIES)
        if len(gone) == 0 or batch.samples is None:
            return result
        return self._append_again(batch.samples, gone, columns, result, now_ms)

    def _append_histograms_again(self, columns: _Columns, first: AppendResult, now_ms: int | None) -> None:
        """As `_append_again`; histograms that were stored are equal to themselves and accepted silently."""
        if columns.histograms is None or columns.histogram_slots is None:
            return
        refs = columns.histograms.refs.copy()
        for i in np.flatnonzero(first.histogram_codes == Rejected.UNKNOWN_SERIES).tolist():
            slot = int(columns.histogram_slots[i])
            labels = self._resolve(self._cache.text(slot), int(self._cache.kinds[slot]))
            if labels is not None:
                refs[i] = self._cache.refs[slot] = self._appender.refs([labels])[0]
        again = HistogramColumns(refs, columns.histograms.batch)
        self._appender.append(WriteBatch(histograms=again), now_ms=now_ms)

    def _append_again(
        self,
        samples: SampleColumns,
        gone: npt.NDArray[np.intp],
        columns: _Columns | None,
        first: AppendResult,
        now_ms: int | None,
    ) -> AppendResult:
        """Series that the store forgot since their last sample are looked up and appended once more."""
        own = 0 if columns is None else len(columns.refs)
        refs = samples.refs.copy()
        again = []
        if own and gone[0] < own and self._kept is not None:
            slots, keep = self._kept
            kept_slots = slots[keep]
            for i in gone[gone < own].tolist():
                slot = int(kept_slots[i])
                labels = self._resolve(self._cache.text(slot), int(self._cache.kinds[slot]))
                if labels is None:
                    continue
                refs[i] = self._cache.refs[slot] = self._appender.refs([labels])[0]
                again.append(i)
        report_start = len(samples.refs) - len(self._resolved_report_refs())
        if gone[-1] >= report_start:
            self._report_refs = None
            refs[report_start:] = self._resolved_report_refs()
            again += [i for i in gone.tolist() if i >= report_start]
        if not again:
            return first
        rows = np.array(again)
        bits = samples.values.view(np.uint64)[rows].view(np.float64)
        return self._appender.append(
            WriteBatch(SampleColumns(refs[rows], samples.t_ms[rows], bits)), now_ms=now_ms
        )

    def _count_refused(self, result: AppendResult, own: int) -> None:
        self._metrics.count("exemplar_out_of_order", len(result.refused_exemplars))
        codes = np.concatenate((result.codes[:own], result.histogram_codes))
        if not codes.any():
            return
        count = np.bincount(codes, minlength=len(Rejected))
        self._metrics.count("sample_out_of_order", int(count[Rejected.OUT_OF_ORDER]))
        self._metrics.count("sample_duplicate_timestamp", int(count[Rejected.DUPLICATE]))
        outside = count[Rejected.OUT_OF_BOUNDS] + count[Rejected.TOO_OLD]
        self._metrics.count("sample_out_of_bounds", int(outside))


def _stale_markers(refs: U32Array, t_ms: int) -> SampleColumns:
    values = np.repeat(_STALE, len(refs)).view(np.float64)
    return SampleColumns(refs.astype(np.uint32, copy=False), np.full(len(refs), t_ms, np.int64), values)
