"""Slow, obvious twins of the aggregation kernels: the samples of one group at one step, in row order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tests.reference.windows import kahan, quantile_of


def total(values: Sequence[float]) -> float:
    """sum."""
    value, comp = values[0], 0.0
    for x in values[1:]:
        value, comp = kahan(x, value, comp)
    return value + comp


def mean(values: Sequence[float]) -> float:
    """avg: incremental once the sum overflows."""
    value, comp, average, incremental = values[0], 0.0, 0.0, False
    n = 1.0
    for x in values[1:]:
        n += 1
        if not incremental:
            new, new_comp = kahan(x, value, comp)
            if not math.isinf(new):
                value, comp = new, new_comp
                continue
            incremental = True
            average = value / (n - 1)
            comp /= n - 1
        q = (n - 1) / n
        average, comp = kahan(x / n, q * average, q * comp)
    return average + comp if incremental else value / n + comp / n


def extreme(values: Sequence[float], largest: bool) -> float:
    """min, max: NaN only where there is nothing else."""
    best = values[0]
    for x in values[1:]:
        if math.isnan(best) or (x > best if largest else x < best):
            best = x
    return best


def variance(values: Sequence[float], deviation: bool) -> float:
    """stdvar, stddev."""
    first = values[0]
    m2 = math.nan if math.isnan(first) or math.isinf(first) else 0.0
    average, n = first, 1.0
    for x in values[1:]:
        n += 1
        delta = x - average
        average += delta / n
        m2 += delta * (x - average)
    result = m2 / n
    if not deviation:
        return result
    return math.sqrt(result) if result >= 0 else math.nan


def best(values: Sequence[tuple[int, float]], k: int, largest: bool) -> set[int]:
    """Rows that topk or bottomk may choose when no two values are equal."""
    numbers = [(v, row) for row, v in values if not math.isnan(v)]
    numbers.sort(reverse=largest)
    nans = [row for row, v in values if math.isnan(v)]
    return set(([row for _, row in numbers] + nans)[:k])


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": total,
    "avg": mean,
    "min": lambda v: extreme(v, False),
    "max": lambda v: extreme(v, True),
    "count": lambda v: float(len(v)),
    "group": lambda v: 1.0,
    "stddev": lambda v: variance(v, True),
    "stdvar": lambda v: variance(v, False),
}

__all__ = ["AGGREGATIONS", "best", "quantile_of"]
