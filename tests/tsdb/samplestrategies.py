"""Hypothesis strategies of series with samples."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.tsdb.memoryselection import FloatSample, HistogramSample, Row, bits_of
from tsdb.labels import Labels
from tsdb.select import STALE_BITS

SPECIAL_BITS = [
    STALE_BITS,
    bits_of(float("inf")),
    bits_of(float("-inf")),
    bits_of(-0.0),
    0x7FF8000000000001,
    1,
    0,
]

any_bits = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from(SPECIAL_BITS),
    st.integers(-1000, 1000).map(lambda n: bits_of(n / 100)),
    st.integers(-(1 << 60), 1 << 60).map(lambda n: bits_of(float(n))),
)
label_sets = st.dictionaries(
    st.sampled_from(["__name__", "a", "job", "é"]), st.sampled_from(["", "x", "y", "up"]), max_size=3
).map(Labels.from_dict)
start_times = st.one_of(st.just(0), st.integers(-5, 100_000))


@st.composite
def buckets(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    indices = sorted(draw(st.sets(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-4, 8), max_size=4)))
    return tuple((i, draw(any_bits)) for i in indices)


@st.composite
def histogram_samples(draw: st.DrawFn, t_ms: int) -> HistogramSample:
    return HistogramSample(
        t_ms,
        draw(start_times),
        draw(st.sampled_from([-53, -4, 0, 3, 8])),
        draw(st.integers(0, 3)),
        draw(any_bits),
        draw(any_bits),
        draw(any_bits),
        draw(any_bits),
        draw(st.integers(0, 1)),
        draw(buckets()),
        draw(buckets()),
        tuple(draw(st.lists(any_bits, max_size=3))),
    )


@st.composite
def rows(draw: st.DrawFn, max_series: int = 6) -> list[Row]:
    found = []
    grid = draw(st.sampled_from([1, 15, 1000]))
    for labels in draw(st.lists(label_sets, max_size=max_series, unique=True)):
        times = sorted(draw(st.sets(st.integers(-20, 60), max_size=12)))
        row = Row(labels)
        for t in times:
            kind = draw(st.sampled_from("ffffh"))
            if kind == "f":
                row.floats.append(FloatSample(t * grid, draw(any_bits), draw(start_times)))
            else:
                row.histograms.append(draw(histogram_samples(t * grid)))
        found.append(row)
    return found
