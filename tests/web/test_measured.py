"""Answers of known length: their bytes are those of answers made in one pass, and are sent whole."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from aiohttp.client_exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promql.engineerrors import QueryCancelled
from promql.kernels import digits
from promql.matrix import ABSENT_BITS, Grid, Matrix
from tests.reference import render as slow
from tests.web.conftest import FakeResult, Site
from tests.web.test_query_api import RANGE, big_matrix
from tests.web.test_render import EDGES, FLOATS, matrix_of
from web import directsending, negotiation
from web import measured as measuring
from web.measured import measured
from web.render import Answer, answer_pieces, point_heads

WHOLE = {"Accept-Encoding": "identity"}


def nobody_leaves() -> None:
    """What `measured` asks while a client waits."""


def joined(matrix: Matrix, **more: Any) -> tuple[int, bytes, bytes]:
    """The length in advance, the bytes then made, and those of one pass."""
    answer = Answer(matrix, False, 0, **more)
    with ThreadPoolExecutor(1) as pool:
        large = measured(answer, nobody_leaves, pool)
    assert large is not None
    body = b"".join(bytes(piece) for piece in large.pieces)
    return large.length, body, b"".join(answer_pieces(answer))


def random_values(seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values of every kind, f64[40, 250], a few of them absent."""
    random = np.random.default_rng(seed)
    shape = (40, 250)
    values = random.random(shape) * 10.0 ** random.integers(-9, 24, shape)
    values[5:10] = random.integers(0, 2**64, (5, 250), dtype=np.uint64).view(np.float64)
    values[10:15] = np.round(random.random((5, 250)) * 1e5, 3)
    values[15:20] = random.integers(-(2**54), 2**54, (5, 250))
    values[20:25] = np.nextafter(random.integers(1, 10**15, (5, 250)) / 1e6, 0)
    values[25:] *= random.choice([-1.0, 1.0], (15, 250))
    values.view(np.uint64)[random.random(shape) < 0.1] = ABSENT_BITS
    values.view(np.uint64)[7] = ABSENT_BITS
    return values


@settings(max_examples=40, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40))
@example(EDGES)
@example([2.0**k for k in range(-1074, 1024)])
@example([10.0**k for k in range(-323, 309)])
def test_the_length_of_values_is_that_of_their_slow_texts(values: list[float]) -> None:
    array = np.array(values)
    array.view(np.uint64)[np.isnan(array)] = 0x7FF8000000000001
    heads = point_heads(np.arange(len(array), dtype=np.int64) * 1000)
    codes = np.empty(len(array), dtype=np.uint64)
    found = digits.measure_points(
        array,
        np.zeros(1, dtype=np.int64),
        np.array([len(array)], dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        heads.offsets,
        codes,
        np.empty(digits.SCRATCH_BYTES, dtype=np.uint8),
    )
    points = [f'[{slow.time_number(1000 * i)},"{slow.value_text(v)}"]' for i, v in enumerate(array.tolist())]
    assert found == len(",".join(points))
    assert codes.all()


@pytest.mark.parametrize("limit", [0, 13])
def test_bytes_and_length_are_those_of_one_pass(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(measuring, "MEASURED_POINTS_MIN", 1)
    monkeypatch.setattr(measuring, "BLOCK_POINTS", 1000)
    monkeypatch.setattr(measuring, "CHUNK_ROWS_MAX", 7)
    labels = [{"__name__": "m", "n": str(n), "text": '"<é\n' * (n % 3)} if n else {} for n in range(40)]
    for seed in range(4):
        matrix = matrix_of(labels, random_values(seed), Grid(-60_000, 700, 250))
        length, body, one_pass = joined(matrix, limit=limit, warnings=["w"], stats={"a": 1})
        assert body == one_pass
        assert length == len(body)
        assert json.loads(body)["status"] == "success"


def test_measuring_ends_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def left() -> None:
        raise QueryCancelled

    monkeypatch.setattr(measuring, "MEASURED_POINTS_MIN", 1)
    with ThreadPoolExecutor(1) as pool:
        for helper in (None, pool):
            with pytest.raises(QueryCancelled):
                measured(Answer(big_matrix(), False, 0), left, helper)


def test_a_pool_without_a_free_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MEASURED_POINTS_MIN", 1)
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait)
        try:
            answer = Answer(big_matrix(), False, 0)
            large = measured(answer, nobody_leaves, pool)
            assert large is not None
            assert large.length == len(b"".join(answer_pieces(answer)))
        finally:
            release.set()


def test_small_and_other_answers_are_not_measured() -> None:
    assert measured(Answer(big_matrix(), False, 0), nobody_leaves) is None
    assert measured(Answer(1.0, False, 0), nobody_leaves) is None


@pytest.fixture
def large(site: Site, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The body that `site` answers every query with, 12 MB."""
    matrix = big_matrix(series=400)
    site.engine.answer = lambda text, cancel: FakeResult(matrix)
    return b"".join(answer_pieces(Answer(matrix, False, 0)))


@pytest.mark.parametrize("direct", [True, False])
async def test_a_large_answer_has_its_length(
    site: Site, large: bytes, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(negotiation, "direct_socket", lambda request: None)
    for _ in range(2):  # the connection is used again
        async with site.client.get("/api/v1/query_range", params=RANGE, headers=WHOLE) as response:
            assert response.headers["Content-Length"] == str(len(large))
            assert "Transfer-Encoding" not in response.headers
            assert await response.read() == large
    async with site.client.get("/metrics") as response:
        text = await response.text()
    start = 'prometheus_http_response_size_bytes_sum{handler="/api/v1/query_range"} '
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    assert float(line.removeprefix(start)) >= 2 * len(large)


async def raw_request(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client with a small buffer that has asked and not read yet."""
    server = site.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=4096)
    writer.write(b"GET /api/v1/query_range?query=up&start=0&end=60&step=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    return reader, writer


async def test_a_slow_client_gets_it_all_and_holds_no_thread(
    site: Site, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    work = directsending.Run.work

    def watched(run: directsending.Run) -> bool:
        left.append(done := work(run))
        return done

    monkeypatch.setattr(directsending.Run, "work", watched)
    reader, writer = await raw_request(site)
    head = await reader.readuntil(b"\r\n\r\n")
    assert f"Content-Length: {len(large)}".encode() in head
    while not left:
        await asyncio.sleep(0.01)
    assert left == [False]  # the thread gave up waiting
    assert await reader.readexactly(len(large)) == large
    assert left[-1]
    writer.close()


async def test_a_client_that_leaves_amid_an_answer_ends_it(
    site: Site, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def watched(request: Any) -> Any:
        opened.append(directsending.direct_socket(request))
        return opened[-1]

    monkeypatch.setattr(negotiation, "direct_socket", watched)
    reader, writer = await raw_request(site)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    async with asyncio.timeout(20):
        while not opened or opened[0].fileno() != -1:
            await asyncio.sleep(0.01)


async def test_an_answer_that_fails_half_way_is_shorter_than_its_length(
    site: Site, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(*arguments: Any) -> Any:
        yield large[:1000]
        yield large[1000:100_000]
        raise RuntimeError("oops")

    monkeypatch.setattr(measuring, "_pieces", pieces)
    with pytest.raises(ClientError):
        async with site.client.get("/api/v1/query_range", params=RANGE, headers=WHOLE) as response:
            await response.read()
    site.engine.answer = lambda text, cancel: FakeResult(1.0)
    assert (await site.get("/api/v1/query", params={"query": "1"}))[0] == 200
