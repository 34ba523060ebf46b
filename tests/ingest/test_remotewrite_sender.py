"""Sending: what is repeated, what is given up, how long is waited, and what the counters say."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable, Mapping
from pathlib import Path

import cramjam
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from ingest.diskqueue import DiskQueue
from ingest.httpclient import Answer, RequestError
from ingest.queuelane import backoff_seconds
from ingest.remotewrite.forward import METADATA_INTERVAL_MS, SERIES_IDLE_MS, ForwardAppender
from ingest.remotewrite.forwardmetrics import ForwardFamilies
from ingest.remotewrite.sender import VERSION_2_AGAIN_SECONDS, Sender, SenderOptions
from tsdb.columns import Metadata, Rejected, SampleColumns, WriteBatch
from tsdb.errors import InvalidLabelsError, LimitError, StorageError
from tsdb.labels import Labels

URL = "http://server/api/v1/write"
WRITTEN = {"X-Prometheus-Remote-Write-Samples-Written": "1"}
OK = Answer(204, "No Content", WRITTEN, b"")
UP = Labels.from_dict({"__name__": "up"})


def answer(status: int, **headers: str) -> Answer:
    return Answer(status, "", {name.replace("_", "-"): value for name, value in headers.items()}, b"text")


class FakeClock:
    """Time that passes only in `sleep`, at once."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


class FakeClient:
    """Answers in turn, the last one for ever."""

    def __init__(self, *answers: Answer | str) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[Mapping[str, str], bytes]] = []

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float, body_bytes_limit: int
    ) -> Answer:
        assert url == URL
        self.requests.append((headers, body))
        chosen = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(chosen, str):
            raise RequestError(chosen)
        return chosen


class Setup:
    def __init__(self, folder: Path, *answers: Answer | str, **options: object) -> None:
        self.clock = FakeClock()
        self.client = FakeClient(*answers)
        self.registry = CollectorRegistry()
        self.metrics = ForwardFamilies(self.registry).destination("agent", URL)
        self.queue = DiskQueue(folder, 1 << 20, on_drop=lambda n: self.metrics.dropped("queue_bytes", n))
        self.appender = ForwardAppender(self.queue, self.metrics, clock=self.clock)
        self.sender = Sender(
            self.queue,
            self.client,
            SenderOptions(URL, **options),  # type: ignore[arg-type]
            self.metrics,
            clock=self.clock,
            jitter=lambda: 1.0,
        )

    def put(self, *values: float, age_seconds: float = 0.0) -> None:
        (ref,) = self.appender.refs([UP]).tolist()
        for value in values:
            t_ms = self.clock.now_ms() - int(age_seconds * 1000)
            samples = SampleColumns(np.array([ref], np.uint32), np.array([t_ms]), np.array([value]))
            self.appender.append(WriteBatch(samples))

    async def run(self, until: Callable[[], bool] | None = None) -> None:
        """Until the queue is empty, or a condition holds."""
        await self.sender.start()
        async with asyncio.timeout(20):
            while not (until() if until is not None else self.queue.record_count == 0):
                await asyncio.sleep(0.001)
        await self.sender.stop()

    def metric(self, name: str, prefix: str = "prometheus_remote_storage_", **labels: str) -> float:
        found = self.registry.get_sample_value(prefix + name, {"remote_name": "agent", "url": URL, **labels})
        return found or 0.0


async def test_requests_carry_the_headers_of_version_2(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK, headers={"X-Scope": "a"})
    setup.put(1.0, 2.0)
    await setup.run()
    assert [headers for headers, _ in setup.client.requests] == 2 * [
        {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "X-Prometheus-Remote-Write-Version": "2.0.0",
            "X-Scope": "a",
        }
    ]
    assert setup.metric("samples_total") == 2
    assert setup.metric("bytes_total") == sum(len(body) for _, body in setup.client.requests)
    assert setup.metric("samples_pending") == 0


