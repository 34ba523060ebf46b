"""How long a start takes: on an empty store, and with ten million samples in the WAL.

The bars of 2 s and 5 s are for a machine that imports numba in 0.15 s; a slower one, or one whose cores
others use, gets the same multiple of its own time. The figures themselves are in `make bench`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import ingest
from benchmarks.load.bodies import Load, write_load
from benchmarks.load.nodes import make_series
from tests.e2e.processes import Api, start_vedette

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(240)]

EMPTY_START_S_MAX = 2.0
IMPORT_S = 0.15
TRIES = 3
"""The best of so many counts: another process on the machine is not what is measured."""
REPLAY_START_S_MAX = 5.0
SAMPLES = 10_000_000
HOSTS = 200
STEP_MS = 15_000
LANES = 2


def _slowness() -> float:
    """How many times longer than IMPORT_S this machine takes for the same import now; at least 1."""
    taken_s = []
    for _ in range(TRIES):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import numba"], check=True)
        taken_s.append(time.monotonic() - began)
    return max(1.0, min(taken_s) / IMPORT_S)


def test_second_start_on_an_empty_store_is_ready_in_two_seconds(tmp_path: Path) -> None:
    first = start_vedette(tmp_path)
    first.wait_ready(120)
    first.stop()
    taken_s = []
    for _ in range(TRIES):
        second = start_vedette(tmp_path)
        try:
            taken_s.append(second.wait_ready())
        finally:
            second.stop()
    print(f"start on an empty store: {', '.join(f'{each:.2f} s' for each in taken_s)}")
    assert min(taken_s) < EMPTY_START_S_MAX * _slowness()


def _make_load(folder: Path) -> Load:
    series = make_series(HOSTS)
    end_ms = int(time.time() * 1000) // STEP_MS * STEP_MS
    steps = -(-SAMPLES // len(series))
    return write_load(
        folder / "load", series, steps=steps, step_ms=STEP_MS, end_ms=end_ms, lane_count=LANES, seed=1
    )


def test_start_with_ten_million_samples_in_the_wal_is_ready_in_five_seconds(tmp_path: Path) -> None:
    load = _make_load(tmp_path)
    first = start_vedette(tmp_path)
    try:
        first.wait_ready()
        ingest.send(first, load, LANES)
    finally:
        # Not a clean stop: everything has to come back from the WAL.
        first.kill()
    taken_s = []
    limit_s = REPLAY_START_S_MAX * _slowness()
    for _ in range(TRIES):
        second = start_vedette(tmp_path)
        try:
            taken_s.append(second.wait_ready())
            api = Api(second.port)
            (row,) = api.query("count({job='node'})", load.end_ms / 1000)["result"]
            api.close()
        finally:
            second.kill()
        assert int(row["value"][1]) == load.series_count
        if taken_s[-1] < limit_s:
            break
    print(f"start with {load.sample_count:,} samples in the WAL: {', '.join(f'{s:.2f} s' for s in taken_s)}")
    assert min(taken_s) < limit_s
