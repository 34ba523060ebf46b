"""Binary operators with a vector: arithmetic and comparisons, between vectors or with a scalar.

A join is done once on label ids and gives pairs of row numbers; the kernel then runs over aligned rows. What
may only be judged per step (two candidates on the one side, a second match) is checked on the presence of
samples before any arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from promql.ast import BinaryExpr, Cardinality, VectorMatching
from promql.engineerrors import ExecutionError
from promql.histogrampool import batch_of, concat_cells, empty_pool
from promql.kernels import binary as kernels
from promql.matching import PAIRS_MAX, Signatures, pair_rows, result_labels, signatures
from promql.matrix import ABSENT, BoolArray, F64Array, HistogramCells
from promql.operators.collect import NO_CELLS, Collected, CollectedOperator, absent_cells, collect, rowwise
from promql.operators.histogrambinary import binary_histograms
from promql.operators.merge import checked, merge_equal
from promql.operators.operator import (
    PIECE_WORK_MAX,
    Explain,
    Piece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
    drop_metadata,
)
from promql.quoting import quote
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]
Note = Callable[[int, str, str], None]

TRIMS = ("</", ">/")
MANY_TO_ONE = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
NOT_UNIQUE = "multiple matches for labels: grouping labels must ensure unique matches"


def keeps_names(op: str, return_bool: bool) -> bool:
    """Whether the metric name survives: filters and trims keep it, arithmetic and bool drop it."""
    return (op in kernels.COMPARISONS or op in TRIMS) and not return_bool


def note_of(expr: BinaryExpr, add_warning: Callable[..., None], add_info: Callable[..., None]) -> Note:
    """How histogram arithmetic reports: ignores the row, puts the whole expression's position."""

    def note(row: int, kind: str, text: str) -> None:
        (add_warning if kind == "warn" else add_info)(text, expr.pos)

    return note


class ScalarSide(RowwiseOperator):
    """vector op scalar, or (`swapped`) scalar op vector: row by row, in place."""

    def __init__(
        self, expr: BinaryExpr, child: VectorOperator, scalar: ScalarOperator, swapped: bool
    ) -> None:
        super().__init__(child.ctx)
        self._expr = expr
        self._child = rowwise(child)
        self._scalar = scalar
        self._swapped = swapped
        self._values = np.empty(0)

    def _announce(self) -> Series:
        self._values = np.ascontiguousarray(self._scalar.values())
        series = self._child.series()
        return (
            series if keeps_names(self._expr.op, self._expr.return_bool) else drop_metadata(series, self.ctx)
        )

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Apply the operator to the child's piece."""
        piece = self._child.load(lo, hi)
        op, swapped = self._expr.op, int(self._swapped)
        values = np.ascontiguousarray(piece.values)
        cells = piece.histograms
        if op in TRIMS:
            self._report_floats(values)
            values = absent_cells(*values.shape)
        elif op in kernels.COMPARISONS:
            flag = int(self._expr.return_bool)
            kernels.compare_scalar(kernels.COMPARISONS[op], values, self._values, swapped, flag)
        else:
            kernels.arithmetic_scalar(kernels.CODES[op], values, self._values, swapped)
        if cells is None:
            return Piece(lo, values)
        return Piece(lo, values, self._histograms(cells))

    def _report_floats(self, values: F64Array) -> None:
        if (values.view(np.uint64) != ABSENT.view(np.uint64)).any():
            self.ctx.annotations.info(
                f'incompatible sample types encountered for binary operator "{self._expr.op}": float '
                f"{self._expr.op} float",
                self._expr.pos,
            )

    def _histograms(self, cells: HistogramCells) -> HistogramCells | None:
        present = np.asarray(cells.index >= 0)
        scalar = np.ascontiguousarray(np.broadcast_to(self._values, cells.index.shape))
        annotations = self.ctx.annotations
        note = note_of(self._expr, annotations.warn, annotations.info)
        lhs, rhs = (scalar, cells) if self._swapped else (cells, scalar)
        return binary_histograms(self._expr.op, lhs, rhs, present, note)[0]

    def explain(self) -> Explain:
        """Operator and operands."""
        return Explain("BinaryScalar", self._expr.op, (self._child.explain(), self._scalar.explain()))


