"""The text of `vedette query` is that of promtool."""

from __future__ import annotations

from typing import Any

import pytest

from cli.query import format_result

UP = {"__name__": "up", "job": "node", "instance": "a:1"}

CASES: list[tuple[dict[str, Any], str]] = [
    ({"resultType": "vector", "result": []}, ""),
    (
        {"resultType": "vector", "result": [{"metric": UP, "value": [1700000000.5, "1"]}]},
        'up{instance="a:1", job="node"} => 1 @[1700000000.5]',
    ),
    (
        {"resultType": "vector", "result": [{"metric": {}, "value": [1700000000, "+Inf"]}]},
        "{} => +Inf @[1700000000]",
    ),
    (
        {"resultType": "matrix", "result": [{"metric": {"a": 'x"y'}, "values": [[10, "1"], [25.125, "2"]]}]},
        '{a="x\\"y"} =>\n1 @[10]\n2 @[25.125]',
    ),
    ({"resultType": "scalar", "result": [10, "3.5"]}, "scalar: 3.5 @[10]"),
    ({"resultType": "string", "result": [10, "text"]}, "text"),
]


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_results_print_as_promtool_prints_them(data: dict[str, Any], expected: str) -> None:
    assert format_result(data) == expected
