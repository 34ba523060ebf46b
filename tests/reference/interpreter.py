"""A slow, obvious PromQL interpreter: Python objects, one sample at a time, no sharing, no vectors.

It exists to be compared with the engine. It knows floats and native histograms, all operators, aggregations
and functions; annotations are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import re2

from promql.ast import (
    AggregateExpr,
    AtModifier,
    BinaryExpr,
    Call,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from promql.duration import evaluate_duration
from promql.functions import FUNCTIONS
from promql.types import type_of
from tests.reference.histograms import FloatHistogram
from tests.reference.interpreteraggregate import (
    Element,
    aggregate_step,
    count_values_step,
    group_of,
    keeps_name,
    match_step,
    operate,
    pick_step,
    set_operation,
)
from tests.reference.interpretercells import (
    absent_labels,
    bucket_results,
    elements_at,
    elementwise,
    expand,
    extreme_of,
    negated,
    place,
    text_of,
    without_hint,
)
from tests.reference.interpreterextended import modifier_of, over_extended, smoothed_cell
from tests.reference.interpreterfunctions import DATES, HISTOGRAM_NUMBERS, over_window
from tests.reference.interpreterinfo import asked, info_selector, info_step, wanted_identities
from tests.reference.interpreterstarts import KNOW_STARTS, over_started
from tests.reference.promqlvalues import (
    ARITHMETIC,
    COMPARISONS,
    METADATA,
    STALE,
    Cell,
    EvaluationError,
    Options,
    RangeRow,
    Row,
    Sample,
    Series,
    Times,
    Unspecified,
    dropped,
    merge_rows,
    present,
    without_metadata,
)
from tsdb.labels import METRIC_NAME, Labels

KEEPS_NAME = ("last_over_time", "first_over_time")
Steps = list[float]


class Interpreter:
    """Evaluates expressions over series held in lists."""

    def __init__(self, series: Sequence[Series], options: Options | None = None) -> None:
        self.series = series
        self.options = options or Options()
        self.query = Times(0, 0, 1)

    def evaluate(self, expr: Expr, times: Times) -> list[Row]:
        """Rows of a query, names dropped, rows without samples left out."""
        self.query = times
        if type_of(expr) is ValueType.SCALAR:
            return [Row(Labels(), list(self.scalar(expr, times)))]
        rows = present(self.vector(expr, times))
        finished = [Row(without_metadata(r.labels) if r.drop else r.labels, r.cells) for r in rows]
        return merge_rows(finished)

    # Selectors

    def _matching(self, selector: VectorSelector) -> list[Series]:
        return [s for s in self.series if all(m.matches(s.labels.get(m.name)) for m in selector.matchers)]

    def _read_time(self, node: VectorSelector | SubqueryExpr, t_ms: int) -> int:
        if node.at_modifier is AtModifier.START:
            t_ms = self.query.start_ms
        elif node.at_modifier is AtModifier.END:
            t_ms = self.query.all()[-1]
        elif node.at_ms is not None:
            t_ms = node.at_ms
        if node.offset_expr is not None:
            return t_ms - self._duration(node.offset_expr, negative_allowed=True)
        return t_ms - node.offset_ms

    def _duration(self, expr: DurationExpr, negative_allowed: bool = False) -> int:
        """Durations have a test of their own, tests/promql/test_duration.py."""
        span = self.query.all()[-1] - self.query.start_ms
        return evaluate_duration(expr, self.query.step_ms, span, negative_allowed=negative_allowed)

    def _select(self, selector: VectorSelector, times: Times) -> list[tuple[Series, list[Sample | None]]]:
        out = []
        for series in self._matching(selector):
            found: list[Sample | None] = []
            for t in times.all():
                at = self._read_time(selector, t)
                latest = None
                for sample in series.samples:
                    if at - self.options.lookback_ms < sample.t_ms <= at:
                        latest = sample
                found.append(None if latest is None or latest.value is STALE else latest)
            out.append((series, found))
        return out

    def _smoothed(self, selector: VectorSelector, times: Times) -> list[Row]:
        moments = [self._read_time(selector, t) for t in times.all()]
        rows = []
        for series in self._matching(selector):
            kept = [s for s in series.samples if s.value is not STALE]
            cells = [smoothed_cell(kept, at, self.options.lookback_ms) for at in moments]
            rows.append(Row(series.labels, cells))
        return rows

    def _ranges(self, expr: Expr, times: Times) -> tuple[list[RangeRow], list[tuple[int, int]]]:
        """Samples of a range vector, and the windows (lo, hi] of the steps."""
        while isinstance(expr, ParenExpr):
            expr = expr.expr
        if isinstance(expr, MatrixSelector):
            span = expr.range_ms if expr.range_expr is None else self._duration(expr.range_expr)
            ends = [self._read_time(expr.selector, t) for t in times.all()]
            rows = []
            for series in self._matching(expr.selector):
                kept = [s for s in series.samples if s.value is not STALE]
                rows.append(RangeRow(series.labels, kept))
            return rows, [(end - span, end) for end in ends]
        assert isinstance(expr, SubqueryExpr)
        ends = [self._read_time(expr, t) for t in times.all()]
        span = expr.range_ms if expr.range_expr is None else self._duration(expr.range_expr)
        step = expr.step_ms if expr.step_expr is None else self._duration(expr.step_expr)
        step = step or self.options.subquery_step_ms
        first = (min(ends) - span) // step * step + step
        count = max(0, (max(ends) - first) // step + 1)
        rows = []
        if count:
            grid = Times(first, step, count)
            for row in self.vector(expr.expr, grid):
                samples = [
                    Sample(t, without_hint(cell))
                    for t, cell in zip(grid.all(), row.cells, strict=True)
                    if cell is not None
                ]
                rows.append(RangeRow(row.labels, samples, row.drop))
        return rows, [(end - span, end) for end in ends]

    # Dispatch

    def scalar(self, expr: Expr, times: Times) -> Steps:
        """A scalar at every step."""
        if isinstance(expr, ParenExpr):
            return self.scalar(expr.expr, times)
        if isinstance(expr, NumberLiteral):
            return [expr.value] * times.steps
        if isinstance(expr, UnaryExpr):
            values = self.scalar(expr.expr, times)
            return [-value for value in values] if expr.op == "-" else values
        if isinstance(expr, BinaryExpr):
            left, right = self.scalar(expr.lhs, times), self.scalar(expr.rhs, times)
            if expr.op in ARITHMETIC:
                return [ARITHMETIC[expr.op](x, y) for x, y in zip(left, right, strict=True)]
            return [float(COMPARISONS[expr.op](x, y)) for x, y in zip(left, right, strict=True)]
        assert isinstance(expr, Call)
        if expr.function == "time":
            return [t / 1000 for t in times.all()]
        if expr.function == "pi":
            return [math.pi] * times.steps
        if expr.function in ("start", "end", "step", "range"):
            first, last = self.query.start_ms, self.query.all()[-1]
            numbers = {"start": first, "end": last, "step": self.query.step_ms, "range": last - first}
            return [numbers[expr.function] / 1000] * times.steps
        if expr.function in ("min_of", "max_of"):
            pairs = zip(*(self.scalar(arg, times) for arg in expr.args), strict=True)
            return [extreme_of(x, y, expr.function) for x, y in pairs]
        assert expr.function == "scalar", expr.function
        rows = self.vector(expr.args[0], times)
        out = []
        for k in range(times.steps):
            floats = [row.cells[k] for row in rows if isinstance(row.cells[k], float)]
            out.append(floats[0] if len(floats) == 1 else math.nan)
        return [value for value in out if isinstance(value, float)]

    def vector(self, expr: Expr, times: Times) -> list[Row]:
        """An instant vector at every step; a row may be empty."""
        if isinstance(expr, ParenExpr):
            return self.vector(expr.expr, times)
        if isinstance(expr, VectorSelector) and expr.smoothed:
            return self._smoothed(expr, times)
        if isinstance(expr, VectorSelector):
            rows = []
            for series, found in self._select(expr, times):
                cells = [None if s is None else s.value for s in found]
                rows.append(Row(series.labels, cells))
            return rows
        if isinstance(expr, UnaryExpr):
            rows = self.vector(expr.expr, times)
            if expr.op == "+":
                return rows
            return merge_rows(self._mapped(rows, negated))
        if isinstance(expr, AggregateExpr):
            return self._aggregate(expr, times)
        if isinstance(expr, BinaryExpr):
            return self._binary(expr, times)
        assert isinstance(expr, Call)
        return self._call(expr, times)

    def _mapped(self, rows: Sequence[Row], function) -> list[Row]:  # type: ignore[no-untyped-def]
        delayed = self.options.delayed_names
        return [
            dropped(row, [None if c is None else function(c) for c in row.cells], delayed) for row in rows
        ]

    # Aggregations

    def _aggregate(self, expr: AggregateExpr, times: Times) -> list[Row]:
        rows = self.vector(expr.expr, times)
        params: Steps = [0.0] * times.steps
        label = ""
        if expr.op == "count_values":
            assert expr.param is not None
            label = text_of(expr.param)
        elif expr.param is not None:
            params = self.scalar(expr.param, times)
        if expr.op in ("topk", "bottomk", "limitk", "limit_ratio"):
            kept = [Row(row.labels, [None] * times.steps, row.drop) for row in rows]
            for k in range(times.steps):
                here = [i for i, row in enumerate(rows) if row.cells[k] is not None]
                for number in pick_step(expr, elements_at(rows, k), params[k]):
                    kept[here[number]].cells[k] = rows[here[number]].cells[k]
            return kept
        gathered: dict[Labels, Row] = {}
        for k in range(times.steps):
            elements = elements_at(rows, k)
            if expr.op == "count_values":
                made = count_values_step(expr, elements, label)
            else:
                made = aggregate_step(expr, elements, params[k])
            place(gathered, made, k, times.steps)
        for row in gathered.values():
            if expr.op != "count_values":
                members = [r for r in present(rows) if group_of(expr, r.labels) == row.labels]
                row.drop = any(r.drop for r in members)
        return list(gathered.values())

    # Binary operators

    def _binary(self, expr: BinaryExpr, times: Times) -> list[Row]:
        if type_of(expr.lhs) is ValueType.SCALAR or type_of(expr.rhs) is ValueType.SCALAR:
            return self._with_scalar(expr, times)
        left, right = self.vector(expr.lhs, times), self.vector(expr.rhs, times)
        if expr.op in ("and", "or", "unless"):
            return set_operation(expr, left, right, times.steps)
        gathered: dict[Labels, Row] = {}
        for k in range(times.steps):
            made = match_step(expr, elements_at(left, k), elements_at(right, k), self.options.delayed_names)
            place(gathered, made, k, times.steps)
        return list(gathered.values())

    def _with_scalar(self, expr: BinaryExpr, times: Times) -> list[Row]:
        swapped = type_of(expr.lhs) is ValueType.SCALAR
        rows = self.vector(expr.rhs if swapped else expr.lhs, times)
        numbers = self.scalar(expr.lhs if swapped else expr.rhs, times)
        out = []
        for row in rows:
            cells: list[Cell] = []
            for cell, number in zip(row.cells, numbers, strict=True):
                if cell is None:
                    cells.append(None)
                    continue
                result, holds = operate(expr.op, number, cell) if swapped else operate(expr.op, cell, number)
                if expr.op in COMPARISONS and result is not None:
                    kept = cell if holds else None
                    result = float(holds) if expr.return_bool else kept
                cells.append(result)
            if keeps_name(expr):
                out.append(Row(row.labels, cells, row.drop))
            else:
                out.append(dropped(row, cells, self.options.delayed_names))
        return merge_rows(out)

    # Functions

    def _call(self, expr: Call, times: Times) -> list[Row]:
        name = expr.function
        delayed = self.options.delayed_names
        if FUNCTIONS[name].arg_types[:1] == (ValueType.MATRIX,) or name == "quantile_over_time":
            return self._over_range(expr, times)
        if name == "vector":
            return [Row(Labels(), list(self.scalar(expr.args[0], times)))]
        if name in ("timestamp", "start_timestamp"):
            return self._timestamp(expr, times)
        if name == "info":
            return self._info(expr, times)
        if name in DATES and not expr.args:
            return [Row(Labels(), [DATES[name](t / 1000) for t in times.all()])]
        if name == "absent":
            return self._absent(self.vector(expr.args[0], times), expr.args[0], times)
        if name in ("histogram_quantile", "histogram_quantiles", "histogram_fraction"):
            return self._bucket_function(expr, times)
        rows = self.vector(expr.args[0], times)
        if name in ("label_replace", "label_join"):
            return self._relabel(expr, rows)
        if name in ("sort", "sort_desc"):
            return [
                replace(row, cells=[c if isinstance(c, float) else None for c in row.cells]) for row in rows
            ]
        if name in ("sort_by_label", "sort_by_label_desc"):
            return rows
        if name in HISTOGRAM_NUMBERS:
            number = HISTOGRAM_NUMBERS[name]
            cells = [[number(c) if isinstance(c, FloatHistogram) else None for c in r.cells] for r in rows]
            return merge_rows(dropped(row, list(new), delayed) for row, new in zip(rows, cells, strict=True))
        args = [self.scalar(arg, times) for arg in expr.args[1:]]
        out = []
        for row in rows:
            made = [
                elementwise(name, cell, [arg[k] for arg in args]) if isinstance(cell, float) else None
                for k, cell in enumerate(row.cells)
            ]
            out.append(dropped(row, list(made), delayed))
        return out if delayed else merge_rows(out)

    def _info(self, expr: Call, times: Times) -> list[Row]:
        rows = self.vector(expr.args[0], times)
        second = expr.args[1] if len(expr.args) > 1 else None
        wanted = asked(second.matchers if isinstance(second, VectorSelector) else ())
        identities = wanted_identities(wanted, present(rows))
        selector = replace(info_selector(expr.args[0]), matchers=(*wanted.names, *wanted.data))
        infos = [
            (series.labels, found)
            for series, found in self._select(selector, times)
            if identities and all(series.labels.get(name) in held for name, held in identities.items())
        ]
        gathered: dict[Labels, Row] = {}
        for k in range(times.steps):
            here = [(labels, sample) for labels, found in infos if (sample := found[k]) is not None]
            if any(not isinstance(sample.value, float) for _, sample in here):
                raise EvaluationError("info sample should be float")
            place(gathered, info_step(wanted, elements_at(rows, k), here), k, times.steps)
        return list(gathered.values())

    @staticmethod
    def _time_of(sample: Sample, function: str) -> float:
        if function == "timestamp":
            return sample.t_ms / 1000
        return sample.start_ms / 1000

    def _timestamp(self, expr: Call, times: Times) -> list[Row]:
        inner = expr.args[0]
        while isinstance(inner, ParenExpr):
            inner = inner.expr
        delayed = self.options.delayed_names
        if expr.function == "start_timestamp" and not self.options.start_timestamps:
            self.vector(inner, times)  # for its errors
            return []
        if isinstance(inner, VectorSelector):
            rows = [
                Row(s.labels, [None if f is None else self._time_of(f, expr.function) for f in found])
                for s, found in self._select(inner, times)
            ]
        elif expr.function == "start_timestamp":
            self.vector(inner, times)  # for its errors
            return []
        else:
            rows = self.vector(inner, times)
            for row in rows:
                pairs = zip(row.cells, times.all(), strict=True)
                row.cells = [None if c is None else t / 1000 for c, t in pairs]
        return merge_rows(dropped(row, row.cells, delayed) for row in rows)

    def _over_range(self, expr: Call, times: Times) -> list[Row]:
        name = expr.function
        at = 1 if name == "quantile_over_time" else 0
        modifier = modifier_of(expr.args[at], name)
        rows, windows = self._ranges(expr.args[at], times)
        scalars = [self.scalar(arg, times) for i, arg in enumerate(expr.args) if i != at]
        out = []
        for row in rows:
            cells: list[Cell] = []
            for k, (lo, hi) in enumerate(windows):
                if modifier:
                    known = self.options.start_timestamps and any(s.start_ms for s in row.samples)
                    if name == "resets" and known:
                        raise Unspecified("resets of an anchored range with start timestamps")
                    lookback = self.options.lookback_ms
                    cells.append(over_extended(name, row.samples, lo, hi, lookback, modifier))
                    continue
                window = [s for s in row.samples if lo < s.t_ms <= hi]
                args = [values[k] for values in scalars]
                if self.options.start_timestamps and name in KNOW_STARTS:
                    cells.append(over_started(name, window, lo, hi) if window else None)
                    continue
                eval_ms = times.all()[k]
                cells.append(over_window(name, window, lo, hi, eval_ms, args) if window else None)
            if name in KEEPS_NAME:
                out.append(Row(row.labels, cells, row.drop))
            else:
                named = Row(row.labels, cells, row.drop)
                out.append(dropped(named, cells, self.options.delayed_names))
        if name == "absent_over_time":
            return self._absent(out, expr.args[0], times)
        if not self.options.delayed_names and name not in KEEPS_NAME:
            seen: set[Labels] = set()
            for row in present(out):
                if row.labels in seen:
                    raise EvaluationError("vector cannot contain metrics with the same labelset")
                seen.add(row.labels)
        return out

    def _absent(self, rows: Sequence[Row], arg: Expr, times: Times) -> list[Row]:
        labels = absent_labels(arg)
        cells: list[Cell] = [
            None if any(row.cells[k] is not None for row in rows) else 1.0 for k in range(times.steps)
        ]
        return [Row(labels, cells)]

    def _relabel(self, expr: Call, rows: Sequence[Row]) -> list[Row]:
        texts = [text_of(arg) for arg in expr.args[1:]]
        out = []
        for row in rows:
            labels, drop = row.labels, row.drop
            if expr.function == "label_join":
                value = texts[1].join(labels.get(name) for name in texts[2:])
                labels = labels.with_label(texts[0], value)
                drop = drop and texts[0] != METRIC_NAME
            else:
                target, template, source, pattern = texts
                found = re2.compile(f"^(?s:{pattern})$").match(labels.get(source))
                if found is not None:
                    labels = labels.with_label(target, expand(template, found))
                    drop = drop and target != METRIC_NAME
            out.append(Row(labels, list(row.cells), drop))
        return merge_rows(out)

    def _bucket_function(self, expr: Call, times: Times) -> list[Row]:
        from promql.operators.classicquantile import parse_bound

        name = expr.function
        vector_at = {"histogram_quantile": 1, "histogram_fraction": 2, "histogram_quantiles": 0}[name]
        rows = self.vector(expr.args[vector_at], times)
        first = 2 if name == "histogram_quantiles" else 0
        last = len(expr.args) if name == "histogram_quantiles" else vector_at
        scalars = [self.scalar(arg, times) for arg in expr.args[first:last]]
        gathered: dict[Labels, Row] = {}
        for k in range(times.steps):
            groups: dict[Labels, list[tuple[float, float]]] = {}
            natives: dict[Labels, FloatHistogram] = {}
            for row in rows:
                cell = row.cells[k]
                if isinstance(cell, FloatHistogram):
                    if row.labels in natives:
                        raise EvaluationError("vector cannot contain metrics with the same labelset")
                    natives[row.labels] = cell
                elif cell is not None:
                    bound = parse_bound(row.labels.get("le"))
                    if bound is not None:
                        groups.setdefault(row.labels.without("le"), []).append((bound, cell))
            both = set(groups) & set(natives)
            made: list[Element] = []
            for labels in [*groups, *natives]:
                if labels in both:
                    continue
                numbers = [values[k] for values in scalars]
                for extra, value in bucket_results(name, groups.get(labels), natives.get(labels), numbers):
                    named = labels
                    if extra is not None:
                        named = labels.with_label(text_of(expr.args[1]), extra)
                    if not self.options.delayed_names:
                        named = without_metadata(named)
                    made.append((named, value, self.options.delayed_names))
            place(gathered, made, k, times.steps)
        return list(gathered.values())


__all__ = ["METADATA", "Interpreter"]
