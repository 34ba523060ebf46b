"""Scalars: literals, time(), the query's own bounds, scalar(), vector(), and arithmetic between scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from promql.ast import Call
from promql.context import EvalContext
from promql.kernels import binary as kernels
from promql.matrix import ABSENT, F64Array
from promql.operators.collect import collect
from promql.operators.mathfunctions import larger, smaller
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Piece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
)
from tsdb.serieslabels import SeriesLabels


class Constant(ScalarOperator):
    """A number, or a scalar function that the query's bounds determine."""

    def __init__(self, ctx: EvalContext, value: float, label: str = "Number") -> None:
        super().__init__(ctx)
        self.value = value
        self._label = label

    def values(self) -> F64Array:
        """The same at every step."""
        return np.full(self.grid.steps, self.value)

    def explain(self) -> Explain:
        """The number."""
        return Explain(self._label, repr(self.value))


class Time(ScalarOperator):
    """time(): seconds of every step."""

    def values(self) -> F64Array:
        """Evaluation times in seconds."""
        return self.grid.times_ms() / 1000.0

    def explain(self) -> Explain:
        """Its name."""
        return Explain("Time")


class ScalarBinary(ScalarOperator):
    """Arithmetic or comparison (1 and 0) of two scalars."""

    def __init__(self, ctx: EvalContext, op: str, lhs: ScalarOperator, rhs: ScalarOperator) -> None:
        super().__init__(ctx)
        self._op, self._lhs, self._rhs = op, lhs, rhs

    def values(self) -> F64Array:
        """Step by step."""
        x, y = self._lhs.values(), self._rhs.values()
        out = np.empty_like(x)
        if self._op in kernels.COMPARISONS:
            kernels.compare_scalars(kernels.COMPARISONS[self._op], x, y, out)
        else:
            kernels.arithmetic_scalars(kernels.CODES[self._op], x, y, out)
        return out

    def explain(self) -> Explain:
        """Operator and operands."""
        return Explain("ScalarBinary", self._op, (self._lhs.explain(), self._rhs.explain()))


class Negate(ScalarOperator):
    """Unary minus of a scalar."""

    def __init__(self, ctx: EvalContext, child: ScalarOperator) -> None:
        super().__init__(ctx)
        self._child = child

    def values(self) -> F64Array:
        """Signs flipped."""
        return -self._child.values()

    def explain(self) -> Explain:
        """Operand."""
        return Explain("Negate", "", (self._child.explain(),))


class Extreme(ScalarOperator):
    """min_of(a, b) and max_of(a, b), as Go: the infinity sought even beside NaN, else NaN if either is."""

    def __init__(self, ctx: EvalContext, name: str, lhs: ScalarOperator, rhs: ScalarOperator) -> None:
        super().__init__(ctx)
        self._name, self._lhs, self._rhs = name, lhs, rhs

    def values(self) -> F64Array:
        """Step by step."""
        pick = smaller if self._name == "min_of" else larger
        return pick(self._lhs.values(), self._rhs.values())

    def explain(self) -> Explain:
        """Operands."""
        return Explain(self._name, "", (self._lhs.explain(), self._rhs.explain()))


class ScalarOf(ScalarOperator):
    """scalar(v): the one float sample of a step, NaN where there is none or more than one."""

    def __init__(self, ctx: EvalContext, child: VectorOperator) -> None:
        super().__init__(ctx)
        self._child = child
        self._values: F64Array | None = None

    def values(self) -> F64Array:
        """Evaluates the child at the first call."""
        if self._values is None:
            rows = collect(self._child)
            here = rows.values.view(np.uint64) != ABSENT.view(np.uint64)
            one = here.sum(axis=0) == 1
            out = np.full(self.grid.steps, math.nan)
            if len(rows.values):
                out[one] = rows.values[here.argmax(axis=0), np.arange(len(out))][one]
            self._values = out
            rows.release(self.ctx)
        return self._values

    def explain(self) -> Explain:
        """The child's plan below."""
        return Explain("Scalar", "", (self._child.explain(),))


class Vector(RowwiseOperator):
    """vector(s): one series without labels."""

    def __init__(self, ctx: EvalContext, child: ScalarOperator) -> None:
        super().__init__(ctx)
        self._child = child
        self._values = np.empty(0)

    def _announce(self) -> Series:
        self._values = self._child.values()
        none = np.empty(0, dtype=np.uint32)
        labels = SeriesLabels(np.zeros(2, dtype=np.int64), none, none, self.ctx.symbols)
        return Series(labels, np.zeros(1, dtype=np.bool_))

    def splits(self) -> Sequence[tuple[int, int]]:
        """The one row."""
        return [(0, 1)]

    def load(self, lo: int, hi: int) -> Piece:
        """The scalar as a row."""
        return Piece(lo, self._values.reshape(1, -1).copy())

    def explain(self) -> Explain:
        """The scalar's plan below."""
        return Explain("Vector", "", (self._child.explain(),))


def _bound(name: str) -> FunctionBuilder:
    def build(call: Call, builder: Builder) -> ScalarOperator:
        grid = builder.ctx.query_grid
        ends = (grid.start_ms, builder.ctx.query_end_ms)
        value_ms = {"start": ends[0], "end": ends[1], "range": ends[1] - ends[0], "step": grid.step_ms}[name]
        return Constant(builder.ctx, value_ms / 1000.0, name)

    return build


def _extreme(call: Call, builder: Builder) -> ScalarOperator:
    lhs, rhs = (builder.scalar(arg) for arg in call.args)
    return Extreme(builder.ctx, call.function, lhs, rhs)


FUNCTIONS: dict[str, FunctionBuilder] = {
    "pi": lambda call, builder: Constant(builder.ctx, math.pi, "pi"),
    "time": lambda call, builder: Time(builder.ctx),
    "scalar": lambda call, builder: ScalarOf(builder.ctx, builder.vector(call.args[0])),
    "vector": lambda call, builder: Vector(builder.ctx, builder.scalar(call.args[0])),
    "start": _bound("start"),
    "end": _bound("end"),
    "range": _bound("range"),
    "step": _bound("step"),
    "min_of": _extreme,
    "max_of": _extreme,
}
