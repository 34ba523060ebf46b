"""label_replace and label_join on distinct symbol ids: a label with few values costs few regex runs."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import re2

from promql.ast import Call
from promql.engineerrors import ExecutionError
from promql.looks import look
from promql.operators.collect import Collected, collect
from promql.operators.labelcolumns import with_label
from promql.operators.merge import merge_equal
from promql.operators.operator import Builder, Explain, FunctionBuilder, Piece, Series, VectorOperator
from tsdb.labels import METRIC_NAME
from tsdb.serieslabels import SeriesLabels

U32Array = npt.NDArray[np.uint32]
BoolArray = npt.NDArray[np.bool_]

RUN_TEXTS = 1 << 12
"""Label values that are made between two looks at the query's flag: 1 to 5 us each."""

_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)


class Relabel(VectorOperator):
    """Sets one label of every row of its child; rows that become equal are merged where they can be."""

    def __init__(self, call: Call, child: VectorOperator, target: str) -> None:
        super().__init__(child.ctx)
        self._call = call
        self._child = child
        self._target = target
        self._rows: Collected | None = None

    @abstractmethod
    def _values(self, labels: SeriesLabels) -> tuple[U32Array, BoolArray]:
        """Value ids of the label u32[S], and which rows it is written to bool[S]."""

    def _announce(self) -> Series:
        series = self._child.series()
        values, written = self._values(series.labels)
        look()
        labels = with_label(series.labels, self._target, values) if written.any() else series.labels
        drop = series.drop_name
        if self._target == METRIC_NAME:
            drop = drop & ~written
        relabelled = Series(labels, drop)
        look()
        _, first = labels.group_first_rows()
        if len(first) == len(labels):
            return relabelled
        rows = collect(self._child)
        self._rows = merge_equal(Collected(relabelled, rows.values, rows.histograms))
        return self._rows.series

    def batches(self) -> Iterator[Piece]:
        """The child's pieces, or the merged rows."""
        self.series()
        if self._rows is None:
            yield from self._child.batches()
        else:
            yield Piece(0, self._rows.values, self._rows.histograms)

    def explain(self) -> Explain:
        """Function, label and child."""
        return Explain("Relabel", f"{self._call.function} {self._target}", (self._child.explain(),))


class LabelReplace(Relabel):
    """label_replace(v, dst, replacement, src, regex)."""

    def __init__(
        self, call: Call, child: VectorOperator, target: str, replacement: str, source: str, pattern: str
    ) -> None:
        super().__init__(call, child, target)
        self._source = source
        self._replacement = replacement
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern = re2.compile(f"^(?s:{pattern})$", options)
        except re2.error as error:
            raise ExecutionError(f"invalid regular expression in label_replace(): {pattern}") from error

    def _values(self, labels: SeriesLabels) -> tuple[U32Array, BoolArray]:
        source, current = labels.column(self._source), labels.column(self._target)
        distinct, place = np.unique(source, return_inverse=True)
        matched = np.zeros(len(distinct), dtype=np.bool_)
        made = np.zeros(len(distinct), dtype=np.uint32)
        for i, text in enumerate(labels.symbols.texts(distinct.tolist())):
            if not i % RUN_TEXTS:
                look()
            match = self._pattern.fullmatch(text)
            if match is not None:
                matched[i] = True
                made[i] = self.ctx.symbols.intern(expand(self._replacement, match))
        written = matched[place]
        return np.where(written, made[place], current), written


class LabelJoin(Relabel):
    """label_join(v, dst, separator, src...)."""

    def __init__(
        self, call: Call, child: VectorOperator, target: str, separator: str, sources: list[str]
    ) -> None:
        super().__init__(call, child, target)
        self._separator = separator
        self._sources = sources

    def _values(self, labels: SeriesLabels) -> tuple[U32Array, BoolArray]:
        written = np.ones(len(labels), dtype=np.bool_)
        if not self._sources:
            return np.zeros(len(labels), dtype=np.uint32), written
        columns = np.stack([labels.column(name) for name in self._sources])
        distinct, place = np.unique(columns, axis=1, return_inverse=True)
        joined = []
        for at in range(0, distinct.shape[1], RUN_TEXTS):
            look()
            columns = distinct[:, at : at + RUN_TEXTS]
            joined += [self._separator.join(labels.symbols.texts(column)) for column in columns.T.tolist()]
        look()
        return self.ctx.symbols.intern_many(joined)[place.reshape(-1)], written


def expand(template: str, match: object) -> str:
    """Go's Regexp.Expand: `$1`, `${1}`, `$name`, `${name}`, `$$`; unknown groups are empty. The name is as
    long as word characters go, so `$1x` means the group 1x."""

    def replace(reference: re.Match[str]) -> str:
        name = reference.group(1) or reference.group(2)
        if name is None:
            return "$"
        try:
            found = match.group(int(name) if name.isdigit() else name)  # type: ignore[attr-defined]
        except (IndexError, KeyError, re2.error):
            return ""
        return found or ""

    return _REFERENCE.sub(replace, template)


def valid_label_name(name: str) -> bool:
    """A label name of the UTF-8 scheme: not empty, valid UTF-8."""
    return bool(name) and not any(0xDC80 <= ord(char) <= 0xDCFF for char in name)


def _label_replace(call: Call, builder: Builder) -> VectorOperator:
    target, replacement, source, pattern = (builder.string(arg) for arg in call.args[1:])
    child = builder.vector(call.args[0])
    operator = LabelReplace(call, child, target, replacement, source, pattern)
    if not valid_label_name(target):
        raise ExecutionError(f"invalid destination label name in label_replace(): {target}")
    return operator


def _label_join(call: Call, builder: Builder) -> VectorOperator:
    target, separator, *sources = (builder.string(arg) for arg in call.args[1:])
    for name in sources:
        if not valid_label_name(name):
            raise ExecutionError(f"invalid source label name in label_join(): {name}")
    if not valid_label_name(target):
        raise ExecutionError(f"invalid destination label name in label_join(): {target}")
    return LabelJoin(call, builder.vector(call.args[0]), target, separator, sources)


FUNCTIONS: dict[str, FunctionBuilder] = {"label_replace": _label_replace, "label_join": _label_join}
