"""Sums of histograms whose pieces are dropped once they were added (promql.kernels.histogramstream)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from promql.histogrampool import batch_of, first_of_pool, pool_of, pool_with_room
from promql.kernels import histogramstream as kernels
from promql.kernels import histogramsum
from promql.matrix import BoolArray, F64Array, HistogramCells

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

_CELL_BYTES = 3 * 8 + 6 * 8
_BUCKET_BYTES = 8 + 8 + 1

Held = Sequence[tuple[I64Array, HistogramCells]]
"""Row numbers, which ascend one by one, and cells i32[R, K] of pieces."""


class _Side:
    """Dense columns of one side: bucket indexes low to high (exclusive) of each cell."""

    def __init__(self, cells: int, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.value, self.comp = np.empty((cells, high - low)), np.empty((cells, high - low))
        self.seen: U8Array = np.zeros((cells, high - low), dtype=np.uint8)

    def widened(self, low: int, high: int) -> _Side:
        """With room for buckets low to high."""
        if self.low <= low and high <= self.high:
            return self
        if not self.value.size:
            return _Side(len(self.seen), low, high)
        made = _Side(len(self.seen), min(low, self.low), max(high, self.high))
        at = self.low - made.low
        for name in ("value", "comp", "seen"):
            getattr(made, name)[:, at : at + self.high - self.low] = getattr(self, name)
        return made

    @property
    def columns(self) -> tuple[int, F64Array, F64Array, U8Array]:
        """As the kernels take them."""
        return self.low, self.value, self.comp, self.seen


class StreamedSums:
    """Sums of groups x steps histograms of one resolution. What `add` refuses is for another to add."""

    def __init__(self, groups: I64Array, shape: tuple[int, int], schema: int, threshold: float) -> None:
        """`groups` i64[S] are those of all rows, `shape` groups and steps."""
        self._groups, self._shape = groups, shape
        self._schema, self._threshold = schema, threshold
        cells = shape[0] * shape[1]
        self._ints = np.full((cells, 3), -1, dtype=np.int64)
        self._heads = np.empty((cells, 6))
        self._sides = [_Side(cells, 0, 0), _Side(cells, 0, 0)]

    @classmethod
    def of(cls, parts: Held, groups: I64Array, shape: tuple[int, int], bytes_max: int) -> StreamedSums | None:
        """The sums of `parts`, None where they cannot be added here or would take more than `bytes_max`."""
        first = next((cells for _, cells in parts if (cells.index >= 0).any()), None)
        if first is None:
            return None
        one = int(first.index[first.index >= 0][0])
        made = cls(groups, shape, int(first.pool.schema[one]), float(first.pool.zero_threshold[one]))
        for rows, cells in parts:
            if not made.add(rows, cells, bytes_max):
                return None
        return made

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return self._bytes([(side.low, side.high) for side in self._sides])

    def _bytes(self, ranges: Sequence[tuple[int, int]]) -> int:
        width = sum(high - low for low, high in ranges)
        return len(self._ints) * (_CELL_BYTES + _BUCKET_BYTES * width)

    def add(self, rows: I64Array, cells: HistogramCells, bytes_max: int) -> bool:
        """Add a piece behind those before. False, and nothing is added, where it has histograms of another
        resolution or takes more than `bytes_max`."""
        pool, index = pool_of(cells.pool), np.ascontiguousarray(cells.index)
        unset = np.iinfo(np.int64)
        ranges = np.array(
            [(s.low, s.high) if s.value.size else (unset.max, unset.min) for s in self._sides], dtype=np.int64
        )
        if not kernels.shape(pool, index, self._schema, self._threshold, ranges):
            return False
        wanted = [(low, high) if high > low else (0, 0) for low, high in ranges.tolist()]
        if (
            max(high - low for low, high in wanted) > histogramsum.SPREAD_MAX
            or self._bytes(wanted) > bytes_max
        ):
            return False
        self._sides = [side.widened(*ends) for side, ends in zip(self._sides, wanted, strict=True)]
        positive, negative = self._sides
        kernels.add(
            pool, index, self._groups[rows], int(rows[0]), self._ints, self._heads, *positive.columns,
            *negative.columns,
        )  # fmt: skip
        return True

    def finish(self, allowed: BoolArray) -> tuple[HistogramCells, U8Array, I64Array]:
        """Cells at the steps `allowed` bool[G, K] without empty buckets, flags u8[G, K] of
        `promql.kernels.histogramcombine`, and the first row i64[G, K] of each, -1 for none. Once."""
        positives, negatives = (int(np.count_nonzero(side.seen)) for side in self._sides)
        out, fill = pool_with_room(len(self._ints), positives, negatives, 0), np.empty(4, dtype=np.int64)
        index, flags = np.empty(len(self._ints), dtype=np.int32), np.empty(len(self._ints), dtype=np.uint8)
        positive, negative = self._sides
        kernels.take(
            np.ascontiguousarray(allowed).ravel(), self._schema, self._threshold, self._ints, self._heads,
            *positive.columns, *negative.columns, out, index, flags, fill,
        )  # fmt: skip
        cells = HistogramCells(index.reshape(self._shape), batch_of(first_of_pool(out, fill.tolist())))
        rows = self._ints[:, kernels.FIRST_ROW].reshape(self._shape)
        return cells, flags.reshape(self._shape), rows
