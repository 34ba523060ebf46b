"""Windows of anchored and smoothed selectors."""

from __future__ import annotations

from promql.matrix import F64Array
from promql.operators.operator import WindowGrid
from tsdb.select import SampleBatch


def extended_rate(
    name: str, modifier: str, samples: SampleBatch, window: WindowGrid, lookback_ms: int, out: F64Array
) -> None:
    """Fill `out` f64[R, K]."""
    raise NotImplementedError
