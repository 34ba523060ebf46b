"""What ingestion costs at a number of active series: CPU until idle again, speed, bytes written.

The series exist before: creating them costs each server many times what a sample does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.ingest import IngestResult
from benchmarks.load.bodies import LoadWriter
from benchmarks.servers import Kind, running

CPU_BARS = {"victoria-metrics": 0.45, "prometheus": 0.12}
SPEED_BARS = {"victoria-metrics": 1.0}
WRITTEN_BARS = {"victoria-metrics": 1.0}
_SETTLE_S = 120.0
FIRST_STEPS = 2
WRITTEN_AFTER_S = 12.0
"""VictoriaMetrics keeps what arrives in memory for five seconds (-inmemoryDataFlushInterval) before it writes
it; looked at sooner it has written next to nothing."""


def measure(
    kinds: Sequence[Kind], folder: Path, writer: LoadWriter, steps: int, port: int, rest_s: float
) -> list[Figure]:
    """Send the same `steps` scrapes to one server after the other, behind a few that are not counted.

    Usage is taken `rest_s` after the last request, and not before that has reached every server's disk.
    """
    first_ms = int(time.time() * 1000) - (FIRST_STEPS + steps) * writer.step_ms
    first = writer.write(folder / "first", first_ms, FIRST_STEPS)
    load = writer.write(folder / "load", first.end_ms, steps)
    found: dict[str, IngestResult] = {}
    for number, kind in enumerate(kinds):
        with running(kind, port + number, folder / kind.name) as server:
            ingest.send(server, first, writer.lane_count)
            server.flush()
            # What a start does in the background is not ingestion.
            server.settle(quiet_s=2.0, timeout_s=_SETTLE_S)
            rest = max(rest_s, WRITTEN_AFTER_S)
            found[kind.name] = ingest.measure(server, load, writer.lane_count, _SETTLE_S, rest)
    millions = load.sample_count / 1e6
    return [
        Figure("CPU s a million samples", {k: r.cpu_s / millions for k, r in found.items()}, CPU_BARS),
        Figure(
            "samples/s",
            {k: r.sample_count / r.seconds for k, r in found.items()},
            SPEED_BARS,
            more_is_better=True,
            form=",.2f",
        ),
        Figure(
            "bytes written a sample",
            {k: r.written_bytes / r.sample_count for k, r in found.items()},
            WRITTEN_BARS,
        ),
    ]
