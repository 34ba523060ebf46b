"""Functions of one sample: math, rounding, clamping, sign. Histograms fall out; names are dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from promql.ast import Call
from promql.kernels import binary as kernels
from promql.matrix import ABSENT, F64Array, HistogramCells
from promql.operators.collect import rowwise
from promql.operators.histogrambinary import binary_histograms
from promql.operators.merge import checked
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Piece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
    drop_metadata,
)

Elementwise = Callable[[F64Array, Sequence[F64Array]], F64Array]
"""(values f64[R, K], scalar arguments f64[K] each) -> values; absent cells are restored by the caller."""


def _sign(v: F64Array, args: Sequence[F64Array]) -> F64Array:
    return np.where(v > 0, 1.0, np.where(v < 0, -1.0, v))


def _round(v: F64Array, args: Sequence[F64Array]) -> F64Array:
    inverse = 1.0 / args[0] if args else 1.0
    return np.asarray(np.floor(v * inverse + 0.5) / inverse)


def larger(a: F64Array, b: F64Array) -> F64Array:
    """Go's math.Max: infinity even beside NaN, else NaN if either is, 0 before -0."""
    with np.errstate(invalid="ignore"):  # the sum is only taken where both are zeros
        out = np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))
    return np.where((a == math.inf) | (b == math.inf), math.inf, out)


def smaller(a: F64Array, b: F64Array) -> F64Array:
    """Go's math.Min."""
    return -larger(-a, -b)


def _clamp(v: F64Array, args: Sequence[F64Array]) -> F64Array:
    low, high = args
    return np.where(high < low, ABSENT, larger(low, smaller(high, v)))


def _of(function: Callable[[F64Array], F64Array]) -> Elementwise:
    return lambda v, args: function(v)


ELEMENTWISE: dict[str, Elementwise] = {
    "abs": _of(np.abs),
    "ceil": _of(np.ceil),
    "floor": _of(np.floor),
    "exp": _of(np.exp),
    "sqrt": _of(np.sqrt),
    "ln": _of(np.log),
    "log2": _of(np.log2),
    "log10": _of(np.log10),
    "sin": _of(np.sin),
    "cos": _of(np.cos),
    "tan": _of(np.tan),
    "asin": _of(np.arcsin),
    "acos": _of(np.arccos),
    "atan": _of(np.arctan),
    "sinh": _of(np.sinh),
    "cosh": _of(np.cosh),
    "tanh": _of(np.tanh),
    "asinh": _of(np.arcsinh),
    "acosh": _of(np.arccosh),
    "atanh": _of(np.arctanh),
    "rad": _of(lambda v: v * math.pi / 180.0),
    "deg": _of(lambda v: v * 180.0 / math.pi),
    "sgn": _sign,
    "round": _round,
    "clamp": _clamp,
    "clamp_min": lambda v, args: larger(args[0], v),
    "clamp_max": lambda v, args: smaller(args[0], v),
}


class ElementwiseOperator(RowwiseOperator):
    """Applies an elementwise function to each piece of its child."""

    def __init__(self, name: str, child: VectorOperator, args: Sequence[ScalarOperator]) -> None:
        super().__init__(child.ctx)
        self._name = name
        self._child = rowwise(child)
        self._args = args
        self._arg_values: list[F64Array] = []

    def _announce(self) -> Series:
        self._arg_values = [arg.values() for arg in self._args]
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Map the child's piece."""
        values = self._child.load(lo, hi).values
        absent = values.view(np.uint64) == ABSENT.view(np.uint64)
        with np.errstate(all="ignore"):
            out = ELEMENTWISE[self._name](values, self._arg_values)
        out[absent] = ABSENT
        return Piece(lo, out)

    def explain(self) -> Explain:
        """Function and child."""
        children = (self._child.explain(), *(arg.explain() for arg in self._args))
        return Explain("Elementwise", self._name, children)


class NegateOperator(RowwiseOperator):
    """Unary minus of a vector."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Flip signs; histograms are multiplied by -1."""
        piece = self._child.load(lo, hi)
        kernels.negate(piece.values)
        cells = piece.histograms
        if cells is not None:
            cells = _negated(cells, piece.values)
        return Piece(lo, piece.values, cells)

    def explain(self) -> Explain:
        """The child."""
        return Explain("Negate", "", (self._child.explain(),))


def _negated(cells: HistogramCells, values: F64Array) -> HistogramCells | None:

    present = cells.index >= 0
    minus = np.full(values.shape, -1.0)
    return binary_histograms("*", cells, minus, present, lambda row, kind, text: None)[0]


def build_elementwise(call: Call, builder: Builder) -> VectorOperator:
    """A call of an elementwise function."""
    args = [builder.scalar(arg) for arg in call.args[1:]]
    return checked(ElementwiseOperator(call.function, builder.vector(call.args[0]), args))


FUNCTIONS: dict[str, FunctionBuilder] = dict.fromkeys(ELEMENTWISE, build_elementwise)
