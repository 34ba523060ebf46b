"""Range functions over histograms: kernels against the slow twin, and what they report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.engine import Engine
from promql.histogramhints import resolve_hints, selectors_with_resolved_hints
from promql.histogrampool import batch_of, concat_pools, cut_cells, pool_of, take_pool
from promql.histogramtext import histogram_texts
from promql.histogramvalue import Histogram
from promql.matrix import Grid, HistogramCells, Matrix
from promql.memory import MemoryStore
from promql.operators.histogrambinary import binary_histograms
from promql.operators.histogramwindow import start_time_resets, window_histograms
from promql.operators.operator import RangePiece, WindowGrid
from promql.options import EngineOptions
from promql.parser import parse
from tests.promql.operands import histogram_at, pool_from
from tests.promql.randomhistograms import histograms
from tests.promql.test_histogramarith import neighbour_lists, same
from tests.reference import histogramqueries as queries
from tests.reference.histograms import CUSTOM, GAUGE, NOT_RESET, RESET, UNKNOWN, FloatHistogram
from tests.reference.interpreterfunctions import over_window
from tests.reference.promqlvalues import Sample
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels
from tsdb.select import SampleBatch

FUNCTIONS = ("rate", "increase", "delta", "irate", "idelta", "sum_over_time", "avg_over_time")
Notes = list[tuple[int, str, str]]


def rows_batch(rows: list[list[FloatHistogram]], times: list[list[int]]) -> HistogramBatch:
    """A batch of rows of histograms."""
    flat = [h for row in rows for h in row]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    t_ms = np.array([t for row in times for t in row], dtype=np.int64)
    return replace(batch_of(pool_from(flat)), row_offsets=offsets, t_ms=t_ms)


def piece_of(batch: HistogramBatch) -> RangePiece:
    """A piece without floats."""
    rows = len(batch.row_offsets) - 1
    empty = np.zeros(rows + 1, dtype=np.int64)
    return RangePiece(0, SampleBatch(empty, np.empty(0, dtype=np.int64), np.empty(0), None, batch))


def evaluate(
    name: str, batch: HistogramBatch, window: WindowGrid
) -> tuple[list[list[FloatHistogram | float | None]], Notes]:
    """Cells of all windows that hold a sample, and the notes."""
    notes: Notes = []
    piece = piece_of(batch)
    rows = len(batch.row_offsets) - 1
    which = np.zeros((rows, window.steps), dtype=np.bool_)
    for r in range(rows):
        part = batch.t_ms[batch.row_offsets[r] : batch.row_offsets[r + 1]]
        for k, end in enumerate(window.ends_ms().tolist()):
            which[r, k] = bool(((part > end - window.range_ms) & (part <= end)).any())
    found = window_histograms(name, piece, window, which, lambda *note: notes.append(note))
    if found.values is not None:
        kept = zip(found.values.tolist(), which.tolist(), strict=True)
        return [[v if w else None for v, w in zip(*row, strict=True)] for row in kept], notes
    assert found.cells is not None
    pool = pool_of(found.cells.pool)
    cells = [[None if i < 0 else histogram_at(pool, i) for i in row] for row in found.cells.index.tolist()]
    return cells, notes


@settings(max_examples=120, deadline=None)
@given(
    rows=st.lists(neighbour_lists(), min_size=1, max_size=2),
    name=st.sampled_from((*FUNCTIONS, "changes", "resets")),
    step=st.sampled_from([5_000, 10_000]),
    span=st.sampled_from([10_000, 25_000, 100_000]),
)
def test_windows_agree_with_the_slow_twin(
    rows: list[list[FloatHistogram]], name: str, step: int, span: int
) -> None:
    times = [[10_000 * (i + 1) + 3 * r for i in range(len(row))] for r, row in enumerate(rows)]
    window = WindowGrid(15_000, step, 6, span, Grid(15_000, step, 6))
    got, _ = evaluate(name, rows_batch(rows, times), window)
    for r, row in enumerate(rows):
        for k, end in enumerate(window.ends_ms().tolist()):
            held = [Sample(t, h) for t, h in zip(times[r], row, strict=True) if end - span < t <= end]
            want = over_window(name, held, end - span, end, end, []) if held else None
            have = got[r][k]
            if isinstance(want, FloatHistogram):
                assert isinstance(have, FloatHistogram)
                assert same(have, want, 1e-12)
            else:
                assert have == want


def counters(*counts: float, hint: int = UNKNOWN, schema: int = 0) -> list[FloatHistogram]:
    custom = (5.0,) if schema == CUSTOM else ()
    return [FloatHistogram(schema, hint, count=c, sum=c, positive={0: c}, custom=custom) for c in counts]


WINDOW = WindowGrid(30_000, 0, 1, 40_000, Grid(30_000, 0, 1))


@pytest.mark.parametrize(
    ("name", "samples", "kind", "text"),
    [
        ("rate", counters(1, 2, hint=GAUGE), "warn", "this native histogram metric is not a counter: {name}"),
        ("delta", counters(1, 2), "warn", "this native histogram metric is not a gauge: {name}"),
        ("idelta", counters(1, 2), "warn", "this native histogram metric is not a gauge: {name}"),
        (
            "rate",
            [*counters(1), *counters(2, schema=CUSTOM), *counters(3)],
            "warn",
            "vector contains a mix of histograms with exponential and custom buckets schemas"
            " for metric name {name}",
        ),
        (
            "sum_over_time",
            [*counters(1, hint=RESET), *counters(2, hint=NOT_RESET)],
            "warn",
            "conflicting counter resets during histogram aggregation",
        ),
    ],
)
def test_doubtful_input_is_reported(name: str, samples: list[FloatHistogram], kind: str, text: str) -> None:
    times = [10_000 * (i + 1) for i in range(len(samples))]
    _, notes = evaluate(name, rows_batch([samples], [times]), WINDOW)
    assert (0, kind, text) in notes


def test_a_sane_counter_is_not_reported() -> None:
    _, notes = evaluate("rate", rows_batch([counters(1, 2, 3)], [[10_000, 20_000, 30_000]]), WINDOW)
    assert notes == []


def test_rate_extrapolates_to_zero_count_only() -> None:
    samples = [
        FloatHistogram(count=15, sum=25, positive={0: 5.0, 1: 10.0}),
        *[FloatHistogram(count=2490, sum=75, positive={0: 15.0, 1: 2475.0})] * 2,
    ]
    window = WindowGrid(120_000, 0, 1, 180_000, Grid(120_000, 0, 1))
    got, _ = evaluate("increase", rows_batch([samples], [[0, 60_000, 120_000]]), window)
    assert isinstance(got[0][0], FloatHistogram)
    assert got[0][0].count == pytest.approx(2475 * (120 + 120 * 15 / 2475) / 120)


@pytest.mark.parametrize(
    ("query", "resolved"),
    [
        ("histogram_count(h)", 1),
        ("histogram_sum(sum(rate(h[5m])))", 1),
        ("sum(h)", 0),
        ("histogram_quantile(0.5, h)", 0),
        ("histogram_count(h unless histogram_quantile(0.5, h) < 3)", 0),
        ("histogram_avg(sum_over_time(h[5m:1m]))", 0),
        ("max_over_time(histogram_count(h)[5m:1m])", 0),
        ("histogram_count(h) + histogram_sum(h)", 2),
    ],
)
def test_hints_are_resolved_where_only_counts_are_read(query: str, resolved: int) -> None:
    assert len(selectors_with_resolved_hints(parse(query))) == resolved


def test_resolved_hints_tell_resets_from_growth() -> None:
    rows = [counters(3, 5, 2, 2), counters(9, hint=GAUGE), counters(1, 2)]
    times = [[1, 2, 3, 4], [1], [1, 2]]
    hints = resolve_hints(rows_batch(rows, times)).reset_hint.tolist()
    assert hints == [UNKNOWN, NOT_RESET, RESET, NOT_RESET, GAUGE, UNKNOWN, NOT_RESET]


@pytest.mark.parametrize(
    ("start", "start_before", "before", "want"),
    [
        (0, 0, 10, False),
        (15, 5, 10, True),
        (10, 5, 10, True),
        (10, 0, 10, False),
        (5, 5, 10, False),
        (20, 5, 10, False),
    ],
)
def test_start_times_after_the_sample_before_are_resets(
    start: int, start_before: int, before: int, want: bool
) -> None:
    got = start_time_resets(np.array([0, 2]), np.array([before, 20]), np.array([start_before, start]))
    assert got.tolist() == [False, want]


@settings(max_examples=100, deadline=None)
@given(h=histograms())
def test_text_agrees_with_the_slow_twin(h: FloatHistogram) -> None:
    assert histogram_texts(batch_of(pool_from([h])), [0]) == [queries.text(h)]


def test_text_shows_inclusive_bounds_and_leaves_out_empty_buckets() -> None:
    h = FloatHistogram(
        count=5.0,
        sum=18.4,
        zero_threshold=0.001,
        zero_count=2.0,
        positive={0: 1.0, 1: 0.0},
        negative={1: 2.0},
    )
    custom = FloatHistogram(CUSTOM, count=3.0, sum=1.0, positive={0: 1.0, 2: 2.0}, custom=(1.0, 2.5))
    assert histogram_texts(batch_of(pool_from([h, custom])), [0, 1]) == [
        "{count:5, sum:18.4, [-2,-1):2, [-0.001,0.001]:2, (0.5,1]:1}",
        "{count:3, sum:1, [-Inf,1]:1, (2.5,+Inf]:2}",
    ]


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(histograms(), max_size=3), max_size=3), data=st.data())
def test_joined_and_taken_pools_keep_their_histograms(
    parts: list[list[FloatHistogram]], data: st.DataObject
) -> None:
    flat = [h for part in parts for h in part]
    joined = concat_pools([pool_from(part) for part in parts])
    picks = data.draw(st.lists(st.integers(0, len(flat) - 1), max_size=5)) if flat else []
    taken = take_pool(joined, np.array(picks, dtype=np.int64))
    assert len(joined[0]) == len(flat)
    for at, pick in enumerate(picks):
        assert same(histogram_at(taken, at), flat[pick])


def test_operators_without_meaning_give_nothing_and_an_info() -> None:
    cells = HistogramCells(np.zeros((1, 1), dtype=np.int32), batch_of(pool_from(counters(1))))
    one, here = np.ones((1, 1)), np.ones((1, 1), dtype=np.bool_)
    for op, left, right, words in (
        ("+", cells, one, "histogram + float"),
        ("/", one, cells, "float / histogram"),
        ("*", cells, cells, "histogram * histogram"),
        (">", cells, cells, "histogram > histogram"),
        ("</", one, cells, "float </ histogram"),
    ):
        notes: Notes = []
        assert binary_histograms(op, left, right, here, lambda *note, n=notes: n.append(note)) == (None, None)
        text = f'incompatible sample types encountered for binary operator "{op}": {words}'
        assert notes == [(0, "info", text)]


def test_cutting_cells_keeps_what_they_point_at() -> None:
    pool = batch_of(pool_from(counters(*map(float, range(10)))))
    cells = HistogramCells(np.array([[7, -1, 2], [2, 2, -1]], dtype=np.int32), pool)
    cut = cut_cells(cells)
    assert len(cut.pool) == 2
    assert cut.pool.count[cut.index[cells.index >= 0]].tolist() == [7.0, 2.0, 2.0, 2.0]
    assert (cut.index < 0).tolist() == (cells.index < 0).tolist()
    full = HistogramCells(np.arange(10, dtype=np.int32).reshape(2, 5), pool)
    assert cut_cells(full) is full


def test_a_histogram_without_a_start_was_not_born_at_time_zero() -> None:
    store = MemoryStore()
    labels = Labels.from_dict({"__name__": "h_total"})
    # The second sample's start is known, and tells of no reset; the window begins before the time 0.
    for t_ms, count, start_ms in ((60_000, 4.0, 0), (120_000, 6.0, 30_000)):
        value = Histogram(schema=0, count=count, sum=count, positive=((1, count),))
        store.add_histogram(labels, t_ms, value, start_ms)
    found = []
    for features in (frozenset[str](), frozenset({"use-start-timestamps"})):
        engine = Engine(EngineOptions(features=features, threads=1))
        query = "histogram_count(increase(h_total[5m]))"
        result = engine.instant(store.querier(), query, 120_000).value
        assert isinstance(result, Matrix)
        found.append(float(result.values[0, 0]))
    assert found[0] == found[1] == 2 + 2 * 30 / 60  # half of a step to the left
