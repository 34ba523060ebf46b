"""histogram_quantile, histogram_quantiles and histogram_fraction over classic and native histograms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from promql.annotations import for_metric
from promql.ast import Position
from promql.context import EvalContext
from promql.engineerrors import ExecutionError
from promql.histogrampool import pool_of
from promql.kernels import histogram as native
from promql.kernels import quantile as classic
from promql.looks import look
from promql.matrix import ABSENT, ABSENT_BITS, F64Array
from promql.numberformat import format_g, format_openmetrics
from promql.operators.classicquantile import BucketGroups, bucket_groups, drop_conflicts
from promql.operators.collect import Collected, collect
from promql.operators.labelcolumns import with_label
from promql.operators.merge import SAME_LABELSET
from promql.operators.operator import Explain, Piece, ScalarOperator, Series, VectorOperator, drop_metadata
from tsdb.labels import METRIC_NAME
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

RUN_CELLS = 1 << 15
"""Native histograms between two looks at the query's flag: 0.2 to 1 us each."""

_MONOTONICITY = (
    "input to histogram_quantile needed to be fixed for monotonicity (see"
    " https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)
_NAN_TEXTS = {
    native.NAN_RESULT: "input to histogram_quantile has NaN observations, result is NaN",
    native.NAN_SKEW: "input to histogram_quantile has NaN observations, result is skewed higher",
    native.NAN_EXCLUDED: (
        "input to histogram_fraction has NaN observations, which are excluded from all fractions"
    ),
}


def warn_of_quantiles(ctx: EvalContext, q: F64Array, pos: Position) -> None:
    """Warn of each value that is no quantile."""
    for value in np.unique(q[~((q >= 0) & (q <= 1))]):
        ctx.annotations.warn(f"quantile value should be between 0 and 1, got {format_g(float(value))}", pos)


class _BucketFunction(VectorOperator):
    """Evaluates its child whole when announced: the groups depend on which rows are histograms."""

    def __init__(self, ctx: EvalContext, child: VectorOperator, vector_pos: Position) -> None:
        super().__init__(ctx)
        self.child = child
        self.vector_pos = vector_pos
        self._collected: Collected | None = None
        self._groups: BucketGroups | None = None

    def _grouped(self) -> tuple[Collected, BucketGroups]:
        if self._collected is None or self._groups is None:
            self._collected = collect(self.child)
            annotations, named = self.ctx.annotations, self.ctx.options.delayed_name_removal
            self._groups = bucket_groups(self._collected, annotations, self.vector_pos, named)
        return self._collected, self._groups

    def _announce(self) -> Series:
        _, groups = self._grouped()
        return drop_metadata(Series(groups.labels, np.zeros(len(groups), dtype=np.bool_)), self.ctx)

    def batches(self) -> Iterator[Piece]:
        """All rows in one piece."""
        self.series()
        yield Piece(0, self._evaluate(*self._grouped()))

    @abstractmethod
    def _evaluate(self, collected: Collected, groups: BucketGroups) -> F64Array: ...

    def _add_native(
        self, collected: Collected, groups: BucketGroups, out: F64Array, q: F64Array, upper: F64Array | None
    ) -> None:
        """Results of native histograms into `out` f64[G, K]: quantiles at `q` f64[K], or fractions between
        `q` and `upper`."""
        if collected.histograms is None:
            return
        named = self.ctx.options.delayed_name_removal
        cells = drop_conflicts(groups, collected, out, self.ctx.annotations, self.vector_pos, named)
        rows, steps = np.nonzero(cells >= 0)
        result, flags = np.empty(len(rows)), np.zeros(len(rows), dtype=np.uint8)
        pool, asked = pool_of(collected.histograms.pool), cells[rows, steps]
        for at in range(0, len(rows), RUN_CELLS):
            look()
            here = slice(at, at + RUN_CELLS)
            lower = q[steps[here]]
            if upper is None:
                native.quantiles(pool, asked[here], lower, result[here], flags[here])
            else:
                native.fractions(pool, asked[here], lower, upper[steps[here]], result[here], flags[here])
        result.view(np.uint64)[np.isnan(result)] = classic.NAN_BITS
        out[groups.native_groups[rows], steps] = result
        self._annotate_nan(groups, rows, flags)

    def _annotate_nan(self, groups: BucketGroups, rows: I64Array, flags: U8Array) -> None:
        if not flags.any():
            return
        names = groups.labels.column(METRIC_NAME)[groups.native_groups[rows]]
        for flag, text in _NAN_TEXTS.items():
            for name in np.unique(names[flags == flag]):
                metric = groups.labels.symbols.text(int(name))
                self.ctx.annotations.info(text + for_metric(metric), self.vector_pos)

    def _quantile(self, collected: Collected, groups: BucketGroups, q: F64Array) -> F64Array:
        out = np.empty((len(groups), collected.values.shape[1]))
        fix = np.empty((len(groups), 3))
        steps = np.zeros((len(groups), 3), dtype=np.int64)
        for here in _runs(groups, out.shape[1]):
            offsets = groups.offsets[here.start : here.stop + 1]
            classic.classic_quantile(
                collected.values, offsets, groups.rows, groups.bounds, q, out[here], fix[here], steps[here]
            )
        self._annotate_monotonicity(groups, fix, steps)
        self._add_native(collected, groups, out, q, None)
        return out

    def _annotate_monotonicity(self, groups: BucketGroups, fix: F64Array, steps: I64Array) -> None:
        """One info a metric name: the widest span of bounds and the largest fall over all its samples."""
        hit = np.flatnonzero(steps[:, 0])
        if not len(hit):
            return
        names = groups.labels.column(METRIC_NAME)[hit]
        if not self.ctx.options.delayed_name_removal:
            names[:] = 0
        times = self.grid.times_ms()
        for name in np.unique(names):
            of = hit[names == name]
            lowest, highest, fall = fix[of, 0].min(), fix[of, 1].max(), float(fix[of, 2].max())
            first, last = times[steps[of, 1].min()], times[steps[of, 2].max()]
            self.ctx.annotations.info(
                f"{_MONOTONICITY}{for_metric(groups.labels.symbols.text(int(name)))},"
                f" from buckets {format_g(float(lowest))} to {format_g(float(highest))},"
                f" with a max diff of {fall:.2g}, over {int(steps[of, 0].sum())} samples"
                f" from {_rfc3339(int(first))} to {_rfc3339(int(last))}",
                self.vector_pos,
            )


def _runs(groups: BucketGroups, steps: int) -> Iterator[slice]:
    """Runs of groups with about 8 x RUN_CELLS cells of buckets, after a look at the query's flag each."""
    cells = max(len(groups.rows) * steps // max(len(groups), 1), 1)
    groups_max = max(1, 8 * RUN_CELLS // cells)
    for at in range(0, len(groups), groups_max):
        look()
        yield slice(at, min(at + groups_max, len(groups)))


def _rfc3339(t_ms: int) -> str:
    return datetime.fromtimestamp(int(t_ms / 1000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class HistogramQuantile(_BucketFunction):
    """histogram_quantile(scalar, vector)."""

    def __init__(
        self,
        ctx: EvalContext,
        quantile: ScalarOperator,
        child: VectorOperator,
        quantile_pos: Position,
        vector_pos: Position,
    ) -> None:
        super().__init__(ctx, child, vector_pos)
        self.quantile = quantile
        self.quantile_pos = quantile_pos

    def _evaluate(self, collected: Collected, groups: BucketGroups) -> F64Array:
        q = np.ascontiguousarray(self.quantile.values())
        warn_of_quantiles(self.ctx, q, self.quantile_pos)
        return self._quantile(collected, groups, q)

    def explain(self) -> Explain:
        """The quantile's and the buckets' plans."""
        return Explain("HistogramQuantile", children=(self.quantile.explain(), self.child.explain()))


class HistogramFraction(_BucketFunction):
    """histogram_fraction(lower, upper, vector)."""

    def __init__(
        self,
        ctx: EvalContext,
        lower: ScalarOperator,
        upper: ScalarOperator,
        child: VectorOperator,
        vector_pos: Position,
    ) -> None:
        super().__init__(ctx, child, vector_pos)
        self.lower = lower
        self.upper = upper

    def _evaluate(self, collected: Collected, groups: BucketGroups) -> F64Array:
        lower, upper = (np.ascontiguousarray(side.values()) for side in (self.lower, self.upper))
        out = np.empty((len(groups), collected.values.shape[1]))
        for here in _runs(groups, out.shape[1]):
            offsets = groups.offsets[here.start : here.stop + 1]
            classic.classic_fraction(
                collected.values, offsets, groups.rows, groups.bounds, lower, upper, out[here]
            )
        self._add_native(collected, groups, out, lower, upper)
        return out

    def explain(self) -> Explain:
        """The borders' and the buckets' plans."""
        sides = (self.lower.explain(), self.upper.explain(), self.child.explain())
        return Explain("HistogramFraction", children=sides)


class HistogramQuantiles(_BucketFunction):
    """histogram_quantiles(vector, label, scalar...): each group once a quantile, told apart by `label`.

    The label names the quantile's value, which may differ from step to step: rows are announced for every
    value that occurs.
    """

    def __init__(
        self,
        ctx: EvalContext,
        child: VectorOperator,
        label: str,
        quantiles: Sequence[tuple[ScalarOperator, Position]],
        vector_pos: Position,
    ) -> None:
        super().__init__(ctx, child, vector_pos)
        self.label = label
        self.quantiles = quantiles
        self._by_value: dict[str, F64Array] | None = None

    def _values(self) -> dict[str, F64Array]:
        """Quantile f64[K] under each label value, ABSENT at steps where no argument has that value."""
        if self._by_value is None:
            self._by_value = {}
            for scalar, pos in self.quantiles:
                q = scalar.values()
                warn_of_quantiles(self.ctx, q, pos)
                for value in np.unique(q, equal_nan=True).tolist():
                    text = format_openmetrics(value)
                    row = self._by_value.setdefault(text, np.full(len(q), ABSENT))
                    hit = np.isnan(q) if value != value else q == value
                    taken = row.view(np.uint64)[hit] != np.uint64(ABSENT_BITS)
                    if taken.any() and len(self._grouped()[1]):
                        raise ExecutionError(SAME_LABELSET)
                    row[hit] = value
        return self._by_value

    def _announce(self) -> Series:
        _, groups = self._grouped()
        base = drop_metadata(Series(groups.labels, np.zeros(len(groups), dtype=np.bool_)), self.ctx)
        parts = []
        for text in self._values():
            symbol = np.full(len(groups), self.ctx.symbols.intern(text), dtype=np.uint32)
            parts.append(with_label(base.labels, self.label, symbol))
        drop = np.tile(base.drop_name, len(parts))
        return Series(SeriesLabels.concat(parts, self.ctx.symbols), drop)

    def _evaluate(self, collected: Collected, groups: BucketGroups) -> F64Array:
        parts = []
        for row in self._values().values():
            part = self._quantile(collected, groups, row)
            part.view(np.uint64)[:, row.view(np.uint64) == np.uint64(ABSENT_BITS)] = ABSENT_BITS
            parts.append(part)
        return np.concatenate(parts) if parts else np.empty((0, collected.values.shape[1]))

    def explain(self) -> Explain:
        """The buckets' and the quantiles' plans."""
        scalars = tuple(scalar.explain() for scalar, _ in self.quantiles)
        return Explain("HistogramQuantiles", repr(self.label), (self.child.explain(), *scalars))
