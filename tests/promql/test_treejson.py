"""The tree of parse_query."""

from __future__ import annotations

from promql.parser import ParserOptions, parse
from promql.treejson import to_json
from tests.promql.goodqueries import GOOD_QUERIES

ALL = ParserOptions.everything()


def test_parse_query_json_has_prometheus_shapes() -> None:
    tree = to_json(
        parse('topk by (a) (1, up{b="c"} offset 5m) == bool on(x) group_left(y) -rate(d[5m] @ end())', ALL)
    )
    assert tree == {
        "type": "binaryExpr",
        "op": "==",
        "bool": True,
        "matching": {
            "card": "many-to-one",
            "labels": ["x"],
            "on": True,
            "include": ["y"],
            "fillValues": {"lhs": None, "rhs": None},
        },
        "lhs": {
            "type": "aggregation",
            "op": "topk",
            "param": {"type": "numberLiteral", "val": "1"},
            "grouping": ["a"],
            "without": False,
            "expr": {
                "type": "vectorSelector",
                "name": "up",
                "offset": 300_000,
                "offsetExpr": None,
                "matchers": [
                    {"name": "b", "value": "c", "type": "="},
                    {"name": "__name__", "value": "up", "type": "="},
                ],
                "timestamp": None,
                "startOrEnd": None,
                "anchored": False,
                "smoothed": False,
            },
        },
        "rhs": {
            "type": "unaryExpr",
            "op": "-",
            "expr": {
                "type": "call",
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                "args": [
                    {
                        "type": "matrixSelector",
                        "name": "d",
                        "range": 300_000,
                        "rangeExpr": None,
                        "offset": 0,
                        "offsetExpr": None,
                        "matchers": [{"name": "__name__", "value": "d", "type": "="}],
                        "timestamp": None,
                        "startOrEnd": "end",
                        "anchored": False,
                        "smoothed": False,
                    }
                ],
            },
        },
    }


def test_every_good_query_has_a_json_tree() -> None:
    for query, _, _ in GOOD_QUERIES:
        tree = to_json(parse(query, ALL))
        assert tree is not None
        assert isinstance(tree["type"], str)
