"""Random range queries give what Debian's Prometheus gives over HTTP.

Its version 2.42 differs from 3.x in known ways, which are avoided: windows are closed on the left there, so
samples are at even milliseconds and everything is evaluated at odd ones; KNOWN_DIFFERENCES names the rest.
The long run: `VEDETTE_FUZZ_SECONDS=600 VEDETTE_FUZZ_SEED=1 pytest tests/promql/test_against_prometheus.py`.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from promql.builder import ParserOptions
from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.matrix import ABSENT_BITS, Matrix
from promql.memory import MemoryStore
from promql.options import EngineOptions
from promql.parser import parse
from promql.printer import pretty
from tests.fuzz.queries import QueryMaker
from tests.promql.randomqueries import METRICS, random_query
from tsdb.labels import Labels

KNOWN_DIFFERENCES = {
    r"mad_over_time|ts_of_|first_over_time|double_exponential": "functions that 2.42 does not have",
    r"\b(rate|increase)\(": "2.42 clamps the start at zero before it looks at the threshold",
    r"\b(stdvar|stddev)( |\()": "2.42 gives 0 for one NaN or infinity",
    r"topk": "which of equal values is chosen depends on the order of series",
    r"atan2": "2.42 keeps the metric name",
    r"predict_linear": "2.42 evaluates it once under @, and sums infinities without care",
    r"count_values": "last bits of a value become labels",
    r"%": "last bits of an operand become large",
    r"quantile .*-": "which of 0 and -0 is the larger depends on the order of series",
}
AVOIDED = re.compile("|".join(KNOWN_DIFFERENCES))

MERGED = re.compile(r"-[(a-z]|label_")
"""2.42 refuses equal label sets after these; 3.x merges them where they never share a step."""

BASE_MS = 1_700_000_000_000
START_MS, END_MS, STEP_MS = BASE_MS + 2_000_003, BASE_MS + 4_400_003, 260_000
DATA_SEEDS = 5
SECONDS = float(os.environ.get("VEDETTE_FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("VEDETTE_FUZZ_SEED", "0"))

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs Debian's package prometheus (prometheus and promtool)",
)

Cells = dict[tuple[tuple[str, str], ...], dict[int, float]]


def data() -> MemoryStore:
    """Series with resets, gaps, NaN and infinities at even milliseconds, for several seeds side by side."""
    store = MemoryStore()
    for seed in range(DATA_SEEDS):
        rng = random.Random(seed)
        for name in METRICS:
            for i in range(3):
                pairs = {"__name__": name, "i": str(i), "job": "xy"[i % 2], "s": str(seed)}
                _fill(store, Labels.from_dict(pairs), rng)
    return store


def _fill(store: MemoryStore, labels: Labels, rng: random.Random) -> None:
    name = labels.metric_name
    t, value = rng.randint(0, 60_000), 0.0
    while t < 2_400_000:
        roll = rng.random()
        if roll < 0.04 and name == "gauge":
            value = rng.choice([math.nan, math.inf, -math.inf])
        elif name.endswith("_total"):
            value = 0.0 if roll < 0.08 else value + rng.randint(0, 30)
        else:
            value = rng.choice([rng.uniform(-10, 10), float(rng.randint(-5, 5))])
        store.add_float(labels, BASE_MS + 2 * t, value)
        t += rng.choice([15_000] * 6 + [14_999, 15_001, 700_000 if name == "sparse" else 90_000])


def openmetrics(store: MemoryStore) -> str:
    """The store as text that promtool turns into blocks."""
    families: dict[str, list[str]] = {name: [f"# TYPE {name} unknown"] for name in METRICS}
    for row in store.series:
        labels = ",".join(f'{name}="{value}"' for name, value in row.labels if name != "__name__")
        for t_ms, bits in zip(row.times, row.bits, strict=True):
            value = float(np.uint64(bits).view(np.float64))
            text = repr(value) if math.isfinite(value) else {1: "+Inf", -1: "-Inf"}.get(_sign(value), "NaN")
            name = row.labels.metric_name
            families[name].append(f"{name}{{{labels}}} {text} {t_ms / 1000:.3f}")
    return "\n".join(line for lines in families.values() for line in lines) + "\n# EOF\n"


def _sign(value: float) -> int:
    return 0 if math.isnan(value) else int(math.copysign(1, value))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a Prometheus that holds the data."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "data.txt").write_text(openmetrics(data()))
    (folder / "prometheus.yml").write_text("global: {}\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "data.txt", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=100y",
        "--enable-feature=promql-per-step-stats",
    ]
    server = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def adapted(query: str, seed: int) -> str:
    """The query over one seed's series, with `@` at odd milliseconds."""

    def selector(match: re.Match[str]) -> str:
        return f'{match.group(1)}{{s="{seed}"' + ("," if match.group(2) else "}")

    names = "|".join(METRICS)
    query = re.sub(rf"\b({names})\b(\{{)?", selector, query)
    return re.sub(r"@ (\d+)", lambda m: f"@ {BASE_MS // 1000 + 2 * int(m.group(1))}.001", query)


