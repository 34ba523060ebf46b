"""The classes of the query benchmark, over the generated hosts of `benchmarks.load.nodes`.

Ranges are those of the data where a class says WHOLE, else the last hour.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.queries import QueryClass

WHOLE = -1
HOUR_S = 3600
POINTS = 360

_HOST = 'instance="host-00007.example.internal:9100"'
_CPU = "rate(node_cpu_seconds_total[5m])"
_LATENCY = "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))"
_NATIVE = "histogram_quantile(0.99, sum(rate(request_latency_seconds[5m])))"
_ETH0 = 'node_network_receive_bytes_total{device="eth0"}'

FIRST = QueryClass("first query after a restart", f"sum by (mode) ({_CPU})")


CANCELLED = QueryClass("cancelled", 'quantile_over_time(0.9, {job="node"}[1h])', HOUR_S, 720)
"""Takes seconds; asked by a client that goes away."""

CLASSES = (
    QueryClass("one series, instant", f"node_load1{{{_HOST}}}"),
    QueryClass("one series, range", f"node_load1{{{_HOST}}}", WHOLE, POINTS),
    QueryClass("all series of a host, instant", f"{{{_HOST}}}"),
    QueryClass("one metric, instant", "node_load1"),
    QueryClass("one metric, range", "node_load1", HOUR_S, POINTS),
    QueryClass("regexp selector, instant", 'node_memory_Active_bytes{instance=~"host-000[0-4].*"}'),
    QueryClass("regexp selector, range", '{__name__=~"node_memory_(Active|Inactive).*"}', HOUR_S, POINTS),
    QueryClass("rate of a host, range", f"rate(node_cpu_seconds_total{{{_HOST}}}[5m])", WHOLE, POINTS),
    QueryClass("rate, instant", _CPU),
    QueryClass("rate, range", _CPU, HOUR_S, POINTS),
    QueryClass("increase by host, range", f"sum by (instance) (increase({_ETH0}[1h]))", WHOLE, POINTS),
    QueryClass("sum by rate, instant", f"sum by (mode) ({_CPU})"),
    QueryClass("sum by rate, range", f"sum by (mode) ({_CPU})", WHOLE, POINTS),
    QueryClass("sum of everything by name, range", 'sum by (__name__) ({job="node"})', WHOLE, POINTS),
    QueryClass("topk of rate, instant", "topk(10, rate(node_network_receive_bytes_total[5m]))"),
    QueryClass("topk of rate, range", "topk(10, rate(node_network_receive_bytes_total[5m]))", HOUR_S, POINTS),
    QueryClass("quantile by rate, range", f"quantile by (mode) (0.9, {_CPU})", WHOLE, POINTS),
    QueryClass("histogram_quantile classic, instant", _LATENCY),
    QueryClass("histogram_quantile classic, range", _LATENCY, WHOLE, POINTS),
    QueryClass("histogram_quantile native, range", _NATIVE, WHOLE, POINTS),
    QueryClass(
        "one-to-one join, range", "node_filesystem_avail_bytes / node_filesystem_size_bytes", WHOLE, POINTS
    ),
    QueryClass(
        "join with group_left, range",
        "rate(node_disk_read_bytes_total[5m]) * on (instance) group_left () up",
        WHOLE,
        POINTS,
    ),
    QueryClass("subquery, instant", f"max_over_time(rate({_ETH0}[5m])[1h:1m])"),
    QueryClass("subquery, range", f"max_over_time(rate({_ETH0}[5m])[1h:1m])", HOUR_S, 60),
    QueryClass("count of everything, instant", 'count({job="node"})'),
    QueryClass("count by high cardinality, instant", 'count by (__name__, instance) ({job="node"})'),
    QueryClass("avg_over_time of the whole, instant", "avg_over_time(node_load1[WHOLE])"),
    QueryClass("max_over_time 1h, range", "max_over_time(node_memory_MemAvailable_bytes[1h])", WHOLE, POINTS),
    QueryClass("quantile_over_time 1h, range", "quantile_over_time(0.9, node_load1[1h])", WHOLE, POINTS),
    QueryClass("label names", "", path="/api/v1/labels"),
    QueryClass("label values", "", path="/api/v1/label/instance/values"),
    QueryClass("series of a metric", "node_load1", path="/api/v1/series"),
    QueryClass("series of a host", f"{{{_HOST}}}", path="/api/v1/series"),
)

NATIVE_ONLY = frozenset({"histogram_quantile native, range"})
"""Classes over native histograms, which Debian's VictoriaMetrics does not have."""


def classes_over(window_s: int) -> list[QueryClass]:
    """The classes for data of so many seconds."""
    return [
        replace(
            query,
            window_s=window_s if query.window_s == WHOLE else query.window_s,
            text=query.text.replace("WHOLE", f"{window_s}s"),
        )
        for query in CLASSES
    ]
