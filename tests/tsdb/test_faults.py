"""A small life of a store with the disk failing at every single call: nothing acknowledged is lost, nothing
invented, and the next start works."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.faults import Crashed, FaultyDisk
from tsdb.columns import SampleColumns, WriteBatch
from tsdb.database import Database, open_database
from tsdb.errors import DiskFullError, StorageError
from tsdb.labels import Labels
from tsdb.limits import StorageOptions

T0 = 1_700_006_400_000
STEP_MS = 25 * 60_000
BATCHES = 18
SERIES = 3
OPTIONS = StorageOptions(
    background=False,
    lock_file=False,
    wal_segment_bytes=700,
    retention_ms=0,
    out_of_order_window_ms=3 * 3600_000,
    start_timestamps=True,
)
SEED = int(os.environ.get("VEDETTE_FAULT_SEED", "1"))
EVERY = int(os.environ.get("VEDETTE_FAULT_EVERY", "60"))
"""Every how manieth call fails in a quick run; 1 tries each."""

Sample = tuple[Labels, int, float, int]
"""Labels, time, value, start timestamp."""


def batch(n: int) -> list[Sample]:
    rows = [
        (
            Labels.from_dict({"__name__": "m", "i": str(i)}),
            T0 + n * STEP_MS,
            n + i / 10,
            i and T0 - i - n // 5,
        )
        for i in range(SERIES)
    ]
    # A late sample, and a series that lives for one batch, so that series are collected.
    rows.append((rows[0][0], T0 + n * STEP_MS - 2 * STEP_MS - 7, float(n), n % 2))
    rows.append((Labels.from_dict({"__name__": "once", "n": str(n)}), T0 + n * STEP_MS, 1.0, 0))
    return rows


@dataclass
class Life:
    began: set[Sample] = field(default_factory=set)
    acked: set[Sample] = field(default_factory=set)
    refused: int = 0

    def append(self, database: Database, n: int) -> None:
        rows = batch(n)
        appender = database.appender()
        refs = appender.refs([row[0] for row in rows])
        columns = SampleColumns(
            refs,
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows], dtype=np.float64),
            np.array([row[3] for row in rows]),
        )
        self.began.update(rows)
        result = appender.append(WriteBatch(columns), now_ms=T0 + n * STEP_MS)
        assert result.stored_count == len(rows), result.messages
        result.durable.result(10)
        self.acked.update(rows)

    def live(self, path: Path, disk: FaultyDisk) -> None:
        """Two runs of a store: batches, head cuts, merges, a clean stop, a second start."""
        for first in (0, BATCHES // 2):
            database = open_database(path, OPTIONS, clock=lambda: T0 / 1000, fs=disk)
            try:
                for n in range(first, first + BATCHES // 2):
                    try:
                        self.append(database, n)
                        if n % 4 == 3:
                            database.maintenance.run()
                    except DiskFullError:
                        self.refused += 1
                        disk.full = False
            finally:
                if disk.dead:
                    database.wal.close()
            database.close()


def stored(path: Path) -> set[Sample]:
    database = open_database(path, OPTIONS, clock=lambda: T0 / 1000)
    selection = database.querier().select((), -(2**62), 2**62)
    samples = selection.read(0, len(selection.labels))
    bounds = samples.offsets.tolist()
    starts = np.zeros_like(samples.t_ms) if samples.start_t_ms is None else samples.start_t_ms
    found = set()
    for row, labels in enumerate(selection.labels.rows()):
        for at in range(bounds[row], bounds[row + 1]):
            found.add((labels, int(samples.t_ms[at]), float(samples.values[at]), int(starts[at])))
    assert len(found) == len(samples.t_ms)
    database.wal.close()
    return found


def calls_of_a_life(tmp_path: Path) -> int:
    disk = FaultyDisk()
    life = Life()
    life.live(tmp_path / "whole", disk)
    assert stored(tmp_path / "whole") == life.acked == life.began
    assert len([name for name in os.listdir(tmp_path / "whole") if len(name) == 26]) > 0
    return disk.calls


def check(path: Path, life: Life) -> None:
    found = stored(path)
    assert life.acked <= found, sorted(str(s) for s in life.acked - found)[:5]
    assert found <= life.began, sorted(str(s) for s in found - life.began)[:5]


@pytest.mark.parametrize("kind", ["crash", "short", "power"])
def test_a_crash_at_any_call_loses_nothing_acknowledged(tmp_path, kind):
    print(f"repeat with VEDETTE_FAULT_SEED={SEED} VEDETTE_FAULT_EVERY={EVERY}")
    calls = calls_of_a_life(tmp_path)
    start = random.Random(f"{SEED}{kind}").randrange(EVERY)
    for at in range(1 + start, calls + 1, EVERY):
        disk = FaultyDisk(at, "short" if kind == "short" else "crash", seed=SEED * 1000 + at)
        life = Life()
        path = tmp_path / f"{kind}{at}"
        with contextlib.suppress(Crashed, StorageError):
            life.live(path, disk)
        # The number of calls varies a little with how batches are grouped.
        assert disk.dead or at > 0.9 * calls
        if kind == "power":
            disk.power_cut()
        try:
            check(path, life)
        except AssertionError as error:
            raise AssertionError(f"after {kind} at call {at} of {calls}: {error}") from error


def test_an_io_error_at_any_call_loses_nothing_acknowledged(tmp_path):
    calls = calls_of_a_life(tmp_path)
    for at in range(1 + SEED % EVERY, calls + 1, EVERY):
        disk, life = FaultyDisk(at, "eio"), Life()
        path = tmp_path / f"eio{at}"
        with contextlib.suppress(OSError, StorageError):
            life.live(path, disk)
        check(path, life)


def test_a_full_disk_at_any_call_refuses_and_recovers_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("tsdb.wal.DISK_FULL_RETRY_S", 0.001)
    calls = calls_of_a_life(tmp_path)
    refused = 0
    for at in range(1 + SEED % EVERY, calls + 1, EVERY):
        disk, life = FaultyDisk(at, "full"), Life()
        path = tmp_path / f"full{at}"
        try:
            life.live(path, disk)
        except (StorageError, OSError):
            # Full while opening: the start fails with that text, the next one works.
            assert disk.calls < calls
        refused += life.refused
        check(path, life)
    assert refused > 0
