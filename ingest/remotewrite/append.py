"""From a decoded request to the store: series, histograms, exemplars, and who is to blame for a refusal.

The rules are those of prometheus-surface.md 5.3: version 1 leaves out series with invalid labels in silence
and rolls the whole request back when one sample is refused; version 2 stores what is good and reports the
rest.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingest.kernels.remotewrite import MISSING, SPAN_EXEMPLAR, SPAN_HISTOGRAM, SPAN_METADATA
from ingest.remotewrite import v1, v2
from ingest.remotewrite.decoded import DecodedRequest, I64Array, TableArrays, U32Array, U64Array
from ingest.remotewrite.labelspan import BytePair, print_labels, validated
from ingest.remotewrite.metrics import ReceiverMetrics
from ingest.remotewrite.nativehistogram import InvalidHistogramError, read_histogram, to_batch, validate
from tsdb.columns import (
    Appender,
    AppendResult,
    Exemplar,
    HistogramColumns,
    Rejected,
    SampleColumns,
    WriteBatch,
)
from tsdb.errors import InvalidLabelsError, LimitError, SeriesLimitError
from tsdb.labels import Labels

BoolArray = npt.NDArray[np.bool_]
Reader = v1.Reader | v2.Reader

EXEMPLAR_LABELS_CHARACTERS_MAX = 128
"""Longest label set of an exemplar, names and values together, in characters (Prometheus's limit)."""
UNKNOWN_SERIES_RETRIES = 3
"""How often a series that was garbage collected between look-up and append is looked up again."""
ERRORS_REPORTED_MAX = 100
"""Lines in an answer of version 2; the rest is counted in a last line."""
ERROR_CHARACTERS_MAX = 4096
"""Length of one such line: a label set can be as long as the request."""

_CHECK_SHIFT = np.uint64(32)
_NO_ROWS = np.empty(0, dtype=np.int64)
_TEXTS = {
    Rejected.OUT_OF_ORDER: "out of order sample",
    Rejected.OUT_OF_BOUNDS: "out of bounds",
    Rejected.TOO_OLD: "too old sample",
    Rejected.DUPLICATE: "duplicate sample for timestamp",
    Rejected.UNKNOWN_SERIES: "unknown series",
    Rejected.INVALID_HISTOGRAM: "invalid histogram",
    Rejected.LIMIT: "limit exceeded",
}


class AliasTable(Protocol):
    """What the receiver needs of `tsdb.series.SeriesTable`."""

    @property
    def seeds(self) -> tuple[int, int]: ...
    def snapshot(self) -> TableArrays: ...
    def insert_aliases(self, hashes: U64Array, checks: U32Array, refs: U32Array) -> None: ...


@dataclass(slots=True)
class Outcome:
    """Answer to one request, once `durable` (None: nothing was stored) is done."""

    status: int = 204
    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    samples_written: int = 0
    histograms_written: int = 0
    exemplars_written: int = 0
    durable: Future[None] | None = None

    def refuse(self, text: str, status: int = 400) -> None:
        """Note an error; the answer gets `status`, of several the smallest."""
        self.status = status if not self.error_count else min(self.status, status)
        self.error_count += 1
        if len(self.errors) < ERRORS_REPORTED_MAX:
            cut = len(text) > ERROR_CHARACTERS_MAX
            self.errors.append(text[:ERROR_CHARACTERS_MAX] + "..." if cut else text)

    @property
    def text(self) -> str:
        """Body of the answer."""
        if not self.error_count:
            return ""
        more = self.error_count - len(self.errors)
        lines = [*self.errors, f"and {more} more errors"] if more else self.errors
        return "".join(line + "\n" for line in lines)


class RequestAppender:
    """Stores decoded requests. Any thread; one request is handled by one thread."""

    def __init__(self, appender: Appender, table: AliasTable, metrics: ReceiverMetrics) -> None:
        self._appender = appender
        self._table = table
        self._metrics = metrics

    def append(self, request: DecodedRequest, reader: Reader) -> Outcome:
        """Store a request. Raises MalformedMessageError for bytes that only slow code reads, StorageError."""
        partial = isinstance(reader, v2.Reader)
        first: AppendResult | None = None
        if request.plain:
            samples = request.plain_columns()
            first = self._appender.append(WriteBatch(samples), atomic=not partial)
            if _is_stored(first):
                return self._stored(len(samples.refs), first.durable, partial)
        outcome = Outcome()
        self._resolve(request, reader, request.missing_rows(), outcome)
        if partial and not request.single:
            self._refuse_empty_rows(request, reader, outcome)
        try:
            histograms, histogram_rows = self._histograms(request, reader, outcome)
        except InvalidHistogramError as error:
            self._metrics.rejected.labels(Rejected.INVALID_HISTOGRAM.name.lower()).inc()
            outcome.refuse(str(error))
            return outcome
        samples, rows = request.columns()
        exemplars, exemplar_rows = self._exemplars(request, reader, outcome)
        metadata = tuple(reader.metadata()) if len(request.span_kind) else ()
        if not len(rows) and histograms is None and not exemplars and not metadata:
            return outcome
        batch = WriteBatch(samples if len(rows) else None, histograms, exemplars, metadata)
        result = self._append_known(
            batch, request, reader, rows, histogram_rows, exemplar_rows, outcome, first
        )
        outcome.durable = result.durable
        if _is_stored(result):
            outcome.samples_written, outcome.histograms_written = len(rows), len(histogram_rows)
        else:
            all_rows = np.concatenate((rows, histogram_rows))
            if self._report(result, request, reader, all_rows, outcome) and not partial:
                return outcome
            outcome.samples_written = int(np.count_nonzero(result.codes == Rejected.NO))
            outcome.histograms_written = int(np.count_nonzero(result.histogram_codes == Rejected.NO))
        outcome.exemplars_written = len(exemplars) - len(result.refused_exemplars)
        self._report_exemplars(result, reader, exemplar_rows, outcome)
        self._count_written(request, outcome, partial)
        return outcome

    def _stored(self, count: int, durable: Future[None], partial: bool) -> Outcome:
        """The outcome of a request that was nothing but `count` samples, all of which are stored."""
        self._metrics.written_floats.inc(count)
        if partial:
            self._metrics.without_metadata.inc(count)
        return Outcome(samples_written=count, durable=durable)

    # Series.

    def _resolve(self, request: DecodedRequest, reader: Reader, rows: list[int], outcome: Outcome) -> None:
        """Find or create the series of rows that the table does not know, and remember their spelling.

        Rows without samples create no series. A refused row keeps the ref MISSING.
        """
        if not rows:
            return
        wanted: list[int] = []
        labels: list[Labels] = []
        with_histogram = set(request.span_row[request.span_kind == SPAN_HISTOGRAM].tolist())
        for row in rows:
            try:
                found = reader.label_set(row)
            except InvalidLabelsError as error:
                self._refuse_labels(request, row, with_histogram, str(error), reader, outcome)
                continue
            if request.sample_count(row) or row in with_histogram:
                wanted.append(row)
                labels.append(found)
        if not wanted:
            return
        self._metrics.missed.inc(len(wanted))
        refs = self._refs(labels, wanted, request, with_histogram, reader, outcome)
        request.refs[wanted] = refs
        known = [
            index
            for index, row in enumerate(wanted)
            if reader.alias_is_valid(row) and int(refs[index]) != MISSING
        ]
        picked = np.array(wanted, dtype=np.int64)[known]
        self._table.insert_aliases(
            request.row_hash[picked],
            (request.row_check[picked] >> _CHECK_SHIFT).astype(np.uint32),
            refs[known],
        )

    def _refs(
        self,
        labels: list[Labels],
        rows: list[int],
        request: DecodedRequest,
        with_histogram: set[int],
        reader: Reader,
        outcome: Outcome,
    ) -> U32Array:
        try:
            return self._appender.refs(labels)
        except (InvalidLabelsError, LimitError):
            pass
        # One bad row refuses the whole call, so find out which; this is as rare as bad labels are.
        refs = np.full(len(labels), MISSING, dtype=np.uint32)
        for index, row_labels in enumerate(labels):
            try:
                refs[index] = self._appender.refs([row_labels])[0]
            except InvalidLabelsError as error:
                self._refuse_labels(request, rows[index], with_histogram, str(error), reader, outcome)
            except LimitError as error:
                self._metrics.rejected.labels(Rejected.LIMIT.name.lower()).inc(
                    request.sample_count(rows[index])
                )
                text = f"{error} for series {print_labels(reader.labels(rows[index]))}"
                outcome.refuse(text, 429 if isinstance(error, SeriesLimitError) else 400)
        return refs

    def _refuse_labels(
        self,
        request: DecodedRequest,
        row: int,
        with_histogram: set[int],
        text: str,
        reader: Reader,
        outcome: Outcome,
    ) -> None:
        """Version 1 counts series and says nothing; version 2 counts samples and answers."""
        if isinstance(reader, v1.Reader):
            self._metrics.invalid_labels.inc()
            return
        spans = request.span_kind == SPAN_HISTOGRAM if row in with_histogram else np.zeros(0, dtype=bool)
        histogram_count = int(np.count_nonzero(request.span_row[spans] == row)) if len(spans) else 0
        self._metrics.invalid_labels.inc(request.sample_count(row) + histogram_count)
        outcome.refuse(text)

    def _refuse_empty_rows(self, request: DecodedRequest, reader: Reader, outcome: Outcome) -> None:
        empty = np.diff(request.first) == 0
        empty[request.span_row[request.span_kind == SPAN_HISTOGRAM]] = False
        for row in np.flatnonzero(empty).tolist():
            if outcome.error_count >= ERRORS_REPORTED_MAX:
                outcome.refuse("")
                continue
            pairs = _pairs_or_none(reader, row)
            if pairs is not None:
                outcome.refuse(
                    "TimeSeries must contain at least one sample or histogram for series"
                    f" {print_labels(pairs)}"
                )

    # Parts of the batch that slow code reads.

    def _histograms(
        self, request: DecodedRequest, reader: Reader, outcome: Outcome
    ) -> tuple[HistogramColumns | None, I64Array]:
        """Histograms of known rows and the row of each. In version 1 an invalid one is an error."""
        if not len(request.span_kind):
            return None, _NO_ROWS
        found, rows = [], []
        for index in np.flatnonzero(request.span_kind == SPAN_HISTOGRAM).tolist():
            row = int(request.span_row[index])
            start, end = int(request.span_start[index]), int(request.span_end[index])
            histogram = read_histogram(request.message[start:end], start)
            if int(request.refs[row]) == MISSING:
                continue
            try:
                validate(histogram)
            except InvalidHistogramError as error:
                if isinstance(reader, v1.Reader):
                    raise
                self._metrics.rejected.labels(Rejected.INVALID_HISTOGRAM.name.lower()).inc()
                outcome.refuse(f"{error} for series {print_labels(reader.labels(row))}")
                continue
            found.append(histogram)
            rows.append(row)
        row_array = np.array(rows, dtype=np.int64)
        if not found:
            return None, row_array
        batch = to_batch(found, request.start_t_ms is not None)
        return HistogramColumns(request.refs[row_array], batch), row_array

    def _exemplars(
        self, request: DecodedRequest, reader: Reader, outcome: Outcome
    ) -> tuple[tuple[Exemplar, ...], list[int]]:
        """Exemplars of known rows and the row of each. What is wrong with one here is counted and never an
        error, but for bad references."""
        if not len(request.span_kind):
            return (), []
        found, rows = [], []
        for index in np.flatnonzero(request.span_kind == SPAN_EXEMPLAR).tolist():
            row = int(request.span_row[index])
            start, end = int(request.span_start[index]), int(request.span_end[index])
            try:
                pairs, value, t_ms = reader.exemplar(start, end)
            except v2.BadSymbolsError as error:
                series = _pairs_or_none(reader, row)
                if series is not None:
                    self._metrics.refused_exemplars.labels("invalid_labels").inc()
                    outcome.refuse(f"parsing exemplar for series {print_labels(series)}: {error}")
                continue
            if int(request.refs[row]) == MISSING:
                continue
            try:
                labels = Labels.from_pairs((name.decode(), text.decode()) for name, text in pairs)
            except (UnicodeDecodeError, InvalidLabelsError):
                self._metrics.refused_exemplars.labels("invalid_labels").inc()
                continue
            if sum(len(name) + len(text) for name, text in labels) > EXEMPLAR_LABELS_CHARACTERS_MAX:
                self._metrics.refused_exemplars.labels("labels_too_long").inc()
                continue
            found.append(Exemplar(int(request.refs[row]), labels, value, t_ms))
            rows.append(row)
        return tuple(found), rows

    def _report_exemplars(
        self, result: AppendResult, reader: Reader, rows: list[int], outcome: Outcome
    ) -> None:
        """Exemplars out of order are errors of version 2 only, as in Prometheus."""
        if not result.refused_exemplars:
            return
        self._metrics.refused_exemplars.labels("out_of_order").inc(len(result.refused_exemplars))
        if isinstance(reader, v1.Reader):
            return
        for index in result.refused_exemplars:
            text = "out of order exemplar"
            if outcome.error_count < ERRORS_REPORTED_MAX:
                text = f"{text} for series {print_labels(reader.labels(rows[index]))}"
            outcome.refuse(text)

    # Storing.

    def _append_known(
        self,
        batch: WriteBatch,
        request: DecodedRequest,
        reader: Reader,
        rows: I64Array,
        histogram_rows: I64Array,
        exemplar_rows: list[int],
        outcome: Outcome,
        first: AppendResult | None,
    ) -> AppendResult:
        """Append, unless the batch was (`first`); look up again, and append again, what was garbage collected
        in between."""
        atomic = isinstance(reader, v1.Reader)
        result = first or self._appender.append(batch, atomic=atomic)
        for _ in range(UNKNOWN_SERIES_RETRIES):
            if _is_stored(result):
                return result
            lost = result.codes == Rejected.UNKNOWN_SERIES
            lost_histograms = result.histogram_codes == Rejected.UNKNOWN_SERIES
            if not lost.any() and not lost_histograms.any():
                return result
            lost_rows = np.union1d(rows[lost], histogram_rows[lost_histograms])
            self._resolve(request, reader, lost_rows.tolist(), outcome)
            if atomic:
                lost[:], lost_histograms[:] = True, True
            again = _pick(batch, request, rows, histogram_rows, lost, lost_histograms)
            # An atomic batch stored no exemplars; otherwise those of lost series hang on refs of nobody.
            sent_again = [i for i, row in enumerate(exemplar_rows) if atomic or row in lost_rows]
            exemplars = [
                replace(batch.exemplars[i], ref=int(request.refs[exemplar_rows[i]])) for i in sent_again
            ]
            again = replace(again, exemplars=exemplars)
            later = self._appender.append(again, atomic=atomic)
            codes, histogram_codes = result.codes.copy(), result.histogram_codes.copy()
            codes[lost], histogram_codes[lost_histograms] = later.codes, later.histogram_codes
            refused = [*result.refused_exemplars, *(sent_again[i] for i in later.refused_exemplars)]
            # The later record follows the earlier one in the log: when it is durable, so are both.
            result = replace(
                later,
                codes=codes,
                histogram_codes=histogram_codes,
                stored_count=result.stored_count + later.stored_count,
                messages=(),
                refused_exemplars=refused,
            )
        return result

    def _report(
        self,
        result: AppendResult,
        request: DecodedRequest,
        reader: Reader,
        rows: I64Array,
        outcome: Outcome,
    ) -> bool:
        """Turn refusals into errors of the answer; whether there were any."""
        codes = np.concatenate((result.codes, result.histogram_codes))
        refused = np.flatnonzero(codes != Rejected.NO)
        if not len(refused):
            return False
        for code, count in zip(*np.unique(codes[refused], return_counts=True), strict=True):
            self._metrics.rejected.labels(Rejected(int(code)).name.lower()).inc(int(count))
        for position, index in enumerate(refused.tolist()):
            text = _TEXTS[Rejected(int(codes[index]))]
            if position < len(result.messages):
                text = result.messages[position]
            if isinstance(reader, v1.Reader):
                outcome.refuse(text)
                return True
            if outcome.error_count < ERRORS_REPORTED_MAX:
                text = f"{text} for series {print_labels(reader.labels(int(rows[index])))}"
            outcome.refuse(text)
        return True

    def _count_written(self, request: DecodedRequest, outcome: Outcome, partial: bool) -> None:
        written = self._metrics.written
        self._metrics.written_floats.inc(outcome.samples_written)
        if outcome.histograms_written:
            written.labels("histogram").inc(outcome.histograms_written)
        if outcome.exemplars_written:
            written.labels("exemplar").inc(outcome.exemplars_written)
        if partial and not len(request.span_kind):
            self._metrics.without_metadata.inc(len(request.t_ms))
        elif partial:
            bare = np.ones(request.row_count, dtype=bool)
            bare[request.span_row[request.span_kind == SPAN_METADATA]] = False
            self._metrics.without_metadata.inc(int(np.diff(request.first)[bare].sum()))


def _is_stored(result: AppendResult) -> bool:
    """Whether all samples and histograms were."""
    return result.stored_count == len(result.codes) + len(result.histogram_codes)


def _pairs_or_none(reader: Reader, row: int) -> list[BytePair] | None:
    """Labels of a row; None where they are invalid, which has been reported already."""
    try:
        pairs = reader.labels(row)
        validated(pairs)
    except InvalidLabelsError:
        return None
    return pairs


def _pick(
    batch: WriteBatch,
    request: DecodedRequest,
    rows: I64Array,
    histogram_rows: I64Array,
    kept: BoolArray,
    kept_histograms: BoolArray,
) -> WriteBatch:
    """Samples of a batch under the present refs of their rows."""
    samples, histograms = None, None
    if batch.samples is not None:
        start_t = batch.samples.start_t_ms
        samples = SampleColumns(
            request.refs[rows][kept],
            batch.samples.t_ms[kept],
            batch.samples.values.view(np.uint64)[kept].view(np.float64),
            None if start_t is None else start_t[kept],
        )
    if batch.histograms is not None:
        # All of them: picking single histograms is not worth code, an equal sample is accepted silently.
        histograms = HistogramColumns(request.refs[histogram_rows], batch.histograms.batch)
        kept_histograms[:] = True
    return WriteBatch(samples, histograms, (), ())
