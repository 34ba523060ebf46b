"""info(): adds labels of info metrics to the series that share their instance and job.

The info series are looked up as of the time at which the argument's first selector reads: its @ and offsets,
and those of the subqueries around it, apply to them too (prometheus-surface.md 2.10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.ast import (
    AtModifier,
    Call,
    DurationExpr,
    Expr,
    NumberLiteral,
    ParenExpr,
    SubqueryExpr,
    VectorSelector,
)
from promql.engineerrors import ExecutionError
from promql.matrix import ABSENT, ABSENT_BITS, HistogramCells
from promql.operators.collect import Collected, collect
from promql.operators.merge import merge_equal
from promql.operators.operator import Builder, Explain, FunctionBuilder, Piece, Series, VectorOperator
from promql.visit import children
from tsdb.labels import METRIC_NAME, Labels, Matcher, MatchType
from tsdb.serieslabels import SeriesLabels

IDENTIFYING_LABELS = ("instance", "job")
DEFAULT_INFO_METRIC = "target_info"
ANY_INFO_METRIC = ".+_info"
PUSHED_VALUES_MAX = 1000
"""Identifying values sent to the store as one regular expression; with more, rows are filtered here only."""

_SPECIAL = str.maketrans({char: "\\" + char for char in r"\.+*?()|[]{}^$"})

I64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReadTime:
    """When a selector reads, seen from the evaluation time: an @, then offsets taken off."""

    at_ms: int | None = None
    at_modifier: AtModifier | None = None
    offset_ms: int = 0
    offset_expr: DurationExpr | None = None

    def then(self, node: VectorSelector | SubqueryExpr) -> ReadTime:
        """The time after one more @ (which forgets what came before) and offset."""
        pinned = node.at_ms is not None or node.at_modifier is not None
        before = ReadTime(node.at_ms, node.at_modifier) if pinned else self
        expr = before.offset_expr
        if node.offset_expr is not None:
            expr = node.offset_expr if expr is None else DurationExpr(op="+", lhs=expr, rhs=node.offset_expr)
        return ReadTime(before.at_ms, before.at_modifier, before.offset_ms + node.offset_ms, expr)

    def selector(self, matchers: Sequence[Matcher]) -> VectorSelector:
        """An instant selector that reads at this time."""
        expr, literal_ms = self.offset_expr, self.offset_ms
        if expr is not None and literal_ms:
            expr = DurationExpr(op="+", lhs=expr, rhs=NumberLiteral(value=literal_ms / 1000))
            literal_ms = 0
        return VectorSelector(
            name="",
            matchers=tuple(matchers),
            offset_ms=literal_ms,
            offset_expr=expr,
            at_ms=self.at_ms,
            at_modifier=self.at_modifier,
        )


def read_time(expr: Expr, outer: ReadTime = ReadTime()) -> ReadTime | None:
    """When the first selector of an expression reads; None if it has none."""
    stack = [(expr, outer)]
    while stack:
        node, around = stack.pop()
        if isinstance(node, VectorSelector):
            return around.then(node)
        if isinstance(node, SubqueryExpr):
            around = around.then(node)
        stack.extend((child, around) for child in reversed(children(node)))
    return None


def name_matchers(matchers: Sequence[Matcher]) -> list[Matcher]:
    """The conditions on the info metric's name: those given, with a positive one added where none is."""
    given = [m for m in matchers if m.name == METRIC_NAME]
    if any(m.type in (MatchType.EQUAL, MatchType.REGEXP) for m in given):
        return given
    if given:
        return [Matcher(MatchType.REGEXP, METRIC_NAME, ANY_INFO_METRIC), *given]
    return [Matcher(MatchType.EQUAL, METRIC_NAME, DEFAULT_INFO_METRIC)]