async def test_the_same_request_is_sent_until_the_server_takes_it(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "connection refused", answer(503), answer(500), answer(429), answer(401), OK)
    setup.put(1.0)
    await setup.run()
    bodies = {body for _, body in setup.client.requests}
    assert (len(setup.client.requests), len(bodies)) == (6, 1)
    assert [headers.get("Retry-Attempt") for headers, _ in setup.client.requests] == [None, *"12345"]
    assert setup.clock.slept == [0.03, 0.06, 0.12, 0.24, 0.48]
    assert (setup.metric("samples_total"), setup.metric("samples_retried_total")) == (1, 5)


async def test_waits_double_up_to_the_longest(tmp_path: Path) -> None:
    setup = Setup(tmp_path, *["down"] * 12, OK)
    setup.put(1.0)
    await setup.run()
    assert max(setup.clock.slept) == setup.clock.slept[-1] == 5.0
    assert backoff_seconds(99, 0.03, 5.0, lambda: 0.0) == 2.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (email.utils.formatdate(1_700_000_010, usegmt=True), 10.0),
        ("999999", 300.0),
        ("soon", 0.03),
        ("-5", 0.03),
        (email.utils.formatdate(1_600_000_000, usegmt=True), 0.03),
    ],
)
async def test_retry_after_is_kept_within_reason(tmp_path: Path, text: str, seconds: float) -> None:
    setup = Setup(tmp_path, answer(503, Retry_After=text), OK)
    setup.put(1.0)
    await setup.run()
    assert setup.clock.slept == [seconds]


async def test_refused_samples_are_counted_and_the_next_go_on(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK, answer(400, X_Prometheus_Remote_Write_Samples_Written="0"), OK)
    setup.put(1.0, 2.0, 3.0)
    await setup.run()
    assert len(setup.client.requests) == 3
    assert (setup.metric("samples_total"), setup.metric("samples_failed_total")) == (2, 1)


async def test_prometheus_semantics_give_up_after_429(tmp_path: Path) -> None:
    setup = Setup(tmp_path, answer(429), retried_statuses=frozenset())
    setup.put(1.0)
    await setup.run()
    assert setup.metric("samples_failed_total") == 1


@pytest.mark.parametrize("refusal", [answer(415), answer(400)])
async def test_a_server_without_version_2_gets_version_1(tmp_path: Path, refusal: Answer) -> None:
    setup = Setup(tmp_path, refusal, answer(204))
    setup.put(1.0)
    await setup.run()
    second, body = setup.client.requests[1]
    assert second["Content-Type"] == "application/x-protobuf"
    assert second["X-Prometheus-Remote-Write-Version"] == "0.1.0"
    assert b"__name__" in bytes(cramjam.snappy.decompress_raw(body))
    assert setup.metric("protocol_version", "vedette_remote_storage_") == 1
    assert setup.metric("samples_total") == 1
    setup.clock.seconds += VERSION_2_AGAIN_SECONDS + 1
    setup.put(2.0)
    await setup.run()
    assert setup.client.requests[2][0]["X-Prometheus-Remote-Write-Version"] == "2.0.0"


async def test_an_answer_that_does_not_say_what_it_wrote_confirms_nothing(tmp_path: Path) -> None:
    """An old server reads version 2 as an empty request and answers 204; a page of a proxy is no server."""
    setup = Setup(tmp_path / "old", answer(204), confirmed=True)
    setup.put(1.0)
    await setup.run()
    versions = [headers["X-Prometheus-Remote-Write-Version"] for headers, _ in setup.client.requests]
    assert versions == ["2.0.0", "0.1.0"]
    setup = Setup(tmp_path / "proxy", OK, answer(200), answer(200), OK, confirmed=True)
    setup.put(1.0)
    setup.put(2.0)
    await setup.run()
    bodies = [body for _, body in setup.client.requests]
    assert len(bodies) == 4
    assert bodies[1] == bodies[2] == bodies[3]
    assert setup.metric("samples_total") == 2


async def test_a_redirect_says_nothing_about_the_samples(tmp_path: Path) -> None:
    setup = Setup(tmp_path, answer(302), answer(308), OK)
    setup.put(1.0)
    await setup.run()
    assert setup.metric("samples_failed_total") == 0
    assert setup.metric("samples_total") == 1


