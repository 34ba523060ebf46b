"""Binary operators with a histogram on at least one side (prometheus-surface.md 2.5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from promql.histogrampool import batch_of, pool_of
from promql.kernels import histogramarith
from promql.kernels.histogrampool import Pool
from promql.kernels.histogramtrim import trim_each
from promql.matrix import BoolArray, F64Array, HistogramCells

Note = Callable[[int, str, str], None]
Operand = HistogramCells | F64Array

_NAMES = {"+": "addition", "-": "subtraction"}
_TRIMS = {"</": True, ">/": False}


def binary_histograms(
    op: str, left: Operand, right: Operand, present: BoolArray, note: Note
) -> tuple[HistogramCells | None, BoolArray | None]:
    """`left op right` at the cells `present` bool[R, K], where both sides have a sample and at least one is a
    histogram; float sides are f64[R, K].

    Returns the resulting cells, and for `==` and `!=` of histograms what the comparison says (the cells then
    are the left ones that it keeps). Combinations without meaning give nothing and an info.
    """
    if isinstance(left, HistogramCells) and isinstance(right, HistogramCells):
        if op in _NAMES:
            return _add(op, left, right, present, note), None
        if op in ("==", "!="):
            keep = _equal(left, right, present)
            if op == "!=":
                keep = present & ~keep
            return _kept(left, keep), keep
    elif isinstance(left, HistogramCells) and op in ("*", "/", *_TRIMS):
        assert not isinstance(right, HistogramCells)
        return _with_numbers(op, left, right, present), None
    elif isinstance(right, HistogramCells) and op == "*":
        assert not isinstance(left, HistogramCells)
        return _with_numbers(op, right, left, present), None
    if present.any():
        kinds = ["histogram" if isinstance(side, HistogramCells) else "float" for side in (left, right)]
        text = f'incompatible sample types encountered for binary operator "{op}": {kinds[0]} {op} {kinds[1]}'
        note(int(np.flatnonzero(present.any(axis=1))[0]), "info", text)
    return None, None


def _kept(cells: HistogramCells, keep: BoolArray) -> HistogramCells:
    return HistogramCells(np.where(keep, cells.index, np.int32(-1)), cells.pool)


def _placed(
    present: BoolArray, index: np.ndarray[tuple[int], np.dtype[np.int32]], pool: Pool
) -> HistogramCells:
    cells = np.full(present.shape, -1, dtype=np.int32)
    cells[present] = index
    return HistogramCells(cells, batch_of(pool))


def _add(
    op: str, left: HistogramCells, right: HistogramCells, present: BoolArray, note: Note
) -> HistogramCells:
    count = int(np.count_nonzero(present))
    index, flags = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.uint8)
    minus = op == "-"
    pool = histogramarith.add_pairs(
        pool_of(left.pool),
        left.index[present],
        pool_of(right.pool),
        right.index[present],
        -1.0 if minus else 1.0,
        minus,
        index,
        flags,
    )
    seen = int(np.bitwise_or.reduce(flags)) if count else 0
    if seen & histogramarith.INCOMPATIBLE:
        note(0, "warn", f"incompatible bucket layout encountered for binary operator {op}")
    if seen & histogramarith.COLLISION:
        note(0, "warn", f"conflicting counter resets during histogram {_NAMES[op]}")
    if seen & histogramarith.RECONCILED:
        note(0, "info", f"mismatched custom buckets were reconciled during {_NAMES[op]}")
    return _placed(present, index, pool)


def _equal(left: HistogramCells, right: HistogramCells, present: BoolArray) -> BoolArray:
    same = np.empty(int(np.count_nonzero(present)), dtype=np.bool_)
    histogramarith.equal_pairs(
        pool_of(left.pool), left.index[present], pool_of(right.pool), right.index[present], same
    )
    out = np.zeros(present.shape, dtype=np.bool_)
    out[present] = same
    return out


def _with_numbers(op: str, cells: HistogramCells, numbers: F64Array, present: BoolArray) -> HistogramCells:
    pool, asked = pool_of(cells.pool), cells.index[present]
    values = np.ascontiguousarray(numbers[present])
    if op in _TRIMS:
        made = trim_each(pool, asked, values, _TRIMS[op])
    else:
        made = histogramarith.scale_each(pool, asked, values, op == "/")
    return _placed(present, np.arange(len(asked), dtype=np.int32), made)
