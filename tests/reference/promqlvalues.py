"""Values and single-sample arithmetic of the slow PromQL interpreter."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.reference.histograms import FloatHistogram, divide, kahan
from tsdb.labels import METRIC_NAME, TYPE_LABEL, UNIT_LABEL, Labels

METADATA = (METRIC_NAME, TYPE_LABEL, UNIT_LABEL)
STALE = object()
"""A stale marker in place of a value."""

Value = float | FloatHistogram
Cell = Value | None


class EvaluationError(Exception):
    """The query fails."""


class Unspecified(Exception):
    """Prometheus's answer depends on chance or on the processor: nothing to compare. The text is the reason,
    one of tests/fuzz/reasons.md."""


@dataclass
class Sample:
    """One stored sample; `start_ms` 0 is unset."""

    t_ms: int
    value: object
    start_ms: int = 0


@dataclass
class Series:
    """One stored series, samples in ascending time."""

    labels: Labels
    samples: list[Sample]


@dataclass
class Row:
    """One series of a result: a cell a step. `drop` is the delayed name removal flag."""

    labels: Labels
    cells: list[Cell]
    drop: bool = False


@dataclass
class RangeRow:
    """One series of a range vector: its samples, and windows (lo, hi] a step."""

    labels: Labels
    samples: list[Sample]
    drop: bool = False


@dataclass(frozen=True)
class Options:
    """What the interpreter needs to know of the engine's settings."""

    lookback_ms: int = 300_000
    subquery_step_ms: int = 60_000
    delayed_names: bool = False
    start_timestamps: bool = False


@dataclass(frozen=True)
class Times:
    """Evaluation times."""

    start_ms: int
    step_ms: int
    steps: int

    def all(self) -> list[int]:
        return [self.start_ms + k * self.step_ms for k in range(self.steps)]


def without_metadata(labels: Labels) -> Labels:
    """The set less the metric's name, type and unit."""
    return labels.without(*METADATA)


def dropped(row: Row, cells: list[Cell], delayed: bool) -> Row:
    """What functions and arithmetic do to names."""
    if delayed:
        return Row(row.labels, cells, True)
    return Row(without_metadata(row.labels), cells, row.drop)


def bits(value: float) -> int:
    """The pattern of a float."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def merge_rows(rows: Iterable[Row]) -> list[Row]:
    """Rows with equal labels become one, which loses its name if the one with the first sample does; sharing
    a step is an error."""
    merged: dict[Labels, Row] = {}
    for row in present(rows):
        held = merged.get(row.labels)
        if held is None:
            merged[row.labels] = Row(row.labels, list(row.cells), row.drop)
            continue
        if first_step(row) < first_step(held):
            held.drop = row.drop
        for k, cell in enumerate(row.cells):
            if cell is not None:
                if held.cells[k] is not None:
                    raise EvaluationError("vector cannot contain metrics with the same labelset")
                held.cells[k] = cell
    return list(merged.values())


def first_step(row: Row) -> int:
    """The step of a row's first sample."""
    return next(k for k, cell in enumerate(row.cells) if cell is not None)


def present(rows: Iterable[Row]) -> list[Row]:
    """Rows with any sample."""
    return [row for row in rows if any(cell is not None for cell in row.cells)]


LAST_DIGIT_COUNTS = 1e4
"""Where a number is this much larger than the period, its last digits, which libm chooses, decide."""

EDGE_WIDTH = 1e-4
"""Where a number is this near to the edge of a domain, its last digit decides how large the result is, or
whether there is one."""

LARGE_LOGARITHM = 40.0
"""The logarithm of a power multiplies the error of its operands' last digits."""


def power(x: float, y: float) -> float:
    """IEEE pow."""
    try:
        result = math.pow(x, y)
        exact = x == math.floor(x) and y == math.floor(y) if math.isfinite(x) and math.isfinite(y) else True
        if not exact and 0 < abs(result) < math.inf and abs(math.log(abs(result))) > LARGE_LOGARITHM:
            raise Unspecified("power with a large logarithm")
        return result
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError:
        if x == 0 and y < 0:
            odd = y == math.floor(y) and y % 2 == 1
            return math.copysign(math.inf, x) if odd else math.inf
        return math.nan


def modulo(x: float, y: float) -> float:
    """C's fmod."""
    if math.isnan(x) or math.isnan(y) or math.isinf(x) or y == 0:
        return math.nan
    if abs(x) > LAST_DIGIT_COUNTS * abs(y):
        raise Unspecified("remainder or angle of a large number")
    return math.fmod(x, y)


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": divide,
    "%": modulo,
    "^": power,
    "atan2": math.atan2,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    ">": lambda x, y: x > y,
    "<": lambda x, y: x < y,
    ">=": lambda x, y: x >= y,
    "<=": lambda x, y: x <= y,
}


def safe(function: Callable[[float], float]) -> Callable[[float], float]:
    """A math function with IEEE results where Python raises."""

    def apply(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return apply


def logarithm(function: Callable[[float], float]) -> Callable[[float], float]:
    """A logarithm with its limits."""

    def apply(x: float) -> float:
        if x == 0:
            return -math.inf
        return math.nan if x < 0 or math.isnan(x) else (x if math.isinf(x) else function(x))

    return apply


def kahan_sum(values: Sequence[float]) -> float:
    """Compensated sum."""
    total, comp = 0.0, 0.0
    for value in values:
        total, comp = kahan(value, total, comp)
    return total if math.isinf(total) else total + comp


def mean(values: Sequence[float]) -> float:
    """Compensated mean that goes incremental when the sum overflows."""
    total, comp, average = values[0], 0.0, 0.0
    incremental = False
    for n, value in enumerate(values[1:], start=2):
        if not incremental:
            new, new_comp = kahan(value, total, comp)
            if not math.isinf(new):
                total, comp = new, new_comp
                continue
            incremental = True
            average = total / (n - 1)
            comp /= n - 1
        share = (n - 1) / n
        average, comp = kahan(value / n, share * average, share * comp)
    if incremental:
        return average + comp
    return total / len(values) + comp / len(values)


def quantile(q: float, values: Sequence[float]) -> float:
    """Interpolated; NaN samples are the smallest."""
    if not values or math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda v: (not math.isnan(v), v if not math.isnan(v) else 0.0))
    rank = q * (len(values) - 1)
    low = max(0, math.floor(rank))
    high = min(len(values) - 1, low + 1)
    weight = rank - math.floor(rank)
    return ordered[low] * (1 - weight) + ordered[high] * weight


def variance_over_time(values: Sequence[float]) -> float:
    """Compensated Welford."""
    average = average_comp = total = total_comp = 0.0
    for n, value in enumerate(values, start=1):
        delta = value - (average + average_comp)
        average, average_comp = kahan(delta / n, average, average_comp)
        total, total_comp = kahan(delta * (value - (average + average_comp)), total, total_comp)
    return (total + total_comp) / len(values)


def plain_variance(values: Sequence[float]) -> float:
    """Welford as the aggregation has it: not compensated."""
    average, total, n = 0.0, 0.0, 0
    for value in values:
        n += 1
        if n == 1:
            average = value
            total = math.nan if math.isnan(value) or math.isinf(value) else 0.0
            continue
        delta = value - average
        average += delta / n
        total += delta * (value - average)
    return total / n
