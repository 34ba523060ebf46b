"""A store with tiers that is filled hour by hour, with its background work done as time goes on."""

from __future__ import annotations

import math
import random

import numpy as np

from tests.tsdb.stores import HOUR, OPTIONS, T0, Store
from tsdb.columns import SampleColumns, WriteBatch
from tsdb.labels import Labels
from tsdb.rollup import Tier
from tsdb.select import STALE_BITS

MINUTE = 60_000
DAY = 24 * HOUR
TIERS = (Tier(6 * HOUR, 5 * MINUTE), Tier(2 * DAY, HOUR))
STALE = float(np.array([STALE_BITS], dtype=np.uint64).view(np.float64)[0])
ROLLED = OPTIONS.__class__(background=False, tiers=TIERS, retention_ms=0)


def series(metric: str, i: int) -> Labels:
    return Labels.from_dict({"__name__": metric, "i": str(i), "job": "ab"[i % 2]})


def rows_of_hour(hour: int, rng: random.Random, step: int) -> list[tuple[Labels, int, float]]:
    """A gauge with gaps and stale markers, a counter with resets; series 0 at exact multiples of minutes."""
    rows = []
    for i in range(3):
        if rng.random() < 0.1:
            continue
        for t in range(T0 + hour * HOUR, T0 + (hour + 1) * HOUR, step):
            at = t + (i * 1234 if i else 0)
            if rng.random() < 0.01:
                rows.append((series("gauge", i), at, math.nan if rng.random() < 0.5 else STALE))
            else:
                rows.append((series("gauge", i), at, rng.randint(-500, 500) / 4))
            rows.append((series("counter_total", i), at, float((t // 1000) % (5000 + 1700 * i))))
    return rows


def append(store: Store, rows: list[tuple[Labels, int, float]]) -> None:
    appender = store.db.appender()
    refs = appender.refs([row[0] for row in rows])
    t = np.array([row[1] for row in rows], dtype=np.int64)
    values = np.array([row[2] for row in rows], dtype=np.float64)
    store.now_s = max(store.now_s, float(t.max()) / 1000)
    result = appender.append(WriteBatch(SampleColumns(refs, t, values)))
    assert result.stored_count == len(rows), result.messages


def live(store: Store, hours: int, step: int = MINUTE, seed: int = 1, first: int = 0) -> None:
    """Hours of data; a round of background work every two."""
    rng = random.Random(seed)
    for hour in range(first, first + hours):
        rows = rows_of_hour(hour, rng, step)
        if rows:
            append(store, sorted(rows, key=lambda row: row[1]))
        if hour % 2:
            store.db.maintenance.run()
