"""`python -m benchmarks.mixed --minutes 20`: Vedette under all that happens at once; is its memory flat?

Time is compressed, 120 seconds of data a second: twenty minutes hold forty hours. Blocks are cut, merged and,
after twelve hours of data, deleted by the retention. Meanwhile hosts come and go, queries of every class run
over fresh and old data, retired hosts are deleted, tombstones cleaned. A line every five seconds goes to a
CSV file; at the end come a table and a verdict. Exit code 1 where memory grew, a request was refused, or a
sample is missing.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import http.client
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from benchmarks.ingest import WRITE_HEADERS
from benchmarks.load.bodies import LoadWriter
from benchmarks.load.nodes import Values, host_name, make_series
from benchmarks.queries import CLASSES, QueryClass, request_path
from benchmarks.report import machine
from benchmarks.servers import VEDETTE, Kind, Server, running

PORT = 19_390
STEP_MS = 15_000
SPEED = 120
GROUPS, HOSTS_A_GROUP = 10, 4
CHURN_MS = 1800 * 1000
"""Of data: then one of the groups is replaced by new hosts, a tenth of the series."""
CLEAN_EVERY = 4
"""Deletions between two cleanings of tombstones."""
RETENTION = "12h"
QUERY_PAUSE_S = 0.1
SAMPLE_S = 5.0
GROWTH_LIMIT = 0.05
"""Of the median resident size, from the middle third of the run to its last third."""
RESULTS = Path(__file__).parent / "results"

LONG_QUERIES = (
    QueryClass("six hours of a gauge", "avg by (role) (node_load1)", 6 * 3600),
    QueryClass("six hours of rates", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", 6 * 3600),
)


def _with_retention(port: int, folder: Path) -> list[str]:
    return [*VEDETTE.command(port, folder), f"--storage.tsdb.retention.time={RETENTION}"]


SERVER = Kind("vedette", _with_retention, VEDETTE.ready_path)


@dataclass(frozen=True, slots=True)
class Line:
    """The server at one moment of the run; sizes in MiB, times in s."""

    elapsed_s: float
    data_hours: float
    rss: float
    private: float
    peak: float
    cpu_s: float
    disk: float
    blocks: int
    head_series: int
    samples: int
    queries: int
    deletions: int


class Load:
    """Groups of hosts, of which one is replaced at a time. The sending thread only."""

    def __init__(self, start_ms: int) -> None:
        self.next_ms = start_ms
        self.sample_count = 0
        self._next_host = 0
        self._groups: list[tuple[int, LoadWriter]] = [self._group() for _ in range(GROUPS)]
        self._churn_ms = start_ms + CHURN_MS

    def _group(self) -> tuple[int, LoadWriter]:
        first = self._next_host
        self._next_host += HOSTS_A_GROUP
        series = make_series(HOSTS_A_GROUP, first)
        writer = LoadWriter(series, Values(series, first), step_ms=STEP_MS, lane_count=1, seed=first)
        return first, writer

    def send_step(self, connection: http.client.HTTPConnection) -> list[int]:
        """Send the next scrape of all groups; a host to delete if some have gone. Raises RuntimeError."""
        for _, writer in self._groups:
            for body in writer.scrapes(self.next_ms):
                connection.request("POST", "/api/v1/write", body, WRITE_HEADERS)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status // 100 != 2:
                    raise RuntimeError(f"write: {answer.status} {text[:300]!r}")
            self.sample_count += writer.series_count
        self.next_ms += STEP_MS
        return self._churn() if self.next_ms >= self._churn_ms else []

    def _churn(self) -> list[int]:
        self._churn_ms += CHURN_MS
        gone, _ = self._groups.pop(0)
        self._groups.append(self._group())
        return [gone]

    @property
    def oldest_host(self) -> int:
        """A host that is still there and has been for longest."""
        return self._groups[0][0]


class Run:
    """One run against a server: threads that send, ask and delete until `stop`, and the samples taken."""

    def __init__(self, server: Server, start_ms: int, speed: float) -> None:
        self._server, self._start_ms, self._speed = server, start_ms, speed
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._gone: list[int] = []
        self.load = Load(start_ms)
        self.query_count = self.deletion_count = 0
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._send, self._ask, self._delete)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.errors.append(f"{work.__name__}: {error!r}")
            self._stop.set()

    @property
    def failed(self) -> bool:
        """Whether a thread has ended with an error."""
        return self._stop.is_set()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=120)

    def _send(self) -> None:
        connection = self._connection()
        while not self._stop.is_set():
            due_ms = self._start_ms + (time.monotonic() - self._began) * 1000 * self._speed
            if self.load.next_ms > due_ms:
                time.sleep(0.005)
            else:
                self._gone += self.load.send_step(connection)

    def _ask(self) -> None:
        connection = self._connection()
        number = 0
        while not self._stop.wait(QUERY_PAUSE_S):
            query = (*CLASSES, *LONG_QUERIES)[number % (len(CLASSES) + len(LONG_QUERIES))]
            number += 1
            path = request_path(query, self._start_ms / 1000, self.load.next_ms / 1000, ())
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{query.name}: {answer.status} {body[:300]!r}")
            self.query_count += 1

    def _delete(self) -> None:
        while not self._stop.wait(0.5):
            while self._gone:
                matcher = f'{{instance="{host_name(self._gone.pop())}"}}'
                self._post("delete_series?" + urllib.parse.urlencode({"match[]": matcher}))
                self.deletion_count += 1
                if self.deletion_count % CLEAN_EVERY == 0:
                    self._post("clean_tombstones")

    def _post(self, path: str) -> None:
        request = urllib.request.Request(f"{self._server.url}/api/v1/admin/tsdb/{path}", method="POST")
        urllib.request.urlopen(request, timeout=120).close()

    def sample(self) -> Line:
        """The server now."""
        used, mib = self._server.usage(), 2**20
        return Line(
            elapsed_s=round(time.monotonic() - self._began, 1),
            data_hours=round((self.load.next_ms - self._start_ms) / 3_600_000, 2),
            rss=round(used.rss_bytes / mib, 1),
            private=round(used.private_bytes / mib, 1),
            peak=round(used.peak_rss_bytes / mib, 1),
            cpu_s=round(used.cpu_s, 2),
            disk=round(sum(self._server.disk_bytes().values()) / mib, 1),
            blocks=len(list(self._server.data.glob("*/meta.json"))),
            head_series=int(self._server.metric("prometheus_tsdb_head_series")),
            samples=self.load.sample_count,
            queries=self.query_count,
            deletions=self.deletion_count,
        )

    def missing_samples(self) -> int:
        """Samples that the last hour of a living host's load lacks. After `stop`."""
        hours = min(1.0, (self.load.next_ms - self._start_ms) / 3_600_000)
        want = int(hours * 3_600_000) // STEP_MS
        text = f'count_over_time(node_load1{{instance="{host_name(self.load.oldest_host)}"}}[{want * 15}s])'
        # The window is open at its left end, and a scrape lies anywhere within its step.
        rows = self._server.query(text, (self.load.next_ms - 1) / 1000)
        return want - int(rows[0]["value"][1]) if rows else want