def with_scalar(
    expr: BinaryExpr, child: VectorOperator, scalar: ScalarOperator, swapped: bool
) -> VectorOperator:
    """A vector and a scalar; label sets that become equal are checked."""
    operator = ScalarSide(expr, child, scalar, swapped)
    return operator if keeps_names(expr.op, expr.return_bool) else checked(operator)


class VectorBinary(VectorOperator):
    """vector op vector with one-to-one, many-to-one or one-to-many matching. Holds both sides."""

    def __init__(self, expr: BinaryExpr, lhs: VectorOperator, rhs: VectorOperator) -> None:
        super().__init__(lhs.ctx)
        self._expr = expr
        self._lhs, self._rhs = lhs, rhs
        self._matching = expr.matching or VectorMatching()
        self._rows: Collected | None = None

    @property
    def _swapped(self) -> bool:
        """Whether the left side is the "one" side."""
        return self._matching.card is Cardinality.ONE_TO_MANY

    def _announce(self) -> Series:
        lhs, rhs = collect(self._lhs), collect(self._rhs)
        many, one = (rhs, lhs) if self._swapped else (lhs, rhs)
        matching = self._matching
        sigs = signatures(many.series.labels, one.series.labels, matching)
        if matching.fill_lhs is not None or matching.fill_rhs is not None:
            many, one, sigs = self._filled(many, one, sigs)
        self._check_one_side(many, one, sigs)
        left, right = pair_rows(sigs)
        if len(left) > PAIRS_MAX:
            raise ExecutionError(f"vector matching would make {len(left)} pairs, more than {PAIRS_MAX}")
        one_to_one = matching.card is Cardinality.ONE_TO_ONE
        if one_to_one:
            self._check_repeated(many, one, left, right, sigs.many[left], sigs.count, MANY_TO_ONE)
        drops = not keeps_names(self._expr.op, self._expr.return_bool)
        drop_now = drops and (not self._expr.return_bool or not self.ctx.options.delayed_name_removal)
        labels = result_labels(
            many.series.labels.take(left), one.series.labels.take(right), matching, drop_now, one_to_one
        )
        groups, distinct = labels.group_ids()
        if not one_to_one and len(distinct) < len(labels):
            self._check_repeated(many, one, left, right, groups, len(distinct), NOT_UNIQUE)
        result = self._compute(many, one, left, right)
        drop = np.full(len(left), drops and not drop_now)
        if not drops:
            drop |= many.series.drop_name[left]
        held = Collected(Series(labels, drop), result.values, result.histograms)
        self._rows = merge_equal(held) if len(distinct) < len(labels) else held
        lhs.release(self.ctx)
        rhs.release(self.ctx)
        return self._rows.series

    def _check_one_side(self, many: Collected, one: Collected, sigs: Signatures) -> None:
        """Two samples of one match group at one step on the "one" side: an error that names both. Steps at
        which the other side has nothing at all are not looked at."""
        numbers = np.bincount(sigs.one, minlength=sigs.count)
        rows = np.flatnonzero((numbers > 1)[sigs.one]) if len(sigs.one) else np.empty(0, dtype=np.int64)
        if not len(rows) or not len(sigs.many):
            return
        target = sigs.one[rows]
        last = np.full((sigs.count, one.values.shape[1]), -1, dtype=np.int32)
        found = np.zeros(2, dtype=np.int64)
        rows = rows.astype(np.int64)
        there = np.where(_presence(many, np.zeros_like(sigs.many), 1), 1.0, ABSENT)
        first = np.zeros_like(rows)
        if kernels.find_repeated(
            one.values, one.index(), rows, there, NO_CELLS, first, target, sigs.count, last, found
        ):
            later, earlier = rows[found[0]], rows[found[1]]
            self._raise_duplicate(one.series.labels, int(later), int(earlier), sigs, int(target[found[0]]))

    def _raise_duplicate(
        self, labels: SeriesLabels, later: int, earlier: int, sigs: Signatures, signature: int
    ) -> None:
        side = "left" if self._swapped else "right"
        group = braced(sigs.labels.row(signature))
        both = sorted(braced(labels.row(row)) for row in (later, earlier))
        raise ExecutionError(
            f"found duplicate series for the match group {group} on the {side} hand-side of the operation: "
            f"[{', '.join(both)}];many-to-many matching not allowed: "
            "matching labels must be unique on one side"
        )

    def _check_repeated(
        self,
        many: Collected,
        one: Collected,
        left: I64Array,
        right: I64Array,
        target: I64Array,
        targets: int,
        text: str,
    ) -> None:
        if not len(target) or int(np.bincount(target, minlength=targets).max()) < 2:
            return
        last = np.full((targets, many.values.shape[1]), -1, dtype=np.int32)
        found = np.zeros(2, dtype=np.int64)
        if kernels.find_repeated(
            many.values, many.index(), left, one.values, one.index(), right, target, targets, last, found
        ):
            raise ExecutionError(text)

    def _compute(self, many: Collected, one: Collected, left: I64Array, right: I64Array) -> Collected:
        op = self._expr.op
        lhs, rhs, i, j = (one, many, right, left) if self._swapped else (many, one, left, right)
        self.ctx.budget.hold_bytes(len(i) * self.grid.steps * 8)
        out = lhs.values if self._in_place(lhs, rhs, i) else np.empty((len(i), self.grid.steps))
        if op in TRIMS:
            out[:] = ABSENT
        else:
            rows_max = max(1, PIECE_WORK_MAX // max(self.grid.steps, 1))
            for at in range(0, len(i), rows_max):
                self.ctx.budget.check()
                here = slice(at, at + rows_max)
                self._compute_rows(lhs, rhs, i[here], j[here], out[here])
        cells = None
        if lhs.histograms is not None or rhs.histograms is not None or op in TRIMS:
            cells = self._histograms(lhs, rhs, i, j, out)
        return Collected(many.series, out, cells)

    def _in_place(self, lhs: Collected, rhs: Collected, i: I64Array) -> bool:
        """Whether the result may take the place of the left operand: cell by cell it is made of the same
        cell, and nobody else has the array."""
        if isinstance(self._lhs, CollectedOperator) or lhs.values is rhs.values:
            return False
        floats = lhs.histograms is None and rhs.histograms is None and self._expr.op not in TRIMS
        arithmetic = self._expr.op not in kernels.COMPARISONS
        return floats and arithmetic and np.array_equal(i, np.arange(len(lhs.values)))

    def _compute_rows(self, lhs: Collected, rhs: Collected, i: I64Array, j: I64Array, out: F64Array) -> None:
        op = self._expr.op
        if op in kernels.COMPARISONS:
            code, flag = kernels.COMPARISONS[op], int(self._expr.return_bool)
            kernels.compare_rows(code, lhs.values, rhs.values, i, j, flag, out)
        else:
            kernels.arithmetic_rows(kernels.CODES[op], lhs.values, rhs.values, i, j, out)

    def _histograms(
        self, lhs: Collected, rhs: Collected, i: I64Array, j: I64Array, out: F64Array
    ) -> HistogramCells | None:
        op = self._expr.op
        annotations = self.ctx.annotations
        note = note_of(self._expr, annotations.warn, annotations.info)
        x, xh = _operand(lhs, i)
        y, yh = _operand(rhs, j)
        parts: list[HistogramCells | None] = []
        kept_bool = None
        for left, right, present in (
            (xh, yh, _has(xh) & _has(yh)),
            (xh, y, _has(xh) & _floats(y)),
            (x, yh, _floats(x) & _has(yh)),
        ):
            if present.any():
                cells, keep = binary_histograms(op, left, right, present, note)
                if (
                    self._expr.return_bool
                    and isinstance(left, HistogramCells)
                    and isinstance(right, HistogramCells)
                ):
                    kept_bool = (present, keep)
                parts.append(cells)
        if op in TRIMS and (_floats(x) & _floats(y)).any():
            note(
                0,
                "info",
                f'incompatible sample types encountered for binary operator "{op}": float {op} float',
            )
        if self._expr.return_bool:
            if kept_bool is not None and op in ("==", "!="):
                present, keep = kept_bool
                assert keep is not None
                out[present] = np.where(keep[present], 1.0, 0.0)
            return None
        return _overlay([part for part in parts if part is not None], out.shape)

    def _filled(
        self, many: Collected, one: Collected, sigs: Signatures
    ) -> tuple[Collected, Collected, Signatures]:
        """fill modifiers: rows for match groups that miss on one side, present where the other side is.

        fill_left belongs to the "many" side even under group_right, where that is the right operand: so
        Prometheus has it, and its tests say so."""
        matching = self._matching
        fill_many, fill_one = matching.fill_lhs, matching.fill_rhs
        many_here, one_here = _presence(many, sigs.many, sigs.count), _presence(one, sigs.one, sigs.count)
        if fill_one is not None:
            one, added = _with_fill(one, many_here & ~one_here, fill_one, sigs.labels)
            sigs = replace(sigs, one=np.concatenate([sigs.one, added]))
        if fill_many is not None:
            many, added = _with_fill(many, one_here & ~many_here, fill_many, sigs.labels)
            sigs = replace(sigs, many=np.concatenate([sigs.many, added]))
        return many, one, sigs

    def batches(self) -> Iterator[Piece]:
        """The result."""
        self.series()
        assert self._rows is not None
        yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """Operator, matching and operands."""
        matching = self._matching
        word = "on" if matching.on else "ignoring"
        text = f"{self._expr.op} {matching.card.value} {word}({', '.join(matching.labels)})"
        return Explain("VectorBinary", text, (self._lhs.explain(), self._rhs.explain()))


def braced(labels: Labels) -> str:
    """A label set as Prometheus's errors print it: the metric name inside the braces like any other label."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


def _presence(rows: Collected, groups: I64Array, count: int) -> BoolArray:
    """bool[count, K]: groups with a sample at a step."""
    out = np.zeros((count, rows.values.shape[1]), dtype=np.int32)
    kernels.count_by_signature(rows.values, np.ascontiguousarray(rows.index()), groups, out)
    return np.asarray(out > 0)


def _with_fill(
    rows: Collected, missing: BoolArray, value: float, labels: SeriesLabels
) -> tuple[Collected, I64Array]:
    """Append a row with only the match labels for every group that is missing somewhere."""
    added = np.flatnonzero(missing.any(axis=1)).astype(np.int64)
    extra = np.where(missing[added], value, ABSENT)
    values = np.concatenate([rows.values, extra])
    cells = rows.histograms
    if cells is not None:
        none = np.full(extra.shape, -1, dtype=np.int32)
        cells = HistogramCells(np.concatenate([cells.index, none]), cells.pool)
    sets = SeriesLabels.concat([rows.series.labels, labels.take(added)], labels.symbols)
    drop = np.concatenate([rows.series.drop_name, np.zeros(len(added), dtype=np.bool_)])
    return Collected(Series(sets, drop), values, cells), added


def _operand(rows: Collected, at: I64Array) -> tuple[F64Array, HistogramCells]:
    index = (
        rows.index()[at]
        if rows.histograms is not None
        else np.full((len(at), rows.values.shape[1]), -1, dtype=np.int32)
    )
    pool = rows.histograms.pool if rows.histograms is not None else batch_of(empty_pool())
    return rows.values[at], HistogramCells(np.ascontiguousarray(index), pool)


def _has(cells: HistogramCells) -> BoolArray:
    return np.asarray(cells.index >= 0)


def _floats(values: F64Array) -> BoolArray:
    return np.asarray(values.view(np.uint64) != ABSENT.view(np.uint64))


def _overlay(parts: list[HistogramCells], shape: tuple[int, ...]) -> HistogramCells | None:
    """Cells of several results over the same rows as one."""
    if not parts:
        return None
    stacked = concat_cells(
        [(k * shape[0], part) for k, part in enumerate(parts)], len(parts) * shape[0], shape[1]
    )
    if stacked is None:
        return None
    index = stacked.index.reshape(len(parts), *shape).max(axis=0)
    return HistogramCells(np.ascontiguousarray(index), stacked.pool)
