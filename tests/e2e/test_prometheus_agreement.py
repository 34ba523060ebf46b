"""Debian's Prometheus scrapes Debian's node exporter and itself and writes everything to Vedette: then both
must give equal answers, through the HTTP API and through promtool.

Prometheus 2.42 still has closed ranges where Prometheus 3 and Vedette have left-open ones, so the moments
of evaluation lie between the milliseconds of the samples: no sample is exactly on the border of a range.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import Kind, Server
from tests.e2e.processes import Api, free_port, need_programs, start_vedette, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

LOAD_S = 55
STEP_S = 3
RANGE_S = 24
RELATIVE_TOLERANCE = 1e-12

_PROMETHEUS_CONFIG = """\
global:
  scrape_interval: 1s
remote_write:
  - url: http://127.0.0.1:{vedette}/api/v1/write
    queue_config:
      batch_send_deadline: 1s
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ["127.0.0.1:{node}"]
        labels: {{rack: r1}}
  - job_name: prometheus
    static_configs:
      - targets: ["127.0.0.1:{prometheus}"]
"""

HTTP_BUCKETS = "prometheus_http_request_duration_seconds_bucket"

# Text, and whether only as an instant query (sorting has no meaning over a range).
QUERIES = [
    "up",
    "node_load1",
    'node_cpu_seconds_total{mode="idle"}',
    'node_cpu_seconds_total{mode=~"user|system",cpu!="1"}',
    '{job="node",__name__=~"node_memory_Mem.*"}',
    'node_network_receive_bytes_total{device!~"veth.*|lo"}',
    "node_load1 offset 5s",
    "node_memory_MemTotal_bytes - node_memory_MemFree_bytes",
    "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
    "rate(node_cpu_seconds_total[10s])",
    "irate(node_cpu_seconds_total[10s])",
    "increase(prometheus_http_requests_total[15s])",
    "delta(node_memory_MemFree_bytes[15s])",
    "idelta(node_memory_MemFree_bytes[15s])",
    "sum by (mode) (rate(node_cpu_seconds_total[10s]))",
    "avg without (cpu, mode) (rate(node_cpu_seconds_total[15s]))",
    "sum(rate(node_cpu_seconds_total{mode!='idle'}[15s])) by (instance)",
    "count by (job) (up)",
    "count({job=~'.+'})",
    "count by (__name__) ({__name__=~'node_load.*'})",
    "min by (job) (scrape_duration_seconds)",
    "max without (instance) (node_filesystem_avail_bytes)",
    "group by (rack) (up)",
    "stddev(node_cpu_seconds_total)",
    "stdvar by (mode) (node_cpu_seconds_total)",
    "quantile(0.9, node_cpu_seconds_total)",
    "count_values('value', up)",
    "topk(3, node_cpu_seconds_total)",
    "bottomk(2, node_memory_MemFree_bytes or node_memory_MemTotal_bytes or node_memory_Cached_bytes)",
    f"histogram_quantile(0.9, rate({HTTP_BUCKETS}[15s]))",
    f"histogram_quantile(0.5, sum by (le) (rate({HTTP_BUCKETS}[20s])))",
    f"histogram_quantile(0.99, sum by (le, handler) (increase({HTTP_BUCKETS}[20s])))",
    "avg_over_time(node_load1[15s])",
    "sum_over_time(up[10s])",
    "min_over_time(node_memory_MemFree_bytes[15s])",
    "max_over_time(node_memory_MemFree_bytes[15s])",
    "count_over_time(scrape_samples_scraped[15s])",
    "stddev_over_time(node_load1[15s])",
    "quantile_over_time(0.75, node_memory_MemFree_bytes[15s])",
    "last_over_time(node_boot_time_seconds[15s])",
    "present_over_time(up[15s])",
    "changes(node_memory_MemFree_bytes[15s])",
    "resets(node_cpu_seconds_total[15s])",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes",
    "rate(node_disk_read_bytes_total[10s]) / rate(node_disk_reads_completed_total[10s])",
    "node_cpu_seconds_total * on (instance) group_left (nodename) node_uname_info",
    "rate(node_cpu_seconds_total[10s]) / on (instance) group_left () node_load1",
    "scrape_samples_scraped / ignoring (job, instance, rack) group_left () vector(2)",
    "node_load1 > 0 and on (instance) up == 1",
    "node_load1 or node_load5",
    "up unless on (job) node_load1",
    "up == bool 1",
    "node_load1 > bool 1000",
    'label_replace(up, "host", "$1", "instance", "(.*):.*")',
    'label_join(up, "both", "-", "job", "instance")',
    "absent(up)",
    'absent(nonexistent{job="x"})',
    "time()",
    "scalar(node_load1) * 2",
    "vector(1) + time() % 10",
    "-node_load1",
    "2 ^ 3 ^ 2 + node_load1 * 0",
    "clamp(node_load1, 0.1, 0.5)",
    "round(node_load1 * 100, 0.5)",
    "abs(node_load1 - node_load5)",
    "ceil(node_load5) + floor(node_load15)",
    "ln(node_memory_MemTotal_bytes)",
    "timestamp(up)",
    "deriv(node_memory_MemFree_bytes[15s])",
    "predict_linear(node_memory_MemFree_bytes[15s], 60)",
    "max_over_time(rate(node_cpu_seconds_total{mode='idle'}[10s])[12s:2s])",
    "sum by (mode) (node_cpu_seconds_total @ end())",
    "hour(node_boot_time_seconds)",
    "day_of_week(vector(1700000000))",
]
SORTED_QUERIES = [
    "sort(node_memory_MemFree_bytes or node_memory_MemTotal_bytes)",
    "sort_desc(node_cpu_seconds_total)",
]
TOLERANCES = {"predict_linear": 1e-9, "deriv": 1e-9, "stddev": 1e-9, "stdvar": 1e-9}


@dataclass(frozen=True, slots=True)
class Pair:
    """The two servers and the moment at which both have all data."""

    prometheus_port: int
    vedette_port: int
    end_s: float

    @property
    def ports(self) -> tuple[int, int]:
        return self.prometheus_port, self.vedette_port


def _prometheus_kind(node_port: int, vedette_port: int) -> Kind:
    def command(port: int, folder: Path) -> list[str]:
        config = folder / "prometheus.yml"
        text = _PROMETHEUS_CONFIG.format(vedette=vedette_port, node=node_port, prometheus=port)
        config.write_text(text, encoding="utf-8")
        return [
            *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    return Kind("prometheus", command, "/-/ready")


def _node_exporter_kind() -> Kind:
    def command(port: int, folder: Path) -> list[str]:
        collectors = (
            "cpu",
            "diskstats",
            "filesystem",
            "loadavg",
            "meminfo",
            "netdev",
            "stat",
            "time",
            "uname",
        )
        return [
            *("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"),
            *("--collector.disable-defaults", *(f"--collector.{name}" for name in collectors)),
        ]

    return Kind("node-exporter", command, "/metrics")


def _offset_between_samples(api: Api) -> float:
    """Milliseconds of a second that are as far as possible from those of any scrape."""
    taken = {
        round(float(t) * 1000) % 1000 for row in api.query("up[20s]")["result"] for t, _ in row["values"]
    }

    def distance(offset: int) -> int:
        return min(min(abs(offset - each), 1000 - abs(offset - each)) for each in taken)

    return max(range(0, 1000, 7), key=distance) / 1000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    need_programs("prometheus", "promtool", "prometheus-node-exporter")
    folder = tmp_path_factory.mktemp("agreement")
    servers: list[Server] = []
    try:
        servers.append(start_vedette(folder / "vedette"))
        servers.append(Server(_node_exporter_kind(), free_port(), folder / "node"))
        for server in servers:
            server.wait_ready()
        vedette, node = servers
        prometheus = Server(_prometheus_kind(node.port, vedette.port), free_port(), folder / "prometheus")
        servers.append(prometheus)
        prometheus.wait_ready()
        started = time.time()
        apis = Api(prometheus.port), Api(vedette.port)
        # Requests by hand, so that Prometheus's own histograms of handlers have something to count.
        while time.time() < started + LOAD_S:
            apis[0].get("/api/v1/query", query="up")
            apis[0].get("/api/v1/label/job/values")
            time.sleep(0.4)
        end_s = math.floor(time.time() - 3) + _offset_between_samples(apis[0])

        def same_data() -> bool:
            left, right = (_points(api.query("{job=~'.+'}[45s]", end_s)) for api in apis)
            return bool(left) and left == right

        wait_until(same_data, 30, "Vedette has every sample that Prometheus has")
        yield Pair(prometheus.port, vedette.port, end_s)
    finally:
        # The sender first: while its receiver is away it would wait a minute to flush.
        for server in reversed(servers):
            server.stop()


def _tolerance(text: str) -> float:
    return max((value for name, value in TOLERANCES.items() if name in text), default=RELATIVE_TOLERANCE)


def _close(left: str, right: str, tolerance: float) -> bool:
    a, b = float(left), float(right)
    return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=tolerance)


def _points(data: Any) -> dict[str, list[tuple[float, str]]]:
    """Points of each row under its labels as text."""
    if data["resultType"] in ("scalar", "string"):
        return {"": [tuple(data["result"])]}
    found = {}
    for row in data["result"]:
        labels = json.dumps(row["metric"], sort_keys=True)
        assert labels not in found
        found[labels] = [tuple(point) for point in row.get("values", [row.get("value")])]
    return found


def assert_same(text: str, expected: Any, found: Any) -> None:
    """Equal types, label sets, times, and values within the tolerance."""
    assert found["resultType"] == expected["resultType"], text
    left, right = _points(expected), _points(found)
    assert sorted(right) == sorted(left), text
    tolerance = _tolerance(text)
    for labels, points in left.items():
        other = right[labels]
        assert [t for t, _ in other] == [t for t, _ in points], (text, labels)
        wrong = [(a, b) for a, b in zip(points, other, strict=True) if not _close(a[1], b[1], tolerance)]
        assert not wrong, (text, labels, wrong[:5])


@pytest.fixture(scope="module")
def apis(pair: Pair) -> Iterator[tuple[Api, Api]]:
    made = Api(pair.prometheus_port), Api(pair.vedette_port)
    yield made
    for api in made:
        api.close()


def test_the_load_is_worth_comparing(pair: Pair, apis: tuple[Api, Api]) -> None:
    for api in apis:
        assert float(api.query("count({job=~'.+'})", pair.end_s)["result"][0]["value"][1]) > 400
        quantiles = api.query(f"histogram_quantile(0.9, rate({HTTP_BUCKETS}[15s]))", pair.end_s)["result"]
        assert any(not math.isnan(float(row["value"][1])) for row in quantiles)


@pytest.mark.parametrize("text", [*QUERIES, *SORTED_QUERIES])
def test_instant_query_agrees(pair: Pair, apis: tuple[Api, Api], text: str) -> None:
    expected, found = (api.query(text, pair.end_s) for api in apis)
    assert_same(text, expected, found)
    if text in SORTED_QUERIES:
        assert [row["value"] for row in found["result"]] == [row["value"] for row in expected["result"]]


@pytest.mark.parametrize("text", QUERIES)
def test_range_query_agrees(pair: Pair, apis: tuple[Api, Api], text: str) -> None:
    expected, found = (api.query_range(text, pair.end_s - RANGE_S, pair.end_s, STEP_S) for api in apis)
    assert_same(text, expected, found)


def test_raw_samples_of_a_range_selector_agree(pair: Pair, apis: tuple[Api, Api]) -> None:
    text = "{job='node'}[30s]"
    expected, found = (api.query(text, pair.end_s) for api in apis)
    assert len(_points(expected)) > 100
    assert _points(found) == _points(expected)


@pytest.mark.parametrize(
    "path", ["/api/v1/labels", "/api/v1/label/__name__/values", "/api/v1/label/job/values"]
)
def test_label_lists_agree(pair: Pair, apis: tuple[Api, Api], path: str) -> None:
    window = {"start": f"{pair.end_s - 30:.3f}", "end": f"{pair.end_s:.3f}"}
    (_, expected), (_, found) = (api.get(path, **window) for api in apis)
    assert found["data"] == expected["data"]


def test_series_lists_agree(pair: Pair, apis: tuple[Api, Api]) -> None:
    window = {
        "start": f"{pair.end_s - 30:.3f}",
        "end": f"{pair.end_s:.3f}",
        "match[]": "node_cpu_seconds_total",
    }
    (_, expected), (_, found) = (api.get("/api/v1/series", **window) for api in apis)
    assert expected["data"]

    def key(row: dict[str, str]) -> str:
        return json.dumps(row, sort_keys=True)

    assert sorted(found["data"], key=key) == sorted(expected["data"], key=key)


def _promtool(port: int, *arguments: str) -> Any:
    kind, *options, text = arguments
    done = subprocess.run(
        ["promtool", "query", kind, "-o", "json", *options, "--", f"http://127.0.0.1:{port}", text],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def _as_data(result: Any) -> Any:
    """promtool prints the result without its type."""
    if result and not isinstance(result[0], dict):
        return {"resultType": "scalar", "result": result}
    return {"resultType": "rows", "result": result or []}


@pytest.mark.parametrize("text", [*QUERIES[::2], *SORTED_QUERIES])
def test_promtool_instant_query_agrees(pair: Pair, text: str) -> None:
    moment = f"--time={pair.end_s:.3f}"
    expected, found = (_as_data(_promtool(port, "instant", moment, text)) for port in pair.ports)
    assert_same(text, expected, found)


@pytest.mark.parametrize("text", QUERIES[1::2])
def test_promtool_range_query_agrees(pair: Pair, text: str) -> None:
    window = (f"--start={pair.end_s - RANGE_S:.3f}", f"--end={pair.end_s:.3f}", f"--step={STEP_S}s")
    expected, found = (_as_data(_promtool(port, "range", *window, text)) for port in pair.ports)
    assert_same(text, expected, found)
