"""Histograms as text, `{count:5, sum:18.4, (0.5,1]:1}`, for count_values and dumps (surface section 4)."""

from __future__ import annotations

from collections.abc import Iterable

from promql.histogrampool import pool_of
from promql.kernels.histogrampool import Pool, negative_bucket, positive_bucket
from promql.numberformat import format_g
from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch


def histogram_texts(batch: HistogramBatch, wanted: Iterable[int]) -> list[str]:
    """Texts of the histograms with the given numbers. For results, not for inner loops."""
    pool = pool_of(batch)
    return [histogram_text(pool, int(h)) for h in wanted]


def histogram_text(pool: Pool, h: int) -> str:
    """Text of one histogram: buckets from the lowest, empty ones left out."""
    custom = int(pool[0][h]) == CUSTOM_BUCKETS_SCHEMA
    parts = [f"count:{format_g(float(pool[4][h]))}", f"sum:{format_g(float(pool[5][h]))}"]
    for i in range(int(pool[9][h + 1]) - 1, int(pool[9][h]) - 1, -1):
        lower, upper, count = negative_bucket(pool, h, i)
        if count:
            parts.append(f"[{format_g(lower)},{format_g(upper)}):{format_g(count)}")
    if pool[3][h]:
        width = float(pool[2][h])
        parts.append(f"[{format_g(-width)},{format_g(width)}]:{format_g(float(pool[3][h]))}")
    for i in range(int(pool[6][h]), int(pool[6][h + 1])):
        lower, upper, count = positive_bucket(pool, h, i)
        if count:
            opening = "[" if custom and int(pool[7][i]) == 0 else "("
            parts.append(f"{opening}{format_g(lower)},{format_g(upper)}]:{format_g(count)}")
    return "{" + ", ".join(parts) + "}"
