"""Aggregations that choose samples and keep their labels: topk, bottomk, limitk, limit_ratio."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from promql.ast import AggregateExpr
from promql.engineerrors import ExecutionError
from promql.kernels import aggregate as kernels
from promql.matrix import F64Array, HistogramCells
from promql.numberformat import format_g
from promql.operators.aggregate import describe, group_series
from promql.operators.collect import NO_CELLS, absent_cells
from promql.operators.labelcolumns import label_hashes
from promql.operators.operator import Explain, Piece, ScalarOperator, Series, VectorOperator

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

_INT64_MAX = 2.0**63


def limits_per_step(values: F64Array) -> I64Array | None:
    """k of every step, i64[K], or None if no step selects anything. Raises ExecutionError as Prometheus."""
    largest = values.max()
    has_nan = math.isnan(largest)
    if has_nan and not np.isnan(values).all():
        largest = np.nanmax(values)
    if largest < 1:
        return None
    if has_nan:
        raise ExecutionError("Parameter value is NaN")
    if values.min() <= -_INT64_MAX:
        raise ExecutionError(f"Scalar value {format_g(float(values.min()))} underflows int64")
    if largest >= _INT64_MAX:
        raise ExecutionError(f"Scalar value {format_g(float(largest))} overflows int64")
    return np.trunc(values).astype(np.int64)


class _Chooser(VectorOperator):
    def __init__(self, expr: AggregateExpr, child: VectorOperator, param: ScalarOperator) -> None:
        super().__init__(child.ctx)
        self._expr = expr
        self._child = child
        self._param = param

    def explain(self) -> Explain:
        """Grouping, parameter and child."""
        return Explain("Choose", describe(self._expr), (self._child.explain(), self._param.explain()))


class TopK(_Chooser):
    """topk and bottomk: heaps of the best, per group and step, filled piece by piece.

    Announcing evaluates: only rows that are chosen somewhere are announced. An instant query gives them in
    order of value."""

    def __init__(self, expr: AggregateExpr, child: VectorOperator, param: ScalarOperator) -> None:
        super().__init__(expr, child, param)
        self._values: F64Array | None = None

    def _announce(self) -> Series:
        series = self._child.series()
        limits = limits_per_step(self._param.values())
        steps = self.grid.steps
        if limits is None or not len(series):
            return self._choose(series, np.empty(0, dtype=np.int64), absent_cells(0, steps))
        groups, labels, _ = group_series(series, self._expr)
        largest = int(np.bincount(groups).max())
        limits = np.minimum(limits, largest)
        depth = max(int(limits.max()), 1)
        shape = (len(labels), steps, depth)
        self.ctx.budget.hold_bytes(len(labels) * steps * (depth * 16 + 8))
        heap_v, heap_row = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        size = np.zeros(shape[:2], dtype=np.int64)
        is_top = int(self._expr.op == "topk")
        for piece in self._child.batches():
            part = groups[piece.lo : piece.hi]
            kernels.accumulate_best(part, piece.lo, piece.values, limits, is_top, heap_v, heap_row, size)
            if piece.histograms is not None and (piece.histograms.index >= 0).any():
                text = f"ignored histogram in {self._expr.op} aggregation"
                self.ctx.annotations.info(text, self._expr.pos)
        filled = np.arange(depth) < size[:, :, None]
        rows, values = heap_row[filled], heap_v[filled]
        self.ctx.budget.release_bytes(len(labels) * steps * (depth * 16 + 8))
        if steps == 1:
            rows, values = self._in_order(rows, values, groups)
            return self._choose(series, rows, values.reshape(-1, 1))
        chosen, place = np.unique(rows, return_inverse=True)
        at_step = np.broadcast_to(np.arange(steps)[None, :, None], shape)[filled]
        out = absent_cells(len(chosen), steps)
        out[place, at_step] = values
        return self._choose(series, chosen, out)

    def _in_order(self, rows: I64Array, values: F64Array, groups: I64Array) -> tuple[I64Array, F64Array]:
        """Group after group; within one, descending for topk and ascending for bottomk, NaN last."""
        keys = -values if self._expr.op == "topk" else values
        order = np.lexsort((keys, np.isnan(values), groups[rows]))
        return rows[order], values[order]

    def _choose(self, series: Series, rows: I64Array, values: F64Array) -> Series:
        self._values = values
        return Series(series.labels.take(rows), series.drop_name[rows])

    def batches(self) -> Iterator[Piece]:
        """The chosen rows."""
        self.series()
        assert self._values is not None
        yield Piece(0, self._values)


class _Filter(_Chooser):
    """limitk and limit_ratio keep or drop cells as the pieces pass."""

    def _announce(self) -> Series:
        return self._child.series()

    def _apply(self, piece: Piece, keep: U8Array) -> Piece:
        kernels.blank_unless(piece.values, keep)
        cells = piece.histograms
        if cells is not None:
            cells = HistogramCells(np.where(keep != 0, cells.index, np.int32(-1)), cells.pool)
        return Piece(piece.lo, piece.values, cells)


class LimitK(_Filter):
    """limitk: the first k samples of each group and step."""

    def batches(self) -> Iterator[Piece]:
        """The child's pieces with the rest blanked."""
        series = self.series()
        limits = limits_per_step(self._param.values())
        groups, labels, _ = group_series(series, self._expr)
        taken = np.zeros((len(labels), self.grid.steps), dtype=np.int64)
        if limits is None:
            limits = np.zeros(self.grid.steps, dtype=np.int64)
        for piece in self._child.batches():
            keep = np.empty(piece.values.shape, dtype=np.uint8)
            index = NO_CELLS if piece.histograms is None else piece.histograms.index
            part = groups[piece.lo : piece.hi]
            kernels.first_of_groups(part, piece.values, np.ascontiguousarray(index), limits, taken, keep)
            yield self._apply(piece, keep)


class LimitRatio(_Filter):
    """limit_ratio: a sample by the hash of its labels, so that r and -(1-r) are complements."""

    def batches(self) -> Iterator[Piece]:
        """The child's pieces with the rest blanked."""
        series = self.series()
        ratio = self._param.values()
        if np.isnan(ratio).any():
            raise ExecutionError("Ratio value is NaN")
        assert self._expr.param is not None
        for value, cap in ((ratio.max(), 1.0), (ratio.min(), -1.0)):
            if abs(value) > 1 and math.copysign(1, value) == cap:
                text = (
                    f"ratio value should be between -1 and 1, got {format_g(float(value))}, "
                    f"capping to {format_g(cap)}"
                )
                self.ctx.annotations.warn(text, self._expr.param.pos)
        ratio = np.clip(ratio, -1.0, 1.0)
        place = label_hashes(series.labels).astype(np.float64) / float(2**64 - 1)
        for piece in self._child.batches():
            part = place[piece.lo : piece.hi, None]
            keep = np.where(ratio >= 0, part < ratio, part >= 1.0 + ratio)
            yield self._apply(piece, np.ascontiguousarray(keep).view(np.uint8))
