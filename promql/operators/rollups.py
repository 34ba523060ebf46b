"""Roll-ups in place of samples: what functions over ranges make of their columns (docs/rollups.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from promql.ast import Position
from promql.context import EvalContext
from promql.contiguous import contiguous
from promql.engineerrors import StorageReadError
from promql.kernels import overtime
from promql.kernels import rollup as kernels
from promql.matrix import ABSENT, F64Array
from promql.operators.operator import WindowGrid
from tsdb.errors import StorageError
from tsdb.select import Rollup, SampleBatch

I64Array = npt.NDArray[np.int64]

MOVED = (
    "samples of a part of the range are kept as roll-ups only, "
    "windows there begin and end where those of the roll-ups do"
)
LAST_ONLY = (
    "samples of a part of the range are kept as roll-ups only, which cannot answer this: "
    "the last sample of each window was used"
)


def common_border_ms(*times_ms: int) -> int:
    """The largest interval that all borders are multiples of."""
    return math.gcd(*times_ms)


@dataclass(slots=True)
class RolledRows:
    """Windows of rows lo to hi (exclusive) of a range scan, in place of its samples."""

    ctx: EvalContext
    rollup: Rollup
    lo: int
    hi: int
    pos: Position
    _counted: bool = field(default=False)

    def column(self, name: str) -> SampleBatch:
        """One column with canonical NaNs, timed by the ends of the windows."""
        from promql.operators.samples import clean

        self.ctx.budget.check()
        try:
            batch = self.rollup.windows(name, self.lo, self.hi)
        except StorageError as error:
            raise StorageReadError(str(error)) from error
        if not self._counted:
            self._counted = True
            self.ctx.budget.count_read(len(batch.t_ms))
        return clean(
            replace(
                batch,
                offsets=contiguous(batch.offsets, np.int64),
                t_ms=contiguous(batch.t_ms, np.int64),
                values=contiguous(batch.values, np.float64),
            )
        )

    def borders(self, t_ms: I64Array) -> I64Array:
        """Where borders really are; an info says so where that is somewhere else."""
        return moved_borders(self.ctx, self.rollup, t_ms, self.pos)


def moved_borders(ctx: EvalContext, rollup: Rollup, t_ms: I64Array, pos: Position) -> I64Array:
    """Borders moved to those of roll-ups, with an info where any was."""
    moved = np.ascontiguousarray(rollup.borders(t_ms))
    if not np.array_equal(moved, t_ms):
        ctx.annotations.info(MOVED, pos)
    return moved


RolledKernel = Callable[[RolledRows, WindowGrid, F64Array], int]
"""(windows, borders asked for, out f64[R, K]) -> cells present."""


def _over(column: str, kernel: Callable[..., int], *flags: int) -> RolledKernel:
    def run(rows: RolledRows, window: WindowGrid, out: F64Array) -> int:
        first, step, _, span, _ = window
        ends = window.ends_ms()
        rows.borders(np.concatenate([ends - span, ends]))
        # Windows end at multiples of the resolution: moving a border back takes no window in or out.
        batch = rows.column(column)
        return kernel(batch.offsets, batch.t_ms, batch.values, first, step, span, *flags, out)

    return run


_sum, _count = _over("sum", overtime.sum_or_mean, 0), _over("count", overtime.sum_or_mean, 0)


def _average(rows: RolledRows, window: WindowGrid, out: F64Array) -> int:
    counts = np.empty_like(out)
    present = _sum(rows, window, out)
    _count(rows, window, counts)
    there = np.asarray(out.view(np.uint64) != ABSENT.view(np.uint64))
    out[there] /= counts[there]
    return present


def _extrapolated(is_counter: int, is_rate: int) -> RolledKernel:
    def run(rows: RolledRows, window: WindowGrid, out: F64Array) -> int:
        ends = window.ends_ms()
        starts = rows.borders(ends - window.range_ms)
        ends = rows.borders(ends)
        names = ("count", "first", "last", "resets", "first_age", "last_age")
        columns = [rows.column(name) for name in names]
        offsets, t_ms = columns[0].offsets, columns[0].t_ms
        count, first, last, resets, first_age, last_age = (column.values for column in columns)
        return kernels.extrapolated(
            offsets,
            t_ms,
            count,
            first,
            last,
            resets,
            first_age,
            last_age,
            starts,
            ends,
            window.range_ms,
            is_counter,
            is_rate,
            out,
        )

    return run


ROLLED_FUNCTIONS: dict[str, RolledKernel] = {
    "sum_over_time": _sum,
    "count_over_time": _count,
    "avg_over_time": _average,
    "min_over_time": _over("min", overtime.extreme, 0, 0),
    "max_over_time": _over("max", overtime.extreme, 1, 0),
    "first_over_time": _over("first", overtime.edges, overtime.EDGE_FIRST),
    "last_over_time": _over("last", overtime.edges, overtime.EDGE_LAST),
    "present_over_time": _over("count", overtime.edges, overtime.EDGE_PRESENT),
    "rate": _extrapolated(1, 1),
    "increase": _extrapolated(1, 0),
    "delta": _extrapolated(0, 0),
}
"""Functions that windows answer; all others see samples."""
