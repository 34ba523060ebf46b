"""Evaluate the nodes of a program over columns. Every node is computed at most once a batch, every test of a
text at most once for each distinct value ever seen."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from security.columns import AnyColumn, Column, Dictionary, EventBatch, NumberColumn
from security.rules.program import AND, CHECK, FALSE, NOT, TRUE, CompiledOperand, Predicate, Program

Mask = NDArray[np.bool_]
_EQUALITIES_LIMIT = 16


@dataclass(slots=True)
class _Answers:
    """Answers of a test for the values of a dictionary; the last place is for missing values."""

    dictionary: Dictionary
    known: int = 0
    table: Mask = field(default_factory=lambda: np.zeros(65, np.bool_))

    def update(self, predicate: Predicate) -> Mask:
        """The table for all values of the dictionary; index -1 is False."""
        values = self.dictionary.values
        size = len(values)
        if size > self.known:
            if size >= len(self.table):
                table = np.zeros(max(2 * len(self.table), size + 1), np.bool_)
                table[: self.known] = self.table[: self.known]
                self.table = table
            test = predicate.test
            assert test is not None
            fresh = values[self.known : size]
            self.table[self.known : size] = np.fromiter(
                (test(value) for value in fresh), np.bool_, len(fresh)
            )
            self.known = size
        return self.table


@dataclass(slots=True)
class _Images:
    """Values of a transformer for the values of a dictionary."""

    dictionary: Dictionary
    target: Dictionary = field(default_factory=Dictionary)
    codes: list[int] = field(default_factory=list)
    # The last place stays -1: a missing value has no image.
    table: NDArray[np.int32] = field(default_factory=lambda: np.full(1, -1, np.int32))


class Evaluator:
    """What is known across batches about the values of one source. One thread at a time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._answers: dict[int, _Answers] = {}
        self._images: dict[Hashable, _Images] = {}

    def answers(self, number: int, dictionary: Dictionary) -> Mask:
        """The answers of a predicate for the codes of a dictionary."""
        known = self._answers.get(number)
        if known is None or known.dictionary is not dictionary:
            known = self._answers[number] = _Answers(dictionary)
        return known.update(self.program.predicates[number])

    def transformed(self, operand: CompiledOperand, column: Column) -> Column:
        """The image of a column under a transformer of one argument."""
        images = self._images.get(operand.key)
        if images is None or images.dictionary is not column.dictionary:
            images = self._images[operand.key] = _Images(column.dictionary)
        assert operand.function is not None
        values = column.dictionary.values
        if len(images.codes) < len(values):
            for value in values[len(images.codes) :]:
                images.codes.append(images.target.code(operand.function(value)))
            images.table = np.array([*images.codes, -1], np.int32)
        return Column(images.table[column.codes], images.target)


