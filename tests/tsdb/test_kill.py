"""SIGKILL at random moments: every acknowledged sample is there afterwards, and none that nobody wrote."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tsdb.crashwriter import OPTIONS, batch_rows, series
from tsdb.database import open_database
from tsdb.labels import Labels

ROUNDS = int(os.environ.get("VEDETTE_KILL_ROUNDS", "6"))
SEED = int(os.environ.get("VEDETTE_KILL_SEED", "1"))


def run_and_kill(path: Path, first: int, alive_s: float) -> list[list[str]]:
    """Lines of a writer that was killed `alive_s` after it opened the store."""
    output = path.with_suffix(".out")
    with output.open("wb") as sink:
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.tsdb.crashwriter", str(path), str(first)],
            stdout=sink,
            cwd=Path(__file__).parents[2],
        )
        try:
            deadline = time.monotonic() + 60
            while output.stat().st_size == 0 and writer.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(alive_s)
            assert writer.poll() is None, "the writer ended by itself"
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    text = output.read_text()
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def stored(path: Path) -> dict[Labels, dict[int, float]]:
    database = open_database(path, OPTIONS)
    selection = database.querier().select((), -(2**62), 2**62)
    batch = selection.read(0, len(selection.labels))
    bounds = batch.offsets.tolist()
    found = {}
    for row, labels in enumerate(selection.labels.rows()):
        lo, hi = bounds[row], bounds[row + 1]
        times = batch.t_ms[lo:hi].tolist()
        assert len(times) == len(set(times))
        found[labels] = dict(zip(times, batch.values[lo:hi].tolist(), strict=True))
    database.close()
    # The next writer starts from the log, as after a kill.
    (path / "head.snapshot").unlink()
    return found


def blocks(path: Path) -> list[str]:
    """Names of the store's blocks."""
    return [name for name in os.listdir(path) if len(name) == 26]


@pytest.mark.timeout(600)
def test_acknowledged_samples_survive_kills_and_nothing_is_invented(tmp_path):
    print(f"seed {SEED}; repeat with VEDETTE_KILL_SEED={SEED} VEDETTE_KILL_ROUNDS={ROUNDS}")
    source = random.Random(SEED)
    path = tmp_path / "data"
    began: set[int] = set()
    acked: set[int] = set()
    first = 0
    rounds = 0
    # Long enough that ranges of the head became blocks on the way; on a busy machine that takes more rounds.
    while rounds < ROUNDS or len(acked) <= 10 * ROUNDS or not blocks(path):
        rounds += 1
        assert rounds <= 20 * ROUNDS, f"{len(acked)} writes, blocks: {blocks(path)}"
        lines = run_and_kill(path, first, source.uniform(0.0, 0.7))
        assert not [line for line in lines if line[0] == "refused"], lines[-3:]
        began.update(int(line[1]) for line in lines if line[0] == "began")
        acked.update(int(line[1]) for line in lines if line[0] == "acked")
        found = stored(path)
        lost = [
            (n, i, t)
            for n in sorted(acked)
            for i, t, value in batch_rows(n)
            if found.get(series(i, n), {}).get(t) != value
        ]
        assert not lost, lost[:5]
        possible = {(series(i, n), t, value) for n in began for i, t, value in batch_rows(n)}
        invented = [
            (labels, t)
            for labels, samples in found.items()
            for t, v in samples.items()
            if (labels, t, v) not in possible
        ]
        assert not invented, invented[:5]
        first = max(began, default=first - 1) + 1
