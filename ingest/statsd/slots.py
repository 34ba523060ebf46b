"""What is kept of one series between flushes. `add` on the listener's thread, `gather` on any other.

`add` returns False for a value that it does not take, having changed nothing.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from typing import Protocol

from ingest.gathered import Family, Gathered, SeriesKey, counter, gauge
from ingest.statsd.line import Meaning, SampleError, read_number

QUANTILES = (0.5, 0.9, 0.99)
WINDOW_PARTS = 5
"""The quantiles look back over this many parts of the window (statsd_exporter: 10 min in 5 parts)."""
WINDOW_SECONDS = 600.0
VALUES_PER_PART_LIMIT = 512
"""Above this many the values of a part are a random sample of all."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Slot(Protocol):
    """State of one series."""

    touched: bool

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        """Take one value as written; it stands for `weight` samples and is multiplied by `factor`."""
        ...

    def gather(self, out: Gathered, now_seconds: float) -> None:
        """Add what is to be stored now."""
        ...


def _number(text: bytes) -> float | None:
    if text.isdigit() and len(text) < 16:
        return float(text)
    try:
        return read_number(text)
    except SampleError:
        return None


class CounterSlot:
    """A growing total."""

    __slots__ = ("_family", "_key", "_weight", "total", "touched")

    def __init__(self, meaning: Meaning) -> None:
        self._family = counter(meaning.name, "StatsD counter.")
        self._key: SeriesKey = (meaning.name, meaning.label_names, meaning.label_values)
        self.total = 0.0
        self.touched = True

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        value = _number(text)
        if value is None or value < 0:
            return False
        self.total += value * weight
        self.touched = True
        return True

    def gather(self, out: Gathered, now_seconds: float) -> None:
        out.add_series(self._family, self.total, self._key)


class GaugeSlot:
    """A last value; one with a sign is a difference."""

    __slots__ = ("_family", "_key", "touched", "value")

    def __init__(self, meaning: Meaning) -> None:
        self._family = gauge(meaning.name, "StatsD gauge.")
        self._key: SeriesKey = (meaning.name, meaning.label_names, meaning.label_values)
        self.value = 0.0
        self.touched = True

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        value = _number(text)
        if value is None:
            return False
        self.value = self.value + value if text[0] in b"+-" else value
        self.touched = True
        return True

    def gather(self, out: Gathered, now_seconds: float) -> None:
        out.add_series(self._family, self.value, self._key)


class SetSlot:
    """The number of different members since the last flush, at most `limit`."""

    __slots__ = ("_family", "_key", "_limit", "_members", "touched")

    def __init__(self, meaning: Meaning, limit: int) -> None:
        self._family = gauge(meaning.name, "StatsD set: different members in one flush interval.")
        self._key: SeriesKey = (meaning.name, meaning.label_names, meaning.label_values)
        self._limit = limit
        self._members: set[int] = set()
        self.touched = True

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        if not text or b":" in text or len(self._members) >= self._limit:
            return False
        self._members.add(hash(text))
        self.touched = True
        return True

    def gather(self, out: Gathered, now_seconds: float) -> None:
        members, self._members = self._members, set()
        out.add_series(self._family, len(members), self._key)


class SummarySlot:
    """Count and sum since the start, quantiles of about the last ten minutes."""

    __slots__ = (
        "_count", "_family", "_keys", "_part_count", "_part_since", "_parts", "_random", "_sum",
        "touched",
    )  # fmt: skip

    def __init__(self, meaning: Meaning, rng: random.Random) -> None:
        name, names, values = meaning.name, meaning.label_names, meaning.label_values
        self._family = Family(name, "summary", "StatsD timer, histogram or distribution.")
        self._keys: list[SeriesKey] = [
            *((name, (*names, "quantile"), (*values, str(quantile))) for quantile in QUANTILES),
            (f"{name}_sum", names, values),
            (f"{name}_count", names, values),
        ]
        self._random = rng
        self._sum = self._count = 0.0
        self._parts = [array("d")]
        self._part_count = 0
        self._part_since = 0.0
        self.touched = True

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        value = _number(text)
        if value is None:
            return False
        value *= factor
        self._sum += value * weight
        self._count += weight
        part = self._parts[-1]
        self._part_count += 1
        if len(part) < VALUES_PER_PART_LIMIT:
            part.append(value)
        elif (at := int(self._random.random() * self._part_count)) < VALUES_PER_PART_LIMIT:
            part[at] = value
        self.touched = True
        return True

    def gather(self, out: Gathered, now_seconds: float) -> None:
        recent = sorted(value for part in self._parts for value in part)
        for quantile, key in zip(QUANTILES, self._keys, strict=False):
            at = min(int(quantile * len(recent)), len(recent) - 1)
            out.add_series(self._family, recent[at] if recent else float("nan"), key)
        out.add_series(self._family, self._sum, self._keys[-2])
        out.add_series(self._family, self._count, self._keys[-1])
        if not self._part_since:
            self._part_since = now_seconds
        elif now_seconds - self._part_since >= WINDOW_SECONDS / WINDOW_PARTS:
            self._part_since, self._part_count = now_seconds, 0
            self._parts = [*self._parts[-WINDOW_PARTS + 1 :], array("d")]


class HistogramSlot:
    """Count, sum and fixed buckets since the start."""

    __slots__ = ("_counts", "_family", "_keys", "_sum", "touched")

    def __init__(self, meaning: Meaning) -> None:
        name, names, values = meaning.name, meaning.label_names, meaning.label_values
        self._family = Family(name, "histogram", "StatsD timer, histogram or distribution.")
        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        self._keys: list[SeriesKey] = [
            *((f"{name}_bucket", (*names, "le"), (*values, bound)) for bound in bounds),
            (f"{name}_sum", names, values),
            (f"{name}_count", names, values),
        ]
        self._counts = [0.0] * len(bounds)
        self._sum = 0.0
        self.touched = True

    def add(self, text: bytes, weight: float = 1.0, factor: float = 1.0) -> bool:
        value = _number(text)
        if value is None:
            return False
        value *= factor
        self._sum += value * weight
        self._counts[bisect_left(BUCKETS, value)] += weight
        self.touched = True
        return True

    def gather(self, out: Gathered, now_seconds: float) -> None:
        total = 0.0
        for count, key in zip(tuple(self._counts), self._keys, strict=False):
            total += count
            out.add_series(self._family, total, key)
        out.add_series(self._family, self._sum, self._keys[-2])
        out.add_series(self._family, total, self._keys[-1])
