"""/query, /query_range and their relatives: parameters, texts, status codes, streaming, cancelling."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientError

from promql.engineerrors import ExecutionError, QueryCancelled, QueryTimeout, StorageReadError, TooManySamples
from promql.matrix import Grid, Matrix
from tests.web.conftest import NOW_S, FakeResult, Site, SiteFactory
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from web.api import query as query_api

RANGE = {"query": "up", "start": "0", "end": "100", "step": "10"}

REFUSED: list[tuple[str, dict[str, str], str]] = [
    (
        "query",
        {"query": ""},
        'invalid parameter "query": unknown position: parse error: no expression found in input',
    ),
    ("query", {"query": "sum("}, 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis'),
    (
        "query",
        {"query": "1", "time": "yesterday"},
        "invalid parameter \"time\": invalid time value for 'time':"
        ' cannot parse "yesterday" to a valid timestamp',
    ),
    ("query", {"query": "1", "limit": "-1"}, 'invalid parameter "limit": limit must be non-negative'),
    (
        "query",
        {"query": "1", "limit": "x"},
        'invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax',
    ),
    (
        "query",
        {"query": "1", "timeout": "x"},
        'invalid parameter "timeout": cannot parse "x" to a valid duration',
    ),
    (
        "query",
        {"query": "1", "lookback_delta": "x"},
        'error parsing lookback delta duration: cannot parse "x" to a valid duration',
    ),
    (
        "query_range",
        {**RANGE, "start": ""},
        'invalid parameter "start": cannot parse "" to a valid timestamp',
    ),
    ("query_range", {**RANGE, "end": "x"}, 'invalid parameter "end": cannot parse "x" to a valid timestamp'),
    (
        "query_range",
        {**RANGE, "start": "101"},
        'invalid parameter "end": end timestamp must not be before start time',
    ),
    ("query_range", {**RANGE, "step": ""}, 'invalid parameter "step": cannot parse "" to a valid duration'),
    (
        "query_range",
        {**RANGE, "step": "0"},
        'invalid parameter "step": zero or negative query resolution step widths are not accepted.'
        " Try a positive integer",
    ),
    (
        "query_range",
        {**RANGE, "step": "1e20"},
        'invalid parameter "step": cannot parse "1e20" to a valid duration. It overflows int64',
    ),
    (
        "query_range",
        {**RANGE, "end": "11001", "step": "1"},
        "exceeded maximum resolution of 11,000 points per timeseries."
        " Try decreasing the query resolution (?step=XX)",
    ),
    (
        "query_exemplars",
        {"query": "up", "start": "2", "end": "1"},
        "end timestamp must not be before start timestamp",
    ),
    (
        "format_query",
        {"query": "up{"},
        'invalid parameter "query": 1:4: parse error: unexpected end of input inside braces',
    ),
]


@pytest.mark.parametrize(("endpoint", "parameters", "text"), REFUSED)
async def test_bad_parameters_are_named(
    site: Site, endpoint: str, parameters: dict[str, str], text: str
) -> None:
    expected = (400, {"status": "error", "errorType": "bad_data", "error": text})
    assert await site.get(f"/api/v1/{endpoint}", params=parameters) == expected
    assert await site.post(f"/api/v1/{endpoint}", data=parameters) == expected


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ExecutionError("many-to-many"), 422, "execution"),
        (TooManySamples(), 422, "execution"),
        (QueryTimeout(), 503, "timeout"),
        (QueryCancelled(), 499, "canceled"),
        (StorageReadError("disk"), 500, "internal"),
        (ValueError("oops"), 500, "internal"),
    ],
)
async def test_errors_of_evaluation_have_their_class(
    site: Site, error: Exception, status: int, kind: str
) -> None:
    def answer(text: str, cancel: Any) -> FakeResult:
        raise error

    site.engine.answer = answer
    code, body = await site.get("/api/v1/query", params={"query": "1"})
    assert (code, body["status"], body["errorType"]) == (status, "error", kind)
    assert str(error) in body["error"]


async def test_parameters_reach_the_engine(site: Site) -> None:
    await site.get(
        "/api/v1/query", params={"query": "up", "time": "1.5", "lookback_delta": "1m", "timeout": "30s"}
    )
    await site.get("/api/v1/query", params={"query": "up"})
    for lookback in ("0.0001", "-5"):
        await site.get("/api/v1/query", params={"query": "up", "lookback_delta": lookback})
    await site.post("/api/v1/query_range", data={**RANGE, "start": "1970-01-01T00:00:01.25Z", "step": "1m"})
    assert site.engine.calls == [
        ("up", 1500, 60_000, 30.0),
        ("up", int(NOW_S * 1000), 0, 120.0),
        ("up", int(NOW_S * 1000), 1, 120.0),
        ("up", int(NOW_S * 1000), 0, 120.0),
        ("up", 1250, 100_000, 60_000),
    ]


async def test_a_form_body_comes_before_the_url(site: Site) -> None:
    await site.post("/api/v1/query?query=url", data={"query": "body"})
    assert site.engine.calls[0][0] == "body"


async def test_exactly_11001_points_are_allowed(site: Site) -> None:
    status, _ = await site.get("/api/v1/query_range", params={**RANGE, "end": "11000", "step": "1"})
    assert status == 200


async def test_scalar_answer_with_annotations_and_stats(site: Site) -> None:
    site.engine.answer = lambda text, cancel: FakeResult(
        1.5, warnings=("w <1>",), infos=("i",), stats={"timings": {"evalTotalTime": 0.1}}
    )
    status, body = await site.get("/api/v1/query", params={"query": "1", "time": "10.5"})
    assert status == 200
    assert body == {
        "status": "success",
        "data": {"resultType": "scalar", "result": [10.5, "1.5"]},
        "warnings": ["w <1>"],
        "infos": ["i"],
    }
    _, body = await site.get("/api/v1/query", params={"query": "1", "stats": "all"})
    timings = body["data"]["stats"]["timings"]
    assert timings["evalTotalTime"] == 0.1
    assert 0 <= timings["execQueueTime"] == timings["execTotalTime"] < 5
    _, body = await site.get("/api/v1/query", params={"query": "1", "stats": "yes"})
    assert body["warnings"][1] == (
        'value "yes" for parameter "stats" is deprecated and will be rejected in the next major release,'
        ' use "true" or "all"'
    )


async def test_small_answers_have_a_length(site: Site) -> None:
    async with site.client.get("/api/v1/query", params={"query": "1"}, auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["Content-Length"] == str(len(await response.read()))


async def test_a_timeout_of_zero_is_over_at_once(site: Site) -> None:
    status, body = await site.get("/api/v1/query", params={"query": "up", "timeout": "0"})
    assert (status, body["error"]) == (503, "query timed out in query execution")
    assert site.engine.calls == []


def big_matrix(series: int = 60, steps: int = 1000) -> Matrix:
    labels = [Labels.from_dict({"__name__": "m", "n": str(n)}) for n in range(series)]
    values = np.random.default_rng(5).random((series, steps))
    return Matrix(
        SeriesLabels.from_labels(labels, SymbolTable()),
        Grid(0, 1000, steps),
        values,
        np.zeros(series, np.bool_),
    )


@pytest.mark.parametrize("accept", ["", "gzip", "deflate", "br, deflate, gzip", "gzip;q=1.0"])
async def test_large_answers_are_streamed_and_compressed_as_listed(site: Site, accept: str) -> None:
    matrix = big_matrix()
    site.engine.answer = lambda text, cancel: FakeResult(matrix)
    async with site.client.get(
        "/api/v1/query_range",
        params=RANGE,
        headers={"Accept-Encoding": accept},
        auto_decompress=False,
    ) as response:
        encoding = response.headers.get("Content-Encoding", "")
        assert encoding == {"gzip": "gzip", "deflate": "deflate", "br, deflate, gzip": "deflate"}.get(
            accept, ""
        )
        assert response.headers.getall("Vary") == ["Origin", "Accept-Encoding"]
        assert response.headers["Content-Type"] == "application/json"
        raw = await response.read()
    body = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}[encoding](raw)
    result = json.loads(body)["data"]["result"]
    assert [float(value) for _, value in result[7]["values"]] == matrix.values[7].tolist()


async def test_an_answer_that_fails_half_way_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces(answer: Any) -> Any:
        for _ in range(6):
            yield b"x" * 300_000
        raise RuntimeError("oops")

    monkeypatch.setattr(query_api, "answer_pieces", pieces)
    with pytest.raises(ClientError):
        await site.get("/api/v1/query", params={"query": "1"}, headers={"Accept-Encoding": ""})
    monkeypatch.undo()
    assert (await site.get("/api/v1/query", params={"query": "1"}))[0] == 200


async def test_a_client_that_goes_away_cancels_its_query_within_100_ms(site: Site) -> None:
    started, noticed = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def answer(text: str, cancel: Any) -> FakeResult:
        loop.call_soon_threadsafe(started.set)
        deadline = time.monotonic() + 5
        while not cancel[0] and time.monotonic() < deadline:
            time.sleep(0.002)
        noticed.append(time.monotonic())
        raise QueryCancelled

    site.engine.answer = answer
    server = site.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /api/v1/query?query=up HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(started.wait(), 5)
    writer.transport.abort()
    left_at = time.monotonic()
    while not noticed and time.monotonic() < left_at + 5:
        await asyncio.sleep(0.005)
    assert noticed
    assert noticed[0] - left_at < 0.1 + 0.1
    assert await reader.read() == b""


async def test_queries_wait_for_a_turn_and_time_out_in_the_queue(make_site: SiteFactory) -> None:
    site: Site = await make_site(query_concurrency=1)
    release = asyncio.Event()
    running: list[str] = []

    def answer(text: str, cancel: Any) -> FakeResult:
        running.append(text)
        deadline = time.monotonic() + 5
        while not release.is_set() and time.monotonic() < deadline:
            time.sleep(0.002)
        return FakeResult(1.0)

    site.engine.answer = answer
    first = asyncio.create_task(site.get("/api/v1/query", params={"query": "one"}))
    while not running:
        await asyncio.sleep(0.005)
    status, body = await site.get("/api/v1/query", params={"query": "two", "timeout": "100ms"})
    assert (status, body["error"]) == (503, "query timed out in query queue")
    third = asyncio.create_task(site.get("/api/v1/query", params={"query": "three"}))
    await asyncio.sleep(0.05)
    assert running == ["one"]
    release.set()
    assert (await first)[0] == 200
    assert (await third)[0] == 200
    assert running == ["one", "three"]


async def test_exemplars_of_an_expression_without_a_selector_are_nothing(site: Site) -> None:
    assert (await site.get("/api/v1/query_exemplars", params={"query": "1"}))[0] == 204
    assert await site.get("/api/v1/query_exemplars", params={"query": "up"}) == (
        200,
        {"status": "success", "data": []},
    )


async def test_format_and_parse_query(site: Site) -> None:
    _, body = await site.get("/api/v1/format_query", params={"query": "foo/bar"})
    assert body == {"status": "success", "data": "foo / bar"}
    _, body = await site.post("/api/v1/parse_query", data={"query": "1 + 2"})
    assert (body["data"]["type"], body["data"]["op"]) == ("binaryExpr", "+")


async def test_too_long_a_form_is_refused(site: Site) -> None:
    status, text = await site.post("/api/v1/query", data={"query": "1" * (11 << 20)})
    assert status == 413
    assert text == "request body exceeds the limit of 10485760 bytes\n"
