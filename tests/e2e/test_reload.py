"""What a reload changes in the running store, and the limit of connections: one server with three of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cramjam
import pytest

from benchmarks.load import encode
from benchmarks.load.encode import Series
from benchmarks.servers import Server
from tests.e2e.processes import NOTHING_TO_SCRAPE, Api, series, start_vedette, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONNECTIONS = 3
STORAGE = """
storage:
  tsdb:
    out_of_order_time_window: 0s
    retention: {time: 3d, size: 2GB}
  exemplars: {max_exemplars: 2}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """The server, a connection, its configuration file."""

    server: Server
    api: Api
    config: Path

    def metric(self, name: str) -> float:
        """Value of one of the server's own metrics without labels."""
        _, _, body = self.api.request("GET", "/metrics")
        for line in body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(f"{name} is not in /metrics")

    def retention(self) -> str:
        """What the server says how long it keeps samples."""
        _, answer = self.api.get("/api/v1/status/runtimeinfo")
        return str(answer["data"]["storageRetention"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("reload")
    server = start_vedette(folder, "--web.enable-lifecycle", f"--web.max-connections={CONNECTIONS}")
    try:
        server.wait_ready()
        api = Api(server.port)
        yield Running(server, api, folder / "vedette.yml")
        api.close()
    finally:
        server.stop()


def with_exemplars(name: str, t_ms: int, count: int) -> Series:
    """A sample with exemplars of the same time."""
    exemplars = [encode.exemplar_v1([(b"trace_id", b"%d" % i)], t_ms, float(i)) for i in range(count)]
    return Series([(b"__name__", name.encode())], [(t_ms, 1.0)], exemplars=exemplars)


def test_a_reload_applies_window_retention_and_exemplars_to_the_running_store(running: Running) -> None:
    now_ms = int(time.time() * 1000)
    assert running.api.write([with_exemplars("reloaded", now_ms, 5)]) == (204, "")
    late = now_ms - 1_800_000
    assert running.api.write([series("reloaded", [(late, 2.0)])]) == (204, "")
    assert running.metric("prometheus_tsdb_exemplar_exemplars_in_storage") == 5

    running.config.write_text(NOTHING_TO_SCRAPE + STORAGE, encoding="utf-8")
    os.kill(running.server.pid, signal.SIGHUP)
    wait_until(lambda: running.retention() != "15d", 60, "the signal has no effect")
    assert running.retention() == "3d or 2GiB"
    assert running.metric("prometheus_tsdb_retention_limit_seconds") == 3 * 86400
    assert running.metric("prometheus_tsdb_retention_limit_bytes") == 2 << 30
    assert running.metric("prometheus_tsdb_exemplar_max_exemplars") == 2
    assert running.metric("prometheus_tsdb_exemplar_exemplars_in_storage") == 2
    status, text = running.api.write([series("reloaded", [(late - 1, 3.0)])])
    assert (status, text) == (400, "out of order sample\n")
    _, answer = running.api.get("/api/v1/query_exemplars", query="reloaded", start=late / 1000)
    (found,) = answer["data"]
    assert [each["labels"]["trace_id"] for each in found["exemplars"]] == ["3", "4"]

    running.config.write_text(NOTHING_TO_SCRAPE, encoding="utf-8")
    assert running.api.request("POST", "/-/reload")[0] == 200
    assert running.retention() == "15d"
    assert running.metric("prometheus_tsdb_exemplar_max_exemplars") == 100_000
    assert running.api.write([series("reloaded", [(late - 1, 3.0)])]) == (204, "")


LIMITS = """
storage:
  limits: {series_limit: 2, label_limit: 3, label_name_length_limit: 8, label_value_length_limit: 9}
"""


def test_limits_answer_400_and_429_with_their_names(running: Running) -> None:
    """What is good in the request is stored; series that live go on."""
    api = running.api
    now_ms = int(time.time() * 1000)
    assert api.write([series("l", [(now_ms, 1.0)], i=str(i)) for i in range(3)]) == (204, "")
    running.config.write_text(NOTHING_TO_SCRAPE + LIMITS, encoding="utf-8")
    assert api.request("POST", "/-/reload")[0] == 200
    alive = running.metric("prometheus_tsdb_head_series")
    old = series("l", [(now_ms + 1, 1.0)], i="0")
    text = f"{alive:.0f} active series and 1 new ones exceed the series_limit of 2"
    assert api.write([old, series("l", [(now_ms, 1.0)], i="3")]) == (
        429,
        f'{text} for series {{__name__="l", i="3"}}\n',
    )
    assert api.query("timestamp(l{i='0'})", now_ms / 1000 + 1)["result"][0]["value"][1] == (
        f"{(now_ms + 1) / 1000:.3f}".rstrip("0").rstrip(".")
    )
    for labels, text in (
        ({"a": "1", "b": "2", "c": "3"}, "4 labels exceed the label_limit of 3: "),
        ({"long_name": "1"}, "label name has 9 bytes, above the label_name_length_limit of 8: long_name"),
        (
            {"a": "0123456789"},
            'value of label "a" has 10 bytes, above the label_value_length_limit of 9: 0123',
        ),
    ):
        status, answer = api.write([series("l", [(now_ms, 1.0)], **labels)])
        assert (status, answer[: len(text)]) == (400, text)
    status, _ = api.write([series("l", [(now_ms, 1.0)], i="3"), series("l", [(now_ms, 1.0)], long_name="x")])
    assert status == 400
    assert running.metric('vedette_remote_write_rejected_samples_total{reason="limit"}') == 6
    running.config.write_text(NOTHING_TO_SCRAPE, encoding="utf-8")
    assert api.request("POST", "/-/reload")[0] == 200
    assert api.write([series("l", [(now_ms, 1.0)], i="3")]) == (204, "")


def test_a_ring_of_no_exemplars_accepts_and_holds_none(running: Running) -> None:
    """Exactly as Prometheus without its feature exemplar-storage: no error, and the header counts them."""
    running.config.write_text(
        NOTHING_TO_SCRAPE + "storage: {exemplars: {max_exemplars: 0}}\n", encoding="utf-8"
    )
    assert running.api.request("POST", "/-/reload")[0] == 200
    assert running.metric("prometheus_tsdb_exemplar_exemplars_in_storage") == 0
    symbols = encode.Symbols()
    now_ms = int(time.time() * 1000)
    exemplar = encode.packed(1, symbols.refs([(b"trace_id", b"x")])) + encode.double_field(2, 1.0)
    exemplar += encode.varint_field(3, now_ms)
    row = Series([(b"__name__", b"ringless")], [(now_ms, 1.0)], exemplars=[exemplar])
    status, headers, _ = running.api.request(
        "POST",
        "/api/v1/write",
        bytes(cramjam.snappy.compress_raw(encode.write_request_v2([row], symbols))),
        {
            "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "Content-Encoding": "snappy",
        },
    )
    assert (status, headers["X-Prometheus-Remote-Write-Exemplars-Written"]) == (204, "1")
    assert running.metric("prometheus_tsdb_exemplar_exemplars_in_storage") == 0


def test_connections_beyond_the_limit_wait_and_are_served_when_one_ends(running: Running) -> None:
    others = [Api(running.server.port) for _ in range(CONNECTIONS - 1)]
    for other in others:
        assert other.request("GET", "/-/healthy")[0] == 200
    assert running.metric("vedette_http_connections") == CONNECTIONS
    with socket.create_connection(("127.0.0.1", running.server.port), timeout=60) as waiting:
        waiting.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        waiting.settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        # Who is inside is served meanwhile.
        assert others[0].request("GET", "/-/healthy")[0] == 200
        others[1].close()
        waiting.settimeout(60)
        assert waiting.recv(64).startswith(b"HTTP/1.1 200")
    others[0].close()
    wait_until(lambda: running.metric("vedette_http_connections") == 1, 60, "ended connections are counted")
    assert (
        running.metric('net_conntrack_listener_conn_accepted_total{listener_name="http"}') >= CONNECTIONS + 1
    )
