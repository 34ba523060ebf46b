"""Durations as text and duration expressions."""

from __future__ import annotations

import pytest

from promql.ast import DurationExpr, MatrixSelector
from promql.duration import (
    DurationError,
    evaluate_duration,
    format_duration,
    parse_duration,
    seconds_to_ms,
)
from promql.parser import parse

DURATIONS = [
    ("0", 0, "0s"),
    ("0s", 0, "0s"),
    ("1ms", 1, "1ms"),
    ("1500ms", 1500, "1s500ms"),
    ("90s", 90_000, "1m30s"),
    ("1h30m", 5_400_000, "1h30m"),
    ("24h", 86_400_000, "1d"),
    ("7d", 604_800_000, "1w"),
    ("8d", 691_200_000, "8d"),
    ("365d", 31_536_000_000, "1y"),
    ("1y1w1d1h1m1s1ms", 32_230_861_001, "373d1h1m1s1ms"),
]


@pytest.mark.parametrize(("text", "ms", "canonical"), DURATIONS)
def test_duration_reads_and_prints(text: str, ms: int, canonical: str) -> None:
    assert parse_duration(text) == ms
    assert format_duration(ms) == canonical


BAD_DURATIONS = [
    ("", "empty duration string"),
    ("1", 'not a valid duration string: "1"'),
    ("m", 'not a valid duration string: "m"'),
    ("1m1h", 'not a valid duration string: "1m1h"'),
    ("1m1m", 'not a valid duration string: "1m1m"'),
    ("1.5h", 'unknown unit "." in duration "1.5h"'),
    ("-1m", 'not a valid duration string: "-1m"'),
    ("1mm", 'unknown unit "mm" in duration "1mm"'),
    ("300y", "duration out of range"),
    ("99999999999999999999s", 'not a valid duration string: "99999999999999999999s"'),
    ("1m5", 'not a valid duration string: "1m5"'),
]


@pytest.mark.parametrize(("text", "error"), BAD_DURATIONS)
def test_bad_duration_is_explained(text: str, error: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert str(caught.value) == error


EXPRESSIONS = [
    ("5m+1", 301_000),
    ("2*3", 6000),
    ("10/4", 2500),
    ("7%4", 3000),
    ("2^3^2", 512_000),
    ("-(1m-2m)", 60_000),
    ("step()", 15_000),
    ("range()/2", 1_800_000),
    ("min_of(step(),1s)", 1000),
    ("max_of(step(),1s)*2", 30_000),
    ("+(step())", 15_000),
    ("1.0019", 1001),
    ("step()*0.0001", 1),
]


def expression(text: str) -> DurationExpr | int:
    selector = parse(f"up[{text}]")
    assert isinstance(selector, MatrixSelector)
    return selector.range_ms if selector.range_expr is None else selector.range_expr


@pytest.mark.parametrize(("text", "ms"), EXPRESSIONS)
def test_duration_expression_has_a_value(text: str, ms: int) -> None:
    found = expression(text)
    assert (found if isinstance(found, int) else evaluate_duration(found, 15_000, 3_600_000)) == ms


BAD_EXPRESSIONS = [
    ("step()-15", "3:12: duration must be greater than 0"),
    ("5m-step()*100", "3:16: duration must be greater than 0"),
    ("1/(step()-15)", "3:15: division by zero"),
    ("1%(step()-15)", "3:15: modulo by zero"),
    ("(step()-16)^0.5", "4:18: duration is NaN or infinite"),
    ("step()^999999", "3:16: duration is NaN or infinite"),
    ("step()*9e9", "3:13: duration is out of range"),
]


@pytest.mark.parametrize(("text", "error"), BAD_EXPRESSIONS)
def test_bad_duration_expression_is_explained(text: str, error: str) -> None:
    found = expression(text)
    assert isinstance(found, DurationExpr)
    with pytest.raises(DurationError) as caught:
        evaluate_duration(found, 15_000, 3_600_000)
    assert str(caught.value) == error


def test_offsets_may_be_negative() -> None:
    found = expression("step()-20")
    assert isinstance(found, DurationExpr)
    assert evaluate_duration(found, 15_000, 0, negative_allowed=True) == -5000


def test_literals_are_cut_to_milliseconds_as_nanoseconds_are() -> None:
    assert [seconds_to_ms(s) for s in (1.5, -1.5, 0.0019, -0.0019, 0.001, 1e-9)] == [1500, -1500, 1, -1, 1, 0]
