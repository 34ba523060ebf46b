"""Writes batches to a store until it is killed; tells on stdout which batch began and which was acknowledged.

Run as `python -m tests.tsdb.crashwriter DIRECTORY FIRST_BATCH`. Batch n is known from n alone, so the reader
of the output can tell lost samples and invented ones.
"""

from __future__ import annotations

import os
import random
import sys
from collections import deque

import numpy as np

from tsdb.columns import SampleColumns, WriteBatch
from tsdb.database import Database, open_database
from tsdb.kernels.compile import warm
from tsdb.labels import Labels
from tsdb.limits import StorageOptions

T0 = 1_700_006_400_000
STEP_MS = 30_000
SERIES = 40
OPTIONS = StorageOptions(
    background=False, wal_segment_bytes=64 << 10, retention_ms=0, out_of_order_window_ms=3600_000
)


def batch_rows(n: int) -> list[tuple[int, int, float]]:
    """Series, time and value of the samples of batch n: most series in order; odd ones have one that is late
    by ten minutes."""
    source = random.Random(n)
    rows = [(i, T0 + n * STEP_MS, source.random() * 100) for i in range(SERIES) if source.random() < 0.9]
    if n % 2:
        rows.append((source.randrange(SERIES), T0 + n * STEP_MS - 600_001, float(n)))
    return rows


def series(i: int, n: int) -> Labels:
    """Some series live only for 200 batches, so that series are collected and slots reused."""
    life = n // 200 if i >= SERIES // 2 else 0
    return Labels.from_dict({"__name__": "m", "i": str(i), "life": str(life)})


def write(database: Database, first: int) -> None:
    """Append batches for ever, a few in flight at a time."""
    appender = database.appender()
    waiting: deque[tuple[int, object]] = deque()
    n = first
    while True:
        rows = batch_rows(n)
        refs = appender.refs([series(i, n) for i, _, _ in rows])
        columns = SampleColumns(
            refs, np.array([r[1] for r in rows]), np.array([r[2] for r in rows], dtype=np.float64)
        )
        os.write(1, f"began {n}\n".encode())
        result = appender.append(WriteBatch(columns), now_ms=T0 + n * STEP_MS)
        if result.stored_count != len(rows):
            os.write(1, f"refused {n} {result.codes.tolist()}\n".encode())
        waiting.append((n, result.durable))
        while waiting and (len(waiting) > 8 or waiting[0][1].done()):  # type: ignore[attr-defined]
            acked, future = waiting.popleft()
            future.result(10)  # type: ignore[attr-defined]
            os.write(1, f"acked {acked}\n".encode())
        if n % 97 == 0:
            database.maintenance.run()
        n += 1


if __name__ == "__main__":
    opened = open_database(sys.argv[1], OPTIONS, clock=lambda: (T0 + int(sys.argv[2]) * STEP_MS) / 1000)
    # A busy machine takes longer to load them than some writers live.
    warm("write")
    os.write(1, b"open\n")
    write(opened, int(sys.argv[2]))
