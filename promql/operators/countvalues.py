"""count_values: samples counted by group and value, the value becoming a label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from promql.annotations import quoted
from promql.ast import AggregateExpr
from promql.engineerrors import ExecutionError
from promql.histogramtext import histogram_texts
from promql.matrix import ABSENT, F64Array
from promql.numberformat import format_f
from promql.operators.aggregate import describe, group_series
from promql.operators.collect import Collected, absent_cells, collect
from promql.operators.labelcolumns import with_label
from promql.operators.operator import Explain, Piece, Series, VectorOperator

I64Array = npt.NDArray[np.int64]


class CountValues(VectorOperator):
    """Holds all rows: which series there are depends on the values."""

    def __init__(self, expr: AggregateExpr, child: VectorOperator, label: str) -> None:
        super().__init__(child.ctx)
        self._expr = expr
        self._child = child
        self._label = label
        self._values: F64Array | None = None

    def _announce(self) -> Series:
        if not self._label or any(0xDC80 <= ord(char) <= 0xDCFF for char in self._label):
            raise ExecutionError(f"invalid label name {quoted(self._label)}")
        child = self._child.series()
        groups, labels, drop = group_series(child, self._expr)
        rows = collect(self._child)
        work_bytes = rows.values.nbytes * 4
        self.ctx.budget.hold_bytes(work_bytes)
        texts, ids = self._value_ids(rows)
        row, step = np.nonzero(ids >= 0)
        keys = groups[row] * max(len(texts), 1) + ids[row, step]
        distinct, place = np.unique(keys, return_inverse=True)
        out = np.zeros((len(distinct), self.grid.steps))
        np.add.at(out, (place, step), 1.0)
        self._values = np.where(out > 0, out, absent_cells(*out.shape))
        rows.release(self.ctx)
        self.ctx.budget.release_bytes(work_bytes)
        group_of, text_of = distinct // max(len(texts), 1), distinct % max(len(texts), 1)
        symbols = self.ctx.symbols.intern_many(texts)
        values = symbols[text_of] if len(texts) else np.empty(0, dtype=np.uint32)
        made = with_label(labels.take(group_of), self._label, values)
        return self._merge_equal(Series(made, drop[group_of]))

    def _value_ids(self, rows: Collected) -> tuple[list[str], I64Array]:
        """Texts of the distinct values and the text's number of every cell, -1 where absent."""
        bits = rows.values.view(np.uint64)
        present = bits != ABSENT.view(np.uint64)
        distinct, place = np.unique(bits[present], return_inverse=True)
        texts = [format_f(value) for value in distinct.view(np.float64).tolist()]
        ids = np.full(rows.values.shape, -1, dtype=np.int64)
        ids[present] = place
        if rows.histograms is not None:
            index = rows.histograms.index
            here = index >= 0
            used, place = np.unique(index[here], return_inverse=True)
            ids[here] = place + len(texts)
            texts += histogram_texts(rows.histograms.pool, used)
        known: dict[str, int] = {}
        merged = np.array([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)
        return list(known), np.where(ids >= 0, merged[ids] if len(merged) else ids, -1)

    def _merge_equal(self, series: Series) -> Series:
        """The label may overwrite one that told groups apart: their counts are added."""
        assert self._values is not None
        groups, labels = series.labels.group_ids()
        if len(labels) == len(series):
            return series
        present = self._values.view(np.uint64) != ABSENT.view(np.uint64)
        out = np.zeros((len(labels), self.grid.steps))
        np.add.at(out, groups, np.where(present, self._values, 0.0))
        self._values = np.where(out > 0, out, absent_cells(*out.shape))
        drop = np.zeros(len(labels), dtype=np.bool_)
        drop[groups[series.drop_name]] = True
        return Series(labels, drop)

    def batches(self) -> Iterator[Piece]:
        """All counts."""
        self.series()
        assert self._values is not None
        yield Piece(0, self._values)

    def explain(self) -> Explain:
        """Label, grouping and child."""
        return Explain("CountValues", f"{self._label} {describe(self._expr)}", (self._child.explain(),))
