"""`python -m benchmarks.queryrun`: latency and memory of the query classes, side by side on the same data.

Each server takes the load over remote write, is stopped, and started again on its folder; then it is asked
all classes, and for each that takes memory it is started once more. `--phase load` and `--phase measure` do
one half only, over the same `--folder`: a load takes minutes, and only the measurement needs a quiet machine.
`--only NAME` loads one server, with the samples that those loaded before into the folder have; `--over HOURS`
asks about the newest hours of what was loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import cancelling, ingest, queries, querymemory, queryreport, servers
from benchmarks.load.bodies import LoadWriter
from benchmarks.load.nativehistograms import NativeHistograms
from benchmarks.load.nodes import Values, make_series
from benchmarks.queryclasses import CANCELLED, FIRST, NATIVE_ONLY, classes_over

LANES = 4
PORT_FIRST = 19400
STEP_MS = 15_000
STEPS_TOGETHER = 20
SEED = 20_260_102
NATIVE_HOSTS_MAX = 100
RESULTS = Path(__file__).parent / "results"
_DATA_FILE = "data.json"

_LOOKS_WITHIN_S = 65.0
"""Servers look once a minute whether to cut blocks. One that took a day in half a minute has not looked yet,
and what is asked of it later would be asked of a head that no server has for long."""
_WRITE_TIMEOUT_S = 60.0
_HEAVY_S = 1.0
"""Classes that take longer than this are asked fewer times."""


@dataclass(frozen=True, slots=True)
class Data:
    """What was loaded."""

    series_count: int
    sample_count: int
    start_ms: int
    end_ms: int


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _send_native(server: servers.Server, bodies: Iterable[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_WRITE_TIMEOUT_S)
    try:
        for body in bodies:
            connection.request("POST", "/api/v1/write", body, ingest.WRITE_HEADERS)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status // 100 != 2:
                raise RuntimeError(f"{server.kind.name} answered {answer.status}: {text[:300]!r}")
    finally:
        connection.close()


def load_servers(
    kinds: list[servers.Kind], folder: Path, hosts: int, steps: int, settle_s: float, port: int
) -> None:
    """Send the load to each server in a folder of its own, and stop them when they have come to rest."""
    series = make_series(hosts)
    writer = LoadWriter(
        series,
        Values(series, SEED),
        step_ms=STEP_MS,
        lane_count=LANES,
        seed=SEED,
        steps_together=STEPS_TOGETHER,
    )
    end_ms = _loaded_end_ms(folder, len(series), steps) or int(time.time() * 1000) // STEP_MS * STEP_MS
    first_ms = end_ms - steps * STEP_MS
    with servers.running_all(kinds, port, folder) as running:
        started = time.monotonic()
        count = 0
        native = NativeHistograms(min(hosts, NATIVE_HOSTS_MAX), STEP_MS, SEED)
        # Servers refuse what is an hour behind their newest sample, so both kinds go side by side.
        for step in range(0, steps, ingest.PART_STEPS):
            part_ms, part_steps = first_ms + step * STEP_MS, min(ingest.PART_STEPS, steps - step)
            count += ingest.send_in_parts(running, writer, part_ms, part_steps, folder / "load")
            bodies = list(native.bodies(part_ms, part_steps))
            for server in running:
                if server.kind is not servers.VICTORIA_METRICS:
                    _send_native(server, bodies)
        for server in running:
            server.flush()
        time.sleep(_LOOKS_WITHIN_S)
        for server in running:
            server.settle(quiet_s=2.0, timeout_s=settle_s)
    _say(f"{count:,} samples of {len(series):,} series loaded in {time.monotonic() - started:.0f} s")
    data = Data(len(series), count, first_ms, end_ms)
    (folder / _DATA_FILE).write_text(json.dumps(asdict(data)), encoding="utf-8")


def _loaded_end_ms(folder: Path, series_count: int, steps: int) -> int:
    """End of what other servers have been given in this folder, 0 if there is none of this size."""
    with contextlib.suppress(FileNotFoundError):
        data = Data(**json.loads((folder / _DATA_FILE).read_text(encoding="utf-8")))
        if data.series_count == series_count and data.end_ms - data.start_ms == steps * STEP_MS:
            return data.end_ms
        raise SystemExit(f"{folder} holds a load of another size; choose another folder")
    return 0


def _first(server: servers.Server, data: Data) -> queries.QueryResult:
    path = queries.request_path(FIRST, data.start_ms / 1000, data.end_ms / 1000, server.kind.query_arguments)
    seconds, body = queries.ask(server, path)
    return queries.QueryResult(seconds, len(json.loads(body)["data"]["result"]))


def _measure_class(
    server: servers.Server, query: queries.QueryClass, data: Data, repeats: int
) -> queryreport.Measured:
    """The memory of a first run, then the latency of more; one more for a class that is slow."""
    path = queries.request_path(query, data.start_ms / 1000, data.end_ms / 1000, server.kind.query_arguments)
    try:
        rise, seconds = querymemory.rise(server, path)
    except RuntimeError as error:
        return queryreport.Measured(queries.QueryResult(float("nan"), 0, str(error)), 0)
    runs = repeats if seconds < _HEAVY_S else 2
    return queryreport.Measured(queries.measure(server, query, data.start_ms, data.end_ms, runs), rise)


def _samples_read(server: servers.Server, query: queries.QueryClass, data: Data) -> int:
    """As Vedette counts them; 0 for endpoints that are no queries."""
    if query.path:
        return 0
    path = queries.request_path(query, data.start_ms / 1000, data.end_ms / 1000, (("stats", "true"),))
    _, body = queries.ask(server, path)
    return int(json.loads(body)["data"]["stats"]["samples"]["samplesRead"])


def measure_servers(
    kinds: list[servers.Kind],
    folder: Path,
    repeats: int,
    port: int,
    over_hours: float | None = None,
    fresh_memory: bool = True,
) -> queryreport.Results:
    """Start each server on its data and ask it everything about its newest hours, or all of it.

    Without `fresh_memory` the rises are those of the common run, where earlier queries have left room.
    """
    data = Data(**json.loads((folder / _DATA_FILE).read_text(encoding="utf-8")))
    if over_hours is not None:
        data = replace(data, start_ms=max(data.start_ms, data.end_ms - int(over_hours * 3_600_000)))
    classes = classes_over((data.end_ms - data.start_ms) // 1000)
    found: dict[str, dict[str, queryreport.Measured]] = {kind.name: {} for kind in kinds}
    samples: dict[str, int] = {FIRST.name: 0}
    cancel_ms = float("nan")
    for index, kind in enumerate(kinds):
        with servers.running(kind, port + index, folder / kind.name) as server:
            found[kind.name][FIRST.name] = queryreport.Measured(_first(server, data), 0)
            server.settle(quiet_s=3.0, timeout_s=40.0)
            for query in classes:
                if query.name in NATIVE_ONLY and kind is servers.VICTORIA_METRICS:
                    continue
                measured = _measure_class(server, query, data, repeats)
                found[kind.name][query.name] = measured
                _say(f"{kind.name}: {query.name}: {measured.latency.seconds * 1e3:.1f} ms")
                if kind is servers.VEDETTE:
                    samples[query.name] = _samples_read(server, query, data)
            if kind is servers.VEDETTE:
                path = queries.request_path(CANCELLED, data.start_ms / 1000, data.end_ms / 1000, ())
                with contextlib.suppress(RuntimeError):  # over before the client leaves
                    cancel_ms = cancelling.measure(server, path) * 1e3
        _say(f"{kind.name}: measured")
    if not fresh_memory:
        return queryreport.Results(data.series_count, data.sample_count, samples, found, cancel_ms)
    names = querymemory.worth_measuring(found)
    _say(f"memory in fresh servers: {', '.join(names)}")
    window_s = (data.start_ms / 1000, data.end_ms / 1000)
    by_name = {query.name: query for query in (*classes, FIRST)}
    rises = querymemory.in_fresh_servers(kinds, port, folder, by_name, names, window_s)
    found = querymemory.replaced(found, rises)
    return queryreport.Results(data.series_count, data.sample_count, samples, found, cancel_ms)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=40, help="256 series each (default %(default)s)")
    parser.add_argument(
        "--hours", type=float, default=6.0, help="of samples at 15 s, to five minutes (default %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--phase", choices=("load", "measure", "both"), default="both")
    parser.add_argument("--only", action="append", help="load this server only, may be given again")
    parser.add_argument("--over", type=float, metavar="HOURS", help="ask about the newest of the hours")
    parser.add_argument("--latency", action="store_true", help="without memory in freshly started servers")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds to wait for rest after the load")
    parser.add_argument("--port", type=int, default=PORT_FIRST, help="first of three (default %(default)s)")
    parser.add_argument("--folder", type=Path, required=True, help="where the data is; not removed")
    options = parser.parse_args()
    missing = servers.missing_programs()
    kinds = [kind for kind in servers.KINDS if kind.name not in missing]
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.phase != "measure":
        steps = int(options.hours * 3_600_000 / STEP_MS) // STEPS_TOGETHER * STEPS_TOGETHER
        loaded = [kind for kind in kinds if not options.only or kind.name in options.only]
        load_servers(loaded, options.folder, options.hosts, steps, options.settle, options.port)
    if options.phase != "load":
        results = measure_servers(
            kinds, options.folder, options.repeats, options.port, options.over, not options.latency
        )
        date = datetime.datetime.now(datetime.UTC)
        text = queryreport.table(results, f"{date:%Y-%m-%d}")
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{date:%Y%m%dT%H%M%S}-queries.md"
        path.write_text(text, encoding="utf-8")
        print(text)
        _say(f"written to {path}")


if __name__ == "__main__":
    main()
