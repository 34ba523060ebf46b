"""Counter-reset hints that are worked out while reading, for queries that look at counts and sums only.

Prometheus reads selectors under histogram_count, histogram_sum and histogram_avg without buckets, and then
has to find resets from one sample to the next, which turns hints "unknown" into "reset" or "not_reset". That
shows in warnings about conflicting resets, so the same selectors get the same hints here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from promql.ast import BinaryExpr, Call, Expr, Position, SubqueryExpr, VectorSelector
from promql.histogrampool import pool_of, take_pool
from promql.histogramresets import resets_and_runs
from promql.kernels.histogrampool import HINT_NOT_RESET, HINT_RESET, HINT_UNKNOWN
from promql.visit import children
from tsdb.histogram import HistogramBatch
from tsdb.select import STALE_BITS

_COUNTS_AND_SUMS = ("histogram_count", "histogram_sum", "histogram_avg")
_WHOLE = ("histogram_quantile", "histogram_quantiles", "histogram_fraction")


def selectors_with_resolved_hints(expr: Expr) -> frozenset[Position]:
    """Places of the selectors under a function of counts and sums. A subquery or a function of whole
    histograms above hides that function; a binary operator starts anew."""
    found: set[Position] = set()
    stack = [(expr, False, True)]
    while stack:
        node, resolved, allowed = stack.pop()
        if isinstance(node, VectorSelector):
            if resolved and allowed:
                found.add(node.pos)
            continue
        if isinstance(node, BinaryExpr):
            resolved, allowed = False, True
        elif isinstance(node, SubqueryExpr):
            allowed = False
        elif isinstance(node, Call):
            allowed = allowed and node.function not in _WHOLE
            resolved = resolved or node.function in _COUNTS_AND_SUMS
        stack.extend((child, resolved, allowed) for child in children(node))
    return frozenset(found)


def resolve_hints(batch: HistogramBatch) -> HistogramBatch:
    """The batch with each unknown hint replaced by what the sample before it in the row shows; the first
    sample of a row, and stale markers, keep theirs."""
    kept = np.flatnonzero(batch.sum.view(np.uint64) != np.uint64(STALE_BITS))
    rows = np.searchsorted(kept, batch.row_offsets).astype(np.int64)
    reset, _ = resets_and_runs(take_pool(pool_of(batch), kept), rows)
    hints = batch.reset_hint.copy()
    unknown = hints[kept] == HINT_UNKNOWN
    firsts = rows[:-1]
    unknown[firsts[firsts < len(kept)]] = False
    hints[kept[unknown]] = np.where(reset[unknown] != 0, HINT_RESET, HINT_NOT_RESET)
    return replace(batch, reset_hint=hints)
