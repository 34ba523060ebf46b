"""Own metrics of the HTTP side under Prometheus's names, and the page that shows all metrics."""

from __future__ import annotations

import asyncio
import platform

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from web.negotiation import respond
from web.readiness import Readiness
from web.services import BuildInfo

_SECONDS_BUCKETS = (0.1, 0.2, 0.4, 1, 3, 8, 20, 60, 120)
_BYTES_BUCKETS = tuple(100.0 * 10**n for n in range(8))


class HttpMetrics:
    """Counters of requests by handler (the pattern of the route). Loop thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "prometheus_http_requests_total",
            "Counter of HTTP requests.",
            ("handler", "code"),
            registry=registry,
        )
        self.seconds = Histogram(
            "prometheus_http_request_duration_seconds",
            "Histogram of latencies for HTTP requests.",
            ("handler",),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.size = Histogram(
            "prometheus_http_response_size_bytes",
            "Histogram of response size for HTTP requests.",
            ("handler",),
            buckets=_BYTES_BUCKETS,
            registry=registry,
        )
        self.federation_errors = Counter(
            "prometheus_web_federation_errors_total",
            "Total number of errors that occurred while sending federation responses.",
            registry=registry,
        )
        self.federation_warnings = Counter(
            "prometheus_web_federation_warnings_total",
            "Total number of warnings that occurred while sending federation responses.",
            registry=registry,
        )
        self.short_queries = Counter(
            "vedette_short_queries_total",
            "Queries that were answered by the event loop itself.",
            registry=registry,
        )
        self.short_queries_refused = Counter(
            "vedette_short_queries_refused_total",
            "Queries that were thought to be short and were handed to a thread after all.",
            registry=registry,
        )
        self._expositions = Counter(
            "promhttp_metric_handler_requests_total",
            "Total number of scrapes by HTTP status code.",
            ("code",),
            registry=registry,
        )
        for code in ("200", "500", "503"):
            self._expositions.labels(code)
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram, Histogram]] = {}
        """Looking up children by labels takes longer than counting; routes times codes are few."""

    def observe(self, handler: str, code: int, seconds: float, size_bytes: int) -> None:
        """One finished request."""
        children = self._of_route.get((handler, code))
        if children is None:
            children = (
                self.requests.labels(handler, str(code)),
                self.seconds.labels(handler),
                self.size.labels(handler),
            )
            self._of_route[handler, code] = children
        children[0].inc()
        children[1].observe(seconds)
        children[2].observe(size_bytes)

    def count_exposition(self) -> None:
        """One answer of /metrics."""
        self._expositions.labels("200").inc()


def register_process_metrics(registry: CollectorRegistry, build: BuildInfo, readiness: Readiness) -> None:
    """process_*, python_*, prometheus_build_info and prometheus_ready."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    info = Gauge(
        "prometheus_build_info",
        "A metric with a constant '1' value labeled by version, revision, branch, and the language the server"
        " was built with.",
        ("version", "revision", "branch", "goversion", "goos", "goarch"),
        registry=registry,
    )
    system, machine = platform.system().lower(), platform.machine()
    info.labels(build.version, build.revision, build.branch, build.go_version, system, machine).set(1)
    ready = Gauge(
        "prometheus_ready",
        "Whether Prometheus startup was fully completed and the server is ready.",
        registry=registry,
    )
    ready.set_function(lambda: float(readiness.is_ready))


async def respond_exposition(
    request: web.Request, registry: CollectorRegistry, metrics: HttpMetrics
) -> web.Response:
    """All metrics in the format the client asks for: text 0.0.4 or OpenMetrics."""
    encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
    metrics.count_exposition()
    body = await asyncio.to_thread(encoder, registry)
    return await respond(request, body, content_type=content_type)
