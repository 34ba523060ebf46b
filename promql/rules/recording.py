"""Recording rules: what a query's rows become as series of the rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.parser import STABLE, ParserOptions, parse
from promql.printer import to_string
from promql.rules.rulefile import RuleConfig
from tsdb.labels import METRIC_NAME, Labels


class RuleError(Exception):
    """An evaluation that is refused as a whole; nothing of it is stored."""


@dataclass(frozen=True, slots=True)
class SeriesSamples:
    """Floats of one series, `t_ms` i64[N] ascending and `values` f64[N]."""

    labels: Labels
    t_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


RangeQuery = Callable[[str, int, int, int], Sequence[SeriesSamples]]
"""Rows of an expression between two times inclusive, in steps, all in ms."""


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """A rule ready to be evaluated: `expr` is the re-serialised expression, `labels` those of the group and
    over them the rule's own."""

    name: str
    expr: str
    labels: Mapping[str, str]

    @classmethod
    def of(
        cls, config: RuleConfig, group_labels: Mapping[str, str], options: ParserOptions = STABLE
    ) -> RecordingRule:
        """Of a checked configuration. Raises ParseError."""
        expr = to_string(parse(config.expr, options))
        return cls(config.record, expr, {**group_labels, **config.labels})

    def series(self, row: Labels) -> Labels:
        """Label set of the series that a row of the query is stored in; an empty rule label removes one."""
        labels = {**row.to_dict(), **self.labels, METRIC_NAME: self.name}
        return Labels.from_dict({name: value for name, value in labels.items() if value})

    def all_series(self, rows: Sequence[Labels]) -> list[Labels]:
        """`series` of all rows of one evaluation. Raises RuleError where two rows would be one series."""
        found = [self.series(row) for row in rows]
        if len(set(found)) < len(found):
            raise RuleError("vector contains metrics with the same labelset after applying rule labels")
        return found

    def over_range(self, query: RangeQuery, start_ms: int, end_ms: int, step_ms: int) -> list[SeriesSamples]:
        """Evaluate at each step from `start_ms` to `end_ms` inclusive. Raises RuleError, and what `query`
        raises.

        Series that exist at different steps only may be one here; that is an error as well.
        """
        rows = query(self.expr, start_ms, end_ms, step_ms)
        names = self.all_series([row.labels for row in rows])
        return [SeriesSamples(labels, row.t_ms, row.values) for labels, row in zip(names, rows, strict=True)]
