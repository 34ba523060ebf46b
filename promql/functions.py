"""The functions and aggregators of the language: names, argument types, results.

Semantics of each: prometheus-surface.md 2.6 and 2.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from promql.ast import ValueType

SCALAR, VECTOR, MATRIX, STRING = ValueType.SCALAR, ValueType.VECTOR, ValueType.MATRIX, ValueType.STRING

EXPERIMENTAL_FEATURE = "promql-experimental-functions"


@dataclass(frozen=True, slots=True)
class Function:
    """`variadic` is 0 for a fixed number of arguments, n > 0 when the last argument type may appear 0 to n
    times, and -1 when it may appear any number of times."""

    name: str
    arg_types: tuple[ValueType, ...]
    variadic: int
    return_type: ValueType
    experimental: bool = False

    @property
    def args_min(self) -> int:
        """Fewest arguments."""
        return len(self.arg_types) - (1 if self.variadic else 0)

    @property
    def args_max(self) -> int | None:
        """Most arguments; None for any number."""
        return None if self.variadic < 0 else self.args_min + self.variadic

    def arg_type(self, index: int) -> ValueType:
        """Type of the argument at a position; the last type repeats."""
        return self.arg_types[min(index, len(self.arg_types) - 1)]


@dataclass(frozen=True, slots=True)
class Aggregator:
    """`param` is the type of the first argument of aggregators with two; `grouped_output` tells those whose
    result has one element a group from those that pick elements (topk, limitk, ...)."""

    name: str
    param: ValueType | None = None
    experimental: bool = False
    grouped_output: bool = True


_MATH = (
    *("abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "deg", "rad"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
)
_OF_VECTOR = (
    *_MATH,
    *("absent", "sort", "sort_desc", "timestamp"),
    *("histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"),
)
_OF_MATRIX = (
    *("avg_over_time", "sum_over_time", "min_over_time", "max_over_time", "count_over_time"),
    *("present_over_time", "last_over_time", "first_over_time", "stddev_over_time", "stdvar_over_time"),
    *("absent_over_time", "changes", "resets", "rate", "increase", "delta", "irate", "idelta", "deriv"),
)
_OF_MATRIX_EXPERIMENTAL = (
    *("mad_over_time", "ts_of_first_over_time", "ts_of_last_over_time"),
    *("ts_of_min_over_time", "ts_of_max_over_time"),
)
_OF_TIME = (
    *("day_of_month", "day_of_week", "day_of_year", "days_in_month"),
    *("hour", "minute", "month", "year"),
)
_QUERY_CONTEXT = ("start", "end", "range", "step")


def _table() -> dict[str, Function]:
    vector, matrix = (VECTOR,), (MATRIX,)
    rows = [
        *(Function(name, vector, 0, VECTOR) for name in _OF_VECTOR),
        *(Function(name, matrix, 0, VECTOR) for name in _OF_MATRIX),
        *(Function(name, matrix, 0, VECTOR, True) for name in _OF_MATRIX_EXPERIMENTAL),
        *(Function(name, vector, 1, VECTOR) for name in _OF_TIME),
        *(Function(name, (), 0, SCALAR, True) for name in _QUERY_CONTEXT),
        *(Function(name, (SCALAR, SCALAR), 0, SCALAR, True) for name in ("min_of", "max_of")),
        *(
            Function(name, (VECTOR, STRING), -1, VECTOR, True)
            for name in ("sort_by_label", "sort_by_label_desc")
        ),
        *(Function(name, (VECTOR, SCALAR), 0, VECTOR) for name in ("clamp_min", "clamp_max")),
        Function("clamp", (VECTOR, SCALAR, SCALAR), 0, VECTOR),
        Function("double_exponential_smoothing", (MATRIX, SCALAR, SCALAR), 0, VECTOR, True),
        Function("histogram_fraction", (SCALAR, SCALAR, VECTOR), 0, VECTOR),
        Function("histogram_quantile", (SCALAR, VECTOR), 0, VECTOR),
        Function("histogram_quantiles", (VECTOR, STRING, SCALAR, SCALAR), 9, VECTOR, True),
        Function("info", (VECTOR, VECTOR), 1, VECTOR, True),
        Function("label_join", (VECTOR, STRING, STRING, STRING), -1, VECTOR),
        Function("label_replace", (VECTOR, STRING, STRING, STRING, STRING), 0, VECTOR),
        Function("pi", (), 0, SCALAR),
        Function("predict_linear", (MATRIX, SCALAR), 0, VECTOR),
        Function("quantile_over_time", (SCALAR, MATRIX), 0, VECTOR),
        Function("round", (VECTOR, SCALAR), 1, VECTOR),
        Function("scalar", vector, 0, SCALAR),
        Function("start_timestamp", vector, 0, VECTOR, True),
        Function("time", (), 0, SCALAR),
        Function("vector", (SCALAR,), 0, VECTOR),
    ]
    return {row.name: row for row in sorted(rows, key=lambda row: row.name)}


FUNCTIONS: Mapping[str, Function] = MappingProxyType(_table())

AGGREGATORS: Mapping[str, Aggregator] = MappingProxyType(
    {
        row.name: row
        for row in (
            *(
                Aggregator(name)
                for name in ("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar")
            ),
            Aggregator("topk", SCALAR, grouped_output=False),
            Aggregator("bottomk", SCALAR, grouped_output=False),
            Aggregator("quantile", SCALAR),
            Aggregator("count_values", STRING),
            Aggregator("limitk", SCALAR, experimental=True, grouped_output=False),
            Aggregator("limit_ratio", SCALAR, experimental=True, grouped_output=False),
        )
    }
)

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
TRIMS = frozenset({"</", ">/"})
ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "^", "atan2"})
SET_OPERATORS = frozenset({"and", "or", "unless"})

AT_MODIFIER_UNSAFE = frozenset(
    {
        *_OF_TIME,
        *_QUERY_CONTEXT,
        *("time", "timestamp", "predict_linear"),
    }
)
"""Functions whose result depends on the evaluation time even when all of their selectors have `@`."""
