"""Results of queries as rows of points, the form that is compared and shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from promql.ast import ValueType
from promql.histogramvalue import Histogram, histogram_at
from promql.matrix import Matrix
from promql.numberformat import format_g
from promql.result import QueryResult, RangeVectors
from tsdb.labels import Labels


@dataclass(slots=True)
class Row:
    """One series of a result: (time ms, value) pairs in order of time."""

    labels: Labels
    floats: list[tuple[int, float]] = field(default_factory=list)
    histograms: list[tuple[int, Histogram]] = field(default_factory=list)

    def __str__(self) -> str:
        floats = [f"{format_g(value)} @{t_ms}" for t_ms, value in self.floats]
        histograms = [f"{value.notation()} @{t_ms}" for t_ms, value in self.histograms]
        return f"{self.labels} [{', '.join(floats + histograms)}]"


def rows_of(value: Matrix | RangeVectors) -> list[Row]:
    """Rows in the order of the result."""
    return _matrix_rows(value) if isinstance(value, Matrix) else _range_rows(value)


def _matrix_rows(matrix: Matrix) -> list[Row]:
    times = matrix.grid.times_ms().tolist()
    rows = [Row(labels) for labels in matrix.labels.rows()]
    for row, step in np.argwhere(matrix.present()).tolist():
        rows[row].floats.append((times[step], float(matrix.values[row, step])))
    cells = matrix.histograms
    if cells is not None:
        for row, step in np.argwhere(cells.index >= 0).tolist():
            value = histogram_at(cells.pool, int(cells.index[row, step]))
            rows[row].histograms.append((times[step], value))
    return rows


def _range_rows(vectors: RangeVectors) -> list[Row]:
    samples = vectors.samples
    rows = [Row(labels) for labels in vectors.labels.rows()]
    for index, row in enumerate(rows):
        lo, hi = int(samples.offsets[index]), int(samples.offsets[index + 1])
        row.floats = list(zip(samples.t_ms[lo:hi].tolist(), samples.values[lo:hi].tolist(), strict=True))
        if samples.histograms is not None:
            batch = samples.histograms
            for at in range(int(batch.row_offsets[index]), int(batch.row_offsets[index + 1])):
                row.histograms.append((int(batch.t_ms[at]), histogram_at(batch, at)))
    return rows


def is_instant_vector(result: QueryResult) -> bool:
    """Whether an instant query gave an instant vector."""
    return result.type is ValueType.VECTOR and isinstance(result.value, Matrix)
