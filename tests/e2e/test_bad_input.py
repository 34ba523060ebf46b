"""Bad input over HTTP: the status, error type and text of each, and a server that goes on.

Statuses and texts are those of prometheus-surface.md 1.1, 1.2, 5.1 and 5.3.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam
import pytest

from benchmarks.load import encode
from benchmarks.servers import Server
from tests.e2e.processes import Api, series, start_vedette

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

BODY_LIMIT = 1 << 20
V2_HEADERS = {
    "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    "Content-Encoding": "snappy",
}


@dataclass(frozen=True, slots=True)
class Running:
    """The server, a connection, and the time of the good sample that must survive everything."""

    server: Server
    api: Api
    good_ms: int


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bad-input")
    flags = (
        *("--web.enable-lifecycle", "--web.max-body-size=1MB"),
        "--storage.tsdb.out-of-order-time-window=0s",
    )
    server = start_vedette(folder, *flags)
    try:
        server.wait_ready()
        api = Api(server.port)
        good_ms = int(time.time() * 1000) - 60_000
        assert api.write([series("good", [(good_ms, 42.0)], job="x")]) == (204, "")
        yield Running(server, api, good_ms)
        api.close()
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def the_server_goes_on_and_has_lost_nothing(running: Running) -> Iterator[None]:
    yield
    assert running.server.is_running()
    api = Api(running.server.port)
    assert api.request("GET", "/-/ready")[0] == 200
    result = api.query("good", running.good_ms / 1000)["result"]
    assert [row["value"][1] for row in result] == ["42"]
    api.close()


def snappy(message: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(message))


GOOD_MESSAGE = encode.write_request_v1([series("other", [(1_700_000_000_000, 1.0)])])

BAD_BODIES = [
    ("empty", b"", 400, "snappy: corrupt input"),
    ("truncated snappy", snappy(GOOD_MESSAGE * 20)[:-5], 400, "snappy: corrupt input"),
    ("not snappy", b"hello, this is no snappy block", 400, "snappy: corrupt input"),
    (
        "32 MiB and a byte declared",
        encode.varint((32 << 20) + 1) + b"\x00",
        400,
        "snappy: decoded block is too large",
    ),
    ("truncated protobuf", snappy(GOOD_MESSAGE[:-3]), 400, "unexpected EOF"),
    ("wrong wire type", snappy(b"\x08\x01"), 400, "proto: wrong wireType"),
    ("endless varint", snappy(b"\x28" + b"\xff" * 20), 400, "proto: integer overflow"),
    ("text instead of protobuf", snappy(b'{"streams": []}'), 400, "proto: "),
    ("body above the flag", bytes(BODY_LIMIT + 1), 413, "1048576"),
]


@pytest.mark.parametrize(("name", "body", "status", "text"), BAD_BODIES, ids=[row[0] for row in BAD_BODIES])
def test_bad_body_is_refused(running: Running, name: str, body: bytes, status: int, text: str) -> None:
    api = Api(running.server.port)
    found = api.write_raw(body)
    api.close()
    assert found[0] == status
    assert text in found[1]


BAD_HEADERS = [
    (
        {"Content-Type": "text/plain"},
        "expected application/x-protobuf as the first (media) part, got text/plain content-type\n",
    ),
    (
        {"Content-Encoding": "zstd"},
        "zstd encoding (compression) is not accepted by this server; only snappy is acceptable\n",
    ),
]


@pytest.mark.parametrize(("headers", "text"), BAD_HEADERS)
def test_unsupported_media_is_answered_415(running: Running, headers: dict[str, str], text: str) -> None:
    assert running.api.write_raw(snappy(GOOD_MESSAGE), headers) == (415, text)


BAD_LABELS = [
    ("no name", [(b"job", b"x")], 'invalid metric name or labels, got {job="x"}'),
    (
        "invalid UTF-8",
        [(b"__name__", b"bad"), (b"job", b"\xff")],
        'invalid metric name or labels, got {__name__="bad", job="\\xff"}',
    ),
    (
        "repeated label",
        [(b"__name__", b"bad"), (b"job", b"a"), (b"job", b"b")],
        'invalid labels for series, labels {__name__="bad", job="a", job="b"}, duplicated label job',
    ),
]


@pytest.mark.parametrize(("name", "labels", "text"), BAD_LABELS, ids=[row[0] for row in BAD_LABELS])
def test_invalid_labels_are_skipped_in_version_1_and_reported_in_version_2(
    running: Running, name: str, labels: list[tuple[bytes, bytes]], text: str
) -> None:
    now_ms = int(time.time() * 1000)
    rows = [encode.Series(labels, [(now_ms, 1.0)]), series("neighbour", [(now_ms, 1.0)], case=name)]
    assert running.api.write(rows) == (204, "")
    assert running.api.write_raw(snappy(encode.write_request_v2(rows)), V2_HEADERS) == (400, text + "\n")
    selector = f'neighbour{{case="{name}"}}'
    assert len(running.api.query(selector, now_ms / 1000)["result"]) == 1
    assert running.api.query("bad", now_ms / 1000)["result"] == []


@pytest.mark.parametrize(
    ("name", "offset_ms", "value", "text"),
    [
        ("out of order", -1000, 1.0, "out of order sample"),
        ("duplicate", 0, 2.0, "duplicate sample for timestamp"),
        ("too far in the future", 3_600_000, 1.0, "out of bounds"),
    ],
)
def test_refused_sample_rolls_the_request_back_in_version_1_only(
    running: Running, name: str, offset_ms: int, value: float, text: str
) -> None:
    now_ms = int(time.time() * 1000)
    case = name.replace(" ", "_")
    assert running.api.write([series(case, [(now_ms, 1.0)])]) == (204, "")
    rows = [series(f"{case}_neighbour", [(now_ms, 1.0)]), series(case, [(now_ms + offset_ms, value)])]
    status, answer = running.api.write(rows)
    assert (status, answer.startswith(text)) == (400, True), answer
    assert running.api.query(f"{case}_neighbour", now_ms / 1000)["result"] == []
    status, answer = running.api.write_raw(snappy(encode.write_request_v2(rows)), V2_HEADERS)
    assert (status, answer.startswith(text)) == (400, True), answer
    assert answer.endswith(f'for series {{__name__="{case}"}}\n')
    assert len(running.api.query(f"{case}_neighbour", now_ms / 1000)["result"]) == 1
    assert running.api.query(case, now_ms / 1000)["result"][0]["value"][1] == "1"


def test_the_same_sample_again_is_accepted(running: Running) -> None:
    assert running.api.write([series("good", [(running.good_ms, 42.0)], job="x")]) == (204, "")


def test_exemplars_are_counted_and_answered_as_prometheus_does(running: Running) -> None:
    """Out of order is an error of version 2; a repetition and what is too long is not; neither is stored."""
    now_ms = int(time.time() * 1000)

    def send(t_ms: int, texts: list[tuple[bytes, int]], version: int = 2) -> tuple[int, str | None, str]:
        symbols = encode.Symbols()
        if version == 1:
            exemplars = [encode.exemplar_v1([(b"trace_id", text)], at, 0.5) for text, at in texts]
        else:
            exemplars = [
                encode.packed(1, symbols.refs([(b"trace_id", text)]))
                + encode.double_field(2, 0.5)
                + encode.varint_field(3, at)
                for text, at in texts
            ]
        row = encode.Series([(b"__name__", b"traced")], [(t_ms, 1.0)], exemplars=exemplars)
        message = encode.write_request_v1([row]) if version == 1 else encode.write_request_v2([row], symbols)
        headers = {**V2_HEADERS, **({"Content-Type": "application/x-protobuf"} if version == 1 else {})}
        status, answered, body = running.api.request("POST", "/api/v1/write", snappy(message), headers)
        return status, answered.get("X-Prometheus-Remote-Write-Exemplars-Written"), body.decode()

    def stored() -> list[str]:
        _, answer = running.api.get("/api/v1/query_exemplars", query="traced", start=now_ms / 1000 - 60)
        return [each["labels"]["trace_id"] for row in answer["data"] for each in row["exemplars"]]

    refused = "prometheus_tsdb_exemplar_out_of_order_exemplars_total"
    before = metric(running.api, refused)
    assert send(now_ms, [(b"a", now_ms - 10), (b"b", now_ms)]) == (204, "2", "")
    assert send(now_ms + 1, [(b"b", now_ms), (b"x" * 121, now_ms + 1)]) == (204, "1", "")
    text = 'out of order exemplar for series {__name__="traced"}\n'
    assert send(now_ms + 2, [(b"late", now_ms - 5), (b"c", now_ms + 2)]) == (400, "1", text)
    assert send(now_ms + 3, [(b"late", now_ms - 5)], version=1) == (204, None, "")
    assert stored() == ["a", "b", "c"]
    assert running.api.query("traced", (now_ms + 3) / 1000)["result"][0]["value"][1] == "1"
    assert metric(running.api, refused) == before + 2
    reasons = "vedette_remote_write_rejected_exemplars_total"
    assert metric(running.api, f'{reasons}{{reason="out_of_order"}}') == 2
    assert metric(running.api, f'{reasons}{{reason="labels_too_long"}}') == 1


RESOLUTION = (
    "exceeded maximum resolution of 11,000 points per timeseries."
    " Try decreasing the query resolution (?step=XX)"
)
BAD_QUERIES: list[tuple[str, str, dict[str, str], str]] = [
    ("syntax error", "/api/v1/query", {"query": "sum(up"}, 'invalid parameter "query": 1:7: parse error: '),
    ("empty query", "/api/v1/query", {"query": ""}, 'invalid parameter "query": '),
    ("bad time", "/api/v1/query", {"query": "up", "time": "noon"}, 'invalid parameter "time": '),
    (
        "step of zero",
        "/api/v1/query_range",
        {"query": "up", "start": "0", "end": "60", "step": "0"},
        'invalid parameter "step": zero or negative query resolution step widths are not accepted.'
        " Try a positive integer",
    ),
    (
        "end before start",
        "/api/v1/query_range",
        {"query": "up", "start": "60", "end": "0", "step": "1"},
        'invalid parameter "end": end timestamp must not be before start time',
    ),
    (
        "too many points",
        "/api/v1/query_range",
        {"query": "up", "start": "0", "end": "11001", "step": "1"},
        RESOLUTION,
    ),
    (
        "range vector over a range",
        "/api/v1/query_range",
        {"query": "up[5m]", "start": "0", "end": "60", "step": "1"},
        'invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or'
        " instant Vector",
    ),
    ("no selector", "/api/v1/series", {}, "no match[] parameter provided"),
    (
        "empty selector",
        "/api/v1/series",
        {"match[]": '{job=""}'},
        'invalid parameter "match[]": match[] must contain at least one non-empty matcher',
    ),
]


@pytest.mark.parametrize(
    ("name", "path", "parameters", "text"), BAD_QUERIES, ids=[row[0] for row in BAD_QUERIES]
)
def test_bad_query_is_answered_with_bad_data(
    running: Running, name: str, path: str, parameters: dict[str, str], text: str
) -> None:
    status, answer = running.api.get(path, **parameters)
    assert (status, answer["status"], answer["errorType"]) == (400, "error", "bad_data")
    assert answer["error"].startswith(text), answer["error"]


def test_exactly_the_allowed_number_of_points_is_answered(running: Running) -> None:
    status, _ = running.api.get("/api/v1/query_range", query="good", start="0", end="11000", step="1")
    assert status == 200


def test_execution_error_is_answered_422(running: Running) -> None:
    now_ms = int(time.time() * 1000)
    rows = [series("many", [(now_ms, 1.0)], side=side) for side in ("left", "right")]
    assert running.api.write(rows)[0] == 204
    status, answer = running.api.get("/api/v1/query", query="many * on () many", time=f"{now_ms / 1000:.3f}")
    assert (status, answer["errorType"]) == (422, "execution")


# A configuration and what the message must name: the line, and the key or value that is wrong.
BAD_CONFIGS = [
    ("unknown key", "global:\n  scrape_interval: 15s\n  scrap_timeout: 1s\n", ("3", "scrap_timeout")),
    ("bad value", "global:\n  scrape_interval: soon\n", ("2", "scrape_interval")),
    ("not YAML", "global: [\n", ("vedette.yml",)),
]


@pytest.mark.parametrize(("name", "text", "named"), BAD_CONFIGS, ids=[row[0] for row in BAD_CONFIGS])
def test_bad_configuration_is_refused_at_start(
    tmp_path: Path, name: str, text: str, named: tuple[str, ...]
) -> None:
    config = tmp_path / "vedette.yml"
    config.write_text(text, encoding="utf-8")
    program = Path(sys.executable).parent / "vedette"
    data = f"--storage.tsdb.path={tmp_path / 'data'}"
    done = subprocess.run(
        [str(program), "serve", f"--config.file={config}", data, "--no-agent"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    for word in ("vedette.yml", *named):
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize(("name", "text", "named"), BAD_CONFIGS, ids=[row[0] for row in BAD_CONFIGS])
def test_bad_configuration_is_refused_at_reload(
    running: Running, name: str, text: str, named: tuple[str, ...]
) -> None:
    config = running.server.data.parent / "vedette.yml"
    before = config.read_text(encoding="utf-8")
    config.write_text(text, encoding="utf-8")
    try:
        status, _, body = running.api.request("POST", "/-/reload")
    finally:
        config.write_text(before, encoding="utf-8")
    assert status == 500
    for word in named:
        assert word in body.decode()
    assert metric(running.api, "prometheus_config_last_reload_successful") == 0
    assert running.api.request("POST", "/-/reload")[0] == 200
    assert metric(running.api, "prometheus_config_last_reload_successful") == 1


def metric(api: Api, name: str) -> float:
    """Value of one of the server's own metrics, its labels as /metrics writes them."""
    _, _, body = api.request("GET", "/metrics")
    for line in body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"{name} is not in /metrics")


def test_refusals_are_counted(running: Running) -> None:
    assert running.api.write([encode.Series([(b"job", b"nameless")], [(running.good_ms, 1.0)])]) == (204, "")
    assert running.api.write_raw(b"no snappy")[0] == 400
    assert metric(running.api, "prometheus_api_remote_write_invalid_labels_samples_total") > 0
    _, _, body = running.api.request("GET", "/metrics")
    assert 'vedette_remote_write_requests_total{code="400"' in body.decode()


@pytest.mark.parametrize("path", ["/api/v1/query", "/api/v1/nothing", "/nothing"])
def test_unknown_paths_and_methods_do_not_stop_the_server(running: Running, path: str) -> None:
    status, _, _ = running.api.request("DELETE", path)
    assert status in (404, 405)


def test_json_of_errors_has_no_empty_members(running: Running) -> None:
    status, _, body = running.api.request("GET", "/api/v1/query?query=up%28")
    found: dict[str, Any] = json.loads(body)
    assert status == 400
    assert set(found) == {"status", "errorType", "error"}
