"""Functions of time: calendar fields in UTC, timestamp(), start_timestamp()."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from promql.ast import Call, Expr, ParenExpr, VectorSelector
from promql.matrix import ABSENT, F64Array
from promql.operators.collect import rowwise
from promql.operators.merge import checked
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Piece,
    RowwiseOperator,
    Series,
    VectorOperator,
    drop_metadata,
)
from promql.operators.scalar import Time, Vector
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]

_DAY_S = 86_400
_SECONDS_MAX = 2.0**63
"""Beyond it, as for NaN and infinities, Go's conversion gives the smallest int64, whose date wraps around."""


def _days(seconds: I64Array) -> I64Array:
    return seconds // _DAY_S


def _date(seconds: I64Array) -> tuple[I64Array, I64Array, I64Array]:
    """Civil year, month and day of Unix seconds (proleptic Gregorian)."""
    z = _days(seconds) + 719_468
    era = z // 146_097
    doe = z - era * 146_097
    yoe = (doe - doe // 1460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    day = doy - (153 * mp + 2) // 5 + 1
    month = np.where(mp < 10, mp + 3, mp - 9)
    return yoe + era * 400 + (month <= 2), month, day


def _leap(year: I64Array) -> I64Array:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)), dtype=np.int64)


_DAYS_BEFORE = np.array([0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], dtype=np.int64)
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


def _day_of_year(seconds: I64Array) -> I64Array:
    year, month, day = _date(seconds)
    return np.asarray(_DAYS_BEFORE[month] + day + np.where(month > 2, _leap(year), 0))


def _days_in_month(seconds: I64Array) -> I64Array:
    year, month, _ = _date(seconds)
    return np.asarray(_MONTH_DAYS[month] + np.where(month == 2, _leap(year), 0))


CALENDAR: dict[str, Callable[[I64Array], I64Array]] = {
    "minute": lambda s: s // 60 % 60,
    "hour": lambda s: s // 3600 % 24,
    "day_of_week": lambda s: (_days(s) + 4) % 7,
    "day_of_month": lambda s: _date(s)[2],
    "day_of_year": _day_of_year,
    "days_in_month": _days_in_month,
    "month": lambda s: _date(s)[1],
    "year": lambda s: _date(s)[0],
}


WRAPPED = {
    "minute": 30,
    "hour": 15,
    "day_of_week": 0,
    "day_of_month": 4,
    "day_of_year": 339,
    "days_in_month": 31,
    "month": 12,
    "year": 292_277_026_596,
}
"""What Prometheus answers for values that are no int64 (recorded from 2.42 on amd64)."""


class Calendar(RowwiseOperator):
    """A calendar field of values that are Unix seconds."""

    def __init__(self, name: str, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._name = name
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Map the child's piece; fractions of a second are cut off."""
        values = self._child.load(lo, hi).values
        absent = values.view(np.uint64) == ABSENT.view(np.uint64)
        usable = np.isfinite(values) & (np.abs(values) < _SECONDS_MAX)
        seconds = np.trunc(np.where(usable, values, 0.0)).astype(np.int64)
        fields = CALENDAR[self._name](seconds)
        out: F64Array = np.where(usable, fields, WRAPPED[self._name]).astype(np.float64)
        out[absent] = ABSENT
        return Piece(lo, out)

    def explain(self) -> Explain:
        """Field and child."""
        return Explain("Calendar", self._name, (self._child.explain(),))


class EvalTime(RowwiseOperator):
    """timestamp() of what is not a selector: the evaluation time wherever a sample is."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """Times in place of values."""
        piece = self._child.load(lo, hi)
        present = piece.values.view(np.uint64) != ABSENT.view(np.uint64)
        if piece.histograms is not None:
            present = present | (piece.histograms.index >= 0)
        return Piece(lo, np.where(present, self.grid.times_ms() / 1000.0, ABSENT))

    def explain(self) -> Explain:
        """The child."""
        return Explain("EvalTime", "", (self._child.explain(),))


class DropNames(RowwiseOperator):
    """Rows as they are, without metadata labels."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = rowwise(child)

    def _announce(self) -> Series:
        return drop_metadata(self._child.series(), self.ctx)

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's."""
        return self._child.splits()

    def load(self, lo: int, hi: int) -> Piece:
        """The child's piece."""
        return self._child.load(lo, hi)

    def explain(self) -> Explain:
        """The child's plan: dropping names is not a step of its own."""
        return self._child.explain()


class NoStartTimes(RowwiseOperator):
    """start_timestamp() of what is not a selector, whose samples have no start timestamps, and of anything
    where the feature use-start-timestamps is off. The argument is evaluated for its errors."""

    def __init__(self, child: VectorOperator) -> None:
        super().__init__(child.ctx)
        self._child = child

    def _announce(self) -> Series:
        self._child.series()
        for _ in self._child.batches():
            pass
        labels = SeriesLabels.from_labels([], self.ctx.symbols)
        return Series(labels, np.zeros(0, dtype=np.bool_))

    def splits(self) -> Sequence[tuple[int, int]]:
        """None."""
        return []

    def load(self, lo: int, hi: int) -> Piece:
        """Never called: there are no splits."""
        raise AssertionError("there are no rows")

    def explain(self) -> Explain:
        """The child, whose results are left out."""
        return Explain("NoStartTimes", "", (self._child.explain(),))


def plain_selector(expr: Expr) -> VectorSelector | None:
    """The selector that an expression is, parentheses aside."""
    while isinstance(expr, ParenExpr):
        expr = expr.expr
    return expr if isinstance(expr, VectorSelector) else None


def _calendar(call: Call, builder: Builder) -> VectorOperator:
    if not call.args:
        ctx = builder.ctx
        return Calendar(call.function, Vector(ctx, Time(ctx)))
    return checked(Calendar(call.function, builder.vector(call.args[0])))


def _timestamp(call: Call, builder: Builder) -> VectorOperator:
    selector = plain_selector(call.args[0])
    starts = call.function == "start_timestamp"
    if starts and not builder.ctx.options.start_timestamps:
        return NoStartTimes(builder.vector(call.args[0]))
    if selector is not None:
        want = "start_time" if starts else "time"
        return checked(DropNames(builder.selector(selector, want)))
    child = builder.vector(call.args[0])
    return checked(EvalTime(child)) if not starts else NoStartTimes(child)


FUNCTIONS: dict[str, FunctionBuilder] = {
    **dict.fromkeys(CALENDAR, _calendar),
    "timestamp": _timestamp,
    "start_timestamp": _timestamp,
}
