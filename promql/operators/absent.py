"""absent() and absent_over_time(): one series of ones at the steps where nothing is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from promql.ast import Call, Expr, MatrixSelector, ParenExpr, VectorSelector
from promql.kernels import overtime
from promql.matrix import ABSENT, BoolArray
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Operator,
    Piece,
    RangeOperator,
    Series,
    VectorOperator,
)
from promql.operators.window import window_counts
from tsdb.labels import METRIC_NAME, Labels, MatchType
from tsdb.serieslabels import SeriesLabels


def absent_labels(expr: Expr) -> Labels:
    """Labels of the result: what single equality matchers of a plain selector say; a label with another
    matcher beside it is left out."""
    while isinstance(expr, ParenExpr):
        expr = expr.expr
    if isinstance(expr, MatrixSelector):
        expr = expr.selector
    if not isinstance(expr, VectorSelector):
        return Labels()
    found: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in expr.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.type is MatchType.EQUAL and matcher.name not in seen:
            found[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            # Only what came before is forgotten: an equality after another kind of matcher counts.
            found.pop(matcher.name, None)
    return Labels.from_dict(found)


class _Absent(VectorOperator):
    def __init__(self, expr: Expr, child: VectorOperator | RangeOperator) -> None:
        super().__init__(child.ctx)
        self._labels = absent_labels(expr)
        self._source: Operator = child

    def _announce(self) -> Series:
        labels = SeriesLabels.from_labels([self._labels], self.ctx.symbols)
        return Series(labels, np.zeros(1, dtype=np.bool_))

    @abstractmethod
    def _found(self) -> Iterator[BoolArray]: ...

    def batches(self) -> Iterator[Piece]:
        """One row."""
        found = np.zeros(self.grid.steps, dtype=np.bool_)
        for some in self._found():
            found |= some
        yield Piece(0, np.where(found, ABSENT, 1.0).reshape(1, -1))

    def explain(self) -> Explain:
        """Labels and child."""
        return Explain("Absent", str(self._labels), (self._source.explain(),))


class Absent(_Absent):
    """absent(v)."""

    def __init__(self, expr: Expr, child: VectorOperator) -> None:
        super().__init__(expr, child)
        self._child = child

    def _found(self) -> Iterator[BoolArray]:
        for piece in self._child.batches():
            here = (piece.values.view(np.uint64) != ABSENT.view(np.uint64)).any(axis=0)
            if piece.histograms is not None:
                here |= (piece.histograms.index >= 0).any(axis=0)
            yield here


class AbsentOverTime(_Absent):
    """absent_over_time(m)."""

    def __init__(self, expr: Expr, child: RangeOperator) -> None:
        super().__init__(expr, child)
        self._child = child

    def _found(self) -> Iterator[BoolArray]:
        self._child.series()
        yield from self.ctx.ordered_map(lambda split: self._of(*split), self._child.splits())

    def _of(self, lo: int, hi: int) -> BoolArray:
        samples = self._child.load(lo, hi).samples
        window = self._child.window
        if samples.histograms is not None:
            floats, histograms = window_counts(samples, window)
            return np.asarray(((floats + histograms) > 0).any(axis=0))
        out = np.empty((len(samples), window.steps))
        first, step, _, span, _ = window
        overtime.edges(
            samples.offsets, samples.t_ms, samples.values, first, step, span, overtime.EDGE_PRESENT, out
        )
        return np.asarray((out.view(np.uint64) != ABSENT.view(np.uint64)).any(axis=0))


def _absent(call: Call, builder: Builder) -> VectorOperator:
    return Absent(call.args[0], builder.vector(call.args[0]))


def _absent_over_time(call: Call, builder: Builder) -> VectorOperator:
    return AbsentOverTime(call.args[0], builder.range(call.args[0]))


FUNCTIONS: dict[str, FunctionBuilder] = {"absent": _absent, "absent_over_time": _absent_over_time}
