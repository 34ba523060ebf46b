"""Whole requests of any bytes through the receiver: always an answer that blames the sender, never a 5xx."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.load import encode
from tests.ingest.receiversetup import V1, V2, Setup
from tests.ingest.remotewrite_messages import damaged, requests
from tests.reference import remotewrite as twin

HEADERS: dict[int, Mapping[str, str]] = {1: V1, 2: V2}
NAME = (b"__name__", b"fuzzed")
SPANS = st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)), max_size=3)
DELTAS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)


async def answer(version: int, body: bytes, compress: bool = True) -> int:
    """Status of one request to a fresh receiver."""
    setup = Setup()
    try:
        status, _, text = await setup.send(body, HEADERS[version], compress=compress)
    finally:
        setup.receiver.close()
    assert status in (204, 400), text
    return status


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_damaged_request_is_stored_or_refused(version: int, data: st.DataObject) -> None:
    asyncio.run(answer(version, data.draw(st.one_of(requests(version), damaged(version)))))


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_snappy_block_is_refused_or_read(version: int, data: st.DataObject) -> None:
    body = bytearray(cramjam.snappy.compress_raw(data.draw(requests(version))))
    if body:
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        del body[len(body) - data.draw(st.integers(0, min(3, len(body)))) :]
    asyncio.run(answer(version, bytes(body), compress=False))


@settings(max_examples=200, deadline=None)
@given(
    spans=SPANS, deltas=DELTAS, schema=st.integers(-60, 60), total=st.floats(), noise=st.binary(max_size=8)
)
def test_any_histogram_is_stored_or_refused(
    spans: list[tuple[int, int]], deltas: list[int], schema: int, total: float, noise: bytes
) -> None:
    message = encode.histogram(1000, deltas, schema=schema, total=total, spans=spans) + noise
    row = encode.Series([NAME], histograms=[message])
    asyncio.run(answer(1, encode.write_request_v1([row])))
    asyncio.run(answer(2, encode.write_request_v2([row])))


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=4),
    samples=st.lists(st.tuples(st.integers(0, 10), st.floats()), max_size=5),
)
def test_what_is_stored_is_what_was_sent(
    labels: list[tuple[bytes, bytes]], samples: list[tuple[int, float]]
) -> None:
    message = encode.write_request_v1([encode.Series([NAME, *labels], samples)])

    async def send() -> tuple[int, dict[int, int]]:
        setup = Setup()
        status, _, _ = await setup.send(message)
        setup.receiver.close()
        return status, {t: bits for found in setup.appender.samples.values() for t, bits in found.items()}

    status, stored = asyncio.run(send())
    sent = {t: bits for row in twin.decode_v1(message).rows for t, bits, _ in row.samples}
    assert status in (204, 400)
    assert stored in ({}, sent)
    if not labels and samples == sorted(samples, key=lambda pair: pair[0]) and len(sent) == len(samples):
        assert (status, stored) == (204, sent)
