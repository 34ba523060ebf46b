"""The notation of series in test files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promql.errors import ParseError
from promql.histogramvalue import Histogram
from promql.seriesnotation import SERIES_VALUES_MAX, parse_series_description
from tsdb.histogram import ResetHint
from tsdb.labels import Labels

SEQUENCES = [
    ("", []),
    ("1", ["1.0"]),
    ("1 2   3", ["1.0", "2.0", "3.0"]),
    ("1x2", ["1.0", "1.0", "1.0"]),
    ("1+2x3", ["1.0", "3.0", "5.0", "7.0"]),
    ("10-2x2", ["10.0", "8.0", "6.0"]),
    ("-2-3x1", ["-2.0", "-5.0"]),
    ("-5+1x1", ["-5.0", "-4.0"]),
    ("_", ["_"]),
    ("_x3", ["_", "_", "_"]),
    ("1 _ 2", ["1.0", "_", "2.0"]),
    ("stale 1", ["stale", "1.0"]),
    ("stalex1", ["stale", "stale"]),
    ("Inf -Inf +Inf NaN", ["inf", "-inf", "inf", "nan"]),
    ("1e3 1.5e-3 .5 5.", ["1000.0", "0.0015", "0.5", "5.0"]),
    ("1e+100x1", ["1e+100", "1e+100"]),
    ("0.1+0.1x2", ["0.1", "0.2", "0.30000000000000004"]),
    ("010", ["8.0"]),
    ("1x0", ["1.0"]),
    ("_x0", []),
]


@pytest.mark.parametrize(("text", "values"), SEQUENCES)
def test_sequence_stands_for_its_values(text: str, values: list[str]) -> None:
    labels, found = parse_series_description(f'up{{a="b c"}} {text}')
    assert labels == Labels.from_dict({"__name__": "up", "a": "b c"})
    assert [str(value) for value in found] == values


METRICS = [
    ("up 1", {"__name__": "up"}),
    ("{} 1", {}),
    ('{"a.b", c="}"} 1', {"__name__": "a.b", "c": "}"}),
    ("sum{by='x'}\t1", {"__name__": "sum", "by": "x"}),
]


@pytest.mark.parametrize(("text", "pairs"), METRICS)
def test_metric_ends_where_its_labels_end(text: str, pairs: dict[str, str]) -> None:
    labels, values = parse_series_description(text)
    assert labels == Labels.from_dict(pairs)
    assert len(values) == 1


def histograms(text: str) -> list[Histogram | None]:
    return [value.histogram for value in parse_series_description(f"up {text}")[1]]


def test_histogram_has_all_of_its_fields() -> None:
    text = (
        "{{schema:1 sum:-0.3 count:3.1 z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 0 7] offset:-3"
        " n_buckets:[4.1 5] n_offset:-5 counter_reset_hint:gauge}}"
    )
    (found,) = histograms(text)
    assert found == Histogram(
        schema=1,
        count=3.1,
        sum=-0.3,
        zero_threshold=0.05,
        zero_count=7.1,
        positive=((-3, 5.1), (-2, 0.0), (-1, 7.0)),
        negative=((-5, 4.1), (-4, 5.0)),
        hint=ResetHint.GAUGE,
    )
    assert histograms(found.notation()) == [found]


def test_custom_buckets_and_repetition() -> None:
    found = histograms("{{schema:-53 count:1 custom_values:[1 2.5] buckets:[0 1]}}x2 {{}}")
    assert len(found) == 4
    assert found[0] is not None
    assert found[0].custom_values == (1.0, 2.5)
    assert found[0].has_custom_buckets
    assert found[3] == Histogram()


def test_histograms_grow_and_shrink() -> None:
    base, step = "{{count:2 sum:1 buckets:[1 1]}}", "{{count:1 sum:.5 buckets:[1] offset:1}}"
    grown = histograms(f"{base}+{step}x2")
    assert [h and (h.count, h.sum, h.positive) for h in grown] == [
        (2.0, 1.0, ((0, 1.0), (1, 1.0))),
        (3.0, 1.5, ((0, 1.0), (1, 2.0))),
        (4.0, 2.0, ((0, 1.0), (1, 3.0))),
    ]
    shrunk = histograms(f"{base}-{step}x1")
    assert shrunk[1] is not None
    assert (shrunk[1].count, shrunk[1].hint) == (1.0, ResetHint.GAUGE)


def test_step_of_higher_resolution_is_reduced_to_the_base() -> None:
    grown = histograms("{{schema:0 count:1 buckets:[1]}}+{{schema:1 count:2 buckets:[1 1] offset:1}}x1")
    assert grown[1] is not None
    assert grown[1].positive == ((0, 1.0), (1, 2.0))


def test_hint_counts_only_where_it_is_written() -> None:
    _, values = parse_series_description("up {{}} {{counter_reset_hint:unknown}}")
    assert [value.hint_given for value in values] == [False, True]


BAD = [
    ("up 1 foo", '1:6: parse error: unexpected "foo" in series values'),
    ("up 1x", '1:4: parse error: unexpected "1x" in series values'),
    ("up 1+2", '1:4: parse error: unexpected end of series value, expected "x" and a repetition'),
    ("up _x-1", '1:4: parse error: unexpected "_x-1" in series values'),
    ("up{a=} 1", '1:6: parse error: unexpected "}" in label set, expected string'),
    ("up{", "1:4: parse error: unexpected end of input inside braces"),
    ("up;1", '1:3: parse error: unexpected ";" in series values'),
    ("up {{foo:1}}", '1:6: parse error: bad histogram descriptor found: "foo"'),
    ("up {{sum:1 sum:2}}", '1:12: parse error: duplicate key "sum" in histogram'),
    ("up {{sum:x}}", "1:6: parse error: error parsing histogram: could not convert string to float: 'x'"),
    (
        "up {{counter_reset_hint:x}}",
        "1:6: parse error: error parsing histogram: unknown counter_reset_hint x",
    ),
    ("up {{sum:1", '1:4: parse error: unexpected "{{sum:1" in series values'),
    (
        "up {{schema:2}}+{{schema:1}}x2",
        "1:4: parse error: error combining histograms: cannot merge from schema 1 to 2",
    ),
    ("up 1x2000000", "1:4: parse error: invalid repetition in series values: 2000000 is more than 1000000"),
]


@pytest.mark.parametrize(("text", "error"), BAD)
def test_bad_notation_is_explained(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_series_description(text)
    assert str(caught.value) == error


def test_zero_x_is_a_repetition_and_not_hexadecimal() -> None:
    _, values = parse_series_description("up 0x5")
    assert len(values) == 6


def test_one_line_stands_for_a_bounded_number_of_values() -> None:
    with pytest.raises(ParseError, match="more than 1000000 values"):
        parse_series_description(f"up _x{SERIES_VALUES_MAX} 1")


PIECES = (
    *(
        "up",
        "{",
        "}",
        "{{",
        "}}",
        "a",
        "=",
        '"b"',
        " ",
        "1",
        "2.5",
        "-",
        "+",
        "x",
        "3",
        "_",
        "stale",
        "NaN",
        "Inf",
    ),
    *(
        "schema:",
        "sum:",
        "buckets:",
        "[",
        "]",
        "1_",
        ".",
        "e",
        "0x",
        "counter_reset_hint:gauge",
        "\t",
        "é",
        ",",
    ),
)


def outcome(text: str) -> tuple[object, object] | ParseError:
    try:
        return parse_series_description(text)
    except ParseError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_any_line_gives_values_or_a_parse_error(pieces: list[str]) -> None:
    assert str(outcome("".join(pieces)))


def test_numbers_that_go_would_refuse_are_refused() -> None:
    for text in ("0._1", "1__0", "1_", "1e999"):
        with pytest.raises(ParseError):
            parse_series_description(f"up {text}")
