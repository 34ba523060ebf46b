"""Types of expressions, and the checks a parsed query must pass, in Prometheus's order and words.

Only the first error is reported. Semantics: prometheus-surface.md 2.2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    Position,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatching,
    VectorSelector,
)
from promql.errors import ParseError
from promql.functions import AGGREGATORS, COMPARISONS, FUNCTIONS, SET_OPERATORS
from promql.quoting import quote
from promql.visit import postorder
from tsdb.labels import METRIC_NAME, Matcher

_SCALAR, _VECTOR, _MATRIX, _STRING = (
    ValueType.SCALAR,
    ValueType.VECTOR,
    ValueType.MATRIX,
    ValueType.STRING,
)
_API_NAMES = {
    _SCALAR: "scalar",
    _VECTOR: "vector",
    _MATRIX: "matrix",
    _STRING: "string",
    ValueType.NONE: "none",
}


def api_type(value_type: ValueType) -> str:
    """The short name of a type (`vector`, `matrix`, `scalar`, `string`), as in resultType and parse_query."""
    return _API_NAMES[value_type]


def type_of(expr: Expr) -> ValueType:
    """Type of an expression's value."""
    while isinstance(expr, (ParenExpr, UnaryExpr)):
        expr = expr.expr
    if isinstance(expr, (VectorSelector, AggregateExpr)):
        return _VECTOR
    if isinstance(expr, (MatrixSelector, SubqueryExpr)):
        return _MATRIX
    if isinstance(expr, NumberLiteral):
        return _SCALAR
    if isinstance(expr, StringLiteral):
        return _STRING
    if isinstance(expr, Call):
        return FUNCTIONS[expr.function].return_type
    if isinstance(expr, BinaryExpr):
        return expr.value_type or type_of_binary(type_of(expr.lhs), type_of(expr.rhs))
    return ValueType.NONE


def type_of_binary(left: ValueType, right: ValueType) -> ValueType:
    """Type of an operation between values of these types."""
    return _SCALAR if left is _SCALAR and right is _SCALAR else _VECTOR


