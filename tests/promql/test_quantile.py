"""histogram_quantile and histogram_fraction: kernels against their slow twins, operators by example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.ast import Position
from promql.kernels import histogram, quantile
from promql.matrix import ABSENT
from promql.operators.classicquantile import parse_bound
from promql.operators.histogramquantile import HistogramFraction, HistogramQuantile, HistogramQuantiles
from tests.promql.operands import Cell, FixedScalar, FixedVector, context, pool_from, result_of
from tests.promql.randomhistograms import histograms
from tests.reference import histogramqueries as slow
from tests.reference.histograms import FloatHistogram

POS = Position(22, 30)
INF = math.inf
DELAYED = frozenset({"promql-delayed-name-removal"})

counts = st.one_of(
    st.integers(0, 30).map(float),
    st.floats(0, 100),
    st.sampled_from([math.nan, 10.0, 10.000000000000002, 1e300, INF]),
)
bounds = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1.0, 2.5, 10.0, INF]), max_size=7).map(sorted)
qs = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, -1.0, 2.0, 0.0, 1.0, 0.5]))


def same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


@settings(max_examples=400, deadline=None)
@given(le=bounds, q=qs, data=st.data())
def test_classic_quantile_and_fraction_agree_with_the_slow_twin(
    le: list[float], q: float, data: st.DataObject
) -> None:
    cells = [data.draw(st.one_of(st.none(), counts)) for _ in le]
    present = [(bound, cell) for bound, cell in zip(le, cells, strict=True) if cell is not None]
    values = np.array([[ABSENT if cell is None else cell] for cell in cells]).reshape(len(cells), 1)
    offsets, rows = np.array([0, len(le)]), np.arange(len(le))
    out, fix, steps = np.empty((1, 1)), np.empty((1, 3)), np.zeros((1, 3), dtype=np.int64)
    quantile.classic_quantile(values, offsets, rows, np.array(le), np.array([q]), out, fix, steps)
    lower, upper = data.draw(st.tuples(qs, qs))
    part = np.empty((1, 1))
    quantile.classic_fraction(values, offsets, rows, np.array(le), np.array([lower]), np.array([upper]), part)
    if not present:
        assert out.view(np.uint64)[0, 0] == part.view(np.uint64)[0, 0] == quantile.ABSENT_BITS
        return
    want, forced = slow.classic_quantile(q, present)
    assert same(out[0, 0], want)
    assert bool(steps[0, 0]) == forced
    assert same(part[0, 0], slow.classic_fraction(lower, upper, present))


@settings(max_examples=300, deadline=None)
@given(h=histograms(), q=qs, lower=st.floats(-20, 20), upper=st.floats(-20, 20))
def test_native_quantile_fraction_and_variance_agree_with_the_slow_twin(
    h: FloatHistogram, q: float, lower: float, upper: float
) -> None:
    pool, cells = pool_from([h]), np.zeros(1, dtype=np.int32)
    out, flags = np.empty(1), np.zeros(1, dtype=np.uint8)
    histogram.quantiles(pool, cells, np.array([q]), out, flags)
    want, flag = slow.quantile(q, h)
    assert out[0] == pytest.approx(want, rel=1e-13, nan_ok=True)
    assert flags[0] == flag
    histogram.fractions(pool, cells, np.array([lower]), np.array([upper]), out, flags)
    want, flag = slow.fraction(lower, upper, h)
    assert out[0] == pytest.approx(want, rel=1e-12, abs=1e-15, nan_ok=True)
    assert flags[0] == flag
    histogram.variances(pool, cells, out)
    assert out[0] == pytest.approx(slow.variance(h), rel=1e-13, nan_ok=True)


def buckets(
    name: str, cells: dict[str, list[Cell]], **labels: str
) -> list[tuple[dict[str, str], list[Cell]]]:
    return [({"__name__": name, "le": le, **labels}, column) for le, column in cells.items()]


def run_quantile(
    rows: list[tuple[dict[str, str], list[Cell]]], q: float, steps: int = 1
) -> tuple[dict, list]:
    ctx = context(steps, DELAYED)
    got = result_of(HistogramQuantile(ctx, FixedScalar(ctx, q), FixedVector(ctx, rows), POS, POS))
    return got, ctx.annotations.warnings("x" * 40) + ctx.annotations.infos("x" * 40)


def test_series_that_differ_in_le_only_make_one_result() -> None:
    rows = buckets("d_bucket", {"0.1": [5.0], "+Inf": [12.0], ".2": [7.0], "1e0": [11.0]}, job="a")
    rows += buckets("d_bucket", {"-.2": [1.0], "-0.1": [2.0], "0.3": [2.0], "+Inf": [3.0]}, job="b")
    got, notes = run_quantile(rows, 0.5)
    assert got == {'d_bucket{job="a"}': [pytest.approx(0.15)], 'd_bucket{job="b"}': [pytest.approx(-0.15)]}
    assert notes == []


def test_names_are_dropped_at_once_without_delayed_removal() -> None:
    ctx = context(1)
    rows = buckets("d_bucket", {"1": [1.0], "+Inf": [2.0]}, __type__="histogram", job="a")
    got = result_of(HistogramQuantile(ctx, FixedScalar(ctx, 0.5), FixedVector(ctx, rows), POS, POS))
    assert got == {'{job="a"}': [1.0]}


def test_different_spellings_of_one_bound_are_summed() -> None:
    got, _ = run_quantile(buckets("d", {"0.2": [1.0], "2e-1": [2.0], "+Inf": [6.0]}), 0.25)
    assert got == {"d": [pytest.approx(0.1)]}


@pytest.mark.parametrize(
    ("cells", "want"),
    [
        ({"1": [3.0], "2": [5.0]}, math.nan),
        ({"+Inf": [3.0]}, math.nan),
        ({"1": [0.0], "+Inf": [0.0]}, math.nan),
        ({"1": [0.0], "+Inf": [5.0]}, 1.0),
    ],
)
def test_quantile_needs_two_buckets_an_infinite_one_and_observations(
    cells: dict[str, list[Cell]], want: float
) -> None:
    got, _ = run_quantile(buckets("d", cells), 0.5)
    assert same(got["d"][0], want)


def test_falling_counts_are_raised_and_reported_with_their_span() -> None:
    rows = buckets("d", {"1": [2.0, 4.0], "2": [1.0, 1.0], "4": [5.0, 6.0], "+Inf": [5.0, 5.5]})
    _, notes = run_quantile(rows, 0.5, steps=2)
    assert notes == [
        "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see"
        " https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
        ' for metric name "d", from buckets 2 to +Inf, with a max diff of 3, over 2 samples'
        " from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (1:23)"
    ]


def test_tiny_falls_are_flattened_without_a_word() -> None:
    _, notes = run_quantile(buckets("d", {"1": [10.000000000000002], "2": [10.0], "+Inf": [20.0]}), 0.5)
    assert notes == []


def test_unreadable_bound_is_reported_and_its_sample_skipped() -> None:
    rows = [*buckets("d", {"x": [1.0], "1": [1.0], "+Inf": [2.0]}), ({"__name__": "e"}, [1.0])]
    got, notes = run_quantile(rows, 0.25)
    assert got == {"d": [0.5]}
    assert sorted(notes) == [
        f'PromQL warning: bucket label "le" is missing or has a malformed value of {rest} (1:23)'
        for rest in ('"" for metric name "e"', '"x" for metric name "d"')
    ]


def test_quantile_outside_zero_to_one_warns() -> None:
    got, notes = run_quantile(buckets("d", {"1": [1.0], "+Inf": [2.0]}), 1.5)
    assert got == {"d": [INF]}
    assert notes == ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:23)"]


def test_classic_and_native_of_one_name_at_one_step_give_nothing_but_a_warning() -> None:
    native = FloatHistogram(count=4.0, sum=5.0, positive={0: 1.0, 1: 2.0, 2: 1.0})
    rows = buckets("d", {"1": [1.0, 1.0, None], "+Inf": [2.0, 2.0, None]})
    got, notes = run_quantile([*rows, ({"__name__": "d"}, [None, native, native])], 0.5, steps=3)
    assert got == {"d": [1.0, None, pytest.approx(math.sqrt(2))]}
    assert notes == [
        'PromQL warning: vector contains a mix of classic and native histograms for metric name "d" (1:23)'
    ]


def test_quantiles_label_each_group_with_each_quantile() -> None:
    ctx = context(1, DELAYED)
    rows = buckets("d", {"1": [1.0], "+Inf": [2.0]})
    asked = [(FixedScalar(ctx, 0.25), POS), (FixedScalar(ctx, 1.0), POS)]
    got = result_of(HistogramQuantiles(ctx, FixedVector(ctx, rows), "q", asked, POS))
    assert got == {'d{q="0.25"}': [0.5], 'd{q="1.0"}': [1.0]}


def test_fraction_uses_borders_of_each_step() -> None:
    ctx = context(2, DELAYED)
    rows = buckets("d", {"1": [1.0, 1.0], "2": [3.0, 3.0], "+Inf": [4.0, 4.0]})
    op = HistogramFraction(
        ctx, FixedScalar(ctx, 0.0, 1.0), FixedScalar(ctx, 1.0, INF), FixedVector(ctx, rows), POS
    )
    assert result_of(op) == {"d": [0.25, 0.75]}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0.1", 0.1),
        (".2", 0.2),
        ("5.", 5.0),
        ("1e0", 1.0),
        ("+Inf", INF),
        ("+inf", INF),
        ("-Infinity", -INF),
        ("0x1p-2", 0.25),
        ("", None),
        (" 1", None),
        ("1_000", None),
        ("Hello", None),
        ("0x1", None),
    ],
)
def test_bounds_are_read_as_go_reads_floats(text: str, want: float | None) -> None:
    assert parse_bound(text) == want
