"""Query classes and their latency, from sending the request to the last byte of the answer."""

from __future__ import annotations

import http.client
import json
import statistics
import time
import urllib.parse
from dataclasses import dataclass

from benchmarks.servers import Server

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class QueryClass:
    """A named query: instant where `window_s` is 0, else over that range in `points` steps. With a `path`
    it is that endpoint, with `text` as its match[] if there is one."""

    name: str
    text: str
    window_s: int = 0
    points: int = 60
    path: str = ""


_HOST = 'instance="host-00007.example.internal:9100"'
_QUANTILE = "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))"

CLASSES = (
    QueryClass("one series, instant", f"node_load1{{{_HOST}}}"),
    QueryClass("all series of a host, instant", f"{{{_HOST}}}"),
    QueryClass("one metric, all hosts, instant", "node_load1"),
    QueryClass("regex selector, instant", 'node_memory_Active_bytes{instance=~"host-000[0-4].*"}'),
    QueryClass("count of everything, instant", 'count({job="node"})'),
    QueryClass("sum by mode (rate cpu), instant", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
    QueryClass("topk of rate, instant", "topk(10, rate(node_network_receive_bytes_total[5m]))"),
    QueryClass("one host's cpu, range", f"rate(node_cpu_seconds_total{{{_HOST}}}[5m])", 900),
    QueryClass("raw gauge, all hosts, range", "node_load1", 900),
    QueryClass("rate cpu, all series, range", "rate(node_cpu_seconds_total[5m])", 900),
    QueryClass("sum by mode (rate cpu), range", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", 900),
    QueryClass(
        "cpu use by host, range", '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))', 900
    ),
    QueryClass("quantile of histogram, range", _QUANTILE, 900),
    QueryClass("max_over_time, range", "max_over_time(node_memory_MemAvailable_bytes[5m])", 900),
    QueryClass(
        "division of two metrics, range", "node_filesystem_avail_bytes / node_filesystem_size_bytes", 900
    ),
    QueryClass(
        "join with group_left, range",
        "rate(node_disk_read_bytes_total[5m]) * on (instance) group_left () up",
        900,
    ),
    QueryClass("label values", "", path="/api/v1/label/instance/values"),
)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Median latency and the number of rows in the answer; `error` where the server refused."""

    seconds: float
    rows: int
    error: str = ""


def request_path(query: QueryClass, start_s: float, end_s: float, extra: tuple[tuple[str, str], ...]) -> str:
    """Path and parameters for a query that ends at `end_s`, its window at most from `start_s` on."""
    if query.path:
        matchers = [("match[]", query.text)] if query.text else []
        bounds = [("start", f"{start_s:.3f}"), ("end", f"{end_s:.3f}")]
        return f"{query.path}?" + urllib.parse.urlencode([*matchers, *bounds, *extra])
    if not query.window_s:
        arguments = [("query", query.text), ("time", f"{end_s:.3f}"), *extra]
        return "/api/v1/query?" + urllib.parse.urlencode(arguments)
    window_s = min(query.window_s, end_s - start_s)
    arguments = [
        *(("query", query.text), ("start", f"{end_s - window_s:.3f}"), ("end", f"{end_s:.3f}")),
        *(("step", f"{window_s / query.points:.3f}"), *extra),
    ]
    return "/api/v1/query_range?" + urllib.parse.urlencode(arguments)


def _rows(body: bytes) -> int:
    data = json.loads(body)["data"]
    return len(data["result"] if isinstance(data, dict) else data)


def ask(server: Server, path: str) -> tuple[float, bytes]:
    """Seconds and body of a request over a connection of its own. Raises RuntimeError where it is refused."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S)
    try:
        connection.connect()
        started = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:200]!r}")
        return time.perf_counter() - started, body
    finally:
        connection.close()


def measure(server: Server, query: QueryClass, start_ms: int, end_ms: int, repeats: int) -> QueryResult:
    """Median of `repeats` runs after one that is not counted."""
    path = request_path(query, start_ms / 1000, end_ms / 1000, server.kind.query_arguments)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S)
    seconds = []
    body = b""
    try:
        for _ in range(repeats + 1):
            started = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            seconds.append(time.perf_counter() - started)
            if answer.status != 200:
                return QueryResult(float("nan"), 0, f"{answer.status}: {body[:200]!r}")
    finally:
        connection.close()
    return QueryResult(statistics.median(seconds[1:]), _rows(body))
