"""Answers of many numbers with their length known before the first byte.

The digits of all values are made first, eight bytes a value, and tell the length; the text is made from them
while it is sent. A client that knows how long an answer will be reads it into one piece of memory: Python's
takes half the processor time of the 700 chunks that it would join otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.kernels import digits as kernels
from promql.kernels.render import ROW_START
from promql.matrix import Matrix
from web.render import (
    CHUNK_ROWS_MAX,
    MATRIX_KEYS,
    SERIES_END,
    Answer,
    MatrixRows,
    answer_end,
    label_sizes,
    row_bytes,
    series_start,
    shown_rows,
)

MEASURED_POINTS_MIN = 1 << 18
"""Smaller answers are made in one pass: about 9 MB of text, of which a client notices little."""

BLOCK_POINTS = 1 << 19
"""Points measured between two looks at whether anybody still waits: 13 ms."""

I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A body of `length` bytes. Each of its pieces is overwritten when the next is asked for."""

    length: int
    pieces: Iterator[bytes | memoryview]


def measured(answer: Answer, check: Callable[[], None], helper: Executor | None = None) -> Measured | None:
    """The body of a large matrix of floats, None for any other answer. `check` raises to stop; a thread of
    `helper` takes a part of the work if there is one to spare."""
    value = answer.value
    if answer.instant or not isinstance(value, Matrix) or value.histograms is not None:
        return None
    if value.values.size < MEASURED_POINTS_MIN:
        return None
    warnings = list(answer.warnings)
    source = MatrixRows(value)
    rows = shown_rows(answer, source, warnings)
    start, end = series_start(b"matrix"), SERIES_END + answer_end(answer, warnings)
    length = len(start) + _rows_length(source, rows, check, helper) + len(end)
    return Measured(length, _pieces(source, rows, start, end))


def _pieces(source: MatrixRows, rows: I64Array, start: bytes, end: bytes) -> Iterator[bytes | memoryview]:
    yield start
    yield from row_bytes(source, rows, MATRIX_KEYS, reuse=True)
    yield end


def _rows_length(
    source: MatrixRows, rows: I64Array, check: Callable[[], None], helper: Executor | None
) -> int:
    """Bytes of all rows and the commas between them; makes the codes of the source."""
    around = len(ROW_START) + len(MATRIX_KEYS.values) + len(MATRIX_KEYS.close) + len("},")
    total = max(len(rows) * around - 1, 0)
    source.codes = np.empty(len(source.values), dtype=np.uint64)
    blocks = _Blocks(source, rows, check)
    # Nobody waits for a thread: one that is free takes blocks too, until there are none.
    helping = helper.submit(blocks.measure) if helper is not None else None
    try:
        for lo in range(0, len(rows), CHUNK_ROWS_MAX):
            total += label_sizes(source.labels, rows[lo : lo + CHUNK_ROWS_MAX])
        total += blocks.measure()
    finally:
        blocks.drop()
        if helping is not None and not helping.cancel():
            total += helping.result()
    return total


class _Blocks:
    """Runs of rows whose points are still to be measured, by any number of threads."""

    def __init__(self, source: MatrixRows, rows: I64Array, check: Callable[[], None]) -> None:
        self._source, self._check = source, check
        self._heads, self._origins = source.heads(rows)
        self._lows, self._highs = source.lows[rows], source.highs[rows]
        step = max(1, BLOCK_POINTS // max(1, len(self._heads.offsets) - 1))
        self._parts = deque(slice(lo, lo + step) for lo in range(0, len(rows), step))

    def measure(self) -> int:
        """Bytes of the points of those rows that no other thread takes."""
        total = 0
        scratch = np.empty(kernels.SCRATCH_BYTES, dtype=np.uint8)
        while self._parts:
            self._check()
            try:
                part = self._parts.popleft()
            except IndexError:  # the other thread was faster
                break
            total += kernels.measure_points(
                self._source.values,
                self._lows[part],
                self._highs[part],
                self._origins[part],
                self._heads.offsets,
                self._source.codes,
                scratch,
            )
        return total

    def drop(self) -> None:
        """Forget what is still to be measured."""
        self._parts.clear()
