"""The API over the real engine and a store in memory: from query text to JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from promql.engine import Engine
from promql.options import EngineOptions
from tests.web.conftest import NOW_S, Site, SiteFactory


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(EngineOptions(threads=1), CollectorRegistry())
    yield made
    made.close()


@pytest.fixture
async def live(make_site: SiteFactory, engine: Engine) -> Site:
    made: Site = await make_site(engine=engine)
    return made


CASES: list[tuple[str, str, Any]] = [
    ("1 + 1", "scalar", [NOW_S, "2"]),
    ('"text"', "string", [NOW_S, "text"]),
    ("sum by (job) (up)", "vector", [{"metric": {"job": "node"}, "value": [NOW_S, "3"]}]),
    ("nothing_here", "vector", []),
    ("nothing_here[1m]", "matrix", []),
    ("nothing_here[5m:1m]", "matrix", []),
    (
        "http_total[1m]",
        "matrix",
        [
            {
                "metric": {"__name__": "http_total", "http.path": "/<x>", "job": "web"},
                "values": [[NOW_S - 0.25, "2.5"]],
            }
        ],
    ),
]


@pytest.mark.parametrize(("text", "kind", "result"), CASES)
async def test_instant_queries(live: Site, text: str, kind: str, result: Any) -> None:
    assert await live.get("/api/v1/query", params={"query": text}) == (
        200,
        {"status": "success", "data": {"resultType": kind, "result": result}},
    )


async def test_a_range_query_of_nothing_is_an_empty_matrix(live: Site) -> None:
    parameters = {"query": "rate(nothing_here[1m])", "start": "0", "end": "1", "step": "500ms"}
    status, body = await live.get("/api/v1/query_range", params=parameters)
    assert (status, body["data"]) == (200, {"resultType": "matrix", "result": []})


async def test_a_range_query_is_a_matrix_even_of_a_scalar(live: Site) -> None:
    parameters = {"query": "1 / 3", "start": "0", "end": "1", "step": "500ms"}
    _, body = await live.get("/api/v1/query_range", params=parameters)
    third = "0.3333333333333333"
    assert body["data"] == {
        "resultType": "matrix",
        "result": [{"metric": {}, "values": [[0, third], [0.5, third], [1, third]]}],
    }


async def test_a_range_vector_cannot_be_a_range_query(live: Site) -> None:
    parameters = {"query": "up[1m]", "start": "0", "end": "1", "step": "1"}
    assert await live.get("/api/v1/query_range", params=parameters) == (
        400,
        {
            "status": "error",
            "errorType": "bad_data",
            "error": 'invalid parameter "query": invalid expression type "range vector" for range query,'
            " must be Scalar or instant Vector",
        },
    )


async def test_an_impossible_join_is_an_execution_error(live: Site) -> None:
    status, body = await live.get("/api/v1/query", params={"query": "up * on(job) up"})
    assert (status, body["errorType"]) == (422, "execution")
    assert "many-to-many" in body["error"] or "duplicate" in body["error"]


async def test_statistics_have_prometheus_keys(live: Site) -> None:
    _, body = await live.get("/api/v1/query", params={"query": "up", "stats": "true"})
    stats = body["data"]["stats"]
    assert set(stats["timings"]) == {
        *("evalTotalTime", "resultSortTime", "queryPreparationTime", "innerEvalTime"),
        *("execQueueTime", "execTotalTime"),
    }
    assert {"totalQueryableSamples", "samplesRead", "peakSamples"} <= set(stats["samples"])


async def test_a_label_made_by_the_query_is_rendered(live: Site) -> None:
    text = 'label_replace(http_total, "made", "new $1", "job", "(.*)")'
    async with live.client.get("/api/v1/query", params={"query": text}) as response:
        body = json.loads(await response.read())
    assert body["data"]["result"][0]["metric"]["made"] == "new web"