def of_prometheus(url: str, query: str) -> Cells | None:
    """Rows of a range query, None for an error."""
    times = {"start": START_MS / 1000, "end": END_MS / 1000, "step": STEP_MS / 1000}
    parameters = urllib.parse.urlencode({"query": query, **times})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{parameters}", timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError:
        return None
    return {
        tuple(sorted(row["metric"].items())): {
            round(t * 1000): float(value.replace("Inf", "inf")) for t, value in row["values"]
        }
        for row in result
    }


def of_engine(engine: Engine, store: MemoryStore, query: str) -> Cells | None:
    """The same from our engine."""
    try:
        value = engine.range(store.querier(), query, START_MS, END_MS, STEP_MS).value
    except ExecutionError:
        return None
    assert isinstance(value, Matrix)
    times = value.grid.times_ms().tolist()
    present = value.values.view(np.uint64) != ABSENT_BITS
    return {
        tuple(sorted(labels.to_dict().items())): {
            t: float(v) for t, v, here in zip(times, row, seen, strict=True) if here
        }
        for labels, row, seen in zip(value.labels.rows(), value.values, present, strict=True)
    }


def equal(one: float, two: float) -> bool:
    """Equal but for the last bits, NaN equal to NaN."""
    if math.isnan(one) or math.isnan(two):
        return math.isnan(one) and math.isnan(two)
    return one == two or math.isclose(one, two, rel_tol=1e-9, abs_tol=1e-12)


@needs_prometheus
def test_random_queries_give_what_prometheus_gives(prometheus: str) -> None:
    store = data()
    engine = Engine(EngineOptions(threads=1))
    deadline = time.monotonic() + SECONDS
    compared, number = 0, SEED * 10_000_000
    # On a machine that is busy a few seconds are not enough for a verdict.
    while time.monotonic() < deadline or compared <= 10:
        number += 1
        query = random_query(number)
        if AVOIDED.search(query):
            continue
        query = adapted(query, number % DATA_SEEDS)
        expected, got = of_prometheus(prometheus, query), of_engine(engine, store, query)
        case = f"seed {number}: {query}"
        if expected is None or got is None:
            assert got is None or MERGED.search(query), case
            assert expected is None, case
            continue
        assert set(expected) == set(got), case
        for labels, row in expected.items():
            assert set(row) == set(got[labels]), (case, labels)
            for t, value in row.items():
                assert equal(value, got[labels][t]), (case, labels, t, value, got[labels][t])
        compared += bool(expected)


COUNTED = [
    "gauge",
    "sum by (i) (a_total)",
    "rate(a_total[5m])",
    "count_over_time(sparse[20m]) + gauge",
    "gauge offset 7m",
    "sum_over_time(gauge[5m] @ 1200)",
    "gauge @ end() * 2",
    "max_over_time(gauge[10m] offset 3m)",
    "absent_over_time(gauge[1m])",
    "1 + 2",
    "absent(sparse)",
    "quantile_over_time(0.5, gauge[7m])",
    # Windows of subqueries are closed on the left in 2.42: nothing here falls on a border.
    "max_over_time(vector(1)[20s:5s])",
    "sum_over_time(vector(scalar(gauge))[10m:1m])",
    "avg_over_time((gauge > 0)[10m:1m])",
    "rate(a_total[10m:30s]) + rate(a_total[10m:30s] offset 1m)",
    "max_over_time(rate(a_total[5m])[10m:1m] @ 1200)",
    "quantile_over_time(0.5, sum_over_time(gauge[5m1s])[10m:1m])",
    "absent_over_time(vector(time())[1m:7s])",
]


@pytest.mark.parametrize("query", COUNTED)
def test_samples_that_steps_look_at_are_counted_as_by_prometheus(prometheus: str, query: str) -> None:
    text = adapted(query, 0)
    # Where the end is no step 2.42 evaluates the inside of a subquery up to it.
    end_ms = START_MS + (END_MS - START_MS) // STEP_MS * STEP_MS
    times = {"start": START_MS / 1000, "end": end_ms / 1000, "step": STEP_MS / 1000}
    parameters = urllib.parse.urlencode({"query": text, "stats": "all", **times})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{parameters}", timeout=30) as answer:
        theirs = json.load(answer)["data"]["stats"]["samples"]
    engine = Engine(EngineOptions(threads=1, features=frozenset({"promql-per-step-stats"})))
    ours = engine.range(data().querier(), text, START_MS, end_ms, STEP_MS, stats="all").stats["samples"]
    assert ours["totalQueryableSamples"] == theirs["totalQueryableSamples"]
    by_step = [list(pair) for pair in ours["totalQueryableSamplesPerStep"]]
    assert by_step == theirs["totalQueryableSamplesPerStep"]
    # 3.x no longer copies the vector of each step for an aggregation.
    if not query.startswith("sum by"):
        assert ours["peakSamples"] == theirs["peakSamples"]


def test_formatted_queries_are_those_of_prometheus(prometheus: str) -> None:
    compared = 0
    for number in range(500):
        query = QueryMaker(random.Random(f"format {number}")).query()
        body = urllib.parse.urlencode({"query": query}).encode()
        try:
            with urllib.request.urlopen(f"{prometheus}/api/v1/format_query", body, timeout=30) as answer:
                theirs = json.load(answer)["data"]
        except urllib.error.HTTPError:
            continue  # newer than 2.42
        assert pretty(parse(query, ParserOptions.everything())) == theirs
        compared += 1
    assert compared > 100
