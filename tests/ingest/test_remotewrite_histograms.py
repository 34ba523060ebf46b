"""Exemplars, metadata and native histograms that the remote-write receiver is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from benchmarks.load import encode
from benchmarks.load.encode import Series
from tests.ingest.receiversetup import DOWN, UP, V2, Setup
from tsdb.histogram import ResetHint


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Setup()
    yield made
    made.receiver.close()


async def test_exemplars_and_metadata_travel_with_the_batch(setup: Setup) -> None:
    exemplar = encode.exemplar_v1([(b"trace_id", b"abc")], 1000, 0.5)
    too_long = encode.exemplar_v1([(b"trace_id", b"x" * 121)], 1000, 0.5)
    row = Series(UP, [(1000, 1.0)], exemplars=[exemplar, too_long])
    message = encode.write_request_v1([row], [encode.metadata_v1(2, "up", "Is it up?", "")])
    assert (await setup.send(message))[0] == 204
    (batch,) = setup.appender.batches
    (found,) = batch.exemplars
    assert (str(found.labels), found.value, found.t_ms) == ('{trace_id="abc"}', 0.5, 1000)
    (metadata,) = batch.metadata
    assert (metadata.family, metadata.type, metadata.help) == ("up", "gauge", "Is it up?")


@pytest.mark.parametrize("version", [1, 2])
async def test_exemplars_of_a_series_created_again_are_sent_again_under_its_ref(
    setup: Setup, version: int
) -> None:
    """Version 1 stored nothing the first time, so that the other series' exemplars are sent again too."""
    first = [Series(UP, [(1, 1.0)]), Series(DOWN, [(1, 1.0)])]
    await (setup.v1(*first) if version == 1 else setup.v2(*first))
    setup.appender.forgotten = {0}
    symbols = encode.Symbols()
    if version == 1:
        exemplar = encode.exemplar_v1([(b"trace_id", b"abc")], 2, 0.5)
    else:
        exemplar = encode.packed(1, symbols.refs([(b"trace_id", b"abc")])) + encode.varint_field(3, 2)
    rows = [Series(UP, [(2, 2.0)], exemplars=[exemplar]), Series(DOWN, [(2, 2.0)], exemplars=[exemplar])]
    if version == 1:
        assert (await setup.send(encode.write_request_v1(rows)))[0] == 204
    else:
        assert (await setup.send(encode.write_request_v2(rows, symbols), V2))[0] == 204
    sent_again = [each.ref for each in setup.appender.batches[-1].exemplars]
    assert sent_again == ([2, 1] if version == 1 else [2])
    assert setup.metric("vedette_remote_write_written_total", kind="exemplar") == 2


async def test_metadata_of_version_2_is_stored_under_the_metric(setup: Setup) -> None:
    symbols = encode.Symbols()
    symbols.refs(UP)
    metadata = encode.metadata_v2(1, symbols.ref(b"Ups."), symbols.ref(b"seconds"))
    message = encode.write_request_v2([Series(UP, [(1, 1.0)], metadata=metadata)], symbols)
    assert (await setup.send(message, V2))[0] == 204
    (found,) = setup.appender.batches[0].metadata
    assert (found.family, found.type, found.help, found.unit) == ("up", "counter", "Ups.", "seconds")
    assert setup.metric("prometheus_api_remote_write_without_metadata_appended_samples_total") == 0


async def test_native_histogram_becomes_columns_of_absolute_counts(setup: Setup) -> None:
    message = encode.histogram(1000, [3, -1, 2], schema=2, zero_count=5, spans=[(-1, 2), (3, 1)], total=9.5)
    assert await setup.v1(Series(UP, histograms=[message])) == (204, "")
    columns = setup.appender.batches[0].histograms
    assert columns is not None
    batch = columns.batch
    assert batch.t_ms.tolist() == [1000]
    assert batch.pos_index.tolist() == [-1, 0, 4]
    assert batch.pos_count.tolist() == [3.0, 2.0, 4.0]
    assert (batch.count[0], batch.sum[0], batch.zero_count[0], batch.schema[0]) == (14.0, 9.5, 5.0, 2)
    assert batch.reset_hint[0] == ResetHint.UNKNOWN
    assert batch.is_float.tolist() == [0]


BAD_HISTOGRAMS = [
    (
        encode.histogram(1000, [1, 1], spans=[(0, 3)]),
        "positive side: spans need 3 buckets, have 2 buckets: histogram spans specify different number of"
        " buckets than provided",
    ),
    (
        encode.histogram(1000, [1, -2]),
        "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation"
        " count is negative",
    ),
    (
        encode.histogram(1000, [1], count=9),
        "1 observations found in buckets, but the Count field is 9: histogram's observation count should"
        " equal the number of observations found in the buckets (in absence of NaN)",
    ),
    (
        encode.histogram(1000, [1, 0], spans=[(0, 1), (-1, 1)]),
        "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
    ),
    (
        encode.histogram(1000, [1], schema=60),
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for"
        " custom buckets, got schema 60",
    ),
]


@pytest.mark.parametrize(("message", "text"), BAD_HISTOGRAMS)
async def test_invalid_histogram_rolls_back_version_1_and_is_skipped_by_version_2(
    setup: Setup, message: bytes, text: str
) -> None:
    rows = [Series(DOWN, [(1000, 1.0)]), Series(UP, histograms=[message])]
    assert await setup.v1(*rows) == (400, text + "\n")
    assert setup.stored() == {}
    expected = f'{text} for series {{__name__="up", job="node"}}\n'
    assert await setup.v2(*rows) == (400, expected, [1, 0, 0])
