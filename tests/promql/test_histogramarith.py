"""Kernels of histogram arithmetic against their slow twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.histogramresets import resets_and_runs
from promql.kernels import bucketbounds, histogramarith, histogramcombine, histogramplain, histogramtrim
from tests.promql.operands import histogram_at, pool_from
from tests.promql.randomhistograms import histograms
from tests.reference import histogramqueries as queries
from tests.reference import histograms as slow
from tests.reference.histograms import FloatHistogram

ALL = settings(max_examples=300, deadline=None)
XS = st.one_of(st.floats(-20, 20), st.sampled_from([-math.inf, math.inf, 0.0, 1.0, -1.0, 0.25, 2.0]))


def same(got: FloatHistogram, want: FloatHistogram, rel: float = 0.0) -> bool:
    numbers = [
        (got.zero_threshold, want.zero_threshold),
        (got.zero_count, want.zero_count),
        (got.count, want.count),
        (got.sum, want.sum),
    ]
    for mine, theirs in ((got.positive, want.positive), (got.negative, want.negative)):
        assert sorted(mine) == list(mine), "buckets must ascend"
        if sorted(mine) != sorted(theirs):
            return False
        numbers += [(mine[i], theirs[i]) for i in mine]
    close = all(a == pytest.approx(b, rel=rel, abs=0, nan_ok=True) for a, b in numbers)
    return close and (got.schema, got.hint, got.custom) == (want.schema, want.hint, want.custom)


@pytest.mark.parametrize("schema", range(-4, 9))
def test_bounds_are_those_of_the_slow_twin(schema: int) -> None:
    top = 1024 * 2**schema if schema >= 0 else 1024 // 2**-schema
    for index in [*range(-70, 70), top - 1, top, top + 1, -top]:
        assert bucketbounds.exponential_bound(index, schema) == slow.exponential_bound(index, schema)


def test_bounds_are_prometheus_s_to_the_last_bit() -> None:
    known = {
        (1, 1): 2 * 0.7071067811865475,
        (3, 2): 2 * 0.8408964152537144,
        (1, 8): 2 * 0.5013556375251013,
        (54, 6): 2 * 0.8973545375015533,
        (241, 8): 2 * 0.9601996065815236,
        (255, 8): 2 * 0.9972960560854698,
        (1024, 0): 1.7976931348623157e308,
        (1025, 0): math.inf,
        (256, -2): 1.7976931348623157e308,
    }
    for (index, schema), bound in known.items():
        assert bucketbounds.exponential_bound(index, schema) == bound


@ALL
@given(samples=st.lists(histograms(), min_size=1, max_size=5), average=st.booleans())
def test_sums_and_averages_agree_with_the_slow_twin(samples: list[FloatHistogram], average: bool) -> None:
    index, flags = np.empty(1, dtype=np.int32), np.empty(1, dtype=np.uint8)
    members = np.arange(len(samples))
    got = histogramcombine.combine(
        pool_from(samples), members, np.array([0]), np.array([len(samples)]), average, False, index, flags
    )
    want = slow.combine(samples, average)
    assert bool(flags[0] & histogramcombine.COLLISION) == want.collision
    assert bool(flags[0] & histogramcombine.INCOMPATIBLE) == want.incompatible
    if want.histogram is None:
        assert index[0] == -1
        return
    assert bool(flags[0] & histogramcombine.RECONCILED) == want.reconciled
    assert same(histogram_at(got, 0), want.histogram, 1e-12)


def test_average_goes_incremental_when_the_sum_overflows() -> None:
    big = FloatHistogram(count=1.5e308, sum=1.0, positive={0: 1.5e308})
    index, flags = np.empty(1, dtype=np.int32), np.empty(1, dtype=np.uint8)
    got = histogramcombine.combine(
        pool_from([big, big, big]), np.arange(3), np.array([0]), np.array([3]), True, True, index, flags
    )
    assert same(histogram_at(got, 0), big, 1e-15)


@ALL
@given(a=histograms(), b=histograms(), sign=st.sampled_from([1, -1]))
def test_sums_and_differences_of_pairs_agree_with_the_slow_twin(
    a: FloatHistogram, b: FloatHistogram, sign: int
) -> None:
    index, flags, zero = np.empty(1, dtype=np.int32), np.empty(1, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    got = histogramarith.add_pairs(pool_from([a]), zero, pool_from([b]), zero, sign, False, index, flags)
    want = a.copy()
    try:
        collision, reconciled = slow.add(want, b, sign)
    except slow.IncompatibleBuckets:
        assert (index[0], flags[0]) == (-1, histogramarith.INCOMPATIBLE)
        return
    assert bool(flags[0] & histogramarith.COLLISION) == collision
    assert bool(flags[0] & histogramarith.RECONCILED) == reconciled
    assert same(histogram_at(got, 0), want.compact())


@ALL
@given(h=histograms(), factor=st.sampled_from([0.0, -1.0, 2.5, 0.1, math.nan]), divide=st.booleans())
def test_scaling_agrees_with_the_slow_twin(h: FloatHistogram, factor: float, divide: bool) -> None:
    got = histogramarith.scale_each(pool_from([h]), np.zeros(1, dtype=np.int32), np.array([factor]), divide)
    assert same(histogram_at(got, 0), h.copy().scale(factor, divide).compact())


@ALL
@given(h=histograms(), x=XS, keep_below=st.booleans())
def test_trimming_agrees_with_the_slow_twin(h: FloatHistogram, x: float, keep_below: bool) -> None:
    got = histogramtrim.trim_each(pool_from([h]), np.zeros(1, dtype=np.int32), np.array([x]), keep_below)
    assert same(histogram_at(got, 0), queries.trim(h, x, keep_below), 1e-12)


@st.composite
def neighbour_lists(draw: st.DrawFn) -> list[FloatHistogram]:
    """Counters that mostly grow."""
    out = [draw(histograms())]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            out.append(draw(histograms()))
            continue
        grown = out[-1].copy()
        grown.hint = draw(st.sampled_from([0, 0, 2, 3]))
        for side in (grown.positive, grown.negative):
            for i in side:
                side[i] += draw(st.sampled_from([0.0, 1.0]))
                grown.count += 1
        if draw(st.booleans()) and not grown.is_custom:
            grown.reduce(grown.schema - 1)
        out.append(grown)
    return out


@ALL
@given(samples=neighbour_lists())
def test_resets_and_changes_agree_with_the_slow_twin(samples: list[FloatHistogram]) -> None:
    offsets, pool = np.array([0, len(samples)]), pool_from(samples)
    out = np.full(len(samples), histogramplain.UNSURE, dtype=np.uint8)
    histogramarith.neighbours(pool, offsets, False, out)
    pairs = list(zip(samples[1:], samples, strict=False))
    resets = [0, *(slow.detect_reset(now, before) for now, before in pairs)]
    assert out.tolist() == resets
    assert resets_and_runs(pool, offsets)[0].tolist() == resets
    histogramarith.neighbours(pool, offsets, True, out)
    assert out.tolist() == [0, *(not now.equals(before) for now, before in pairs)]


@ALL
@given(a=histograms(), b=histograms(), same_data=st.booleans())
def test_equality_looks_at_bits_and_not_at_hints(
    a: FloatHistogram, b: FloatHistogram, same_data: bool
) -> None:
    if same_data:
        b = a.copy()
        b.hint = 3
    out, zero = np.empty(1, dtype=np.bool_), np.zeros(1, dtype=np.int32)
    histogramarith.equal_pairs(pool_from([a]), zero, pool_from([b]), zero, out)
    assert bool(out[0]) == a.equals(b)
    assert bool(out[0]) or not same_data
