"""Answers of the remote-write receiver: status, headers, texts, and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import cramjam
import numpy as np
import pytest
import pytest_asyncio

from benchmarks.load import encode
from benchmarks.load.encode import Series
from ingest.remotewrite import decoded
from tests.ingest.memoryappender import NOW_MS
from tests.ingest.receiversetup import DOWN, UP, UP_LABELS, V1, V2, Setup
from tsdb.errors import DiskFullError, LimitError, StorageError


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Setup()
    yield made
    made.receiver.close()


async def test_samples_of_both_versions_reach_the_same_series(setup: Setup) -> None:
    assert await setup.v1(Series(UP, [(1000, 1.0), (2000, 2.0)]), Series(DOWN, [(1000, 5.0)])) == (204, "")
    assert await setup.v2(Series(UP, [(3000, 3.0)]), Series(DOWN, [])) == (
        400,
        'TimeSeries must contain at least one sample or histogram for series {__name__="down", job="node"}\n',
        [1, 0, 0],
    )
    assert setup.stored() == {
        'up{job="node"}': [(1000, 1.0), (2000, 2.0), (3000, 3.0)],
        'down{job="node"}': [(1000, 5.0)],
    }
    assert setup.metric("vedette_remote_write_written_total", kind="float") == 4


async def test_series_seen_before_skips_the_slow_path(setup: Setup) -> None:
    for time in range(5):
        assert (await setup.v1(Series(UP, [(time, 1.0)])))[0] == 204
    assert setup.metric("vedette_remote_write_series_lookups_missed_total") == 1


async def test_another_order_of_labels_is_the_same_series(setup: Setup) -> None:
    await setup.v1(
        Series(UP, [(1, 1.0)]), Series(UP[::-1], [(2, 2.0)]), Series([*UP, (b"x", b"")], [(3, 3.0)])
    )
    assert setup.stored() == {'up{job="node"}': [(1, 1.0), (2, 2.0), (3, 3.0)]}


async def test_labels_that_are_not_contiguous_are_still_found(setup: Setup) -> None:
    parts = [encode.length_delimited(1, encode.label(*pair)) for pair in UP]
    sample = encode.length_delimited(2, encode.sample(7, 7.0))
    for _ in range(2):
        message = encode.length_delimited(1, parts[0] + sample + parts[1])
        assert (await setup.send(message))[0] == 204
    assert setup.stored() == {'up{job="node"}': [(7, 7.0)]}


INVALID_LABELS: list[tuple[str, Sequence[tuple[bytes, bytes]], str]] = [
    ("no labels", [], "invalid metric name or labels, got {}"),
    ("no name", [(b"job", b"x")], 'invalid metric name or labels, got {job="x"}'),
    ("empty name", [(b"__name__", b"")], 'invalid metric name or labels, got {__name__=""}'),
    (
        "empty label name",
        [*UP, (b"", b"x")],
        'invalid metric name or labels, got {="x", __name__="up", job="node"}',
    ),
    (
        "value not UTF-8",
        [(b"__name__", b"up"), (b"a", b"\xff\n")],
        'invalid metric name or labels, got {__name__="up", a="\\xff\\n"}',
    ),
    (
        "label name not UTF-8",
        [*UP, (b"z\xc3", b"1")],
        'invalid metric name or labels, got {__name__="up", job="node", z\\xc3="1"}',
    ),
    (
        "duplicate label",
        [*UP, (b"job", b"b")],
        'invalid labels for series, labels {__name__="up", job="b", job="node"}, duplicated label job',
    ),
]


@pytest.mark.parametrize(("name", "labels", "text"), INVALID_LABELS, ids=[row[0] for row in INVALID_LABELS])
async def test_invalid_labels_are_skipped_by_version_1_and_reported_by_version_2(
    setup: Setup, name: str, labels: Sequence[tuple[bytes, bytes]], text: str
) -> None:
    bad = Series(labels, [(1000, 1.0), (2000, 2.0)])
    assert await setup.v1(bad, Series(DOWN, [(1000, 1.0)])) == (204, "")
    assert setup.metric("prometheus_api_remote_write_invalid_labels_samples_total") == 1
    assert await setup.v2(bad, Series(DOWN, [(2000, 2.0)])) == (400, text + "\n", [1, 0, 0])
    assert setup.metric("prometheus_api_remote_write_invalid_labels_samples_total") == 3
    assert setup.stored() == {'down{job="node"}': [(1000, 1.0), (2000, 2.0)]}


REFUSED_SAMPLES = [
    ("out of order", (500, 1.0), "out of order sample"),
    ("duplicate", (1000, 2.0), "duplicate sample for timestamp 1000"),
    ("future", (NOW_MS + 600_001, 1.0), "out of bounds: timestamp is too far in the future"),
]


@pytest.mark.parametrize(("name", "sample", "text"), REFUSED_SAMPLES, ids=[row[0] for row in REFUSED_SAMPLES])
async def test_refused_sample_rolls_back_version_1_and_leaves_the_rest_of_version_2(
    setup: Setup, name: str, sample: tuple[int, float], text: str
) -> None:
    assert await setup.v1(Series(UP, [(1000, 1.0)])) == (204, "")
    rows = [Series(DOWN, [(1000, 7.0)]), Series(UP, [sample])]
    assert await setup.v1(*rows) == (400, text + "\n")
    assert setup.stored() == {'up{job="node"}': [(1000, 1.0)]}
    expected = f'{text} for series {{__name__="up", job="node"}}\n'
    assert await setup.v2(*rows) == (400, expected, [1, 0, 0])
    assert setup.stored() == {'up{job="node"}': [(1000, 1.0)], 'down{job="node"}': [(1000, 7.0)]}


async def test_exact_duplicate_is_accepted(setup: Setup) -> None:
    for _ in range(2):
        assert await setup.v1(Series(UP, [(1000, 1.0)])) == (204, "")
        assert await setup.v2(Series(UP, [(1000, 1.0)])) == (204, "", [1, 0, 0])


async def test_errors_of_version_2_are_joined_and_capped(setup: Setup) -> None:
    rows = [Series([(b"job", str(index).encode())], [(1, 1.0)]) for index in range(150)]
    status, text, written = await setup.v2(*rows)
    lines = text.splitlines()
    assert (status, written, len(lines)) == (400, [0, 0, 0], 101)
    assert lines[0] == 'invalid metric name or labels, got {job="0"}'
    assert lines[-1] == "and 50 more errors"


BAD_REFS = [
    ([1, 2, 3], "parsing labels for series [1 2 3]: invalid labelRefs length 3"),
    (
        [1, 999],
        "parsing labels for series [1 999]: labelRefs 1 (name) = 999 (value) outside of"
        " symbols table (size 3)",
    ),
]


@pytest.mark.parametrize(("refs", "text"), BAD_REFS)
async def test_bad_label_references_are_reported_and_the_rest_is_stored(
    setup: Setup, refs: list[int], text: str
) -> None:
    symbols = encode.Symbols()
    good = encode.time_series_v2(Series([], [(1, 1.0)]), symbols.refs([(b"__name__", b"up")]))
    bad = encode.time_series_v2(Series([], [(1, 1.0)]), refs)
    message = symbols.encode() + encode.length_delimited(5, bad) + encode.length_delimited(5, good)
    status, headers, answer = await setup.send(message, V2)
    assert (status, answer) == (400, text + "\n")
    assert headers["X-Prometheus-Remote-Write-Samples-Written"] == "1"
    assert setup.stored() == {"up": [(1, 1.0)]}


BAD_BODIES = [
    ("empty body", b"", "snappy: corrupt input"),
    ("truncated", bytes(cramjam.snappy.compress_raw(b"abcdefgh" * 99))[:-3], "snappy: corrupt input"),
    ("trailing bytes", bytes(cramjam.snappy.compress_raw(b"abc")) + b"zzz", "snappy: corrupt input"),
    ("endless size", b"\xff" * 12, "snappy: corrupt input"),
    (
        "declared too large",
        encode.varint(1 << 31) + b"\x00",
        "snappy: decoded block is too large: 2147483648 bytes declared, the limit is 65536 bytes",
    ),
    (
        "malformed",
        bytes(cramjam.snappy.compress_raw(b"\x0a\x05\x00")),
        "unexpected EOF at byte 0 of the message",
    ),
    (
        "malformed label",
        bytes(cramjam.snappy.compress_raw(b"\x0a\x04\x0a\x02\x0a\x09")),
        "unexpected EOF at byte 4 of the message",
    ),
]


@pytest.mark.parametrize("headers", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize(("name", "body", "text"), BAD_BODIES[:5], ids=[row[0] for row in BAD_BODIES[:5]])
async def test_bad_compression_is_answered_400(
    setup: Setup, headers: Mapping[str, str], name: str, body: bytes, text: str
) -> None:
    status, answered, answer = await setup.send(body, headers, compress=False)
    assert (status, answer) == (400, text + "\n")
    assert answered["Content-Type"] == "text/plain; charset=utf-8"
    assert ("X-Prometheus-Remote-Write-Samples-Written" in answered) == (headers is V2)


@pytest.mark.parametrize(("name", "body", "text"), BAD_BODIES[5:], ids=[row[0] for row in BAD_BODIES[5:]])
async def test_malformed_message_is_answered_400(setup: Setup, name: str, body: bytes, text: str) -> None:
    status, _, answer = await setup.send(body, V1, compress=False)
    assert (status, answer) == (400, text + "\n")


async def test_more_parts_than_a_request_may_have_are_refused(setup: Setup) -> None:
    message = b"\x0a\x00" * 30_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded, "ROWS_MAX", 20_000)
        status, _, text = await setup.send(message)
    assert (status, text) == (400, "request with 30000 series exceeds the limit of 20000\n")
    assert (await setup.send(message))[0] == 204


async def test_body_above_the_limit_is_answered_413(setup: Setup) -> None:
    status, _, text = await setup.send(b"x" * (1 << 20) + b"x", V1, compress=False)
    assert (status, text) == (413, "request body of 1048577 bytes exceeds the limit of 1048576 bytes\n")


MEDIA = [
    ({}, 204, ""),
    ({"Content-Type": "application/x-protobuf"}, 204, ""),
    ({"Content-Type": "application/x-protobuf; proto=prometheus.WriteRequest"}, 204, ""),
    ({"Content-Type": "application/x-protobuf", "Content-Encoding": "Snappy"}, 204, ""),
    (
        {"Content-Type": "yolo"},
        415,
        "expected application/x-protobuf as the first (media) part, got yolo content-type",
    ),
    (
        {"Content-Type": "application/x-protobuf;proto=yolo"},
        415,
        "got application/x-protobuf;proto=yolo content type; unknown type for remote write protobuf"
        " message yolo, supported: prometheus.WriteRequest, io.prometheus.write.v2.Request",
    ),
    (
        {"Content-Type": "application/x-protobuf;proto"},
        415,
        "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be"
        " key-values, got proto in application/x-protobuf;proto content-type",
    ),
    (
        {"Content-Encoding": "zstd"},
        415,
        "zstd encoding (compression) is not accepted by this server; only snappy is acceptable",
    ),
]


@pytest.mark.parametrize(("headers", "status", "text"), MEDIA)
async def test_media_type_and_encoding_are_negotiated(
    setup: Setup, headers: Mapping[str, str], status: int, text: str
) -> None:
    message = encode.write_request_v1([Series(UP, [(1, 1.0)])])
    answered, _, answer = await setup.send(message, headers)
    assert (answered, answer) == (status, text + "\n" if text else "")


async def test_message_that_is_not_accepted_is_answered_415() -> None:
    only_v2 = Setup(accepted_messages=("io.prometheus.write.v2.Request",))
    status, _, text = await only_v2.send(b"", {})
    assert (status, text) == (
        415,
        "prometheus.WriteRequest protobuf message is not accepted by this server; only accepts"
        " io.prometheus.write.v2.Request\n",
    )
    only_v2.receiver.close()


async def test_answer_waits_until_the_record_is_durable(setup: Setup) -> None:
    setup.appender.durable_now = False
    task = asyncio.create_task(setup.v1(Series(UP, [(1, 1.0)])))
    while not setup.appender.futures:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert not task.done()
    setup.appender.futures[0].set_result(None)
    assert await task == (204, "")


FAILURES = [
    (DiskFullError("no space left"), 503, "no space left\n"),
    (LimitError("7 late samples, the limit is 6"), 503, "7 late samples, the limit is 6\n"),
    (StorageError("broken"), 500, "broken\n"),
    (RuntimeError("odd"), 500, "RuntimeError: odd\n"),
]


@pytest.mark.parametrize(("error", "status", "text"), FAILURES)
async def test_failure_of_the_store_is_a_5xx_that_senders_retry(
    setup: Setup, error: Exception, status: int, text: str
) -> None:
    setup.appender.error = error
    assert await setup.v1(Series(UP, [(1, 1.0)])) == (status, text)
    assert await setup.v2(Series(UP, [(1, 1.0)])) == (status, text, [0, 0, 0])


async def test_failed_sync_is_a_5xx(setup: Setup) -> None:
    setup.appender.durable_now = False
    task = asyncio.create_task(setup.v2(Series(UP, [(1, 1.0)])))
    while not setup.appender.futures:
        await asyncio.sleep(0.001)
    setup.appender.futures[0].set_exception(StorageError("fsync failed"))
    assert await task == (500, "fsync failed\n", [0, 0, 0])


async def test_more_waiting_requests_than_the_limit_are_answered_503(setup: Setup) -> None:
    setup.appender.durable_now = False
    tasks = [asyncio.create_task(setup.v1(Series(UP, [(time, 1.0)]))) for time in range(4)]
    while len(setup.appender.futures) < 4:
        await asyncio.sleep(0.001)
    assert await setup.v1(Series(UP, [(9, 1.0)])) == (
        503,
        "4 remote write requests are waiting, the limit is 4\n",
    )
    for future in setup.appender.futures:
        future.set_result(None)
    assert await asyncio.gather(*tasks) == [(204, "")] * 4


async def test_series_limit_refuses_new_series_and_keeps_the_known(setup: Setup) -> None:
    await setup.v1(Series(UP, [(1, 1.0)]))
    setup.appender.series_max = 1
    status, text = await setup.v1(Series(DOWN, [(2, 1.0)]), Series(UP, [(2, 1.0)]))
    assert (status, text) == (
        400,
        'series limit of 1 reached for series {__name__="down", job="node"}\n',
    )
    assert setup.stored() == {'up{job="node"}': [(1, 1.0), (2, 1.0)]}


@pytest.mark.parametrize("version", [1, 2])
async def test_series_garbage_collected_since_the_look_up_is_created_again(
    setup: Setup, version: int
) -> None:
    await setup.v1(Series(UP, [(1, 1.0)]), Series(DOWN, [(1, 1.0)]))
    setup.appender.forgotten = {0}
    rows = [Series(UP, [(2, 2.0)]), Series(DOWN, [(2, 2.0)])]
    answer = await (setup.v1(*rows) if version == 1 else setup.v2(*rows))
    assert answer[:2] == (204, "")
    assert setup.stored() == {
        'up{job="node"}': [(1, 1.0), (2, 2.0)],
        'down{job="node"}': [(1, 1.0), (2, 2.0)],
    }


async def test_stale_marker_arrives_bit_exact(setup: Setup) -> None:
    sample = b"\x09" + (0x7FF0000000000002).to_bytes(8, "little") + encode.varint_field(2, 1000)
    message = encode.length_delimited(1, encode.labels_v1(UP) + encode.length_delimited(2, sample))
    assert (await setup.send(message))[0] == 204
    assert setup.appender.samples[UP_LABELS] == {1000: 0x7FF0000000000002}


async def test_large_request_follows_a_small_one_in_the_same_buffers(setup: Setup) -> None:
    assert (await setup.v1(Series(UP, [(0, 0.0)])))[0] == 204
    values = np.arange(3000, dtype=np.float64)
    assert (await setup.v1(Series(UP, [(index + 1, value) for index, value in enumerate(values.tolist())])))[
        0
    ] == 204
    assert len(setup.stored()['up{job="node"}']) == 3001
