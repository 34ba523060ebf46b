"""Reading rows of a selection for a query: within its budget, and with errors that are the engine's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from promql.context import EvalContext
from promql.contiguous import contiguous
from promql.engineerrors import StorageReadError
from promql.histogrampool import sample_weight
from tsdb.errors import NotAtOnceError, StorageError
from tsdb.select import (
    RowValues,
    SampleBatch,
    Selection,
    SharedRows,
    rollup_of,
    shared_rows_of,
)

I64Array = npt.NDArray[np.int64]

T = TypeVar("T")

SHARED_ROWS_MIN = 8
"""Rows of a selection whose timestamps are shared: grouping them takes as long as reading some more."""


def _asked(ctx: EvalContext, ask: Callable[[int, int], T], lo: int, hi: int) -> T:
    """The store's answer for some rows; its failures become StorageReadError."""
    ctx.budget.check()
    try:
        return ask(lo, hi)
    except NotAtOnceError:
        raise
    except StorageError as error:
        raise StorageReadError(str(error)) from error


def read(ctx: EvalContext, selection: Selection, lo: int, hi: int, lead: bool = False) -> SampleBatch:
    """Samples of rows as writable contiguous arrays, counted and checked against the budget. With `lead` they
    begin early enough for borders that roll-ups move back."""
    rollup = rollup_of(selection) if lead else None
    batch = _asked(ctx, selection.read if rollup is None else rollup.samples, lo, hi)
    ctx.budget.count_read(len(batch.t_ms))
    if batch.histograms is not None:
        ctx.budget.expect(sample_weight(batch.histograms, (hi - lo) * ctx.grid.steps))
    return SampleBatch(
        contiguous(batch.offsets, np.int64),
        contiguous(batch.t_ms, np.int64),
        contiguous(batch.values, np.float64),
        batch.start_t_ms,
        batch.histograms if batch.histograms is not None and len(batch.histograms) else None,
    )


def read_shared(ctx: EvalContext, selection: Selection, lo: int, hi: int) -> RowValues | None:
    """As `read`, with timestamps that rows share; None where the store has no such samples, or so few rows
    that it is not worth finding out."""
    return None if len(selection.labels) < SHARED_ROWS_MIN else read_values(ctx, selection, lo, hi)


def read_latest(ctx: EvalContext, rows: SharedRows, bounds: I64Array, lo: int, hi: int) -> RowValues | None:
    """As `read_shared`, from rows that leave out samples which no step finds. All samples are counted, by the
    `bounds` of all rows."""
    found = _asked(ctx, rows.read_values, lo, hi)
    if found is not None:
        ctx.budget.count_read(int(bounds[lo:hi].sum()))
    return found


def read_values(ctx: EvalContext, selection: Selection, lo: int, hi: int) -> RowValues | None:
    """As `read`, without times; None where the store has no way to leave them out."""
    rows = shared_rows_of(selection)
    found = None if rows is None else _asked(ctx, rows.read_values, lo, hi)
    if found is not None:
        ctx.budget.count_read(len(found.values))
    return found