class Info(VectorOperator):
    """Evaluates its argument whole: which info series matter depends on its label values."""

    def __init__(self, builder: Builder, base: Expr, matchers: Sequence[Matcher]) -> None:
        super().__init__(builder.ctx)
        self._builder = builder
        self._child = builder.vector(base)
        self._time = read_time(base) or ReadTime()
        self._names = name_matchers(matchers)
        self._data = [m for m in matchers if m.name != METRIC_NAME]
        self._rows: Collected | None = None

    def _announce(self) -> Series:
        base = collect(self._child)
        ignored = self._ignored(base.series.labels)
        chosen = self._chosen_info(base.series.labels, ignored)
        self._rows = merge_equal(self._combined(base, ignored, chosen))
        return self._rows.series

    def _ignored(self, labels: SeriesLabels) -> BoolArray:
        """bool[S]: base series that are info series themselves."""
        distinct, place = np.unique(labels.column(METRIC_NAME), return_inverse=True)
        texts = labels.symbols.texts(distinct.tolist())
        hits = np.array([all(m.matches(text) for m in self._names) for text in texts], dtype=np.bool_)
        return hits[place] if len(hits) else np.zeros(len(labels), dtype=np.bool_)

    def _chosen_info(self, labels: SeriesLabels, ignored: BoolArray) -> _ChosenInfo:
        wanted = {name: np.unique(labels.column(name)[~ignored]) for name in IDENTIFYING_LABELS}
        wanted = {name: ids[ids != 0] for name, ids in wanted.items()}
        wanted = {name: ids for name, ids in wanted.items() if len(ids)}
        if not wanted:
            return _ChosenInfo({}, None)
        pushed = [*self._names, *self._data]
        for name, ids in wanted.items():
            if len(ids) <= PUSHED_VALUES_MAX:
                texts = [text.translate(_SPECIAL) for text in labels.symbols.texts(ids.tolist())]
                pushed.append(Matcher(MatchType.REGEXP, name, "|".join(texts)))
        selector = self._time.selector(pushed)
        rows = collect(self._builder.selector(selector))
        if rows.histogram_rows().any():
            raise ExecutionError("info sample should be float")
        times = collect(self._builder.selector(selector, "time")).values
        found = rows.series.labels
        eligible = np.ones(len(found), dtype=np.bool_)
        for name, ids in wanted.items():
            eligible &= np.isin(found.column(name), ids)
        return _choose(found, times, np.flatnonzero(eligible))

    def _combined(self, base: Collected, ignored: BoolArray, chosen: _ChosenInfo) -> Collected:
        labels = base.series.labels
        keys = np.stack([labels.column(name) for name in IDENTIFYING_LABELS], axis=1)
        steps = base.values.shape[1]
        everywhere = np.ones(steps, dtype=np.bool_)
        optional = all(m.matches_empty for m in self._data)
        rows: list[int] = []
        masks: list[BoolArray] = []
        made: list[Labels] = []
        cache: dict[tuple[int, ...], list[tuple[BoolArray, list[Labels]]]] = {}
        sets = labels.rows()
        present = _present(base)
        for i, key in enumerate(map(tuple, keys.tolist())):
            if ignored[i]:
                rows.append(i)
                masks.append(everywhere)
                made.append(sets[i])
                continue
            if key not in cache:
                cache[key] = chosen.combinations(key, steps)
            for mask, infos in cache[key]:
                # Info series are joined to samples: where the base has none, they may disagree.
                here = mask & present[i]
                if (infos or optional) and here.any():
                    rows.append(i)
                    masks.append(here)
                    made.append(self._enriched(sets[i], infos) if infos else sets[i])
        return _masked(base, rows, masks, SeriesLabels.from_labels(made, labels.symbols))

    def _enriched(self, labels: Labels, infos: Sequence[Labels]) -> Labels:
        """Base labels win; two info metrics that disagree are an error."""
        allowed = {m.name for m in self._data}
        base = labels.to_dict()
        added: dict[str, str] = {}
        for info in infos:
            for name, value in info:
                if name == METRIC_NAME or (allowed and name not in allowed) or name in base:
                    continue
                if added.setdefault(name, value) != value:
                    raise ExecutionError(f"conflicting label: {name}")
        return Labels.from_dict({**base, **added})

    def batches(self) -> Iterator[Piece]:
        """All rows in one piece."""
        self.series()
        assert self._rows is not None
        yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """Conditions on the info series, and the argument's plan."""
        shown = ",".join(str(m) for m in (*self._names, *self._data))
        return Explain("Info", f"{{{shown}}}", (self._child.explain(),))


