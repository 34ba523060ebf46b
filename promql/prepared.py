"""What planning wants to know of a query's text, found once and kept: dashboards ask the same again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from promql.ast import Expr, Position, ValueType
from promql.histogramhints import selectors_with_resolved_hints
from promql.limits import CACHED_QUERIES_MAX, CACHED_QUERY_BYTES_MAX
from promql.optimize import fold_constants, is_step_invariant, shared_expressions
from promql.parser import parse
from promql.parseroptions import ParserOptions
from promql.types import type_of
from promql.visit import walk


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A checked tree with its constants folded, its type as it was written, the sub-expressions to share,
    the selectors whose reset hints are resolved, and the size of the tree."""

    expr: Expr
    type: ValueType
    shared: frozenset[Expr]
    resolved_hints: frozenset[Position]
    nodes: int
    _invariant: dict[int, tuple[Expr, bool]] = field(default_factory=dict, compare=False, repr=False)
    """What `is_step_invariant` said, by the nodes' identity; with the nodes, so that they stay."""

    def is_step_invariant(self, node: Expr) -> bool:
        """`optimize.is_step_invariant`, worked out once a node."""
        found = self._invariant.get(id(node))
        if found is not None:
            return found[1]
        answer = is_step_invariant(node)
        if len(self._invariant) < self.nodes:
            self._invariant[id(node)] = node, answer
        return answer


def prepare_query(text: str, options: ParserOptions) -> PreparedQuery:
    """Parse and look over a query. Raises ParseError."""
    if len(text) <= CACHED_QUERY_BYTES_MAX:
        return _prepare_cached(text, options)
    return _prepare(text, options)


def _prepare(text: str, options: ParserOptions) -> PreparedQuery:
    tree = parse(text, options)
    expr = fold_constants(tree)
    shared, resolved = shared_expressions(expr), selectors_with_resolved_hints(expr)
    return PreparedQuery(expr, type_of(tree), shared, resolved, sum(1 for _ in walk(expr)))


_prepare_cached = lru_cache(maxsize=CACHED_QUERIES_MAX)(_prepare)
