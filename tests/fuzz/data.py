"""Random series for the differential fuzz: counters with resets, gauges with NaN and infinities, classic and
native histograms, series of both kinds; with gaps and stale markers, at odd milliseconds."""

from __future__ import annotations

import math
from random import Random

from promql.histogramvalue import Histogram
from promql.memory import MemoryStore
from tests.reference.histograms import CUSTOM, GAUGE, NOT_RESET, UNKNOWN, FloatHistogram
from tests.reference.promqlvalues import STALE, Sample, Series
from tsdb.histogram import ResetHint
from tsdb.labels import Labels

END_MS = 600_000
INTERVAL_MS = 15_000
SERIES_MAX = 31
BOUNDS = ("0.1", "0.5", "1", "5", "+Inf")


def make_series(rng: Random) -> list[Series]:
    """A small store's content."""
    out: list[Series] = []
    out.extend(_float_series(rng, "c_total", _counter) for _ in range(rng.randint(3, 6)))
    out.extend(_float_series(rng, rng.choice(["g", "g2"]), _gauge) for _ in range(rng.randint(3, 6)))
    labels = _labels(rng)
    names = [{"__name__": "d_bucket", "le": bound, **labels} for bound in BOUNDS]
    out.extend(Series(Labels.from_dict(name), []) for name in names)
    _fill_buckets(rng, out[-len(BOUNDS) :])
    out.extend(_histogram_series(rng, "h", custom=False) for _ in range(rng.randint(2, 4)))
    if rng.random() < 0.5:
        out.append(_histogram_series(rng, "h", custom=True))
    out.append(_float_series(rng, "disk.io", _counter))
    out.append(_float_series(rng, "größe", _gauge))
    if rng.random() < 0.5:
        out.append(_histogram_series(rng, "lat.h", custom=False))
    mixed = _histogram_series(rng, "x", custom=False)
    floats = _float_series(rng, "x", _gauge).samples
    half = rng.randint(0, END_MS)
    samples = [s for s in mixed.samples if s.t_ms <= half] + [s for s in floats if s.t_ms > half]
    out.append(Series(mixed.labels, samples))
    out.extend(_info_series(rng) for _ in range(rng.randint(0, 3)))
    distinct: dict[Labels, Series] = {}
    for series in out:
        distinct.setdefault(series.labels, series)
    return list(distinct.values())[:SERIES_MAX]


def _labels(rng: Random) -> dict[str, str]:
    labels = {"a": rng.choice("123")}
    if rng.random() < 0.8:
        labels["b"] = rng.choice("xy")
    if rng.random() < 0.2:
        labels["c"] = "only"
    if rng.random() < 0.3:
        labels["job"] = rng.choice("jk")
    if rng.random() < 0.25:
        labels["label.x"] = rng.choice("pq")
    if rng.random() < 0.1:
        labels['ü "q"'] = rng.choice(['"', "é.\\"])
    return labels


def _info_series(rng: Random) -> Series:
    labels = {"__name__": rng.choice(["target_info", "target_info", "build_info"]), "job": rng.choice("jk")}
    labels[rng.choice(["version", "c", "zone", "service.version"])] = rng.choice(["1", "2"])
    samples = [Sample(t, STALE if rng.random() < 0.02 else 1.0) for t in _times(rng)]
    return Series(Labels.from_dict(labels), samples)


def _times(rng: Random) -> list[int]:
    out = []
    t = rng.randint(1, INTERVAL_MS) * 2 + 1
    while t < END_MS:
        if rng.random() > 0.05:
            out.append(t)
        if rng.random() < 0.02:
            t += 2 * rng.randint(60_000, 180_000)
        t += INTERVAL_MS + 2 * rng.randint(-500, 500)
    return out


def _float_series(rng: Random, name: str, step) -> Series:  # type: ignore[no-untyped-def]
    samples: list[Sample] = []
    value = rng.choice([0.0, 1.0, round(rng.uniform(-5, 50), 2)])
    starts = rng.random() < 0.3
    for t in _times(rng):
        value = step(rng, value)
        stale = rng.random() < 0.02
        start_ms = _start(rng, t, samples) if starts and not stale else 0
        samples.append(Sample(t, STALE if stale else value, start_ms))
    return Series(Labels.from_dict({"__name__": name, **_labels(rng)}), samples)


def _start(rng: Random, t: int, before: list[Sample]) -> int:
    """Of the next sample: one of its own, the last one's, the last sample's time; now and then too late."""
    last = before[-1] if before else Sample(0, 0.0)
    own = t - rng.choice([1, 5_000, 40_000, 0, -7])
    return max(0, rng.choice([own, own, last.start_ms, last.start_ms, last.t_ms, 0]))