@dataclass(frozen=True, slots=True)
class _ChosenInfo:
    """For each (instance, job): the info series in force, one row a metric name, i64[N, K], -1 for none."""

    by_key: Mapping[tuple[int, ...], I64Array]
    labels: SeriesLabels | None

    def combinations(self, key: tuple[int, ...], steps: int) -> list[tuple[BoolArray, list[Labels]]]:
        """Steps with equal info series, and the series' labels."""
        chosen = self.by_key.get(key)
        if chosen is None or self.labels is None:
            return [(np.ones(steps, dtype=np.bool_), [])]
        columns, place = np.unique(chosen, axis=1, return_inverse=True)
        out = []
        for c in range(columns.shape[1]):
            infos = [self.labels.row(int(row)) for row in columns[:, c] if row >= 0]
            out.append((np.asarray(place.ravel() == c), infos))
        return out


def _choose(labels: SeriesLabels, times: np.ndarray, rows: I64Array) -> _ChosenInfo:
    """Of info series with one name and one identity, the newest sample wins at each step."""
    names = labels.column(METRIC_NAME)
    keys = np.stack([labels.column(name) for name in IDENTIFYING_LABELS], axis=1)
    best: dict[tuple[int, ...], dict[int, tuple[I64Array, np.ndarray]]] = {}
    for row in rows.tolist():
        present = times[row].view(np.uint64) != np.uint64(ABSENT_BITS)
        t = np.where(present, times[row], -np.inf)
        held = best.setdefault(tuple(keys[row].tolist()), {})
        name = int(names[row])
        if name not in held:
            held[name] = np.where(present, row, -1), t
            continue
        chosen, newest = held[name]
        tie = present & (t == newest)
        if tie.any():
            k = int(np.flatnonzero(tie)[0])
            raise ExecutionError(
                f"found duplicate series for info metric: existing {labels.row(int(chosen[k]))}"
                f" @ {int(newest[k] * 1000)}, new {labels.row(row)} @ {int(t[k] * 1000)}"
            )
        held[name] = np.where(t > newest, row, chosen), np.maximum(t, newest)
    by_key = {key: np.stack([chosen for chosen, _ in held.values()]) for key, held in best.items()}
    return _ChosenInfo(by_key, labels)


def _present(base: Collected) -> BoolArray:
    """bool[S, K]: where the base has a sample."""
    floats = np.asarray(base.values.view(np.uint64) != np.uint64(ABSENT_BITS))
    return floats if base.histograms is None else floats | (base.histograms.index >= 0)


def _masked(base: Collected, rows: list[int], masks: list[BoolArray], labels: SeriesLabels) -> Collected:
    """Rows of the base (some more than once) at some of their steps, under new labels."""
    at = np.array(rows, dtype=np.int64)
    mask = np.stack(masks) if masks else np.zeros((0, base.values.shape[1]), dtype=np.bool_)
    values = np.where(mask, base.values[at], ABSENT)
    cells = base.histograms
    if cells is not None:
        cells = HistogramCells(np.where(mask, cells.index[at], np.int32(-1)), cells.pool)
    return Collected(Series(labels, base.series.drop_name[at]), values, cells)


def _info(call: Call, builder: Builder) -> VectorOperator:
    matchers: Sequence[Matcher] = ()
    if len(call.args) > 1:
        selector = call.args[1]
        while isinstance(selector, ParenExpr):
            selector = selector.expr
        assert isinstance(selector, VectorSelector)
        matchers = selector.matchers
    return Info(builder, call.args[0], matchers)


FUNCTIONS: dict[str, FunctionBuilder] = {"info": _info}
