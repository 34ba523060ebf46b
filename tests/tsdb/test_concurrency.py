"""Writers, readers and compaction at the same time: every read sees whole batches, without gaps."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np

from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, name
from tsdb.columns import SampleColumns, WriteBatch

SERIES = 20
STEP_MS = 300_000
RUN_S = 2.5


def test_readers_see_whole_batches_while_ranges_move_to_blocks(tmp_path):
    store = Store(tmp_path / "data", replace(OPTIONS, retention_ms=0))
    appender = store.db.appender()
    refs = appender.refs([name(i) for i in range(SERIES)])
    stop = threading.Event()
    problems: list[str] = []
    written = [0]

    def write() -> None:
        n = 0
        while not stop.is_set():
            t = np.full(SERIES, T0 + n * STEP_MS, dtype=np.int64)
            columns = SampleColumns(refs, t, np.full(SERIES, float(n)))
            result = appender.append(WriteBatch(columns), now_ms=T0 + n * STEP_MS)
            if result.stored_count != SERIES:
                problems.append(f"batch {n}: {result.messages}")
            result.durable.result(10)
            written[0] = n = n + 1

    def read() -> None:
        while not stop.is_set():
            before = written[0]
            querier = store.db.querier()
            selection = querier.select((), T0, 2**62)
            batch = selection.read(0, len(selection.labels))
            counts = np.diff(batch.offsets)
            if before and len(counts) != SERIES:
                problems.append(f"{len(counts)} series")
            if len(set(counts.tolist())) > 1:
                problems.append(f"a batch in part: {sorted(set(counts.tolist()))}")
            if len(counts) and counts[0] < before:
                problems.append(f"{before} batches were written, {counts[0]} are seen")
            expected = T0 + np.arange(counts[0]) * STEP_MS if len(counts) else np.empty(0)
            if len(counts) and not np.array_equal(batch.t_ms[: counts[0]], expected):
                problems.append("a gap")

    def maintain() -> None:
        while not stop.is_set():
            store.db.maintenance.run()
            time.sleep(0.01)

    def guarded(work):
        def run() -> None:
            try:
                work()
            except Exception as error:
                problems.append(repr(error))
                stop.set()

        return run

    threads = [threading.Thread(target=guarded(work)) for work in (write, read, read, maintain)]
    for thread in threads:
        thread.start()
    stop.wait(RUN_S)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems[:5] == []
    assert len(store.db.blocks()) > 0
    store.db.close()


def test_many_writers_get_every_batch_durable(tmp_path):
    store = Store(tmp_path / "data")
    appender = store.db.appender()

    def write(writer: int) -> None:
        refs = appender.refs([name(i, writer=str(writer)) for i in range(5)])
        for n in range(100):
            t = np.full(5, T0 + n * 1000, dtype=np.int64)
            result = appender.append(
                WriteBatch(SampleColumns(refs, t, np.full(5, float(n)))), now_ms=T0 + HOUR
            )
            assert result.stored_count == 5
            result.durable.result(10)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {T0 + n * 1000: float(n) for n in range(100)}
    for _ in range(2):
        found = store.read()
        assert len(found) == 40
        assert all(samples == expected for samples in found.values())
        store.db.close()
        store.open()
    store.db.close()
