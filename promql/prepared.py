"""What planning wants to know of a query's text, found once and kept: dashboards ask the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    Position,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
)
from promql.histogramhints import selectors_with_resolved_hints
from promql.limits import CACHED_QUERIES_MAX, CACHED_QUERY_BYTES_MAX, LEVELS_AT_ONCE_MAX
from promql.optimize import (
    fold_constants,
    is_step_invariant,
    is_wrapper,
    shared_expressions,
    step_invariants,
)
from promql.parser import parse
from promql.parseroptions import ParserOptions
from promql.types import type_of
from promql.visit import children, postorder


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A checked tree with its constants folded, its type as it was written, the sub-expressions to share,
    the selectors whose reset hints are resolved, the size of the tree, and how many of its nodes hold a
    result as large as that of a selector (`holders`) or one number a step (`literals`). `stages` are the ids
    of the nodes of a deep tree that are evaluated before what is above them."""

    expr: Expr
    type: ValueType
    shared: frozenset[Expr]
    resolved_hints: frozenset[Position]
    nodes: int
    holders: int
    literals: int
    stages: frozenset[int] = frozenset()
    _invariant: dict[int, tuple[Expr, bool]] = field(default_factory=dict, compare=False, repr=False)
    """What `is_step_invariant` said, by the nodes' identity; with the nodes, so that they stay."""

    def cells_max(self, samples_max: int, steps: int) -> int:
        """Cells that selectors may announce before `samples_max` samples could be held at a time: each holder
        has its result, and at most twice that with the vectors of a step."""
        return (samples_max - 2 * self.literals * steps) // (2 * self.holders)

    def is_step_invariant(self, node: Expr) -> bool:
        """`optimize.is_step_invariant`, worked out once a node."""
        found = self._invariant.get(id(node))
        if found is not None:
            return found[1]
        answer = is_step_invariant(node)
        if len(self._invariant) < self.nodes:
            self._invariant[id(node)] = node, answer
        return answer


_OPERATIONS = (AggregateExpr, BinaryExpr, Call, UnaryExpr)
"""Nodes whose value is an instant vector or a scalar, and that may be deep."""

_HOLD_NOTHING = (ParenExpr, MatrixSelector, NumberLiteral, StringLiteral)


def prepare_query(text: str, options: ParserOptions) -> PreparedQuery:
    """Parse and look over a query. Raises ParseError."""
    if len(text) <= CACHED_QUERY_BYTES_MAX:
        return _prepare_cached(text, options)
    return _prepare(text, options)


def _prepare(text: str, options: ParserOptions) -> PreparedQuery:
    tree = parse(text, options)
    expr = fold_constants(tree)
    shared, resolved = shared_expressions(expr), selectors_with_resolved_hints(expr)
    nodes = postorder(expr)
    holders, literals = _holders(nodes)
    known: dict[int, tuple[Expr, bool]] = {}
    stages = _stages(nodes) if len(nodes) > LEVELS_AT_ONCE_MAX else frozenset()
    if stages:
        invariant = step_invariants(nodes)
        known = {id(node): (node, invariant[id(node)]) for node in nodes if id(node) in invariant}
    return PreparedQuery(expr, type_of(tree), shared, resolved, len(nodes), holders, literals, stages, known)


def _stages(nodes: Sequence[Expr]) -> frozenset[int]:
    """Ids of operations such that no more than LEVELS_AT_ONCE_MAX levels lie between two of them, or above or
    below one; of all nodes of a tree in `postorder`."""
    found: set[int] = set()
    levels: dict[int, int] = {}
    for node in nodes:
        level = max((levels[id(child)] for child in children(node)), default=0)
        if not is_wrapper(node):
            level += 1
        if level >= LEVELS_AT_ONCE_MAX and isinstance(node, _OPERATIONS) and node is not nodes[-1]:
            found.add(id(node))
            level = 0
        levels[id(node)] = level
    return frozenset(found)


def _holders(nodes: Sequence[Expr]) -> tuple[int, int]:
    """(holders, literals). Of a range selector, and the selector in it, only the window of one series is held
    at a time, which it announces besides its cells. Literals in a subquery have as many steps as that
    announces."""
    inside = {id(node.selector) for node in nodes if isinstance(node, MatrixSelector)}
    holders = sum(not (isinstance(node, _HOLD_NOTHING) or id(node) in inside) for node in nodes)
    literals = sum(isinstance(node, NumberLiteral) for node in nodes)
    if any(isinstance(node, SubqueryExpr) for node in nodes):
        return holders + literals, literals
    return max(holders, 1), literals


_prepare_cached = lru_cache(maxsize=CACHED_QUERIES_MAX)(_prepare)