class TypeChecker:
    """Checks one tree. `raw_matching` holds, by id of the node, what was written between operator and right
    side; the tree itself keeps it only between vectors."""

    def __init__(self, query: str, source: str, raw_matching: Mapping[int, VectorMatching]) -> None:
        """`source` is the text in bytes, as `tokens.encode` gives it."""
        self._query = query
        self._source = source
        self._raw_matching = raw_matching
        self._known: dict[int, ValueType | ParseError] = {}
        """What was found out about nodes, by their id, in a deep tree."""
        self._checks: dict[type[Expr], Callable[..., ValueType]] = {
            AggregateExpr: self._aggregate,
            BinaryExpr: self._binary,
            Call: self._call,
            MatrixSelector: self._matrix,
            ParenExpr: self._paren,
            SubqueryExpr: self._subquery,
            UnaryExpr: self._unary,
            VectorSelector: self._selector,
            NumberLiteral: lambda _: _SCALAR,
            StringLiteral: lambda _: _STRING,
        }

    def check(self, expr: Expr) -> ValueType:
        """Type of the tree. Raises ParseError for the first error."""
        if not self._known:
            return self._checks[type(expr)](expr)
        found = self._known.get(id(expr))
        if found is None:
            return self._checks[type(expr)](expr)
        if isinstance(found, ParseError):
            raise found.with_traceback(None)
        return found

    def check_deep(self, expr: Expr) -> ValueType:
        """The same without recursion. Nodes are checked from the leaves on, and an error waits for the node
        above to come across it, so that the first one is that of `check`."""
        for node in postorder(expr):
            try:
                self._known[id(node)] = self.check(node)
            except ParseError as error:
                self._known[id(node)] = error
        return self.check(expr)

    def _fail(self, pos: Position, message: str) -> NoReturn:
        raise ParseError(message, pos, self._query)

    def _expect(self, expr: Expr, want: ValueType, context: str) -> None:
        got = self.check(expr)
        if got is not want:
            self._fail(expr.pos, f"expected type {want.value} in {context}, got {got.value}")

    def _aggregate(self, node: AggregateExpr) -> ValueType:
        self._expect(node.expr, _VECTOR, "aggregation expression")
        param = AGGREGATORS[node.op].param
        if param is not None and node.param is not None:
            self._expect(node.param, param, "aggregation parameter")
        return _VECTOR

    def _paren(self, node: ParenExpr) -> ValueType:
        return self.check(node.expr)

    def _unary(self, node: UnaryExpr) -> ValueType:
        got = self.check(node.expr)
        if got not in (_SCALAR, _VECTOR):
            text = "unary expression only allowed on expressions of type scalar or instant vector"
            self._fail(node.pos, f"{text}, got {quote(got.value)}")
        return got

    def _subquery(self, node: SubqueryExpr) -> ValueType:
        got = self.check(node.expr)
        if got is not _VECTOR:
            self._fail(node.pos, f"subquery is only allowed on instant vector, got {api_type(got)} instead")
        return _MATRIX

    def _matrix(self, node: MatrixSelector) -> ValueType:
        self._selector(node.selector)
        return _MATRIX

    def _selector(self, node: VectorSelector, empty_allowed: bool = False) -> ValueType:
        if node.name:
            for matcher in node.matchers[1:]:
                if matcher.name == METRIC_NAME:
                    names = f"{quote(node.name)} or {quote(matcher.value)}"
                    self._fail(node.pos, f"metric name must not be set twice: {names}")
        elif not empty_allowed and all(matcher.matches_empty for matcher in node.matchers):
            self._fail(node.pos, "vector selector must contain at least one non-empty matcher")
        return _VECTOR

    def _call(self, node: Call) -> ValueType:
        function = FUNCTIONS[node.function]
        self._arity(node)
        label_selector: Expr | None = None
        if function.name == "info" and len(node.args) > 1:
            label_selector = self._info_selector(node)
        context = f"call to function {quote(function.name)}"
        for index, arg in enumerate(node.args):
            if index >= len(function.arg_types) and not function.variadic:
                break
            if arg is label_selector:
                assert isinstance(arg, VectorSelector)
                self._selector(arg, empty_allowed=True)
                continue
            self._expect(arg, function.arg_type(index), context)
        return function.return_type

    def _arity(self, node: Call) -> None:
        function = FUNCTIONS[node.function]
        given, least, most = len(node.args), function.args_min, function.args_max
        if function.variadic == 0:
            wanted = f"{least}" if given != least else ""
        elif given < least:
            wanted = f"at least {least}"
        else:
            wanted = f"at most {most}" if most is not None and given > most else ""
        if wanted:
            text = f"expected {wanted} argument(s) in call to {quote(function.name)}, got {given}"
            self._fail(node.pos, text)

    def _info_selector(self, node: Call) -> VectorSelector:
        arg = node.args[1]
        got = type_of(arg)
        if got is not _VECTOR:
            text = (
                f"expected type {_VECTOR.value} in call to function {quote(node.function)}, got {got.value}"
            )
            self._fail(node.pos, text)
        if not isinstance(arg, VectorSelector):
            self._fail(arg.pos, "expected label selectors only")
        if arg.name:
            self._fail(arg.pos, "expected label selectors only, got vector selector instead")
        return arg

    def _binary(self, node: BinaryExpr) -> ValueType:
        left = self.check(node.lhs)
        return self._binary_operands(node, left, self.check(node.rhs))

    def _binary_operands(self, node: BinaryExpr, left: ValueType, right: ValueType) -> ValueType:
        raw = self._raw_matching[id(node)]
        comparison = node.op in COMPARISONS
        if node.return_bool and not comparison:
            self._fail(self._operator_pos(node), "bool modifier can only be used on comparison operators")
        both_scalar = left is _SCALAR and right is _SCALAR
        if comparison and not node.return_bool and both_scalar:
            self._fail(self._operator_pos(node), "comparisons between scalars must use BOOL modifier")
        if raw.on:
            for label in raw.labels:
                if label in raw.include:
                    text = f"label {quote(label)} must not occur in ON and GROUP clause at once"
                    self._fail(self._operator_pos(node), text)
        for side, got in ((node.lhs, left), (node.rhs, right)):
            if got not in (_SCALAR, _VECTOR):
                self._fail(side.pos, "binary expression must contain only scalar and instant vector types")
        self._matching(node, raw, left is _VECTOR and right is _VECTOR)
        if node.op in SET_OPERATORS and _SCALAR in (left, right):
            self._fail(node.pos, f"set operator {quote(node.op)} not allowed in binary scalar expression")
        return _SCALAR if both_scalar else _VECTOR

    def _matching(self, node: BinaryExpr, raw: VectorMatching, vectors: bool) -> None:
        fills = raw.fill_lhs is not None or raw.fill_rhs is not None
        if not vectors:
            if raw.labels:
                self._fail(node.pos, "vector matching only allowed between instant vectors")
            if fills:
                self._fail(node.pos, "filling in missing series only allowed between instant vectors")
        elif node.op in SET_OPERATORS:
            if raw.card in (Cardinality.ONE_TO_MANY, Cardinality.MANY_TO_ONE):
                self._fail(node.pos, f"no grouping allowed for {quote(node.op)} operation")
            if fills:
                self._fail(node.pos, "filling in missing series not allowed for set operators")

    def _operator_pos(self, node: BinaryExpr) -> Position:
        start, end = node.lhs.pos.end, node.rhs.pos.start - 1
        while self._source[start : start + 1] in (" ", "\t", "\n", "\r"):
            start += 1
        while self._source[end : end + 1] in (" ", "\t", "\n", "\r"):
            end -= 1
        return Position(start, end)


def matches_everything(matchers: tuple[Matcher, ...]) -> bool:
    """Whether every matcher is satisfied by an absent label, so that the selector would take all series."""
    return all(matcher.matches_empty for matcher in matchers)
