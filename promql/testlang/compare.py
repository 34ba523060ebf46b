"""Does a result meet what an eval command expects?

Floats are equal within a relative 1e-6 of their sum. All functions raise Mismatch with the first difference.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from promql.histogramvalue import Buckets, Histogram
from promql.numberformat import format_g
from promql.seriesnotation import SeriesValue
from promql.testlang.commands import Eval, ExpectedSeries, ExpectKind
from promql.testlang.results import Row
from tsdb.labels import Labels

EPSILON = 1e-6
_NORMAL_MIN = sys.float_info.min
_FLOAT_MAX = sys.float_info.max


class Mismatch(Exception):
    """The result is not what was expected."""


def almost_equal(left: float, right: float, epsilon: float = EPSILON) -> bool:
    """Equal up to a relative difference; any two NaN are equal."""
    if left != left and right != right:
        return True
    if left == right:
        return True
    total = abs(left) + abs(right)
    difference = abs(left - right)
    if left == 0 or right == 0 or total < _NORMAL_MIN:
        return difference < epsilon * _NORMAL_MIN
    return difference / min(total, _FLOAT_MAX) < epsilon


def _almost_equal_buckets(left: Buckets, right: Buckets) -> bool:
    return len(left) == len(right) and all(
        i == j and almost_equal(m, n) for (i, m), (j, n) in zip(left, right, strict=True)
    )


def same_histogram(expected: Histogram, actual: Histogram, with_hint: bool) -> bool:
    """Same layout after compaction, counts almost equal, bounds exact; the hint only if it was written."""
    left, right = expected.compact(), actual.compact()
    return (
        left.schema == right.schema
        and almost_equal(left.count, right.count)
        and almost_equal(left.sum, right.sum)
        and (not left.has_custom_buckets or left.custom_values == right.custom_values)
        and left.zero_threshold == right.zero_threshold
        and almost_equal(left.zero_count, right.zero_count)
        and _almost_equal_buckets(left.negative, right.negative)
        and _almost_equal_buckets(left.positive, right.positive)
        and (not with_hint or left.hint == right.hint)
    )


def check_scalar(command: Eval, value: float) -> None:
    """A scalar result."""
    if command.scalar is None:
        raise Mismatch(f"expected vector or matrix result, but got scalar {format_g(value)}")
    if not almost_equal(command.scalar, value):
        raise Mismatch(f"expected scalar {format_g(command.scalar)} but got {format_g(value)}")


def check_string(command: Eval, value: str) -> None:
    """A string result."""
    if command.string is None or command.string != value:
        raise Mismatch(f"expected string {command.string!r} but got {value!r}")


def check_vector(command: Eval, rows: Sequence[Row]) -> None:
    """An instant vector: rows with one point each."""
    if command.scalar is not None:
        raise Mismatch(f"expected scalar result, but got vector {[str(row) for row in rows]}")
    expected = {series.labels: series for series in command.series}
    for position, row in enumerate(rows, 1):
        series = expected.get(row.labels)
        if series is None:
            raise Mismatch(f"unexpected metric {row} in result")
        if command.ordered and series.position != position:
            raise Mismatch(f"expected {row.labels} at position {series.position} but was at {position}")
        _check_value(series.labels, series.values[0], row)
    _check_all_found(command.series, {row.labels for row in rows})


def _check_value(labels: Labels, expected: SeriesValue, row: Row) -> None:
    if expected.histogram is None:
        if not row.floats:
            raise Mismatch(f"expected float value {expected} for {labels} but got {row}")
        if expected.stale or not almost_equal(expected.value, row.floats[0][1]):
            raise Mismatch(f"expected {expected} for {labels} but got {format_g(row.floats[0][1])}")
        return
    if not row.histograms:
        raise Mismatch(f"expected histogram {expected} for {labels} but got {row}")
    actual = row.histograms[0][1]
    if not same_histogram(expected.histogram, actual, expected.hint_given):
        raise Mismatch(f"expected {expected} for {labels} but got {actual.notation()}")


def check_matrix(command: Eval, rows: Sequence[Row]) -> None:
    """Rows of points: a range query's result, or a range vector."""
    if command.ordered:
        raise Mismatch("expected ordered result, but query returned a matrix")
    if command.scalar is not None:
        raise Mismatch(f"expected scalar result, but got matrix {[str(row) for row in rows]}")
    check_sorted(rows)
    expected = {series.labels: series for series in command.series}
    for row in rows:
        series = expected.get(row.labels)
        if series is None:
            raise Mismatch(f"unexpected metric {row} in result")
        _check_points(command, series, row)
    _check_all_found(command.series, {row.labels for row in rows})


