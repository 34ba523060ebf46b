"""Numbers of a selection's columns of timestamps, the same in all pieces that a query reads.

What a query works out of the times of a column (where its windows begin and end) it then does once, and not
for each piece of rows: series of one target lie far apart where rows are in order of their labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels import columnnumbers as kernels

I64Array = npt.NDArray[np.int64]

HEAD_TIMES_MAX = 1 << 19
"""Timestamps of the head that all columns have together, 4 MiB."""


class ColumnNumbers:
    """Of one selection. One thread at a time."""

    def __init__(self, columns_max: int) -> None:
        """`columns_max` columns are numbered."""
        self._found = np.zeros(2, dtype=np.int64)
        self._newest = np.empty(0, dtype=np.int64)
        self._older = np.empty(columns_max, dtype=np.int64)
        self._offsets = np.zeros(columns_max + 1, dtype=np.int64)
        self._times = np.empty(0, dtype=np.int64)
        self.is_full = False
        """Whether there were too many columns; no more are numbered then."""

    @property
    def count(self) -> int:
        """Columns that have a number."""
        return int(self._found[kernels.COUNT])

    def of(
        self, kinds: I64Array, kind_count: int, head_lo: I64Array, head_hi: I64Array, head_t: I64Array
    ) -> tuple[I64Array, I64Array] | None:
        """Column of each row, and the rows of columns that were not seen before, in order of their numbers
        (which follow those seen). Row r has kinds[r], one of `kind_count` in the selection, and the times
        head_t[head_lo[r]:head_hi[r]] in the head. None where there are too many columns."""
        if self.is_full:
            return None
        if not len(self._newest):
            self._newest = np.full(kind_count, -1, dtype=np.int64)
            self._times = np.empty(HEAD_TIMES_MAX, dtype=np.int64)
        owners, column = np.empty((2, len(kinds)), dtype=np.int64)
        if kernels.number_columns(
            kinds, head_lo, head_hi, head_t, self._newest, self._older, self._offsets, self._times,
            self._found, owners, column,
        ):  # fmt: skip
            self.is_full = True
            return None
        return column, owners[: int(self._found[kernels.FRESH])]
