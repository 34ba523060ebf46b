"""Groups of classic bucket series, and the histograms beside them, for quantiles and fractions.

A group is a set of series equal but for `le`. A native histogram belongs to the group whose labels it has; a
step where a group has both kinds gives nothing and a warning (prometheus-surface.md 2.9).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from promql.annotations import Annotations, for_metric, quoted
from promql.ast import Position
from promql.matrix import ABSENT_BITS, F64Array
from promql.operators.collect import Collected
from tsdb.labels import METRIC_NAME
from tsdb.serieslabels import SeriesLabels

BUCKET_LABEL = "le"

I64Array = npt.NDArray[np.int64]

_DECIMAL = re.compile(r"[+-]?(\d+(_?\d)*(\.(\d+)?)?|\.\d+)([eE][+-]?\d+)?\Z")
_HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+\Z")
_NAMED = re.compile(r"([+-]?inf(inity)?|nan)\Z", re.IGNORECASE)


def parse_bound(text: str) -> float | None:
    """A bucket's upper bound as Go's ParseFloat reads it; None if it is none."""
    if _NAMED.match(text):
        return float(text)
    if _HEXADECIMAL.match(text):
        return float.fromhex(text)
    if _DECIMAL.match(text) and "_" not in text:
        return float(text)
    return None


@dataclass(frozen=True, slots=True)
class BucketGroups:
    """G output series. `offsets` i64[G+1], `rows` i64[M] and `bounds` f64[M]: bucket rows of each group in
    ascending order of their bounds. `native_rows` i64[N] are rows with histograms, `native_groups` i64[N]
    their groups."""

    labels: SeriesLabels
    offsets: I64Array
    rows: I64Array
    bounds: F64Array
    native_rows: I64Array
    native_groups: I64Array

    def __len__(self) -> int:
        return len(self.offsets) - 1


def bucket_groups(collected: Collected, annotations: Annotations, pos: Position, named: bool) -> BucketGroups:
    """Group the collected series; warns of rows with floats but without a readable `le`, by metric name where
    `named`, as Prometheus does only with delayed name removal."""
    labels = collected.series.labels
    symbols = labels.column(BUCKET_LABEL)
    known, places = np.unique(symbols, return_inverse=True)
    texts = labels.symbols.texts(known.tolist())
    parsed = [parse_bound(text) for text in texts]
    readable = np.array([value is not None for value in parsed], dtype=np.bool_)[places]
    all_bounds = np.array([math.nan if value is None else value for value in parsed])[places]
    floats = collected.float_rows()
    _warn_of_bounds(labels, np.flatnonzero(floats & ~readable), annotations, pos, named)
    classic = np.flatnonzero(floats & readable)
    native = np.flatnonzero(collected.histogram_rows())
    sets = SeriesLabels.concat(
        [labels.take(classic).filter_names((BUCKET_LABEL,), keep=False), labels.take(native)], labels.symbols
    )
    ids, first = sets.group_first_rows()
    group, bounds = ids[: len(classic)], all_bounds[classic]
    order = np.lexsort((bounds, group))
    offsets = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=len(first)), out=offsets[1:])
    return BucketGroups(
        sets.take(first), offsets, classic[order], bounds[order], native, ids[len(classic) :].copy()
    )


def _warn_of_bounds(
    labels: SeriesLabels, rows: I64Array, annotations: Annotations, pos: Position, named: bool
) -> None:
    if not len(rows):
        return
    pairs = np.stack([labels.column(METRIC_NAME)[rows], labels.column(BUCKET_LABEL)[rows]])
    for name, bound in np.unique(pairs, axis=1).T:
        value, metric = labels.symbols.texts([int(bound), int(name)])
        text = f'bucket label "le" is missing or has a malformed value of {quoted(value)}'
        annotations.warn(text + for_metric(metric if named else ""), pos)


def drop_conflicts(
    groups: BucketGroups,
    collected: Collected,
    out: F64Array,
    annotations: Annotations,
    pos: Position,
    named: bool,
) -> npt.NDArray[np.int32]:
    """Cells i32[N, K] of the native rows without those whose group has buckets at the same step; the group's
    result in `out` f64[G, K] is made absent there, and a warning added, by metric name where `named`."""
    assert collected.histograms is not None
    cells = collected.histograms.index[groups.native_rows]
    bits = out.view(np.uint64)
    conflict = (cells >= 0) & (bits[groups.native_groups] != np.uint64(ABSENT_BITS))
    if conflict.any():
        rows, steps = np.nonzero(conflict)
        bits[groups.native_groups[rows], steps] = ABSENT_BITS
        cells[rows, steps] = -1
        names = collected.series.labels.column(METRIC_NAME)[groups.native_rows[np.unique(rows)]]
        for name in np.unique(names):
            text = "vector contains a mix of classic and native histograms"
            metric = groups.labels.symbols.text(int(name)) if named else ""
            annotations.warn(text + for_metric(metric), pos)
    return cells