def growth(values: Sequence[float]) -> float:
    """By how much the median of the last third is above that of the middle third, as a part of it."""
    third = len(values) // 3
    middle, last = median(values[third : 2 * third]), median(values[2 * third :])
    return last / middle - 1


def table(lines: Sequence[Line], rows: int = 20) -> str:
    """Some lines of the run, evenly chosen, the last one among them."""
    names = [each.name for each in fields(Line)]
    chosen = lines[:: max(1, len(lines) // rows)]
    if chosen[-1] is not lines[-1]:
        chosen = [*chosen, lines[-1]]
    text = "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|\n"
    return text + "".join(f"| {' | '.join(str(v) for v in asdict(line).values())} |\n" for line in chosen)


def run(minutes: float, speed: float, folder: Path) -> tuple[list[Line], list[str]]:
    """Samples of a whole run and what went wrong."""
    start_ms = int((time.time() - minutes * 60 * speed) * 1000)
    lines: list[Line] = []
    with running(SERVER, PORT, folder) as server:
        mixed = Run(server, start_ms, speed)
        mixed.start()
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60 and not mixed.failed:
            time.sleep(SAMPLE_S)
            lines.append(mixed.sample())
            if len(lines) % 12 == 0:
                print(asdict(lines[-1]), file=sys.stderr, flush=True)
        mixed.stop()
        problems = list(mixed.errors)
        if not problems and (missing := mixed.missing_samples()):
            problems.append(f"{missing} samples of the last hour are missing")
    return lines, problems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--speed", type=float, default=SPEED, help="seconds of data a second")
    options = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC)
    with tempfile.TemporaryDirectory(prefix="vedette-mixed-") as folder:
        lines, problems = run(options.minutes, options.speed, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date:%Y%m%dT%H%M%S}-mixed.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Line)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
    print(
        f"{options.minutes:g} minutes, {options.speed:g} s of data a second. {date:%Y-%m-%d}, {machine()}.\n"
    )
    print(table(lines))
    for name in ("rss", "private"):
        grown = growth([getattr(line, name) for line in lines])
        print(f"{name}: last third {grown:+.1%} against the middle third (limit {GROWTH_LIMIT:+.0%})")
        if grown > GROWTH_LIMIT:
            problems.append(f"{name} grew by {grown:.1%}")
    print(f"written to {path}\nverdict: {'; '.join(problems) or 'flat, nothing refused, nothing missing'}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
