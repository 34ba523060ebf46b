"""sort, sort_desc, sort_by_label, sort_by_label_desc: the order of an instant query's result."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from promql.ast import Call
from promql.operators.collect import Collected, collect
from promql.operators.operator import Builder, Explain, FunctionBuilder, Piece, Series, VectorOperator
from tsdb.labels import Labels

I64Array = npt.NDArray[np.int64]

INEFFECTIVE = "sort is ineffective for range queries since results are always ordered by labels"
_DIGITS = re.compile(r"\d+|\D+", re.ASCII)


class Sort(VectorOperator):
    """Orders rows by value (histograms and absent rows are left out) or by labels; on a range it passes rows
    through and warns."""

    def __init__(self, call: Call, child: VectorOperator, by_labels: Sequence[str] | None) -> None:
        super().__init__(child.ctx)
        self._call = call
        self._child = child
        self._by_labels = by_labels
        self._rows: Collected | None = None

    @property
    def _descending(self) -> bool:
        return self._call.function.endswith("_desc")

    def _announce(self) -> Series:
        if self.ctx.query_grid.steps > 1:
            self.ctx.annotations.warn(INEFFECTIVE, self._call.pos)
        if self.grid.steps > 1:
            return self._child.series()
        rows = collect(self._child)
        order = self._by_value(rows) if self._by_labels is None else self._by_label(rows)
        series = Series(rows.series.labels.take(order), rows.series.drop_name[order])
        cells = rows.histograms
        if cells is not None:
            cells = None if self._by_labels is None else type(cells)(cells.index[order], cells.pool)
        self._rows = Collected(series, rows.values[order], cells)
        return series

    def _by_value(self, rows: Collected) -> I64Array:
        kept = np.flatnonzero(rows.float_rows())
        values = rows.values[kept, 0]
        keys = -values if self._descending else values
        return np.asarray(kept[np.lexsort((keys, np.isnan(values)))])

    def _by_label(self, rows: Collected) -> I64Array:
        names = self._by_labels or ()
        sets = rows.series.labels.rows()
        keys = [tuple(natural_key(row.get(name)) for name in names) for row in sets]

        def compare(i: int, j: int) -> int:
            for x, y in zip(keys[i], keys[j], strict=True):
                if x != y:
                    return -1 if x < y else 1
            return _compare_sets(sets[i], sets[j])

        order = sorted(range(len(sets)), key=functools.cmp_to_key(compare), reverse=self._descending)
        return np.array(order, dtype=np.int64)

    def batches(self) -> Iterator[Piece]:
        """Rows in order."""
        self.series()
        if self._rows is None:
            for piece in self._child.batches():
                yield piece if self._by_labels is not None else Piece(piece.lo, piece.values)
        else:
            yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """Order and child."""
        return Explain("Sort", self._call.function, (self._child.explain(),))


def _compare_sets(x: Labels, y: Labels) -> int:
    return (x.pairs > y.pairs) - (x.pairs < y.pairs)


def natural_key(text: str) -> tuple[tuple[int, int, int, str], ...]:
    """A key that compares runs of digits as numbers (fewer leading zeros first) and other runs bytewise."""
    parts = []
    for run in _DIGITS.findall(text):
        if run.isdigit() and run.isascii():
            parts.append((0, int(run), len(run), ""))
        else:
            parts.append((1, 0, 0, run))
    return tuple(parts)


def _sort(call: Call, builder: Builder) -> VectorOperator:
    return Sort(call, builder.vector(call.args[0]), None)


def _sort_by_label(call: Call, builder: Builder) -> VectorOperator:
    names = [builder.string(arg) for arg in call.args[1:]]
    return Sort(call, builder.vector(call.args[0]), names)


FUNCTIONS: dict[str, FunctionBuilder] = {
    "sort": _sort,
    "sort_desc": _sort,
    "sort_by_label": _sort_by_label,
    "sort_by_label_desc": _sort_by_label,
}
