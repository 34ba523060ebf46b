"""From `load` commands to samples in a store.

Histograms get the reset hints that a database would give back: the first of a chunk is unknown, those after
it are not resets, gauges stay gauges. Chunks are cut as Prometheus's head cuts them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from promql.histogramvalue import Buckets, Histogram
from promql.memory import MemorySeries, MemoryStore
from promql.numberformat import parse_number
from promql.testlang.commands import Load, TestFileError
from tsdb.errors import StorageError
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, ResetHint
from tsdb.labels import METRIC_NAME, Labels

CHUNK_RANGE_MS = 24 * 3600 * 1000
"""Head chunks of Prometheus's test storage do not cross multiples of this."""

_SUFFIXES = ("_bucket", "_count", "_sum")


def load(store: MemoryStore, command: Load) -> None:
    """Add the series of a command. Raises TestFileError for a sample the store refuses."""
    try:
        for series in command.series:
            starts = series.starts_ms
            for index, value in enumerate(series.values):
                t_ms = index * command.step_ms
                if value.omitted:
                    continue
                offset = None if starts is None else starts[index]
                start_t_ms = 0 if offset is None else t_ms + offset
                if value.stale:
                    store.add_stale(series.labels, t_ms)
                elif value.histogram is None:
                    store.add_float(series.labels, t_ms, value.value, start_t_ms)
                else:
                    add_histogram(store, series.labels, t_ms, value.histogram, start_t_ms)
        if command.with_nhcb:
            _add_custom_histograms(store, command)
    except StorageError as error:
        raise TestFileError(command.line, str(error)) from error


def add_histogram(
    store: MemoryStore, labels: Labels, t_ms: int, histogram: Histogram, start_t_ms: int = 0
) -> None:
    """Store a histogram with the hint that reading it back from a chunk gives."""
    row = store.get(labels)
    hint = ResetHint.UNKNOWN
    if histogram.hint is ResetHint.GAUGE:
        hint = ResetHint.GAUGE
    elif row is not None and _continues_chunk(row, t_ms, histogram):
        hint = ResetHint.NOT_RESET
    store.add_histogram(labels, t_ms, replace(histogram, hint=hint), start_t_ms)


def _continues_chunk(row: MemorySeries, t_ms: int, current: Histogram) -> bool:
    """Whether a counter histogram goes into the chunk of the one before it."""
    if not row.histograms or (row.times and row.times[-1] > row.histogram_times[-1]):
        return False
    before_ms, before, _ = row.histograms[-1]
    if before_ms // CHUNK_RANGE_MS != t_ms // CHUNK_RANGE_MS or before.hint is ResetHint.GAUGE:
        return False
    if current.hint is ResetHint.RESET or before.stale:
        return False
    if before.schema != current.schema or before.zero_threshold != current.zero_threshold:
        return False
    if before.custom_values != current.custom_values or current.zero_count < before.zero_count:
        return False
    shrunk = _shrunk(before.positive, current.positive) or _shrunk(before.negative, current.negative)
    return current.count >= before.count and not shrunk


def _shrunk(before: Buckets, current: Buckets) -> bool:
    counts = dict(current)
    return any(count > counts.get(index, 0.0) for index, count in before if count)


@dataclass(slots=True)
class _Classic:
    """One moment of a classic histogram: cumulative counts by upper bound."""

    buckets: dict[float, float] = field(default_factory=dict)
    count: float | None = None
    sum: float = 0.0


def _add_custom_histograms(store: MemoryStore, command: Load) -> None:
    groups: dict[Labels, dict[int, _Classic]] = {}
    for series in command.series:
        name = series.labels.metric_name
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        if suffix is None:
            continue
        bound = _bound(series.labels) if suffix == "_bucket" else 0.0
        if math.isnan(bound):
            continue
        labels = series.labels.without("le").with_label(METRIC_NAME, name.removesuffix(suffix))
        moments = groups.setdefault(labels, {})
        for index, value in enumerate(series.values):
            if value.omitted or value.stale or value.histogram is not None:
                continue
            moment = moments.setdefault(index * command.step_ms, _Classic())
            if suffix == "_bucket":
                moment.buckets.setdefault(bound, value.value)
            elif suffix == "_count":
                moment.count = value.value
            else:
                moment.sum = value.value
    for labels, moments in groups.items():
        for t_ms in sorted(moments):
            add_histogram(store, labels, t_ms, _custom_histogram(moments[t_ms], command.line))


def _bound(labels: Labels) -> float:
    try:
        return parse_number(labels.get("le").removeprefix("+"))
    except (ValueError, OverflowError):
        return math.nan


def _custom_histogram(moment: _Classic, line: int) -> Histogram:
    """Differences of the cumulative counts; the bucket up to +Inf is implied by the count."""
    bounds: Mapping[float, float] = moment.buckets
    ordered = sorted(bounds)
    cumulative = [bounds[bound] for bound in ordered]
    count = moment.count if moment.count is not None else (cumulative[-1] if cumulative else 0.0)
    if not ordered or ordered[-1] != math.inf:
        cumulative.append(count)
    else:
        ordered.pop()
    counts = [after - before for before, after in zip([0.0, *cumulative], cumulative, strict=False)]
    if min(counts) < 0 or cumulative[-1] != count:
        raise TestFileError(line, f"classic histogram buckets {cumulative} do not add up to {count}")
    return Histogram(
        schema=CUSTOM_BUCKETS_SCHEMA,
        count=count,
        sum=moment.sum,
        positive=tuple(enumerate(counts)),
        custom_values=tuple(ordered),
    )
