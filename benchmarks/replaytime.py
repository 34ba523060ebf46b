"""Start after SIGKILL with the whole load in the write-ahead log: Vedette beside Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.load.bodies import LoadWriter
from benchmarks.servers import Kind, Server, running_all

BARS = {"prometheus": 0.2}
STEPS_LIMIT = 660
"""Two and three quarter hours at 15 s: from three on the head is cut and the log with it."""
READY_TIMEOUT_S = 900.0


def measure(kinds: Sequence[Kind], folder: Path, writer: LoadWriter, steps: int, port: int) -> list[Figure]:
    """Fill, kill, and start one after the other.

    Raises ValueError for so many steps that a part would not be in the log any more, RuntimeError where
    samples are missing after the replay.
    """
    if steps > STEPS_LIMIT:
        raise ValueError(f"{steps} steps are over the limit of {STEPS_LIMIT}: the head would be cut")
    end_ms = int(time.time() * 1000)
    with running_all(kinds, port, folder) as servers:
        first_ms = end_ms - steps * writer.step_ms
        count = ingest.send_in_parts(servers, writer, first_ms, steps, folder / "load")
        for server in servers:
            server.kill()
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for number, kind in enumerate(kinds):
        server = Server(kind, port + number, folder / kind.name)
        try:
            seconds[kind.name] = server.wait_ready(READY_TIMEOUT_S)
            cpu[kind.name] = server.usage().cpu_s
            _check(server, steps, end_ms)
        finally:
            server.stop()
    return [
        Figure("SIGKILL to ready, s", seconds, BARS),
        Figure("CPU s until ready", cpu),
        Figure("million samples/s", {name: count / 1e6 / each for name, each in seconds.items()}),
    ]


def _check(server: Server, steps: int, end_ms: int) -> None:
    """Every sample of one metric is there."""
    rows = server.query(
        "sum(count_over_time(node_load1[4h])) / count(last_over_time(node_load1[4h]))", end_ms / 1000
    )
    found = float(rows[0]["value"][1]) if rows else 0.0
    if found != steps:
        raise RuntimeError(f"{server.kind.name} has {found} samples a series after the replay, not {steps}")
