"""A site with plausible data over the real engine: for the browser test, and to look at by hand.

`python -m tests.web.demo PORT` serves it until interrupted.
"""

from __future__ import annotations

import math
import sys
import time

from aiohttp import web
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.memory import MemoryStore
from promql.options import EngineOptions
from tsdb.labels import Labels
from tsdb.select import Querier
from web.app import create_app
from web.readiness import Readiness
from web.services import AppServices, BuildInfo

STEP_MS = 15_000
POINTS = 300
INSTANCES = ("web-1:9100", "web-2:9100", "db-1:9100")
MODES = ("idle", "user", "system", "iowait")


class DemoDatabase:
    """The store in memory as a database."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def querier(self) -> Querier:
        return self._store.querier()


def demo_store(now_ms: int) -> MemoryStore:
    """75 minutes of `up`, a CPU counter, a load gauge and a request counter, ending now."""
    store = MemoryStore()
    times = [now_ms - (POINTS - 1 - i) * STEP_MS for i in range(POINTS)]
    for n, instance in enumerate(INSTANCES):
        base = {"instance": instance, "job": "node" if n < 2 else "db"}
        up = Labels.from_dict({"__name__": "up", **base})
        load = Labels.from_dict({"__name__": "node_load1", **base})
        for i, t_ms in enumerate(times):
            store.add_float(up, t_ms, 0.0 if n == 2 and 200 < i < 215 else 1.0)
            wave = math.sin(i / 25 + n) + 0.3 * math.sin(i / 3.7 + 2 * n)
            store.add_float(load, t_ms, round(1.5 + n / 2 + wave / 2, 2))
        for m, mode in enumerate(MODES):
            cpu = Labels.from_dict({"__name__": "node_cpu_seconds_total", "mode": mode, **base})
            total = 0.0
            for i, t_ms in enumerate(times):
                total += 15 * (0.7 if m == 0 else 0.1) * (1 + 0.4 * math.sin(i / 30 + m + n))
                store.add_float(cpu, t_ms, total)
    for code in ("200", "404", "500"):
        for handler in ("/api/v1/query", "/api/v1/query_range", "/metrics"):
            series = {"__name__": "prometheus_http_requests_total", "code": code, "handler": handler}
            labels, total = Labels.from_dict({**series, "job": "vedette", "instance": "localhost:9090"}), 0.0
            for i, t_ms in enumerate(times):
                total += round(
                    {"200": 20, "404": 2, "500": 0.2}[code] * (1.2 + math.sin(i / 40 + len(handler)))
                )
                store.add_float(labels, t_ms, total)
    return store


def demo_services(now_ms: int) -> AppServices:
    """Services over the demo store."""
    readiness = Readiness()
    readiness.set_ready()
    return AppServices(
        readiness=readiness,
        engine=Engine(EngineOptions(threads=1)),
        registry=CollectorRegistry(),
        build=BuildInfo("0.1.0"),
        database=DemoDatabase(demo_store(now_ms)),
    )


if __name__ == "__main__":
    services = demo_services(int(time.time() * 1000))
    web.run_app(create_app(services), host="127.0.0.1", port=int(sys.argv[1]), print=lambda *_: None)
