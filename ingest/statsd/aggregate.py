"""Datagrams into slots of series, and slots into samples.

The hot path looks up name and tail (type, rate, tags) of a line as they are spelled; only spellings not seen
before are parsed. One thread receives; `gather` may run in another one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Literal

from ingest.gathered import Gathered
from ingest.statsd.limits import (
    CACHE_BYTES_LIMIT,
    CACHED_LINE_BYTES_LIMIT,
    VALUES_PER_LINE_LIMIT,
    StatsdLimits,
)
from ingest.statsd.line import COUNTER, GAUGE, OBSERVER, SET, Meaning, SampleError, read_meaning
from ingest.statsd.slots import CounterSlot, GaugeSlot, HistogramSlot, SetSlot, Slot, SummarySlot

ObserverType = Literal["summary", "histogram"]
_Add = Callable[[bytes, float, float], bool]
_PART = "part"
_OBSERVER_SUFFIXES = ("_sum", "_count", "_bucket")
_CACHE_ENTRY_BYTES = 200
_NAMES_OF_KINDS = (COUNTER, GAUGE, OBSERVER, SET)


class Aggregator:
    """State of all series. `receive` and `expire` on one thread."""

    def __init__(
        self,
        limits: StatsdLimits | None = None,
        observer: ObserverType = "summary",
        seed: int = 0,
    ) -> None:
        self._limits = limits or StatsdLimits()
        self._observer = observer
        self._random = random.Random(seed)
        self._cache: dict[tuple[bytes, bytes], tuple[_Add, float, float]] = {}
        self._cache_bytes = 0
        self._slots: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Slot] = {}
        self._kinds: dict[str, str] = {}
        self._per_metric: Counter[str] = Counter()
        self._idle_since: dict[tuple[str, tuple[str, ...], tuple[str, ...]], float] = {}
        self.line_count = 0
        self.errors: Counter[str] = Counter()
        self.conflicts: Counter[str] = Counter()
        self.bad_tag_count = 0
        self.unsupported: Counter[str] = Counter()

    @property
    def series_count(self) -> int:
        """Label sets that are kept."""
        return len(self._slots)

    def receive(self, datagram: bytes) -> None:
        """Take the lines of one datagram. Never raises: bad lines are counted by reason."""
        cache = self._cache
        lines = datagram.split(b"\n")
        for line in lines:
            name, _, rest = line.partition(b":")
            value, _, tail = rest.partition(b"|")
            entry = cache.get((name, tail))
            if entry is None or not entry[0](value, entry[1], entry[2]):
                self._receive_slowly(line)
        self.line_count += len(lines)

    def _receive_slowly(self, raw: bytes) -> None:
        """A line that is new in its spelling, has several values, or is bad."""
        line = raw.rstrip(b"\r")
        if not line:
            self.line_count -= 1
            return
        if line.startswith((b"_e{", b"_sc|")):
            self.unsupported["event" if line.startswith(b"_e{") else "service_check"] += 1
            return
        name, colon, rest = line.partition(b":")
        if not colon or not name:
            self.errors["malformed_line"] += 1
            return
        samples = [rest]
        if b"|#" not in rest and len(parts := rest.split(b":", VALUES_PER_LINE_LIMIT)) > 1:
            samples = parts if all(b"|" in part for part in parts) else samples
        for sample in samples:
            try:
                self._take(name, sample)
            except SampleError as error:
                self.errors[error.reason] += 1

    def _take(self, name: bytes, sample: bytes) -> None:
        """One sample, perhaps with several values before its type. Raises SampleError."""
        values, bar, tail = sample.partition(b"|")
        if not bar:
            raise SampleError("malformed_component")
        entry = self._cache.get((name, tail)) or self._find(name, tail)
        add, weight, factor = entry
        texts = values.split(b":", VALUES_PER_LINE_LIMIT)
        if len(texts) > VALUES_PER_LINE_LIMIT:
            raise SampleError("too_many_values")
        for text in texts:
            if not add(text, weight, factor):
                self.errors[self._refusal(add, text)] += 1

    @staticmethod
    def _refusal(add: _Add, text: bytes) -> str:
        slot = getattr(add, "__self__", None)
        if isinstance(slot, SetSlot) and text:
            return "set_limit"
        return "negative_counter" if isinstance(slot, CounterSlot) and text[:1] == b"-" else "malformed_value"

    def _find(self, name: bytes, tail: bytes) -> tuple[_Add, float, float]:
        """The slot of a spelling, made and remembered as needed. Raises SampleError."""
        meaning = read_meaning(name, tail, self._limits)
        self.bad_tag_count += meaning.bad_tag_count
        key = (meaning.name, meaning.label_names, meaning.label_values)
        slot = self._slots.get(key)
        if slot is None or self._kinds[meaning.name] != meaning.kind:
            self._check(meaning)
            slot = self._slots[key] = self._make(meaning)
            self._per_metric[meaning.name] += 1
        entry = (slot.add, meaning.weight, meaning.factor)
        size = len(name) + len(tail)
        if size <= CACHED_LINE_BYTES_LIMIT and not meaning.bad_tag_count:
            if self._cache_bytes + size > CACHE_BYTES_LIMIT:
                self._forget_spellings()
            self._cache[name, tail] = entry
            self._cache_bytes += size + _CACHE_ENTRY_BYTES
        return entry

    def _check(self, meaning: Meaning) -> None:
        """Raise SampleError for a metric of another kind and for limits; else note the metric's kind."""
        name, kind = meaning.name, meaning.kind
        if self._kinds.get(name, kind) != kind:
            self.conflicts[kind] += 1
            raise SampleError("type_conflict")
        parts = [name + suffix for suffix in _OBSERVER_SUFFIXES] if kind == OBSERVER else []
        if any(self._kinds.get(part, _PART) != _PART for part in parts):
            self.conflicts[kind] += 1
            raise SampleError("type_conflict")
        if len(self._slots) >= self._limits.series_count:
            raise SampleError("series_limit")
        if self._per_metric[name] >= self._limits.series_per_metric_count:
            raise SampleError("series_per_metric_limit")
        self._kinds[name] = kind
        self._kinds.update((part, _PART) for part in parts)

    def _make(self, meaning: Meaning) -> Slot:
        if meaning.kind == COUNTER:
            return CounterSlot(meaning)
        if meaning.kind == GAUGE:
            return GaugeSlot(meaning)
        if meaning.kind == SET:
            return SetSlot(meaning, self._limits.set_members_count)
        if self._observer == "histogram":
            return HistogramSlot(meaning)
        return SummarySlot(meaning, self._random)

    def _forget_spellings(self) -> None:
        self._cache.clear()
        self._cache_bytes = 0

    def gather(self, out: Gathered, now_seconds: float) -> None:
        """Add the samples of every series."""
        for slot in list(self._slots.values()):
            slot.gather(out, now_seconds)

    def expire(self, now_seconds: float, idle_seconds: float) -> int:
        """Drop series without a sample for `idle_seconds`; their number. On the receiving thread."""
        expired = []
        for key, slot in self._slots.items():
            if slot.touched:
                slot.touched = False
                self._idle_since[key] = now_seconds
            elif now_seconds - self._idle_since.setdefault(key, now_seconds) >= idle_seconds:
                expired.append(key)
        for key in expired:
            del self._slots[key], self._idle_since[key]
            self._per_metric[key[0]] -= 1
            if self._per_metric[key[0]] <= 0:
                self._forget_metric(key[0])
        if expired:
            self._forget_spellings()
        return len(expired)

    def _forget_metric(self, name: str) -> None:
        del self._per_metric[name]
        if self._kinds.pop(name, None) == OBSERVER:
            for suffix in _OBSERVER_SUFFIXES:
                if self._kinds.get(name + suffix) == _PART:
                    del self._kinds[name + suffix]
