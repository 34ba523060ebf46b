"""Bytes a sample at rest: the whole data directory, and everything as blocks.

Every server takes the same load, is left alone until it has cut and merged what it cuts and merges by itself,
and is measured as it lies there, its log and head included. Then the newest hours become a block too, by a
snapshot (VictoriaMetrics has no head; it is told to flush and merge): what a store of months comes to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import ingest
from benchmarks.figures import OURS, Figure
from benchmarks.load.bodies import LoadWriter
from benchmarks.servers import Kind, Server, running_all

BAR = {"victoria-metrics": 0.85}
_SETTLE_S = 240.0
AGED_MS = 24 * 3600 * 1000
"""Of less data than a day most lies in head and log, and no bar is held against the directory as it lies."""


def measure(
    kinds: Sequence[Kind], folder: Path, writer: LoadWriter, steps: int, port: int, rest_s: float
) -> list[Figure]:
    """Send `steps` scrapes that end now, wait `rest_s` and until the servers are idle, and weigh."""
    aged = steps * writer.step_ms >= AGED_MS
    first_ms = int(time.time() * 1000) - steps * writer.step_ms
    whole: dict[str, float] = {}
    log: dict[str, float] = {}
    head: dict[str, float] = {}
    blocks: dict[str, float] = {}
    index: dict[str, float] = {}
    with running_all(kinds, port, folder) as servers:
        count = ingest.send_in_parts(servers, writer, first_ms, steps, folder / "load")
        for server in servers:
            server.flush()
            server.merge()
        time.sleep(rest_s)
        for server in servers:
            server.settle(quiet_s=2.0, timeout_s=_SETTLE_S)
            name = server.kind.name
            found = server.disk_bytes()
            whole[name] = sum(found.values()) / count
            log[name], head[name] = found.get("wal", 0) / count, found.get("chunks_head", 0) / count
            if server.kind.snapshot_path:
                blocks[name] = server.snapshot_bytes() / count
            else:
                blocks[name] = whole[name]
                index[name] = found.get("indexdb", 0) / count
        index[OURS] = _index_bytes(servers, OURS) / count
    return [
        Figure("whole directory as it lies, B a sample", whole, BAR if aged else {}, form=".3f"),
        Figure("of that log, B a sample", log, form=".3f"),
        Figure("of that chunks of the head, B a sample", head, form=".3f"),
        Figure("everything as blocks, index included, B a sample", blocks, BAR, form=".3f"),
        Figure("of that index, B a sample", index, form=".4f"),
        _megabytes("whole directory, MiB", whole, count),
    ]


def _megabytes(name: str, bytes_a_sample: Mapping[str, float], count: int) -> Figure:
    return Figure(name, {key: each * count / 2**20 for key, each in bytes_a_sample.items()}, form=",.1f")


def _index_bytes(servers: Sequence[Server], name: str) -> int:
    """Bytes of `index` and `series` in the snapshot of a server with Vedette's blocks."""
    for server in servers:
        if server.kind.name == name:
            files = [*server.data.glob("snapshots/*/*/index"), *server.data.glob("snapshots/*/*/series")]
            return sum(file.stat().st_blocks * 512 for file in files)
    return 0