def _counter(rng: Random, value: float) -> float:
    if rng.random() < 0.04:
        return float(rng.randint(0, 3))
    return abs(value) + rng.choice([0.0, 1.0, 2.5, float(rng.randint(0, 20))])


def _gauge(rng: Random, value: float) -> float:
    drawn = rng.random()
    if drawn < 0.02:
        return rng.choice([math.nan, math.inf, -math.inf])
    if not math.isfinite(value) or drawn < 0.5:
        return round(rng.uniform(-10, 10), 3)
    return value if drawn < 0.7 else value + rng.choice([1.0, -0.25])


def _fill_buckets(rng: Random, rows: list[Series]) -> None:
    counts = [0.0] * len(rows)
    for t in _times(rng):
        for i in range(len(rows)):
            counts[i] += sum(rng.randint(0, 3) for _ in range(2))
        total = 0.0
        for row, count in zip(rows, counts, strict=True):
            total += count
            row.samples.append(Sample(t, total))


def _histogram_series(rng: Random, name: str, custom: bool) -> Series:
    gauge = rng.random() < 0.2
    starts = rng.random() < 0.3
    current = _empty_histogram(rng, custom)
    samples: list[Sample] = []
    for number, t in enumerate(_times(rng)):
        fresh = number == 0 or rng.random() < 0.04
        if fresh:
            current = _empty_histogram(rng, custom)
        grown = current.copy()
        grown.hint = GAUGE if gauge else (UNKNOWN if fresh else NOT_RESET)
        for _ in range(rng.randint(0, 4)):
            index = rng.randint(0, len(grown.custom)) if custom else rng.randint(-3, 5)
            while not custom and grown.bound(index) <= grown.zero_threshold:
                index += 1
            side = grown.negative if not custom and rng.random() < 0.2 else grown.positive
            side[index] = side.get(index, 0.0) + 1
            grown.count += 1
            grown.sum += round(rng.uniform(0, 4), 1)
        if not custom and rng.random() < 0.3:
            grown.zero_count += 1
            grown.count += 1
        current = grown
        stale = rng.random() < 0.02
        start_ms = _start(rng, t, samples) if starts and not stale else 0
        samples.append(Sample(t, STALE if stale else grown, start_ms))
    return Series(Labels.from_dict({"__name__": name, **_labels(rng)}), samples)


def _empty_histogram(rng: Random, custom: bool) -> FloatHistogram:
    if custom:
        bounds = sorted(rng.sample([0.5, 1.0, 2.0, 5.0, 10.0], rng.randint(2, 4)))
        return FloatHistogram(CUSTOM, custom=tuple(bounds))
    return FloatHistogram(rng.choice([0, 0, 1, -1]), zero_threshold=rng.choice([0.001, 0.001, 0.05]))


def as_value(h: FloatHistogram) -> Histogram:
    """A reference histogram in the form of stores and results."""
    return Histogram(
        schema=h.schema,
        count=h.count,
        sum=h.sum,
        zero_threshold=h.zero_threshold,
        zero_count=h.zero_count,
        positive=tuple(sorted(h.positive.items())),
        negative=tuple(sorted(h.negative.items())),
        custom_values=h.custom,
        hint=ResetHint(h.hint),
    )


def as_reference(h: Histogram) -> FloatHistogram:
    """The other way round."""
    return FloatHistogram(
        h.schema,
        int(h.hint),
        h.zero_threshold,
        h.zero_count,
        h.count,
        h.sum,
        dict(h.positive),
        dict(h.negative),
        h.custom_values,
    )


def fill_store(series: list[Series]) -> MemoryStore:
    """The same content for the engine."""
    store = MemoryStore()
    for row in series:
        before: object = 0.0
        for sample in row.samples:
            value = sample.value
            if value is STALE:
                if isinstance(before, FloatHistogram):
                    stale = Histogram(schema=before.schema, custom_values=before.custom, stale=True)
                    store.add_histogram(row.labels, sample.t_ms, stale)
                else:
                    store.add_stale(row.labels, sample.t_ms)
                continue
            before = value
            if isinstance(value, FloatHistogram):
                store.add_histogram(row.labels, sample.t_ms, as_value(value), sample.start_ms)
            else:
                assert isinstance(value, float)
                store.add_float(row.labels, sample.t_ms, value, sample.start_ms)
    return store
