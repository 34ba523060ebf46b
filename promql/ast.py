"""The typed tree of a PromQL expression. Immutable; every node knows its place in the text.

`pos` is a half-open range of byte offsets into the query's UTF-8 text. Durations and timestamps are
milliseconds. Semantics: prometheus-surface.md section 2.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tsdb.labels import Matcher


class ValueType(enum.Enum):
    """Type of an expression's value; the strings are those of error texts and of resultType."""

    SCALAR = "scalar"
    VECTOR = "instant vector"
    MATRIX = "range vector"
    STRING = "string"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Position:
    """Byte range [start, end) in the query text."""

    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expr:
    """Base of all nodes. Positions do not take part in equality."""

    pos: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberLiteral(Expr):
    """A number; `is_duration` remembers that it was written as a duration (value is seconds)."""

    value: float
    is_duration: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StringLiteral(Expr):
    """A string after unquoting."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationExpr(Expr):
    """Arithmetic inside [] and after offset: `op` is one of + - * / % ^ step range min_of max_of, or the
    unary + and - (then `lhs` is None). Leaves are NumberLiterals in seconds."""

    op: str
    lhs: DurationExpr | NumberLiteral | None = None
    rhs: DurationExpr | NumberLiteral | None = None
    wrapped: bool = False


class AtModifier(enum.Enum):
    """Preprocessors of the @ modifier."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSelector(Expr):
    """Instant selector. `name` is the metric name as written ("" if none or given in braces); `matchers` hold
    everything, the name's equality matcher included, in written order with the name first if bare.

    `offset_ms` is the literal offset; `offset_expr` is set instead where it must be computed. `at_ms` or
    `at_modifier` is set by `@`.
    """

    name: str
    matchers: tuple[Matcher, ...]
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None
    at_ms: int | None = None
    at_modifier: AtModifier | None = None
    anchored: bool = False
    smoothed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSelector(Expr):
    """Range selector; offset and @ live on the inner selector."""

    selector: VectorSelector
    range_ms: int
    range_expr: DurationExpr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubqueryExpr(Expr):
    """`expr[range:step]`; `step_ms` 0 means the default step."""

    expr: Expr
    range_ms: int
    range_expr: DurationExpr | None = None
    step_ms: int = 0
    step_expr: DurationExpr | None = None
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None
    at_ms: int | None = None
    at_modifier: AtModifier | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParenExpr(Expr):
    """Parentheses, kept for printing."""

    expr: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryExpr(Expr):
    """`op` is + or -."""

    op: str
    expr: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Expr):
    """Function call; `function` is the name in `promql.functions`."""

    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateExpr(Expr):
    """`op` in lower case; `param` for topk, bottomk, quantile, count_values, limitk, limit_ratio."""

    op: str
    expr: Expr
    param: Expr | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False


class Cardinality(enum.Enum):
    """Cardinality of vector matching, with the names of parse_query."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """`on` tells on() from ignoring(); `include` are the labels of group_left or group_right; the fill values
    replace a missing side."""

    card: Cardinality = Cardinality.ONE_TO_ONE
    labels: tuple[str, ...] = ()
    on: bool = False
    include: tuple[str, ...] = ()
    fill_lhs: float | None = None
    fill_rhs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryExpr(Expr):
    """`op` in lower case as written (`+`, `atan2`, `and`, `</` ...); `matching` is None unless both sides are
    vectors. `value_type` is there so that it need not be looked for in both sides, and below, again and
    again; None for not known."""

    op: str
    lhs: Expr
    rhs: Expr
    matching: VectorMatching | None = None
    return_bool: bool = False
    value_type: ValueType | None = field(default=None, compare=False, repr=False)
