"""Around the handlers: readiness, CORS, methods, the route prefix, own metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.web.conftest import Site, SiteFactory
from web.readiness import Readiness

# The gate.


async def test_nothing_gated_answers_before_the_store_is_open(make_site: SiteFactory) -> None:
    site: Site = await make_site(ready=False, database=None)
    for path in ("/api/v1/query?query=1", "/api/v1/labels", "/-/ready", "/federate", "/query"):
        async with site.client.get(path) as response:
            assert (response.status, await response.text()) == (503, "Service Unavailable")
            assert response.headers["X-Prometheus-Stopping"] == "false"
            assert response.content_type == "text/plain"
    for path in ("/-/healthy", "/metrics", "/api/v1/status/walreplay", "/api/v1/notifications"):
        assert (await site.get(path))[0] == 200
    site.services.readiness.set_ready()
    assert await site.get("/-/ready") == (200, "Vedette is Ready.\n")
    site.services.readiness.set_stopping()
    async with site.client.get("/-/ready") as response:
        assert response.headers["X-Prometheus-Stopping"] == "true"


def test_a_stopping_server_never_becomes_ready_again() -> None:
    readiness = Readiness()
    readiness.set_stopping()
    readiness.set_ready()
    assert not readiness.is_ready


# Around the handlers.


async def test_cors_and_options(make_site: SiteFactory) -> None:
    site: Site = await make_site()
    async with site.client.options("/api/v1/query", headers={"Origin": "https://g"}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
        assert response.headers["Access-Control-Expose-Headers"] == "Date"
    async with site.client.get("/api/v1/labels") as response:
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers.getall("Vary") == ["Origin", "Accept-Encoding"]
    picky: Site = await make_site(cors_origin=r"https://(a|b)\.example")
    for origin, allowed in (("https://a.example", True), ("https://a.example.evil", False)):
        async with picky.client.get("/api/v1/labels", headers={"Origin": origin}) as response:
            assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


async def test_unknown_paths_and_methods(site: Site) -> None:
    assert await site.get("/nope") == (404, "404 page not found\n")
    assert await site.get("/api/v1/nope") == (404, "404 page not found\n")
    async with site.client.put("/api/v1/query") as response:
        assert (response.status, await response.text()) == (405, "Method Not Allowed\n")


async def test_a_route_prefix_moves_everything(make_site: SiteFactory) -> None:
    site: Site = await make_site(route_prefix="/prom/")
    assert (await site.get("/prom/api/v1/labels"))[0] == 200
    assert (await site.get("/api/v1/labels"))[0] == 404
    async with site.client.get("/prom/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/prom/query")
    async with site.client.get("/prom/graph?g0.expr=up", allow_redirects=False) as response:
        assert response.headers["Location"] == "/prom/query?g0.expr=up"


async def test_own_metrics_count_requests_by_route(site: Site) -> None:
    await site.get("/api/v1/label/job/values")
    await site.get("/api/v1/label/instance/values")
    await site.get("/api/v1/query", params={"query": "("})
    await site.get("/nope")
    _, text = await site.get("/metrics")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    requests = "prometheus_http_requests_total"
    assert samples[requests, (("code", "200"), ("handler", "/api/v1/label/:name/values"))] == 2
    assert samples[requests, (("code", "400"), ("handler", "/api/v1/query"))] == 1
    handler = ("handler", "/api/v1/label/:name/values")
    assert samples["prometheus_http_request_duration_seconds_count", (handler,)] == 2
    assert samples["prometheus_http_response_size_bytes_bucket", (handler, ("le", "100.0"))] == 2
    assert samples["prometheus_ready", ()] == 1
    names = {name for name, _ in samples}
    assert {"process_start_time_seconds", "process_resident_memory_bytes", "prometheus_build_info"} <= names
    assert not any(name.endswith("_created") for name in names)
    assert not any("nope" in str(labels) for _, labels in samples)


async def test_the_exposition_follows_the_accept_header(site: Site) -> None:
    async with site.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    ) as r:
        assert r.content_type == "application/openmetrics-text"
        assert (await r.text()).endswith("# EOF\n")
    async with site.client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_replay_progress_is_told_before_the_server_is_ready(make_site: SiteFactory) -> None:
    site = await make_site(ready=False, wal_replay=lambda: (3, 9, 4))
    status, body = await site.get("/api/v1/status/walreplay")
    assert (status, body["data"]) == (200, {"min": 3, "max": 9, "current": 4})