async def test_a_bad_request_after_version_2_worked_is_no_reason_for_version_1(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK, answer(400), OK)
    setup.put(1.0, 2.0, 3.0)
    await setup.run()
    versions = {headers["X-Prometheus-Remote-Write-Version"] for headers, _ in setup.client.requests}
    assert versions == {"2.0.0"}


async def test_samples_beyond_the_age_limit_are_given_up(tmp_path: Path) -> None:
    setup = Setup(tmp_path, *["down"] * 300, OK, age_limit_seconds=60.0)
    setup.put(1.0, age_seconds=90.0)
    setup.put(2.0)
    await setup.run()
    assert setup.metric("samples_dropped_total", reason="too_old") == 2
    assert 10 < len(setup.client.requests) < 30
    assert setup.metric("samples_total") == 0


async def test_a_dead_server_does_not_stop_collection(tmp_path: Path) -> None:
    setup = Setup(tmp_path, "down")
    before = setup.queue.bytes_limit
    await setup.sender.start()
    for value in range(200):
        setup.put(float(value))
    assert setup.queue.bytes <= before
    assert setup.metric("samples_pending") == 200
    await setup.sender.stop()
    setup.client.answers = [OK]
    await setup.run()
    assert setup.metric("samples_total") == 200


async def test_an_unreadable_record_is_left_out(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK)
    setup.put(1.0, 2.0, 3.0)
    segment = tmp_path / "00000001"
    data = bytearray(segment.read_bytes())
    data[-2] ^= 1
    segment.write_bytes(data)
    await setup.run()
    assert setup.metric("samples_total") == 2
    assert setup.metric("samples_dropped_total", reason="unreadable") == 1


def test_refs_are_bounded_checked_and_forgotten(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK)
    appender = ForwardAppender(setup.queue, setup.metrics, series_limit=2, clock=setup.clock)
    with pytest.raises(InvalidLabelsError, match="has no metric name"):
        appender.refs([Labels.from_dict({"a": "b"})])
    a, b, c = (Labels.from_dict({"__name__": name}) for name in "abc")
    first = appender.refs([a, b])
    with pytest.raises(LimitError, match="3 series to send, the limit is 2"):
        appender.refs([c])
    setup.clock.seconds += SERIES_IDLE_MS / 1000 + 1

    def append(ref: int) -> int:
        samples = SampleColumns(np.array([ref], np.uint32), np.array([setup.clock.now_ms()]), np.array([1.0]))
        return int(appender.append(WriteBatch(samples)).codes[0])

    assert append(int(first[1])) == Rejected.NO
    assert append(int(first[0])) == Rejected.UNKNOWN_SERIES
    assert setup.queue.record_count == 1
    (again,) = appender.refs([a]).tolist()
    assert again not in first.tolist()
    assert append(again) == Rejected.NO


def test_metadata_goes_out_again_after_a_while(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK)
    (ref,) = setup.appender.refs([UP]).tolist()

    def appended(metadata: list[Metadata]) -> bool:
        samples = SampleColumns(np.array([ref], np.uint32), np.array([1]), np.array([1.0]))
        setup.appender.append(WriteBatch(samples, metadata=metadata))
        item = setup.queue.next(setup.queue.record_count - 1)
        assert item is not None
        return b"Is it up?" in bytes(cramjam.snappy.decompress_raw(item.payload))

    assert appended([Metadata("up", "gauge", "Is it up?", "")])
    assert not appended([])
    setup.clock.seconds += METADATA_INTERVAL_MS / 1000
    assert appended([])


def test_a_disk_that_fails_is_an_error_of_the_store(tmp_path: Path) -> None:
    setup = Setup(tmp_path, OK)
    setup.put(1.0)

    def broken() -> None:
        raise OSError(5, "Input/output error")

    assert setup.queue._file is not None
    setup.queue._file.sync = broken  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="write to the queue of remote write"):
        setup.put(2.0)
