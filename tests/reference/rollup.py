"""Slow twin of rolling up: one series' samples to the columns of its windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def window_end(t_ms: int, resolution_ms: int) -> int:
    """T of the window (T - r, T] that holds a time."""
    return -(-t_ms // resolution_ms) * resolution_ms


def rolled_up(
    samples: Sequence[tuple[int, float | None]], resolution_ms: int
) -> tuple[dict[int, dict[str, float]], list[int]]:
    """Columns by window end, and the ends of windows that end stale; None is a stale marker."""
    windows: dict[int, list[tuple[int, float | None]]] = {}
    for t, value in samples:
        windows.setdefault(window_end(t, resolution_ms), []).append((t, value))
    columns: dict[int, dict[str, float]] = {}
    stale = []
    for end, inside in windows.items():
        if inside[-1][1] is None:
            stale.append(end)
        real = [(t, value) for t, value in inside if value is not None]
        if not real:
            continue
        values = [value for _, value in real]
        numbers = [value for value in values if not math.isnan(value)]
        columns[end] = {
            "count": float(len(real)),
            "sum": _sum(values),
            "min": min(numbers) if numbers else math.nan,
            "max": max(numbers) if numbers else math.nan,
            "first": values[0],
            "last": values[-1],
            "resets": math.fsum(a for a, b in itertools.pairwise(values) if b < a),
            "first_age": float(end - real[0][0]),
            "last_age": float(end - real[-1][0]),
        }
    return columns, stale


def _sum(values: Sequence[float]) -> float:
    if all(math.isfinite(value) for value in values):
        try:
            return math.fsum(values)
        except OverflowError:
            return math.nan
    return sum(values)
