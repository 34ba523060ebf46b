"""`explain=true` answers with the plan and what each operator cost."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from tests.web.conftest import Site, SiteFactory


async def explaining_site(make_site: SiteFactory) -> Site:
    return await make_site(engine=Engine(EngineOptions(threads=1), CollectorRegistry()))


async def test_explain_shows_operators_with_their_children(make_site: SiteFactory) -> None:
    site = await explaining_site(make_site)
    status, body = await site.get("/api/v1/query", params={"query": "sum by (job) (up)", "explain": "true"})
    assert status == 200
    explained = body["data"]["explain"]
    assert explained["text"].splitlines()[0].lower().startswith("aggregate")
    assert explained["plan"]["children"]
    assert len(explained["text"].splitlines()) >= 2


async def test_explain_of_a_range_query_counts_steps(make_site: SiteFactory) -> None:
    site = await explaining_site(make_site)
    grid = {"start": "1699999900", "end": "1700000000", "step": "10"}
    status, body = await site.get("/api/v1/query_range", params={"query": "up", "explain": "true", **grid})
    assert status == 200
    assert "ms" in body["data"]["explain"]["text"]


async def test_explain_of_a_bad_expression_is_a_parse_error(make_site: SiteFactory) -> None:
    site = await explaining_site(make_site)
    status, body = await site.get("/api/v1/query", params={"query": "sum(", "explain": "true"})
    assert status == 400
    assert body["errorType"] == "bad_data"
