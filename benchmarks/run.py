"""`python -m benchmarks.run --size small|large`: Vedette, Prometheus and VictoriaMetrics on the same load.

The load is encoded once, then each server in turn starts on an empty folder, takes it over four connections,
comes to rest and answers the query classes. The small size ends in three minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ingest, queries, report, servers
from benchmarks.load.bodies import Load, write_load
from benchmarks.load.nodes import make_series

LANES = 4
PORT_FIRST = 19300
STEP_MS = 15_000
SEED = 20_260_101
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Size:
    """How much to send and how often to ask."""

    hosts: int
    steps: int
    repeats: int
    settle_s: float
    rest_s: float = 0.0
    """Wait at least so long after the load: servers look once a minute whether to cut a block."""


SIZES = {
    "tiny": Size(hosts=10, steps=60, repeats=2, settle_s=4.0),
    "small": Size(hosts=200, steps=100, repeats=5, settle_s=14.0),
    "large": Size(hosts=200, steps=840, repeats=7, settle_s=120.0, rest_s=75.0),
}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_load(size: Size, folder: Path) -> Load:
    """Encode the load into a file of the folder."""
    series = make_series(size.hosts)
    end_ms = int(time.time() * 1000) // STEP_MS * STEP_MS
    started = time.monotonic()
    load = write_load(
        folder / "load", series, steps=size.steps, step_ms=STEP_MS, end_ms=end_ms, lane_count=LANES, seed=SEED
    )
    _say(
        f"load: {load.series_count:,} series x {size.steps} scrapes = {load.sample_count:,} samples,"
        f" {load.path.stat().st_size / 2**20:,.0f} MiB, encoded in {time.monotonic() - started:.0f} s"
    )
    return load


def measure_server(
    kind: servers.Kind, port: int, folder: Path, load: Load, size: Size
) -> report.ServerResult:
    """All measurements of one server, on a fresh folder."""
    server = servers.Server(kind, port, folder)
    try:
        ready_s = server.wait_ready()
        # What a start does in the background (Vedette loads the kernels of queries) is not ingestion.
        server.settle(quiet_s=1.0, timeout_s=size.settle_s)
        found = ingest.measure(server, load, LANES, size.settle_s, size.rest_s)
        _say(f"{kind.name}: {found.sample_count / found.seconds:,.0f} samples/s, {found.cpu_s:.1f} s CPU")
        answers = {
            query.name: queries.measure(server, query, load.start_ms, load.end_ms, size.repeats)
            for query in queries.CLASSES
        }
    finally:
        server.stop()
    return report.ServerResult(found, answers, ready_s)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", action="append", choices=[kind.name for kind in servers.KINDS])
    parser.add_argument("--folder", type=Path, help="where to keep data (default: a temporary folder)")
    options = parser.parse_args()
    wanted = {report.OURS, *(options.only or [kind.name for kind in servers.KINDS])}
    missing = set(servers.missing_programs())
    for name in sorted(missing & wanted):
        _say(f"{name} is not installed; left out")
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="vedette-bench-", dir=options.folder))
    results: dict[str, report.ServerResult] = {}
    try:
        size = SIZES[options.size]
        load = make_load(size, folder)
        for index, kind in enumerate(servers.KINDS):
            if kind.name in wanted - missing:
                part = folder / kind.name
                results[kind.name] = measure_server(kind, PORT_FIRST + index, part, load, size)
                shutil.rmtree(part)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    date = datetime.datetime.now(datetime.UTC)
    title = f"{load.sample_count:,} samples of {load.series_count:,} series, {LANES} connections"
    text = report.table(results, title, f"{date:%Y-%m-%d}")
    notes = "".join(f"\n* {remark}" for remark in report.remarks(results))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date:%Y%m%dT%H%M%S}-{options.size}.md"
    path.write_text(text + notes + "\n", encoding="utf-8")
    print(text)
    print("Remarks:" + notes)
    _say(f"written to {path}; took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
