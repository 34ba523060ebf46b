"""Slow twins of roll-ups: samples to the columns of their windows, and queries over those columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Window:
    """One window's columns."""

    end_ms: int
    columns: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.columns[name]


def extrapolated(
    windows: Sequence[Window], start_ms: int, end_ms: int, range_ms: int, counter: bool, rate: bool
) -> float | None:
    """rate, increase or delta from the windows that end in (start, end] (prometheus-surface.md 2.8), scaled
    to the range asked for; None where they hold fewer than two samples."""
    inside = [w for w in windows if start_ms < w.end_ms <= end_ms]
    samples = math.fsum(w["count"] for w in inside)
    if samples < 2:
        return None
    first_ms = inside[0].end_ms - int(inside[0]["first_age"])
    last_ms = inside[-1].end_ms - int(inside[-1]["last_age"])
    first = inside[0]["first"]
    grown = inside[-1]["last"] - first
    if counter:
        before: Window | None = None
        for w in inside:
            if before is not None and w["first"] < before["last"]:
                grown += before["last"]
            if w["resets"]:
                grown += w["resets"]
            before = w
    covered = (last_ms - first_ms) / 1000
    average = covered / (samples - 1)
    to_start, to_end = (first_ms - start_ms) / 1000, (end_ms - last_ms) / 1000
    if to_start >= average * 1.1:
        to_start = average / 2
    if to_end >= average * 1.1:
        to_end = average / 2
    if counter and grown > 0 and first >= 0:
        # Where a line through both ends would be zero.
        to_start = min(to_start, covered * (first / grown))
    result = grown * ((covered + to_start + to_end) / covered)
    if rate:
        return result / ((end_ms - start_ms) / 1000)
    return result * (range_ms / (end_ms - start_ms))


def latest_index(t_ms: Sequence[int], end_ms: int, lookback_ms: int) -> int:
    """Place of the latest time in (end - lookback, end], -1 for none."""
    inside = [i for i, t in enumerate(t_ms) if end_ms - lookback_ms < t <= end_ms]
    return inside[-1] if inside else -1
