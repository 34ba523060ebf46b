"""A small pool of native histograms for tests of the HTTP side."""

from __future__ import annotations

import numpy as np

from tsdb.histogram import CUSTOM_BUCKETS_SCHEMA, HistogramBatch

_ROWS: list[dict[str, list[tuple[int, float]] | list[float] | float | int]] = [
    {"schema": 0, "zero": 2.0, "positive": [(0, 1.0), (1, 0.0), (3, 4.5)], "negative": [(0, 1.0), (2, 3.0)]},
    {"schema": 3, "zero": 0.0, "positive": [(-5, 1.0), (17, 2.0)], "negative": []},
    {"schema": -2, "zero": 1.0, "positive": [(256, 7.0), (257, 1.0)], "negative": [(-2, 1.0)]},
    {
        "schema": CUSTOM_BUCKETS_SCHEMA,
        "zero": 0.0,
        "positive": [(0, 1.0), (1, 2.0), (2, 3.0)],
        "custom": [0.5, 10.0],
    },
    {"schema": 8, "zero": 0.0, "positive": [], "negative": []},
    {
        "schema": 0,
        "zero": 2.0,
        "threshold": 0.05,
        "positive": [(-4, 1.0), (0, 4.0)],
        "negative": [(-4, 3.0), (1, 1.0)],
    },
    {"schema": 0, "zero": -2.0, "positive": [(0, -1.0)], "negative": [(0, -1.0)]},
]


def histogram_pool() -> HistogramBatch:
    """Exponential and custom buckets, both sides, an empty one, one at the end of the range, one whose zero
    bucket reaches into others, a negated one."""
    pos = [row.get("positive", []) for row in _ROWS]
    neg = [row.get("negative", []) for row in _ROWS]
    custom = [row.get("custom", []) for row in _ROWS]

    def offsets(lists: list) -> np.ndarray:  # type: ignore[type-arg]
        return np.concatenate([[0], np.cumsum([len(item) for item in lists])]).astype(np.int64)

    def flat(lists: list, part: int, kind: type) -> np.ndarray:  # type: ignore[type-arg]
        return np.array([pair[part] for item in lists for pair in item], dtype=kind)

    count = len(_ROWS)
    return HistogramBatch(
        row_offsets=np.arange(count + 1, dtype=np.int64),
        t_ms=np.arange(count, dtype=np.int64) * 1000,
        start_t_ms=None,
        schema=np.array([row["schema"] for row in _ROWS], dtype=np.int32),
        reset_hint=np.zeros(count, dtype=np.uint8),
        zero_threshold=np.array([row.get("threshold", 1e-128) for row in _ROWS], dtype=np.float64),
        zero_count=np.array([row["zero"] for row in _ROWS], dtype=np.float64),
        count=np.arange(count) * 10.5,
        sum=np.arange(count) / 3.0,
        pos_offsets=offsets(pos),
        pos_index=flat(pos, 0, np.int32),
        pos_count=flat(pos, 1, np.float64),
        neg_offsets=offsets(neg),
        neg_index=flat(neg, 0, np.int32),
        neg_count=flat(neg, 1, np.float64),
        custom_offsets=offsets(custom),
        custom_values=np.array([bound for item in custom for bound in item], dtype=np.float64),
        is_float=np.ones(count, dtype=np.uint8),
    )
