"""Functions over range vectors: one kernel a family over the samples of each piece.

Floats go through the kernels of `promql.kernels.{window,overtime,regression}`; where a piece holds native
histograms the cells are sorted into float, histogram and mixed windows, each kind of function says what it
does with them, and the arithmetic is that of `histogramwindow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.annotations import for_metric, quoted
from promql.ast import Call, MatrixSelector, Position
from promql.engineerrors import ExecutionError
from promql.histogrampool import concat_cells
from promql.kernels import overtime, regression, windowquantile
from promql.kernels import scan as scan_kernels
from promql.kernels import window as kernels
from promql.matrix import ABSENT, BoolArray, F64Array, HistogramCells, I32Array
from promql.operators.collect import rows_present
from promql.operators.extended import START_TIME_FUNCTIONS, extended_window, start_time_window
from promql.operators.histogramwindow import Extended, WindowResult, window_histograms
from promql.operators.merge import checked
from promql.operators.operator import (
    Builder,
    Explain,
    FunctionBuilder,
    Piece,
    RangeOperator,
    RangePiece,
    RowwiseOperator,
    ScalarOperator,
    Series,
    VectorOperator,
    WindowGrid,
    drop_metadata,
    refined,
)
from promql.operators.rangeresult import rows_between
from promql.operators.rollups import ROLLED_FUNCTIONS
from promql.operators.samples import clean
from promql.operators.sharedwindow import EXTRAPOLATED, ColumnWindows
from promql.operators.stepruns import FloatKernel, in_runs, steps_of_run
from promql.operators.wholewindow import WHOLE_WINDOW
from tsdb.labels import METRIC_NAME, TYPE_LABEL
from tsdb.select import SampleBatch

I64Array = npt.NDArray[np.int64]

COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
ANCHORED_FUNCTIONS = ("changes", "delta", "increase", "rate", "resets")
SMOOTHED_FUNCTIONS = ("delta", "increase", "rate")

SAMPLE_NS = (
    {"rate": 2, "increase": 2, "quantile_over_time": 4, "sum_over_time": 9, "avg_over_time": 9}
    | {"double_exponential_smoothing": 17, "deriv": 40, "predict_linear": 40}
    | {"stddev_over_time": 47, "stdvar_over_time": 47, "mad_over_time": 200}
)
"""Time a sample of each window where the kernel goes through all of them; the others take less than 30 ns a
cell, however long the window is. Measured where windows do not repeat (steps below the interval)."""

CELL_NS = 100
"""The most that a cell of a full piece may take, so that a piece is over within about 50 ms."""

HISTOGRAM_CELLS_MAX = 1 << 13
"""Windows with histograms between two looks at the cancel flag: 1 to 10 us each."""

IGNORED_HISTOGRAMS = "ignored histograms in a range containing both floats and histograms{for_metric}"

Note = Callable[[int, str, str], None]


@dataclass(frozen=True, slots=True)
class WindowFunction:
    """One function. `mixed` says what happens to windows with floats and histograms: "drop" (none, and a
    warning), "floats" (histograms ignored, and an info), "count", "edge", "transitions", "last_two"."""

    floats: FloatKernel
    mixed: str
    keeps_name: bool = False
    range_arg: int = 0


def _simple(kernel: Callable[..., int], *flags: int) -> FloatKernel:
    def run(samples: SampleBatch, window: WindowGrid, args: Sequence[F64Array], out: F64Array) -> int:
        first, step, _, span, _ = window
        return kernel(samples.offsets, samples.t_ms, samples.values, first, step, span, *flags, out)

    return run


def _quantile(samples: SampleBatch, window: WindowGrid, args: Sequence[F64Array], out: F64Array) -> int:
    first, step, _, span, _ = window
    return windowquantile.quantiles(
        samples.offsets, samples.t_ms, samples.values, first, step, span, args[0], out
    )


def _predict(samples: SampleBatch, window: WindowGrid, args: Sequence[F64Array], out: F64Array) -> int:
    first, step, _, span, grid = window
    return regression.predict_linear(
        samples.offsets,
        samples.t_ms,
        samples.values,
        first,
        step,
        span,
        grid.start_ms,
        grid.step_ms,
        args[0],
        out,
    )


def _smooth(samples: SampleBatch, window: WindowGrid, args: Sequence[F64Array], out: F64Array) -> int:
    first, step, _, span, _ = window
    return regression.smooth(
        samples.offsets, samples.t_ms, samples.values, first, step, span, args[0], args[1], out
    )


_EDGE = overtime.edges
WINDOW_FUNCTIONS: dict[str, WindowFunction] = {
    "rate": WindowFunction(_simple(kernels.extrapolated, 1, 1), "drop"),
    "increase": WindowFunction(_simple(kernels.extrapolated, 1, 0), "drop"),
    "delta": WindowFunction(_simple(kernels.extrapolated, 0, 0), "drop"),
    "irate": WindowFunction(_simple(kernels.last_two, 1), "last_two"),
    "idelta": WindowFunction(_simple(kernels.last_two, 0), "last_two"),
    "changes": WindowFunction(_simple(kernels.transitions, 0), "transitions"),
    "resets": WindowFunction(_simple(kernels.transitions, 1), "transitions"),
    "sum_over_time": WindowFunction(_simple(overtime.sum_or_mean, 0), "drop"),
    "avg_over_time": WindowFunction(_simple(overtime.sum_or_mean, 1), "drop"),
    "min_over_time": WindowFunction(_simple(overtime.extreme, 0, 0), "floats"),
    "max_over_time": WindowFunction(_simple(overtime.extreme, 1, 0), "floats"),
    "stddev_over_time": WindowFunction(_simple(overtime.variance, 1), "floats"),
    "stdvar_over_time": WindowFunction(_simple(overtime.variance, 0), "floats"),
    "mad_over_time": WindowFunction(_simple(windowquantile.median_deviation), "floats"),
    "quantile_over_time": WindowFunction(_quantile, "floats", range_arg=1),
    "ts_of_min_over_time": WindowFunction(_simple(overtime.extreme, 0, 1), "floats"),
    "ts_of_max_over_time": WindowFunction(_simple(overtime.extreme, 1, 1), "floats"),
    "deriv": WindowFunction(_simple(regression.deriv), "floats"),
    "predict_linear": WindowFunction(_predict, "floats"),
    "double_exponential_smoothing": WindowFunction(_smooth, "floats"),
    "count_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_COUNT), "count"),
    "present_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_PRESENT), "count"),
    "last_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_LAST), "edge", keeps_name=True),
    "first_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_FIRST), "edge", keeps_name=True),
    "ts_of_last_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_LAST_TIME), "edge"),
    "ts_of_first_over_time": WindowFunction(_simple(_EDGE, overtime.EDGE_FIRST_TIME), "edge"),
}


class WindowOperator(RowwiseOperator):
    """Applies a window function to the pieces of a range operator."""

    def __init__(
        self, call: Call, child: RangeOperator, args: Sequence[ScalarOperator], extended: str = ""
    ) -> None:
        super().__init__(child.ctx)
        self._call = call
        self._name = call.function
        self._function = WINDOW_FUNCTIONS[call.function]
        self._pos = call.args[self._function.range_arg].pos
        self._child = child
        self._args = args
        self._extended = extended
        self._uses_starts = child.ctx.options.start_timestamps and self._name in START_TIME_FUNCTIONS
        self._arg_values: list[F64Array] = []
        self._metric_ids = np.empty(0, dtype=np.uint32)
        self._suspects: dict[int, str] = {}
        self._windows: ColumnWindows | None = None

    def _announce(self) -> Series:
        series = self._child.series()
        self._arg_values = [np.ascontiguousarray(arg.values()) for arg in self._args]
        if self._arg_values:
            self._check_arguments()
        if self._name in EXTRAPOLATED:
            self._windows = ColumnWindows(self._child.window, self._name)
        ids = self._metric_ids = series.labels.column(METRIC_NAME)
        one_name = series.labels.remembered(("one name",), lambda: bool(ids.all() and (ids == ids[:1]).all()))
        if self._name in ("rate", "increase"):
            self._find_suspects(series, ids[:1] if one_name else ids)
        if self._function.keeps_name:
            return series
        bare = drop_metadata(series, self.ctx)
        # Series of one metric differ in other labels, and lose no other here.
        dropped = len(series.labels.name_ids) - len(bare.labels.name_ids)
        self.is_distinct = self._child.is_distinct and dropped == len(ids) and one_name
        return bare

    def _check_arguments(self) -> None:
        if self._name == "quantile_over_time":
            warn_of_quantiles(self._arg_values[0], self.ctx.annotations.warn, self._call.args[0].pos)
        if self._name == "double_exponential_smoothing":
            for values, label, short in zip(
                self._arg_values, ("smoothing", "trend"), ("sf", "tf"), strict=True
            ):
                bad = values[~((values > 0) & (values < 1))]
                if len(bad):
                    raise ExecutionError(
                        f"invalid {label} factor. Expected: 0 < {short} < 1, got: {bad[0]:f}"
                    )

    def _find_suspects(self, series: Series, names: npt.NDArray[np.uint32]) -> None:
        """Metric names (by symbol) that rate and increase should report as "might not be a counter". `names`
        holds each once or more."""
        symbols = self.ctx.symbols
        if self.ctx.options.type_and_unit_labels:
            types = series.labels.column(TYPE_LABEL)
            pairs = np.unique(np.stack([self._metric_ids, types]), axis=1).T
            for name_id, type_id in pairs.tolist():
                kind = symbols.text(type_id)
                if name_id and kind not in ("counter", "histogram"):
                    self._suspects[name_id] = (
                        'metric might not be a counter, __type__ label is not set to "counter" or '
                        f'"histogram", got {quoted(kind)}: {quoted(symbols.text(name_id))}'
                    )
            return
        for name_id in set(names.tolist()):
            name = symbols.text(name_id)
            if name and not name.endswith(COUNTER_SUFFIXES):
                self._suspects[name_id] = (
                    "metric might not be a counter, name does not end in "
                    f"_total/_sum/_count/_bucket: {quoted(name)}"
                )

    def splits(self) -> Sequence[tuple[int, int]]:
        """The child's, cut smaller where a cell takes longer: between two pieces a query can be stopped."""
        pieces, sample_ns = self._child.splits(), SAMPLE_NS.get(self._name, 0)
        work = self._child.samples_a_window() * sample_ns // CELL_NS if sample_ns else 0
        return pieces if work < 2 else refined(pieces, self._child.window.steps * work)

    def load(self, lo: int, hi: int) -> Piece:
        """Samples of the rows through the kernels."""
        piece = self._read(lo, hi)
        if isinstance(piece, Piece):
            return piece
        steps, rows = self._child.window.steps, hi - lo
        rows_max = max(1, HISTOGRAM_CELLS_MAX // max(steps, 1))
        if piece.samples.histograms is None or piece.rolled is not None or rows <= rows_max:
            return self._evaluate(piece)
        values, cells = np.empty((rows, steps)), []
        for at in range(0, rows, rows_max):
            self.ctx.budget.check()
            end = min(at + rows_max, rows)
            part = self._evaluate(RangePiece(lo + at, rows_between(piece.samples, at, end)))
            values[at:end] = part.values
            cells.append((at, part.histograms))
        return Piece(lo, values, concat_cells(cells, rows, steps))

    def _read(self, lo: int, hi: int) -> Piece | RangePiece:
        """The samples of rows, or what comes of them where timestamps are shared, or do not matter."""
        if self._child.window.steps == 1 and not self._extended and self._name in WHOLE_WINDOW:
            rows = self._child.load_values(lo, hi)
            if isinstance(rows, RangePiece):
                return rows
            out = np.empty((len(rows), 1))
            if WHOLE_WINDOW[self._name](rows, out) < 0:
                return RangePiece(lo, clean(rows.timed().batch()))
            return Piece(lo, out)
        if self._name not in EXTRAPOLATED or self._extended:
            return self._child.load(lo, hi)
        found = self._child.load_shared(lo, hi)
        if isinstance(found, RangePiece):
            return found
        out = np.empty((len(found), self._child.window.steps))
        assert self._windows is not None
        present = self._windows.extrapolated(found, out)
        if present < 0:
            return RangePiece(lo, clean(found.timed().batch()))
        if present and self._suspects:
            self._report_suspects(lo, out)
        return Piece(lo, out)

    def _evaluate(self, piece: RangePiece) -> Piece:
        lo, samples, window = piece.lo, piece.samples, self._child.window
        out = np.empty((len(samples), window.steps))
        if piece.rolled is not None:
            present = ROLLED_FUNCTIONS[self._name](piece.rolled, window, out)
        elif self._extended:
            lookback = self.ctx.lookback_ms
            present = extended_window(self._name, self._extended, samples, window, lookback, out)
        elif self._uses_starts and samples.start_t_ms is not None:
            present = self._with_start_times(lo, samples, out)
        else:
            run = steps_of_run(samples, window, SAMPLE_NS.get(self._name, 0))
            kernel, check = self._function.floats, self.ctx.budget.check
            present = in_runs(kernel, samples, window, self._arg_values, out, run, check)
        done = Piece(lo, out) if samples.histograms is None else self._with_histograms(piece, out)
        if present and self._suspects:
            # By now windows that mix floats and histograms have no result; their warning is enough.
            self._report_suspects(lo, done.values)
        return done

    def _with_start_times(self, lo: int, samples: SampleBatch, out: F64Array) -> int:
        seen: set[int] = set()

        def overlap(row: int) -> None:
            name_id = int(self._metric_ids[lo + row])
            if name_id not in seen:
                seen.add(name_id)
                name = quoted(self.ctx.symbols.text(name_id))
                text = "sample has start time that overlaps with previous sample timestamp for metric"
                self.ctx.annotations.warn(f"{text} {name}", self._pos)

        return start_time_window(self._name, samples, self._child.window, overlap, out)

    def _report_suspects(self, lo: int, out: F64Array) -> None:
        ids = self._metric_ids[lo : lo + len(out)]
        for name_id in np.unique(ids[rows_present(out, None)]).tolist():
            if name_id in self._suspects:
                self.ctx.annotations.info(self._suspects[name_id], self._pos)

    def _note(self, lo: int) -> Note:
        """How the histogram functions report: (row of the piece, "warn" or "info", text); `{name}` in it
        becomes the quoted metric name, `{for_metric}` the suffix of annotations."""

        def note(row: int, kind: str, text: str) -> None:
            name = self.ctx.symbols.text(int(self._metric_ids[lo + row]))
            full = text.replace("{name}", quoted(name)).replace("{for_metric}", for_metric(name))
            add = self.ctx.annotations.warn if kind == "warn" else self.ctx.annotations.info
            add(full, self._pos)

        return note

    def _with_histograms(self, piece: RangePiece, out: F64Array) -> Piece:
        reach = self._reach()
        samples, window = piece.samples, reach.reach(self._child.window)
        floats, histograms = window_counts(samples, window)
        note = self._note(piece.lo)
        mixed = (floats > 0) & (histograms > 0)
        kind = self._function.mixed
        if kind == "drop":
            self._warn_mixed(mixed, note)
            out[mixed] = ABSENT
            only = (histograms > 0) & ~mixed
            return Piece(piece.lo, out, self._of_histograms(piece, only, note).cells)
        if kind == "floats":
            has_result = np.asarray(out.view(np.uint64) != ABSENT.view(np.uint64))
            for row in np.flatnonzero((mixed & has_result).any(axis=1)).tolist():
                note(row, "info", IGNORED_HISTOGRAMS)
            return Piece(piece.lo, out)
        if kind == "count":
            if piece.rolled is not None:
                floats = np.where(out.view(np.uint64) != ABSENT.view(np.uint64), out, 0.0)
            total = floats + histograms
            counts = np.where(total > 0, 1.0 if self._name == "present_over_time" else total, ABSENT)
            return Piece(piece.lo, counts)
        if kind == "edge":
            return self._edge_of_both(piece, out, floats, histograms)
        if kind == "last_two":
            return self._last_two_of_both(piece, out, note)
        result = self._of_histograms(piece, histograms > 0, note).values
        assert result is not None
        return Piece(piece.lo, np.where(histograms > 0, result, out))

    def _of_histograms(self, piece: RangePiece, which: BoolArray, note: Note) -> WindowResult:
        starts = self.ctx.options.start_timestamps
        window = self._child.window
        return window_histograms(self._name, piece, window, which, note, starts, self._reach())

    def _reach(self) -> Extended:
        return Extended(self._extended, self.ctx.lookback_ms) if self._extended else Extended()

    def _warn_mixed(self, mixed: BoolArray, note: Note) -> None:
        for row in np.flatnonzero(mixed.any(axis=1)).tolist():
            note(row, "warn", "encountered a mix of histograms and floats{for_metric}")

    def _edge_of_both(self, piece: RangePiece, out: F64Array, floats: I32Array, counts: I32Array) -> Piece:
        pool = piece.samples.histograms
        assert pool is not None
        window, samples = self._child.window, piece.samples
        last = "last" in self._name
        latest = latest_in(window, pool.row_offsets, pool.t_ms, len(out))
        index = latest if last else np.where(counts > 0, latest - counts + 1, -1)
        other = latest_in(window, samples.offsets, samples.t_ms, len(out))
        float_index = other if last else np.where(floats > 0, other - floats + 1, -1)
        histogram_ms = pool.t_ms[np.maximum(index, 0)]
        float_ms = samples.t_ms[np.maximum(float_index, 0)] if len(samples.t_ms) else histogram_ms
        wins = histogram_ms > float_ms if last else histogram_ms < float_ms
        use = (counts > 0) & ((floats == 0) | wins)
        if self._name.startswith("ts_of"):
            return Piece(piece.lo, np.where(use, histogram_ms / 1000.0, out))
        index = np.where(use, index, -1).astype(np.int32)
        return Piece(piece.lo, np.where(use, ABSENT, out), HistogramCells(index, pool))

    def _last_two_of_both(self, piece: RangePiece, out: F64Array, note: Note) -> Piece:
        """irate and idelta look at the last two samples of any kind; two of different kinds give nothing."""
        pool, samples, window = piece.samples.histograms, piece.samples, self._child.window
        assert pool is not None
        starts = window.ends_ms() - window.range_ms
        f1, f2 = last_two_times(samples.offsets, samples.t_ms, window, starts, len(out))
        h1, h2 = last_two_times(pool.row_offsets, pool.t_ms, window, starts, len(out))
        both_float = f2 > h1
        both_histogram = h2 > f1
        crossed = (
            ~both_float & ~both_histogram & (np.maximum(f1, h1) > starts) & (np.minimum(f1, h1) > starts)
        )
        self._warn_mixed(crossed, note)
        result = self._of_histograms(piece, both_histogram & (h2 > starts), note)
        return Piece(piece.lo, np.where(both_float, out, ABSENT), result.cells)

    def explain(self) -> Explain:
        """Function, arguments and child."""
        children = (self._child.explain(), *(arg.explain() for arg in self._args))
        return Explain("Window", f"{self._name} {self._extended}".strip(), children)


def latest_in(window: WindowGrid, offsets: I64Array, t_ms: I64Array, rows: int) -> I32Array:
    """i32[R, K]: index of the last sample of each window, -1 if none."""
    out = np.empty((rows, window.steps), dtype=np.int32)
    flat = np.ascontiguousarray
    scan_kernels.latest_index(
        flat(offsets), flat(t_ms), window.first_end_ms, window.step_ms, window.range_ms, out
    )
    return out


def last_two_times(
    offsets: I64Array,
    t_ms: I64Array,
    window: WindowGrid,
    starts_ms: I64Array,
    rows: int,
) -> tuple[I64Array, I64Array]:
    """i64[R, K] twice: times of the last and the last but one sample of each window; far past for none."""
    never = np.int64(-(1 << 62))
    if not len(t_ms):
        missing = np.full((rows, window.steps), never)
        return missing, missing
    last = latest_in(window, offsets, t_ms, rows)
    before = last - 1
    exists = before >= np.asarray(offsets)[:-1, None]
    first_ms = np.where(last >= 0, t_ms[np.maximum(last, 0)], never)
    second_ms = np.where((last >= 0) & exists, t_ms[np.maximum(before, 0)], never)
    return first_ms, np.where(second_ms > starts_ms, second_ms, never)


def window_counts(samples: SampleBatch, window: WindowGrid) -> tuple[I32Array, I32Array]:
    """i32[R, K] twice: floats and histograms in each window."""
    counts = []
    pool = samples.histograms
    columns = [(samples.offsets, samples.t_ms)]
    columns.append((samples.offsets * 0, samples.t_ms[:0]) if pool is None else (pool.row_offsets, pool.t_ms))
    for offsets, t_ms in columns:
        out = np.empty((len(samples), window.steps), dtype=np.int32)
        scan_kernels.window_counts(
            np.ascontiguousarray(offsets),
            np.ascontiguousarray(t_ms),
            window.first_end_ms,
            window.step_ms,
            window.range_ms,
            out,
        )
        counts.append(out)
    return counts[0], counts[1]


def warn_of_quantiles(q: F64Array, warn: Callable[[str, Position], None], pos: Position) -> None:
    """The warning for each quantile outside of [0, 1] or NaN."""
    from promql.numberformat import format_g

    for bad in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
        warn(f"quantile value should be between 0 and 1, got {format_g(bad)}", pos)


def build_window(call: Call, builder: Builder) -> VectorOperator:
    """A call of a window function; refuses anchored and smoothed where they have no meaning."""
    function = WINDOW_FUNCTIONS[call.function]
    source = call.args[function.range_arg]
    child = builder.range(source)
    scalars = [builder.scalar(arg) for i, arg in enumerate(call.args) if i != function.range_arg]
    extended = ""
    if isinstance(source, MatrixSelector):
        for modifier, allowed in (("anchored", ANCHORED_FUNCTIONS), ("smoothed", SMOOTHED_FUNCTIONS)):
            if getattr(source.selector, modifier):
                if call.function not in allowed:
                    raise ExecutionError(
                        f"{modifier} modifier can only be used with: {', '.join(allowed)}"
                        f" - not with {call.function}"
                    )
                extended = modifier
    return checked(WindowOperator(call, child, scalars, extended), whole_range=True)


FUNCTIONS: dict[str, FunctionBuilder] = dict.fromkeys(WINDOW_FUNCTIONS, build_window)