class Group:
    """Some events of a batch that the same rules look at."""

    def __init__(self, evaluator: Evaluator, batch: EventBatch, rows: NDArray[np.int64] | None) -> None:
        self.evaluator = evaluator
        self.program = evaluator.program
        self.batch = batch if rows is None else batch.take(rows)
        self.rows = rows
        self.count = self.batch.count
        self._masks: dict[int, Mask] = {}
        self._columns: dict[Hashable, AnyColumn | None] = {}

    def mask(self, number: int) -> Mask:
        """Which events satisfy a node, bool[count]; not to be changed by the caller."""
        known = self._masks.get(number)
        if known is None:
            known = self._masks[number] = self._compute(number)
        return known

    def _compute(self, number: int) -> Mask:
        kind, children = self.program.nodes[number]
        if kind == CHECK:
            return self._check(children[0])
        if kind == NOT:
            return ~self.mask(children[0])
        if kind in (TRUE, FALSE):
            return np.full(self.count, kind == TRUE, np.bool_)
        result = self.mask(children[0])
        if kind == AND:
            for child in children[1:]:
                if not result.any():
                    break
                result = result & self.mask(child)
        else:
            for child in children[1:]:
                if result.all():
                    break
                result = result | self.mask(child)
        return result

    def column(self, operand: CompiledOperand) -> AnyColumn | None:
        """The column of an operand for the events of the group, None when no event has it."""
        if operand.key not in self._columns:
            self._columns[operand.key] = self._load(operand)
        return self._columns[operand.key]

    def _load(self, operand: CompiledOperand) -> AnyColumn | None:
        if operand.field is not None:
            return self.batch.column(operand.field.key)
        if len(operand.arguments) == 1 and isinstance(operand.arguments[0], CompiledOperand):
            inner = self.column(operand.arguments[0])
            if inner is None:
                return None
            if isinstance(inner, Column):
                return self.evaluator.transformed(operand, inner)
        values = [self.value(operand, row) for row in range(self.count)]
        dictionary = Dictionary()
        return Column(dictionary.codes(values), dictionary)

    def value(self, operand: CompiledOperand, row: int) -> Any:
        """The value of an operand for one event of the group, None when missing."""
        if operand.field is not None:
            column = self.column(operand)
            return None if column is None else column.value(row)
        values = []
        for part in operand.arguments:
            value = self._argument(part, row)
            if value is None:
                return None
            values.append(value)
        assert operand.function is not None
        return operand.function(*values)

    def _argument(self, part: Any, row: int) -> Any:
        if isinstance(part, CompiledOperand):
            return self.value(part, row)
        if isinstance(part, tuple):
            values = tuple(self._argument(item, row) for item in part)
            return None if any(value is None for value in values) else values
        return part

    def _check(self, number: int) -> Mask:
        predicate = self.program.predicates[number]
        column = self.column(predicate.operand)
        if column is None:
            return np.zeros(self.count, np.bool_)
        if predicate.quantifier == "exists":
            return _present(column, self.count)
        if predicate.right is not None:
            return self._compare(predicate)
        if isinstance(column, NumberColumn):
            holds = _numbers(predicate, column.values)
            return holds if column.present is None else holds & column.present
        if predicate.operand.is_list and isinstance(column, Column):
            # A transformed list: each distinct list is one value of the dictionary.
            return np.fromiter(
                (_holds(predicate, column.value(row)) for row in range(self.count)), np.bool_, self.count
            )
        answers = self.evaluator.answers(number, column.dictionary)
        if isinstance(column, Column):
            return answers[column.codes]
        hits = np.zeros(len(column.codes) + 1, np.int64)
        np.cumsum(answers[column.codes], out=hits[1:])
        found = hits[column.offsets[1:]] - hits[column.offsets[:-1]]
        if predicate.quantifier == "any":
            return (found > 0) & column.present
        return np.asarray(found == np.diff(column.offsets)) & column.present

    def _compare(self, predicate: Predicate) -> Mask:
        assert predicate.right is not None
        assert predicate.compare is not None
        holds = np.zeros(self.count, np.bool_)
        for row in range(self.count):
            left, right = self.value(predicate.operand, row), self.value(predicate.right, row)
            if left is None or right is None:
                continue
            if isinstance(left, tuple):
                answers = [predicate.compare(part, right) for part in left]
                holds[row] = all(answers) if predicate.quantifier == "all" else any(answers)
            else:
                holds[row] = predicate.compare(left, right)
        return holds


def _holds(predicate: Predicate, value: Any) -> bool:
    assert predicate.test is not None
    if value is None:
        return False
    answers = [predicate.test(part) for part in value]
    return all(answers) if predicate.quantifier == "all" else any(answers)


def _present(column: AnyColumn, count: int) -> Mask:
    if isinstance(column, Column):
        return column.codes >= 0
    if isinstance(column, NumberColumn):
        return np.ones(count, np.bool_) if column.present is None else column.present
    return column.present


def _numbers(predicate: Predicate, values: NDArray[Any]) -> Mask:
    operator = predicate.operator
    bounds: Any = predicate.values
    if operator == "<":
        return np.asarray(values < bounds[0])
    if operator == "<=":
        return np.asarray(values <= bounds[0])
    if operator == ">":
        return np.asarray(values > bounds[0])
    if operator == ">=":
        return np.asarray(values >= bounds[0])
    if operator == "!=":
        return np.asarray(values != bounds[0])
    if len(bounds) > _EQUALITIES_LIMIT and values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        inside = [bound for bound in bounds if limits.min <= bound <= limits.max]
        return np.isin(values, np.array(inside, values.dtype))
    holds = np.zeros(len(values), np.bool_)
    for bound in bounds:
        holds |= values == bound
    return holds
