"""The table of functions and aggregators."""

from __future__ import annotations

from promql.ast import ValueType
from promql.functions import AGGREGATORS, AT_MODIFIER_UNSAFE, FUNCTIONS


def test_there_are_73_stable_and_17_experimental_functions() -> None:
    experimental = {name for name, function in FUNCTIONS.items() if function.experimental}
    assert len(FUNCTIONS) == 90
    assert len(experimental) == 17
    assert {"info", "start", "end", "range", "step", "histogram_quantiles"} <= experimental
    assert "first_over_time" not in experimental


def test_there_are_fourteen_aggregators_of_which_two_are_experimental() -> None:
    assert len(AGGREGATORS) == 14
    assert {name for name, a in AGGREGATORS.items() if a.experimental} == {"limitk", "limit_ratio"}
    with_param = {name: a.param for name, a in AGGREGATORS.items() if a.param is not None}
    assert with_param.pop("count_values") is ValueType.STRING
    assert with_param.keys() == {"topk", "bottomk", "quantile", "limitk", "limit_ratio"}


def test_arities_follow_the_variadic_rule() -> None:
    bounds = {name: (f.args_min, f.args_max) for name, f in FUNCTIONS.items()}
    assert bounds["rate"] == (1, 1)
    assert bounds["time"] == (0, 0)
    assert bounds["round"] == (1, 2)
    assert bounds["day_of_week"] == (0, 1)
    assert bounds["label_join"] == (3, None)
    assert bounds["sort_by_label"] == (1, None)
    assert bounds["histogram_quantiles"] == (3, 12)
    assert FUNCTIONS["label_join"].arg_type(7) is ValueType.STRING


def test_unsafe_functions_exist() -> None:
    assert set(FUNCTIONS) >= AT_MODIFIER_UNSAFE
