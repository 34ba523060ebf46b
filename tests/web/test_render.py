"""Results to JSON: the kernels against the slow way, and the shapes of the answer."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promql.matrix import ABSENT_BITS, Grid, HistogramCells, Matrix
from promql.result import RangeVectors
from tests.reference import render as slow
from tests.web.histograms import histogram_pool
from tsdb.labels import Labels
from tsdb.select import STALE_BITS, SampleBatch
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from web import render
from web.render import Answer, answer_pieces

EDGES = [
    *(0.0, -0.0, 1.0, -1.0, 0.1, 1 / 3, 2 / 3, 1e-6, 9.999999999999999e-7, 1.5e-6, 5e-324, 1e21, 1e20, 1e22),
    *(9.999999999999999e20, 1e15, 1e16, 123456789012345680.0, 2.0**53, 2.0**53 + 2, 999999999999999.9),
    *(1.7976931348623157e308, 2.2250738585072014e-308, math.inf, -math.inf, math.nan, 0.000001234567890123),
    *(99999.99999999999, 4503599627370495.5, 1e23, 8.41e21, 2.0**-1074 * 3, 9007199254740991.0),
]


def matrix_of(
    rows: list[dict[str, str]], values: Any, grid: Grid, cells: HistogramCells | None = None
) -> Matrix:
    labels = SeriesLabels.from_labels([Labels.from_dict(row) for row in rows], SymbolTable())
    array = np.array(values, dtype=np.float64).reshape(len(rows), grid.steps)
    return Matrix(labels, grid, array, np.zeros(len(rows), dtype=np.bool_), cells)


def body_of(answer: Answer) -> Any:
    """The parsed answer, with numbers as they were spelled."""
    return json.loads(b"".join(answer_pieces(answer)), parse_float=str, parse_int=str)


def result_of(matrix: Matrix, instant: bool = False) -> Any:
    return body_of(Answer(matrix, instant, 0))["data"]["result"]


def spelled(rows: list[dict[str, Any]]) -> Any:
    """The slow rows, with the kinds of buckets as texts, as `body_of` reads them."""
    return json.loads(json.dumps(rows), parse_int=str)


FLOATS = st.one_of(
    st.floats(),
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(float),
    st.integers(-(2**60), 2**60).map(float),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40))
@example(EDGES)
@example([2.0**k for k in range(-1074, 1024)])
@example([10.0**k for k in range(-323, 309)])
@example(
    [float(f"{m}e{k}") for m in ("1.5", "9.999999999999999", "1.2345678901234567") for k in range(-30, 30)]
)
def test_values_are_spelled_as_the_slow_way_spells_them(values: list[float]) -> None:
    matrix = matrix_of([{"a": "b"}], values, Grid(0, 1000, len(values)))
    matrix.values.view(np.uint64)[np.isnan(matrix.values)] = 0x7FF8000000000001
    assert result_of(matrix) == spelled(slow.matrix_rows(matrix, instant=False))


def test_many_random_values_read_back_as_themselves() -> None:
    random = np.random.default_rng(7)
    decimals = random.integers(1, 10**15, 4000) / 10.0 ** random.integers(0, 22, 4000)
    values = np.concatenate(
        [
            random.random(4000) * 10.0 ** random.integers(-8, 24, 4000),
            np.round(random.random(4000) * 1e5, 3),
            *(decimals, np.nextafter(decimals, 0), np.nextafter(decimals, 1e300)),
            random.integers(1, 1000, 4000) / 2.0 ** random.integers(1, 30, 4000),
        ]
    )
    matrix = matrix_of([{"a": "b"}], values, Grid(0, 1, len(values)))
    texts = [text for _, text in result_of(matrix)[0]["values"]]
    assert texts == [slow.value_text(float(v)) for v in values]
    assert [float(text) for text in texts] == values.tolist()


def test_short_decimals_and_their_neighbours_are_spelled_as_the_slow_way_spells_them() -> None:
    random = np.random.default_rng(5)
    counts = np.concatenate(
        [10 ** random.uniform(0, 12, 3000), [1, 10, 999, 1001, 10**11 - 1, 10**11, 10**11 + 1]]
    )
    short = [np.floor(counts) / scale for scale in (10.0, 100.0, 1000.0, 10_000.0)]
    near = [np.nextafter(values, toward) for values in short for toward in (-math.inf, math.inf)]
    values = np.concatenate([*short, *near])
    values *= random.choice(np.array([-1.0, 1.0]), len(values))
    matrix = matrix_of([{"a": "b"}], values.reshape(1, -1), Grid(0, 1000, len(values)))
    texts = [text for _, text in result_of(matrix)[0]["values"]]
    assert texts == [slow.value_text(float(v)) for v in values]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_timestamps_have_three_decimals_or_none(times: list[int]) -> None:
    texts = render.time_texts(np.array(times, dtype=np.int64))
    raw = texts.data.tobytes()
    found = [raw[lo:hi].decode() for lo, hi in zip(texts.offsets, texts.offsets[1:], strict=False)]
    assert found == [slow.time_number(t) for t in times]
    assert [render._time_text(t).decode() for t in times] == found
    heads = render.point_heads(np.array(times, dtype=np.int64))
    raw = heads.data.tobytes()
    found = [raw[lo:hi].decode() for lo, hi in zip(heads.offsets, heads.offsets[1:], strict=False)]
    assert found == [f',[{slow.time_number(t)},"' for t in times]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_matrix_with_gaps_and_histograms_is_rendered_as_the_slow_way_does(data: st.DataObject) -> None:
    rows, steps = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 7))
    seed = data.draw(st.integers(0, 2**32))
    random = np.random.default_rng(seed)
    values = random.choice(np.array([0.1, 1e9, 7.25, math.nan]), (rows, steps))
    values.view(np.uint64)[np.isnan(values)] = 0x7FF8000000000001
    values.view(np.uint64)[random.random((rows, steps)) < 0.5] = ABSENT_BITS
    pool = histogram_pool()
    index = random.integers(-4, len(pool), (rows, steps)).astype(np.int32).clip(min=-1)
    matrix = matrix_of(
        [{"i": str(n), "text": "<é\n"} for n in range(rows)],
        values,
        Grid(-1500, 700, steps),
        HistogramCells(index, pool),
    )
    for instant in [False, True] if steps == 1 else [False]:
        assert result_of(matrix, instant) == spelled(slow.matrix_rows(matrix, instant))


def test_a_result_larger_than_a_buffer_is_cut_anywhere_and_joins_to_the_same_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(3)
    pool = histogram_pool()
    rows, steps = 9, 60
    index = random.integers(-3, len(pool), (rows, steps)).astype(np.int32).clip(min=-1)
    labels = [{"i": str(n), "long": "x" * (5000 * (n % 3))} for n in range(rows)]
    matrix = matrix_of(
        labels, random.random((rows, steps)), Grid(0, 1000, steps), HistogramCells(index, pool)
    )
    expected = spelled(slow.matrix_rows(matrix, instant=False))
    monkeypatch.setattr(render, "CHUNK_ROWS_MAX", 4)
    monkeypatch.setattr(render, "CHUNK_HISTOGRAMS_MAX", 100)
    for size in (1500, 1501, 1999, 4096, 40_000):
        monkeypatch.setattr(render, "BUFFER_BYTES", size)
        monkeypatch.setattr(render, "LATER_BUFFER_BYTES", size)
        pieces = list(answer_pieces(Answer(matrix, False, 0)))
        assert json.loads(b"".join(pieces), parse_float=str, parse_int=str)["data"]["result"] == expected
        assert len(pieces) > 5


def test_arrays_that_may_not_be_written_are_rendered_too() -> None:
    pool = histogram_pool()
    index = np.array([[0], [-1]], dtype=np.int32)
    matrix = matrix_of([{"n": "0"}, {"n": "1"}], [1.0, 2.0], Grid(0, 0, 1), HistogramCells(index, pool))
    expected = result_of(matrix, instant=True)
    for array in (
        matrix.values,
        matrix.labels.offsets,
        index,
        pool.schema,
        pool.pos_count,
        pool.custom_offsets,
    ):
        array.flags.writeable = False
    assert result_of(matrix, instant=True) == expected


def test_raw_samples_keep_their_own_times_and_lose_stale_markers() -> None:
    labels = SeriesLabels.from_labels([Labels.from_dict({"n": str(n)}) for n in range(3)], SymbolTable())
    values = np.array([1.0, 2.0, 3.0, 4.5])
    values.view(np.uint64)[1] = STALE_BITS
    batch = SampleBatch(np.array([0, 2, 2, 4]), np.array([1000, 2000, 1500, 2500]), values)
    data = body_of(Answer(RangeVectors(labels, batch), True, 9000))["data"]
    assert data == {
        "resultType": "matrix",
        "result": [
            {"metric": {"n": "0"}, "values": [["1", "1"]]},
            {"metric": {"n": "2"}, "values": [["1.500", "3"], ["2.500", "4.5"]]},
        ],
    }


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (1.5, "scalar", ["1435781451.781", "1.5"]),
        (math.inf, "scalar", ["1435781451.781", "+Inf"]),
        ("a<b", "string", ["1435781451.781", "a<b"]),
    ],
)
def test_scalars_and_strings(value: Any, kind: str, result: Any) -> None:
    answer = body_of(Answer(value, True, 1435781451781))
    assert answer == {"status": "success", "data": {"resultType": kind, "result": result}}


def test_an_empty_vector_is_an_empty_list() -> None:
    assert b"".join(answer_pieces(Answer(matrix_of([], [], Grid(0, 0, 1)), True, 0))) == (
        b'{"status":"success","data":{"resultType":"vector","result":[]}}'
    )


def test_the_limit_counts_series_that_have_samples_and_warns() -> None:
    matrix = matrix_of([{"n": str(n)} for n in range(4)], [1.0, 2.0, 3.0, 4.0], Grid(0, 0, 1))
    matrix.values.view(np.uint64)[0] = ABSENT_BITS
    cut = body_of(Answer(matrix, True, 0, limit=2))
    assert [row["metric"]["n"] for row in cut["data"]["result"]] == ["1", "2"]
    assert cut["warnings"] == ["results truncated due to limit"]
    assert "warnings" not in body_of(Answer(matrix, True, 0, limit=3))


def test_labels_are_not_escaped_for_html_but_annotations_are() -> None:
    matrix = matrix_of([{"le": "<&>\u2028"}], [1.0], Grid(0, 0, 1))
    body = b"".join(answer_pieces(Answer(matrix, True, 0, warnings=["a < b & c\u2028"])))
    assert '"le":"<&>\u2028"'.encode() in body
    assert b'"warnings":["a \\u003c b \\u0026 c\\u2028"]' in body


def test_annotations_are_capped_at_ten_of_a_kind() -> None:
    answer = body_of(
        Answer(1.0, True, 0, warnings=[f"w{n}" for n in range(12)], infos=["i"] * 10, stats={"a": 1})
    )
    assert len(answer["warnings"]) == 11
    assert answer["warnings"][-1] == "2 more warning annotations omitted"
    assert answer["infos"] == ["i"] * 10
    assert answer["data"]["stats"] == {"a": "1"}
