"""Hypothesis strategies of native histograms."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from tests.reference.histograms import CUSTOM, FloatHistogram

BOUNDS = (-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
counts = st.one_of(st.integers(0, 9).map(float), st.floats(1e-3, 20), st.sampled_from([0.1, 1e16, 3.0]))
"""Not below a thousandth: a count of 5e-324 times a rate's factor vanishes by the order of rounding."""


@st.composite
def histograms(draw: st.DrawFn, custom: bool | None = None) -> FloatHistogram:
    """A well-formed histogram, empty buckets and NaN or infinite observations among others."""
    if custom if custom is not None else draw(st.booleans()):
        bounds = tuple(sorted(draw(st.sets(st.sampled_from(BOUNDS), max_size=6))))
        positive = draw(st.dictionaries(st.integers(0, len(bounds)), counts, max_size=6))
        h = FloatHistogram(CUSTOM, positive=positive, custom=bounds)
    else:
        schema = draw(st.integers(-2, 3))
        index = st.integers(-12, 12)
        h = FloatHistogram(
            schema,
            zero_threshold=draw(st.sampled_from([0.0, 0.001, 0.25, 0.3, 1.0, 2.0])),
            zero_count=draw(counts),
            positive=draw(st.dictionaries(index, counts, max_size=6)),
            negative=draw(st.dictionaries(index, counts, max_size=4)),
        )
        for side in (h.positive, h.negative):
            for i in [i for i in side if h.bound(i) <= h.zero_threshold]:
                del side[i]
    h.hint = draw(st.integers(0, 3))
    h.count = h.zero_count + sum(h.positive.values()) + sum(h.negative.values())
    h.sum = draw(st.sampled_from([0.0, 1.5, -3.25, 1e100, math.nan]))
    if math.isnan(h.sum):
        h.count += draw(st.sampled_from([0.0, 3.0]))
    return h