def check_sorted(rows: Sequence[Row]) -> None:
    """Matrix results come in the order of their labels."""
    for before, after in itertools.pairwise(rows):
        if after.labels < before.labels:
            raise Mismatch(f"matrix is not sorted by labels: {after.labels} after {before.labels}")


def _check_all_found(expected: Sequence[ExpectedSeries], found: set[Labels]) -> None:
    for series in expected:
        if series.labels not in found:
            values = " ".join(map(str, series.values))
            raise Mismatch(f"expected metric {series.labels} with {values} not found")


def _check_points(command: Eval, series: ExpectedSeries, row: Row) -> None:
    floats: list[tuple[int, SeriesValue]] = []
    histograms: list[tuple[int, SeriesValue, Histogram]] = []
    for index, value in enumerate(series.values):
        t_ms = command.start_ms + index * command.step_ms
        if t_ms > command.end_ms:
            raise Mismatch(
                f"expected {len(series.values)} points for {series.labels}, more than the range has"
            )
        if value.histogram is not None:
            histograms.append((t_ms, value, value.histogram))
        elif not value.omitted:
            floats.append((t_ms, value))
    if len(floats) != len(row.floats) or len(histograms) != len(row.histograms):
        counts = f"{len(floats)} float points and {len(histograms)} histogram points"
        raise Mismatch(f"expected {counts} for {series.labels}, but got {row}")
    for (t_ms, value), (actual_ms, actual) in zip(floats, row.floats, strict=True):
        if t_ms != actual_ms or value.stale or not almost_equal(value.value, actual):
            raise Mismatch(f"expected {value} @{t_ms}, got {format_g(actual)} @{actual_ms} in {row}")
    for (t_ms, value, histogram), (actual_ms, found) in zip(histograms, row.histograms, strict=True):
        if t_ms != actual_ms or not same_histogram(histogram, found, value.hint_given):
            raise Mismatch(f"expected {value} @{t_ms}, got {found.notation()} @{actual_ms} in {row}")


def check_annotations(command: Eval, warnings: Sequence[str], infos: Sequence[str]) -> None:
    """Every annotation of a kind with expectations meets one, and every expectation is met."""
    for kind, texts in ((ExpectKind.WARN, warnings), (ExpectKind.INFO, infos)):
        expectations = command.expectations.get(kind, [])
        for expectation in expectations:
            if not any(map(expectation.matches, texts)):
                raise Mismatch(f"expected {kind.value} annotation with {expectation}, found {list(texts)}")
        for text in texts if expectations else ():
            if not any(expectation.matches(text) for expectation in expectations):
                raise Mismatch(f"unexpected {kind.value} annotation {text!r}")
    for kind, texts in ((ExpectKind.NO_WARN, warnings), (ExpectKind.NO_INFO, infos)):
        if kind in command.expectations and texts:
            raise Mismatch(f"expected {kind.value}, found {list(texts)}")


def check_failure(command: Eval, text: str) -> None:
    """The error of a query that had to fail."""
    for expectation in command.expectations[ExpectKind.FAIL]:
        if not expectation.matches(text):
            raise Mismatch(f"expected error with {expectation}, but got: {text}")
