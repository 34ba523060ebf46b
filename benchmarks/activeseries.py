"""Resident memory at many active series after scrapes that are sent as fast as the servers take them.

Two hours at 15 s are 480 scrapes. Sixty scrapes, an eighth of that, have every series, its labels and a half
full open chunk, which is the average; what they lack are the chunks that are closed by then (on disk in
Prometheus and Vedette) and the first block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ingest
from benchmarks.figures import Figure
from benchmarks.load.bodies import LoadWriter
from benchmarks.servers import Kind, running_all

BARS = {"prometheus": 0.5, "victoria-metrics": 1.0}
_SETTLE_S = 180.0
_START_S = 30.0
"""What a server may go on doing after it is ready: Vedette loads kernels and gives back what that took."""


def measure(
    kinds: Sequence[Kind], folder: Path, writer: LoadWriter, steps: int, port: int, rest_s: float
) -> list[Figure]:
    """All servers hold the series at once; resident sizes after `rest_s` and when they are idle."""
    first_ms = int(time.time() * 1000) - steps * writer.step_ms
    rss: dict[str, float] = {}
    private: dict[str, float] = {}
    peak: dict[str, float] = {}
    with running_all(kinds, port, folder) as servers:
        empty = {s.kind.name: s.settle(quiet_s=2.0, timeout_s=_START_S).rss_bytes for s in servers}
        ingest.send_in_parts(servers, writer, first_ms, steps, folder / "load")
        time.sleep(rest_s)
        for server in servers:
            used, name = server.settle(quiet_s=2.0, timeout_s=_SETTLE_S), server.kind.name
            rss[name], peak[name] = used.rss_bytes / 2**20, used.peak_rss_bytes / 2**20
            private[name] = used.private_bytes / 2**20
    a_series = {name: (rss[name] * 2**20 - empty[name]) / writer.series_count for name in rss}
    return [
        Figure("RSS, MiB", rss, BARS, form=",.2f"),
        Figure("of that private (not pages of files), MiB", private, form=",.0f"),
        Figure("RSS peak, MiB", peak, form=",.0f"),
        Figure("RSS above the empty server, B a series", a_series, form=",.0f"),
    ]
