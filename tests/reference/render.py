"""The slow, obvious way from results to JSON: `repr`, one point at a time."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np

from promql.kernels.bucketbounds import custom_bound, exponential_bound
from promql.matrix import ABSENT_BITS, Matrix
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch


def value_text(value: float) -> str:
    """Text of a sample value."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    shortest = Decimal(repr(value)).normalize()
    if not 1e-6 <= abs(value) < 1e21:
        mantissa, _, exponent = f"{shortest:e}".partition("e")
        return f"{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"
    return f"{shortest:f}"


def time_number(t_ms: int) -> str:
    """Text of a timestamp in seconds."""
    sign = "-" if t_ms < 0 else ""
    seconds, rest = divmod(abs(t_ms), 1000)
    return f"{sign}{seconds}.{rest:03d}" if rest else f"{sign}{seconds}"


def histogram_object(pool: HistogramBatch, h: int) -> dict[str, Any]:
    """The JSON object of one histogram."""
    buckets: list[list[Any]] = []
    schema, threshold = int(pool.schema[h]), float(pool.zero_threshold[h])
    negative = range(int(pool.neg_offsets[h]), int(pool.neg_offsets[h + 1]))
    for i in reversed(negative):
        index = int(pool.neg_index[i])
        lo, hi = -exponential_bound(index, schema), -exponential_bound(index - 1, schema)
        if 0 > hi > -threshold:
            hi = -threshold
        buckets.append([1, lo, hi, pool.neg_count[i]])
    if pool.zero_count[h] > 0:
        buckets.append([3, -threshold, threshold, pool.zero_count[h]])
    custom_lo, custom_hi = int(pool.custom_offsets[h]), int(pool.custom_offsets[h + 1])
    for i in range(int(pool.pos_offsets[h]), int(pool.pos_offsets[h + 1])):
        index = int(pool.pos_index[i])
        if schema == CUSTOM_BUCKETS_SCHEMA:
            kind = 3 if index == 0 else 0
            bounds = [custom_bound(n, pool.custom_values, custom_lo, custom_hi) for n in (index - 1, index)]
        else:
            kind, bounds = 0, [exponential_bound(n, schema) for n in (index - 1, index)]
            if 0 < bounds[0] < threshold:
                bounds[0] = threshold
        buckets.append([kind, *bounds, pool.pos_count[i]])
    shown = [[kind, *(value_text(float(v)) for v in rest)] for kind, *rest in buckets if rest[2] != 0]
    out: dict[str, Any] = {"count": value_text(float(pool.count[h])), "sum": value_text(float(pool.sum[h]))}
    if shown:
        out["buckets"] = shown
    return out


def matrix_rows(matrix: Matrix, instant: bool) -> list[dict[str, Any]]:
    """`result` of a vector or matrix answer; timestamps are texts in seconds."""
    rows = []
    times = [time_number(int(t)) for t in matrix.grid.times_ms()]
    for series, labels in enumerate(matrix.labels.rows()):
        row: dict[str, Any] = {"metric": labels.to_dict()}
        bits = matrix.values[series].view(np.uint64)
        values = [
            [times[k], value_text(float(matrix.values[series, k]))]
            for k in range(len(times))
            if int(bits[k]) != ABSENT_BITS
        ]
        histograms = []
        if matrix.histograms is not None:
            index = matrix.histograms.index[series]
            histograms = [
                [times[k], histogram_object(matrix.histograms.pool, int(index[k]))]
                for k in range(len(times))
                if index[k] >= 0
            ]
        if values:
            row["value" if instant else "values"] = values[0] if instant else values
        if histograms:
            row["histogram" if instant else "histograms"] = histograms[0] if instant else histograms
        if len(row) > 1:
            rows.append(row)
    return rows
