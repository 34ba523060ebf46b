"""A site with security events: a real store, event log, series and feed, for tests and to look at by hand.

`python -m tests.web.securitysite PORT` serves it with made-up events until interrupted.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from security.activerules import ActiveRules
from security.eventlog.log import EventLog, EventLogOptions
from security.eventseries import EventSeries
from security.feed import LiveFeed
from security.metrics import SecurityMetrics
from security.output import OutputOptions
from security.outputs.group import OutputGroup
from security.pipeline import Pipeline
from security.record import EventRecord
from security.services import SecurityServices
from security.sources.cloudtrail import CloudTrail
from security.sources.kubernetes_audit import KubernetesAudit
from security.sources.receiver import BodyReceiver
from tests.security.records import record
from tsdb.database import Database, open_database
from tsdb.limits import StorageOptions
from web.app import create_app
from web.readiness import Readiness
from web.services import AppServices, BuildInfo

RULES = (
    ("Terminal shell in container", "Notice", "A shell was spawned in a container with an attached terminal"),
    ("Read sensitive file untrusted", "Warning", "Sensitive file opened for reading by non-trusted program"),
    ("Drop and execute new binary in container", "Critical", "Executing binary not part of base image"),
    (
        "Redirect STDOUT/STDIN to Network Connection in Container",
        "Notice",
        "Redirect stdout/stdin to network",
    ),
    ("Clear Log Activities", "Warning", "Log files were tampered"),
    ("Packet socket created in container", "Error", "Packet socket was created in a container"),
)


@dataclass(slots=True)
class SecuritySite:
    """Everything of one site; `close` ends it."""

    database: Database
    security: SecurityServices
    services: AppServices

    def deliver(self, *records: EventRecord) -> None:
        """Events as a source gives them; returns when they are stored."""
        self.security.pipeline.deliver(records).result(10)

    def close(self) -> None:
        """Stop the pipeline, then the store."""
        self.security.pipeline.close()
        self.database.close()


def make_site(folder: Path, clock: Callable[[], float] = time.time, rules: str = "") -> SecuritySite:
    """A ready site over a store in the folder; the starter rules unless a file is named."""
    registry = CollectorRegistry()
    options = StorageOptions(background=False, snapshot_on_close=False)
    database = open_database(folder, options, registry, clock)
    active = ActiveRules()
    active.reload([rules] if rules else [])
    assert active.problems == []
    series = EventSeries(database.appender(), database.now_ms)
    log, feed, outputs = EventLog(folder, EventLogOptions(background=False)), LiveFeed(), OutputGroup()
    pipeline = Pipeline(active, [log, series, feed, outputs], hostname="node-1")
    pipeline.start()
    sources = (KubernetesAudit(), CloudTrail())
    receivers = {source.name: BodyReceiver(source, pipeline) for source in sources}
    security = SecurityServices(
        pipeline, log, series, feed, outputs, receivers, frozenset(receivers), OutputOptions()
    )
    registry.register(SecurityMetrics(security))
    readiness = Readiness()
    readiness.set_ready()
    services = AppServices(
        readiness=readiness,
        engine=Engine(EngineOptions(threads=1), CollectorRegistry()),
        registry=registry,
        build=BuildInfo(version="0.1.0"),
        database=database,
        security=security,
        clock_s=clock,
    )
    return SecuritySite(database, security, services)


def made_up(source: random.Random, time_ns: int) -> EventRecord:
    """One plausible event."""
    rule, priority, text = source.choices(RULES, weights=(5, 8, 1, 2, 2, 1))[0]
    program = source.choice(("bash", "cat", "sh", "curl", "python3"))
    pod = source.choice(("web-7d9f-x2x1p", "db-0", "cart-5c8b-9k2lm", ""))
    names = {"k8s_ns_name": "shop", "namespace": "shop", "k8s_pod_name": pod, "pod": pod} if pod else {}
    fields = {
        "evt.type": "openat",
        "proc.name": program,
        "proc.cmdline": f"{program} /etc/shadow",
        "proc.pname": "runc",
        "fd.name": "/etc/shadow",
        "user.name": "root",
        "user.uid": 0,
        "container.id": "3f1c9a7b20de" if pod else "host",
        "k8s.pod.name": pod or None,
    }
    message = f"{text} | file=/etc/shadow process={program} command={program} /etc/shadow user=root pod={pod}"
    return record(
        rule,
        priority=priority,
        time_ns=time_ns,
        message=message,
        fields=fields,
        hostname=source.choice(("node-1", "node-2")),
        proc_name=program,
        user_name="root",
        **names,
    )


def main() -> None:
    """Serve made-up events of the last hour, and a new one now and then."""
    site = make_site(Path(tempfile.mkdtemp()))
    source, now_ns = random.Random(1), time.time_ns()
    times = sorted(now_ns - int(source.random() ** 2 * 3500e9) for _ in range(160))
    site.deliver(*(made_up(source, time_ns) for time_ns in times))

    async def more(app: web.Application) -> None:
        import asyncio

        async def run() -> None:
            while True:
                await asyncio.sleep(5 * source.random())
                site.security.pipeline.deliver([made_up(source, time.time_ns())])

        app["more"] = asyncio.get_running_loop().create_task(run())

    app = create_app(site.services)
    app.on_startup.append(more)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
