"""Rules over events of which only some fields are known: true, false, or not to be told.

A check of an unknown field may be either. What follows from the known ones alone is certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from security.columns import ColumnKey
from security.evaluation import Evaluator, Group, Mask
from security.rules.index import CompiledRule, RuleSet
from security.rules.program import AND, CHECK, NOT, TRUE, CompiledOperand, Predicate
from security.tuning.storedevents import StoredBatch


@dataclass(frozen=True, slots=True)
class Verdict:
    """Masks over events: a rule holds for certain, and may hold."""

    certain: Mask
    possible: Mask


class PartialEvaluator:
    """Evaluates rules of one source over a stored batch."""

    def __init__(self, rules: RuleSet, stored: StoredBatch) -> None:
        self._stored = stored
        self._program = rules.programs[stored.batch.source]
        self._group = Group(Evaluator(self._program), stored.batch, None)
        self._verdicts: dict[int, Verdict] = {}

    def verdict(self, rule: CompiledRule) -> Verdict:
        """What can be said about a rule."""
        return self._node(rule.node)

    def _node(self, number: int) -> Verdict:
        known = self._verdicts.get(number)
        if known is None:
            known = self._verdicts[number] = self._compute(number)
        return known

    def _compute(self, number: int) -> Verdict:
        kind, children = self._program.nodes[number]
        count = self._stored.batch.count
        if kind == CHECK:
            known = self._known(self._program.predicates[children[0]])
            holds = self._group.mask(number)
            return Verdict(holds & known, holds | ~known)
        if kind == NOT:
            inner = self._node(children[0])
            return Verdict(~inner.possible, ~inner.certain)
        # An empty `and` is true and an empty `or` is false, as the constants are.
        start = np.full(count, kind in (AND, TRUE), np.bool_)
        certain, possible = start.copy(), start.copy()
        for child in children:
            inner = self._node(child)
            if kind == AND:
                certain &= inner.certain
                possible &= inner.possible
            else:
                certain |= inner.certain
                possible |= inner.possible
        return Verdict(certain, possible)

    def _known(self, predicate: Predicate) -> Mask:
        known = np.ones(self._stored.batch.count, np.bool_)
        operands = (predicate.operand, predicate.right)
        for key in (key for operand in operands if operand is not None for key in _keys(operand)):
            known &= self._stored.known(key)
        return known


def _keys(operand: CompiledOperand) -> Iterator[ColumnKey]:
    if operand.field is not None:
        yield operand.field.key
    for part in operand.arguments:
        for inner in part if isinstance(part, tuple) else (part,):
            if isinstance(inner, CompiledOperand):
                yield from _keys(inner)
