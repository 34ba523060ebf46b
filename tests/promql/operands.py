"""Operators with fixed results, for tests of the operators above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from promql.annotations import Annotations
from promql.budget import QueryBudget
from promql.context import EvalContext
from promql.histogrampool import batch_of, empty_pool
from promql.kernels.histogrampool import Pool
from promql.matrix import ABSENT_BITS, F64Array, Grid, HistogramCells
from promql.operators.operator import Explain, Piece, ScalarOperator, Series, VectorOperator
from promql.options import EngineOptions
from tests.reference.histograms import FloatHistogram
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import OverlaySymbols, SymbolTable

Cell = float | FloatHistogram | None


def context(steps: int, features: frozenset[str] = frozenset()) -> EvalContext:
    """A context without a store. Step k is at k minutes."""
    grid = Grid(0, 60_000 if steps > 1 else 0, steps)
    options = EngineOptions(features=features)
    budget = QueryBudget(options.samples_max, options.bytes_max, options.timeout_s)
    symbols = OverlaySymbols(SymbolTable())
    return EvalContext(
        None,
        symbols,
        grid,
        grid,
        options.lookback_ms,
        options,
        budget,
        Annotations(),  # type: ignore[arg-type]
    )


def pool_from(histograms: Sequence[FloatHistogram]) -> Pool:
    """A pool of reference histograms."""
    if not histograms:
        return empty_pool()

    def side(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sides = [sorted(getattr(h, name).items()) for h in histograms]
        flat = [pair for items in sides for pair in items]
        offsets = np.zeros(len(histograms) + 1, dtype=np.int64)
        np.cumsum([len(items) for items in sides], out=offsets[1:])
        return offsets, np.array([i for i, _ in flat], dtype=np.int32), np.array([c for _, c in flat], float)

    custom = np.zeros(len(histograms) + 1, dtype=np.int64)
    np.cumsum([len(h.custom) for h in histograms], out=custom[1:])
    return (
        np.array([h.schema for h in histograms], dtype=np.int32),
        np.array([h.hint for h in histograms], dtype=np.uint8),
        *(
            np.array([getattr(h, name) for h in histograms], dtype=float)
            for name in ("zero_threshold", "zero_count", "count", "sum")
        ),
        *side("positive"),
        *side("negative"),
        custom,
        np.array([bound for h in histograms for bound in h.custom], dtype=float),
    )  # type: ignore[return-value]


def histogram_at(pool: Pool, h: int) -> FloatHistogram:
    """One histogram of a pool as a reference histogram."""

    def side(at: int) -> dict[int, float]:
        lo, hi = int(pool[at][h]), int(pool[at][h + 1])
        return dict(zip(pool[at + 1][lo:hi].tolist(), pool[at + 2][lo:hi].tolist(), strict=True))

    numbers = [float(pool[at][h]) for at in range(2, 6)]
    custom = tuple(pool[13][int(pool[12][h]) : int(pool[12][h + 1])].tolist())
    return FloatHistogram(int(pool[0][h]), int(pool[1][h]), *numbers, side(6), side(9), custom)


class FixedVector(VectorOperator):
    """Rows given by the test, in pieces of `piece_rows`."""

    def __init__(
        self,
        ctx: EvalContext,
        rows: Sequence[tuple[dict[str, str], Sequence[Cell]]],
        piece_rows: int = 2,
        drop_name: bool = False,
    ) -> None:
        super().__init__(ctx)
        self.rows = rows
        self.piece_rows = piece_rows
        self.drop_name = drop_name

    def _announce(self) -> Series:
        labels = [Labels.from_dict(row) for row, _ in self.rows]
        flags = np.full(len(labels), self.drop_name)
        return Series(SeriesLabels.from_labels(labels, self.ctx.symbols), flags)

    def batches(self) -> Iterator[Piece]:
        """The rows, some at a time."""
        for lo in range(0, len(self.rows), self.piece_rows):
            part = [cells for _, cells in self.rows[lo : lo + self.piece_rows]]
            values = np.empty((len(part), self.grid.steps))
            values.view(np.uint64)[:] = ABSENT_BITS
            index = np.full(values.shape, -1, dtype=np.int32)
            found: list[FloatHistogram] = []
            for r, cells in enumerate(part):
                for k, cell in enumerate(cells):
                    if isinstance(cell, FloatHistogram):
                        index[r, k] = len(found)
                        found.append(cell)
                    elif cell is not None:
                        values[r, k] = cell
            cells_or_none = HistogramCells(index, batch_of(pool_from(found))) if found else None
            yield Piece(lo, values, cells_or_none)

    def explain(self) -> Explain:
        """Nothing to say."""
        return Explain("Fixed")


class FixedScalar(ScalarOperator):
    """One value at all steps, or one each."""

    def __init__(self, ctx: EvalContext, *values: float) -> None:
        super().__init__(ctx)
        self._values = np.array(values if len(values) > 1 else values * ctx.grid.steps, dtype=float)

    def values(self) -> F64Array:
        """The values."""
        return self._values

    def explain(self) -> Explain:
        """Nothing to say."""
        return Explain("Fixed")


def result_of(operator: VectorOperator) -> dict[str, list[Cell]]:
    """Cells of every row that has any, by the text of its labels."""
    labels = operator.series().labels.rows()
    out: dict[str, list[Cell]] = {}
    for piece in operator.batches():
        for r in range(len(piece.values)):
            cells: list[Cell] = []
            for k in range(piece.values.shape[1]):
                cell: Cell = None
                if piece.values.view(np.uint64)[r, k] != np.uint64(ABSENT_BITS):
                    cell = float(piece.values[r, k])
                if piece.histograms is not None and piece.histograms.index[r, k] >= 0:
                    from promql.histogrampool import pool_of

                    assert cell is None
                    cell = histogram_at(pool_of(piece.histograms.pool), int(piece.histograms.index[r, k]))
                cells.append(cell)
            if any(cell is not None for cell in cells):
                assert str(labels[piece.lo + r]) not in out
                out[str(labels[piece.lo + r])] = cells
    return out
