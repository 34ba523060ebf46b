"""Vector matching: which rows of two sides belong together (prometheus-surface.md 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.ast import VectorMatching
from promql.operators.labelcolumns import with_label
from promql.operators.operator import METADATA_LABELS
from tsdb.labels import METRIC_NAME
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]

PAIRS_MAX = 1 << 26
"""Pairs of one join. More come only from a many-to-many mistake, which the step check has already refused
where samples meet."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """Match groups of both sides: `many` i64[M] and `one` i64[N] number the same `count` signatures, whose
    label sets are `labels`."""

    many: I64Array
    one: I64Array
    count: int
    labels: SeriesLabels


def signatures(many: SeriesLabels, one: SeriesLabels, matching: VectorMatching) -> Signatures:
    """Number the match groups of two sides: labels without the metric name, restricted by on() or less
    ignoring()."""
    names = matching.labels if matching.on else (*matching.labels, METRIC_NAME)
    both = SeriesLabels.concat([many, one], many.symbols)
    groups, labels = both.group_ids(names, without=not matching.on)
    return Signatures(groups[: len(many)], groups[len(many) :], len(labels), labels)


def pair_rows(sigs: Signatures) -> tuple[I64Array, I64Array]:
    """All (many row, one row) pairs with equal signature, i64[P] twice, in order of the many rows."""
    order = np.argsort(sigs.one, kind="stable")
    starts = np.searchsorted(sigs.one[order], np.arange(sigs.count + 1))
    counts = np.diff(starts)[sigs.many] if len(sigs.many) else np.empty(0, dtype=np.int64)
    left = np.repeat(np.arange(len(sigs.many)), counts)
    first = np.cumsum(counts) - counts
    within = np.arange(len(left)) - np.repeat(first, counts)
    right = order[starts[sigs.many[left]] + within] if len(left) else left
    return left.astype(np.int64), right.astype(np.int64)


def result_labels(
    many: SeriesLabels, one: SeriesLabels, matching: VectorMatching, drop_names: bool, one_to_one: bool
) -> SeriesLabels:
    """Label sets of aligned pairs. One to one: only the on() labels, or all but the ignoring() ones. Grouped:
    those of the many side with the included labels copied from the one side, or removed where it has none."""
    labels = many.filter_names(METADATA_LABELS, keep=False) if drop_names else many
    if one_to_one:
        return labels.filter_names(matching.labels, keep=matching.on)
    for name in matching.include:
        labels = with_label(labels, name, one.column(name))
    return labels
