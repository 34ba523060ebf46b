"""`python -m tests.fuzz.peer --count N --seed S`: random float queries against Debian's Prometheus over HTTP.

Samples lie at odd milliseconds and evaluation times at whole seconds, so that closed windows (before 3.0) and
left-open ones hold the same samples; subqueries, whose samples do fall on borders, are left out. Queries that
the old server does not know, or answers by older rules (CHANGED), are counted, not compared.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from promql.memory import MemoryStore
from promql.numberformat import format_g
from tests.fuzz.data import fill_store, make_series
from tests.fuzz.differ import Case, Fuzz, Result
from tests.fuzz.spelling import BARE
from tests.reference.histograms import FloatHistogram
from tests.reference.promqlvalues import STALE, Cell, Series, Unspecified
from tsdb.labels import Labels

READY_SECONDS = 30
RELATIVE = 1e-9
"""The old server adds without compensation."""
NEAR_ZERO = 1e-9

CHANGED = {
    r"\[[^]\[]*:[^]\[]*\]": "subquery",
    "mad_over_time|histogram_quantiles": "function is new",
    "histogram_fraction": "classic histograms are new",
    "count_values": "shows every digit",
    r"predict_linear\(.*@": "moved the window that @ pins from step to step",
    "atan2": "kept the metric name beside a scalar",
    r"(rate|increase)\(": "limited extrapolation to zero before the threshold instead of after",
    r"std(dev|var)\b": "gave 0 for a group that begins with NaN",
}
"""Patterns of queries that are not compared, and what the old server does."""


def available() -> bool:
    """Whether the programs are installed."""
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


def float_series(seed: int) -> list[Series]:
    """The fuzz's series without histograms and stale markers, which backfilling cannot express, and without
    UTF-8 names, which the old server does not know."""
    out = []
    for series in make_series(Random(f"{seed}:peer:data")):
        if not all(BARE.fullmatch(text) for text in (series.labels.metric_name, *dict(series.labels))):
            continue
        floats = [
            s for s in series.samples if s.value is not STALE and not isinstance(s.value, FloatHistogram)
        ]
        if floats:
            out.append(Series(series.labels, floats))
    return out


def exposition(series: list[Series]) -> str:
    """OpenMetrics text; names in order, each family once."""
    lines = []
    for row in sorted(series, key=lambda r: r.labels.pairs):
        inner = ",".join(f'{n}="{v}"' for n, v in row.labels if n != "__name__")
        for sample in row.samples:
            assert isinstance(sample.value, float)
            value = format_g(sample.value)
            # promtool cuts seconds to milliseconds downwards, so the float must not lie below.
            lines.append(f"{row.labels.metric_name}{{{inner}}} {value} {sample.t_ms / 1000:.3f}4")
    return "\n".join([*lines, "# EOF", ""])


@contextmanager
def prometheus(series: list[Series]) -> Iterator[str]:
    """A server over backfilled series; gives its address."""
    with tempfile.TemporaryDirectory(prefix="fuzz-peer-") as folder:
        root = Path(folder)
        (root / "data.om").write_text(exposition(series))
        (root / "prometheus.yml").write_text("scrape_configs: []\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "data.om", "data"]
        subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        server = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--storage.tsdb.retention.time=200y",
                f"--web.listen-address={address}",
                "--enable-feature=promql-at-modifier,promql-negative-offset",
            ],
            cwd=root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_ready(address)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def ask(base: str, case: Case) -> Result | str:
    """The server's answer, or its error."""
    times = case.times
    if times.steps == 1:
        path, fields = "query", {"time": f"{times.start_ms / 1000:.3f}"}
    else:
        end = times.all()[-1]
        path = "query_range"
        fields = {
            "start": f"{times.start_ms / 1000:.3f}",
            "end": f"{end / 1000:.3f}",
            "step": f"{times.step_ms / 1000:.3f}",
        }
    body = urllib.parse.urlencode({"query": case.query, **fields}).encode()
    try:
        with urllib.request.urlopen(f"{base}/api/v1/{path}", body, timeout=30) as answer:
            data = json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        failed = json.load(error)
        return f"{failed['errorType']}: {failed['error']}"
    if data["resultType"] in ("scalar", "string"):
        return {Labels(): [float(data["result"][1])]}
    out: Result = {}
    places = {t: k for k, t in enumerate(times.all())}
    for row in data["result"]:
        cells: list[Cell] = [None] * times.steps
        for t, value in row["values"] if "values" in row else [row["value"]]:
            cells[places[round(t * 1000)]] = float(value)
        out[Labels.from_dict(row["metric"])] = cells
    return out


def _close(x: Cell, y: Cell) -> bool:
    if x is None or y is None:
        return x is None and y is None
    assert isinstance(x, float)
    assert isinstance(y, float)
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    return x == y or abs(x - y) <= max(RELATIVE * max(abs(x), abs(y)), NEAR_ZERO)


def differing(expected: Result, got: Result) -> str:
    """The first difference, or the empty string."""
    if set(expected) != set(got):
        missing, extra = set(expected) - set(got), set(got) - set(expected)
        return f"engine misses {sorted(map(str, missing))}, has extra {sorted(map(str, extra))}"
    for labels, cells in expected.items():
        for k, (want, have) in enumerate(zip(cells, got[labels], strict=True)):
            if not _close(want, have):
                return f"{labels} step {k}: Prometheus {want}, engine {have}"
    return ""


def compare(
    fuzz: Fuzz, case: Case, base: str, series: list[Series], store: MemoryStore, skipped: Counter[str]
) -> str:
    """One case; the difference as text."""
    for pattern, reason in CHANGED.items():
        if re.search(pattern, case.query):
            skipped[reason] += 1
            return ""
    try:
        fuzz.expected(case, series)
    except Unspecified as unspecified:
        skipped[str(unspecified)] += 1
        return ""
    expected = ask(base, case)
    if isinstance(expected, str) and expected.startswith("bad_data"):
        skipped["unknown to the old server"] += 1
        return ""
    got = fuzz.got(case, store)
    if isinstance(expected, str) or isinstance(got, str):
        if isinstance(expected, str) and isinstance(got, str):
            return ""
        return f"Prometheus: {str(expected)[:200]}\n  engine: {str(got)[:200]}"
    return differing(expected, got)


def main() -> int:
    """Run cases; 1 if any differs."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.peer", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10)
    args = parser.parse_args()
    if not available():
        print("prometheus and promtool are not installed")
        return 2
    series = float_series(args.seed)
    store, fuzz = fill_store(series), Fuzz(args.seed, old_names=True)
    skipped: Counter[str] = Counter()
    found = 0
    with prometheus(series) as base:
        for number in range(args.count):
            case = replace(fuzz.case(number), delayed=False, starts=False)
            problem = compare(fuzz, case, base, series, store, skipped)
            if problem:
                found += 1
                if found <= args.show:
                    print(f"case {args.seed}:{number} {case.query!r} at {case.times}\n  {problem}")
    for reason, count in skipped.most_common():
        print(f"not compared: {count} x {reason}")
    print(f"{args.count} queries, {found} differences, seed {args.seed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
